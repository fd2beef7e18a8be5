//! The configuration as its users meet it: what is refused, where and with which hint; what holds once it is read.

use super::*;
use crate::{Classify, ErrorClass};

/// Lines 1 to 4 of most cases; what is wrong begins in line 5.
const HEAD: &str = "[project]\nname = \"p\"\n[services.web]\npackage = \"p\"\n";

fn read(text: &str) -> Config {
    Config::parse(text, "plimsoll.toml").unwrap_or_else(|error| panic!("{error}"))
}

fn refused(text: &str) -> ConfigError {
    Config::parse(text, "plimsoll.toml").expect_err(text)
}

/// The one mistake of `HEAD` and `rest`: where it is and words of its message and hint.
fn check(rest: &str, (line, column): (usize, usize), message: &str, hint: &str) {
    let error = refused(&format!("{HEAD}{rest}"));
    let [mistake] = error.mistakes.as_slice() else { panic!("not one mistake in {rest}:\n{error}") };
    assert!(mistake.message.contains(message), "{rest}\n{error}");
    assert!(mistake.hint.as_deref().unwrap_or_default().contains(hint), "{rest}\n{error}");
    assert_eq!((mistake.line, mistake.column), (line, column), "{rest}\n{error}");
    assert_eq!(error.class(), ErrorClass::User);
}

#[test]
fn mistakes_of_shape_are_told_with_their_place_and_a_hint() {
    let reference = "write `{ env = \"VARIABLE\" }`";
    for (rest, place, message, hint) in [
        ("replcas = 2", (5, 1), "unknown key `replcas`", "did you mean `replicas`?"),
        ("xyzzy = 2", (5, 1), "unknown key `xyzzy`", "allowed: `package`, `bin`"),
        ("[servics.a]\npackage = \"a\"", (5, 2), "unknown key `servics`", "`services`"),
        ("replicas = \"2\"", (5, 12), "expected a whole number from 0 to 65535, found string", "without quotes"),
        ("port = 70000", (5, 8), "expected a whole number from 0 to 65535", ""),
        ("port = -1", (5, 8), "found integer `-1`", ""),
        ("depends_on = \"web\"", (5, 14), "expected a list", "brackets"),
        ("env = { A = 2 }", (5, 13), "expected a text, found integer `2`", "quotes"),
        ("env = { A = true }", (5, 13), "expected a text, found boolean", "quotes"),
        ("activation = \"exclusiv\"", (5, 14), "unknown value `exclusiv`", "did you mean `exclusive`?"),
        ("state = \"per_slot\"", (5, 9), "unknown value `per_slot`", "allowed: `shared`, `per-slot`, `external`"),
        ("state = 3", (5, 9), "expected a text", "in quotes"),
        ("drain = \"10 s\"", (5, 9), "`10 s` is no length of time", "\"30s\""),
        ("drain = \"90d\"", (5, 9), "`90d` is no length of time", "30d"),
        ("drain = 10", (5, 9), "expected a text, found integer `10`", "quotes"),
        ("health = { pfad = \"/\" }", (5, 12), "unknown key `pfad`", "path"),
        ("health = \"/ready\"", (5, 10), "expected a table", ""),
        ("[[services.web.smoke]]\nstatus = 200", (5, 1), "missing key `path`", "add `path"),
        ("[[services.web.smoke]]\npath = \"/\"\nmethod = \"POST\"", (7, 10), "`POST`", "allowed: `GET`, `HEAD`"),
        ("[services.api]\nbin = \"x\"", (5, 1), "missing key `package`", "add `package"),
        ("[services.Api]\npackage = \"x\"", (5, 11), "`Api` is no service name", ""),
        ("[environments.a_b]", (5, 15), "`a_b` is no environment name", ""),
        ("[environments.a]\ntarget = \"dokcer\"", (6, 10), "unknown value `dokcer`", "did you mean `docker`?"),
        ("[environments.a]\nslo = { probe_rat = 1 }", (6, 9), "unknown key `probe_rat`", "`probe_rate`"),
        ("[environments.a]\napproval = { quorum = 1.5 }", (6, 23), "expected a whole number", ""),
        ("[environments.a]\napproval = { evidence = \"ssh\" }", (6, 25), "unknown value `ssh`", "`ssh-signature`"),
        ("[images]\nplatforms = [\"linux/arm\"]", (6, 14), "`linux/arm`", "`linux/arm64`"),
        ("[images]\nregistry = \"embeded\"", (6, 12), "`embeded` is no registry", "\"embedded\""),
        ("[images]\nbase = \"alpine\"", (6, 8), "`alpine` is no image reference", "by digest"),
        ("[notify.slack]\nevents = []", (5, 1), "missing key `webhook`", ""),
        ("[notify.slack]\nwebhook = \"https://h\"", (6, 11), "reference to a secret", reference),
        ("[profiles.local]\nmissing_toolchain = \"warning\"", (6, 21), "`warning`", "`warn`"),
        ("secrets = { K = { env = \"A\", file = \"b\" } }", (5, 17), "exactly one key", "{ env"),
        ("secrets = { K = { vault = \"a\" } }", (5, 19), "unknown key `vault`", reference),
        ("secrets = { K = \"env:A\" }", (5, 17), "expected a reference to a secret", reference),
        ("port = 1\nport = 2", (6, 1), "duplicate key", ""),
        ("port = ", (5, 8), "must be quoted", ""),
    ] {
        check(rest, place, message, hint);
    }
}

#[test]
fn mistakes_of_sense_are_told_with_their_place_and_a_hint() {
    for (rest, place, message, hint) in [
        (
            "docker_build = { dockerfile = \"../Dockerfile\" }",
            (5, 31),
            "`../Dockerfile` is no path within",
            "docker/Dockerfile",
        ),
        ("docker_build = { dockerfile = \"\" }", (5, 31), "`` is no path within", ""),
        ("replicas = 0", (5, 12), "cannot have 0 replicas", "from 1 to 1000"),
        ("port = 0", (5, 8), "port 0", "let the target choose"),
        ("activation = \"exclusive\"\nreplicas = 2\n[environments.a]", (6, 12), "is exclusive", "replicas = 1"),
        ("bin = \"../sh\"", (5, 7), "`../sh` is no name", "Cargo.toml"),
        ("depends_on = [\"wbe\"]", (5, 15), "no service `wbe`", "did you mean `web`?"),
        ("depends_on = [\"web\"]", (5, 14), "in a circle: `web` → `web`", "remove one"),
        ("health = { path = \"ready\" }", (5, 19), "`ready` is no path", "slash"),
        ("health = { interval = \"0s\" }", (5, 23), "cannot be zero", "100ms"),
        ("env = { \"A-B\" = \"\" }", (5, 9), "`A-B` is no name of a variable", "underscores"),
        ("env = { PORT = \"1\" }", (5, 9), "`PORT` is set by Plimsoll", "another name"),
        ("env = { A = \"1\" }\nsecrets = { A = { env = \"A\" } }", (6, 13), "both `env` and `secrets`", "one"),
        ("secrets = { A = { env = \"no name\" } }", (5, 25), "names the variable", "never the value"),
        ("[[services.web.smoke]]\npath = \"/a b\"", (6, 8), "`/a b` is no path", "%20"),
        ("[[services.web.smoke]]\npath = \"/\"\nstatus = 99", (7, 10), "status 99", "200 to 599"),
        ("[[services.web.smoke]]\npath = \"/\"\njson = { a = 1 }", (7, 10), "no JSON pointer", "RFC 6901"),
        ("[[services.web.smoke]]\npath = \"/\"\nmethod = \"HEAD\"\ncontains = \"a\"", (7, 10), "no body", "GET"),
        (
            "[[services.web.smoke]]\npath = \"/\"\nheaders = { \"a b\" = \"\" }",
            (7, 13),
            "no header name",
            "content-type",
        ),
        ("[environments.a]\nbranch = \"-x\"", (6, 10), "`-x` is no branch name", "main"),
        ("[environments.a]\ngate = \"open\"\napproval = { quorum = 1 }", (7, 1), "asks nobody", "gate"),
        ("[environments.a]\napproval = { quorum = 0 }", (6, 23), "quorum of nobody", "at least 1"),
        ("[environments.a]\napproval = { quorum = 2, approvers = [\"a@b\"] }", (6, 23), "only 1 may", "lower"),
        ("[environments.a]\napproval = { approvers = [\"ann\"] }", (6, 27), "no e-mail address", "user.email"),
        ("[environments.a]\nslo = { probe_rate = 201 }", (6, 22), "201 probes", "1 to 200"),
        ("[environments.a]\nslo = { max_error_pct = nan }", (6, 25), "NaN per cent", "0 to 100"),
        ("[environments.a]\nslo = { watch = \"2h\" }", (6, 17), "too long", "1h"),
        ("[environments.a.services.wep]\nport = 1", (5, 26), "no service `wep`", "`web`"),
        ("port = 80\n[environments.a]\n[environments.b]", (5, 8), "by `web` in `a` and by `web` in `b`", "another"),
        ("[images]\nplatforms = []", (6, 13), "no platform", "linux/amd64"),
        ("[registries.\"a b\"]\nplain_http = true", (5, 13), "`a b` is no registry", "host"),
        ("[registries.\"a.io\"]\nusername = \"ci\"", (5, 13), "belong together", "both"),
        ("[registries.\"a.io\"]\nplain_http = true\nca = \"a.pem\"", (7, 6), "no certificates", "remove"),
        ("[registries.\"a.io\"]\nmirrors = [\"https://b.io\"]", (6, 12), "no registry", "host:5000/path"),
        (
            "[images.toolchains.\"linux/arm64\"]\ntarget = \"x86_64-unknown-linux-gnu\"",
            (6, 10),
            "static executables of linux/arm64",
            "aarch64-unknown-linux-musl",
        ),
        ("[images]\nplatforms = [\"linux/amd64\", \"linux/amd64\"]", (6, 29), "named twice", "remove"),
        ("[signing]\npassword = { env = \"P\" }", (6, 1), "without a key", "name the `key`"),
        ("[signing]\nkey = { env = \"a b\" }", (6, 15), "no such name", "API_KEY"),
        ("[advisories]\nlimit = \"severe\"", (6, 9), "severe", "`critical`"),
        ("[[advisories.ignore]]\nid = \"RUSTSEC-2024-0001\"\nreason = \" \"", (7, 10), "without a reason", "say why"),
        ("[cache]\nrepository = \"h.example/shop/cache:1\"", (6, 14), "a tag or digest", "the repository alone"),
        ("bin = \"a b\"", (5, 7), "no name of a cargo package", ""),
    ] {
        check(rest, place, message, hint);
    }
}

#[test]
fn mistakes_of_a_canary_are_told_with_their_place_and_a_hint() {
    for (rest, place, message, hint) in [
        ("[environments.a]\ncanary = { steps = [5] }", (6, 1), "no canary is asked for", "canary"),
        (
            "[environments.a]\nstrategy.kind = \"canary\"\ncanary = { steps = [5, 5] }",
            (7, 20),
            "no growing shares",
            "[5, 25, 50]",
        ),
        (
            "[environments.a]\nstrategy.kind = \"canary\"\ncanary = { steps = [0] }",
            (7, 20),
            "no growing shares",
            "1 to 99",
        ),
        ("[environments.a]\nstrategy.kind = \"canary\"\ncanary = { hold = \"2m\" }", (7, 19), "3 steps of 1m", "1h"),
        ("[environments.a]\nstrategy.kind = \"canary\"\ncanary = { step = \"5ms\" }", (7, 19), "too short", "1s"),
        ("[environments.a]\nstrategy.kind = \"canary\"\ncanary = { error_rate = 0.0 }", (7, 25), "no test", "0.05"),
        (
            "[environments.a]\nstrategy.kind = \"canary\"\ncanary = { max_error_diff = 0.0 }",
            (7, 29),
            "never known",
            "0.5",
        ),
        (
            "[environments.a]\nstrategy.kind = \"canary\"\ncanary = { abort_error_ratio = nan }",
            (7, 32),
            "no more",
            "2.0",
        ),
        ("[environments.a]\nstrategy.kind = \"canary\"\ncanary = { services = [\"wep\"] }", (7, 24), "`wep`", "`web`"),
        (
            "[environments.a]\nstrategy.kind = \"canary\"\n[environments.a.canary.prometheus]\nurl = \"http://p\"\n\
             requests = \"r\"\nfailed = \"f{slot}\"\nlatency = \"l{slot}\"",
            (9, 12),
            "tell the slots apart",
            "{slot}",
        ),
    ] {
        check(rest, place, message, hint);
    }
}

#[test]
fn everything_wrong_is_told_at_once_in_the_order_of_the_file() {
    let text = format!(
        "{HEAD}prot = 1\nreplicas = 0\nstate = \"x\"\n[services.api]\nbin = \"a\"\n[services.job]\npackage = \"p\"\ndepends_on = [\"api\"]\n[environments.a]\nbranch = \"-x\"\nslo = {{ probe_rate = 0 }}\n"
    );
    let error = refused(&text);
    let lines: Vec<usize> = error.mistakes.iter().map(|mistake| mistake.line).collect();
    // `api` cannot be read, but it is there: that `job` depends on it is no mistake.
    assert_eq!(lines, [5, 6, 7, 8, 14, 15], "{error}");
}

#[test]
fn a_mistake_is_shown_with_its_line_a_mark_and_a_hint() {
    let error = refused(&format!("{HEAD}replcas = 2\n")).to_string();
    assert_eq!(
        error,
        "plimsoll.toml:5:1: unknown key `replcas`\n5 | replcas = 2\n  | ^^^^^^^\n  = hint: did you mean `replicas`?"
    );
}

#[test]
fn files_without_a_project_that_are_too_large_or_that_never_end_being_wrong_are_refused() {
    let error = refused("");
    assert_eq!((error.mistakes[0].line, error.mistakes[0].message.as_str()), (1, "missing key `project`"));
    assert!(refused(&"#".repeat(LARGEST_FILE + 1)).to_string().contains("larger than 1 MiB"));
    let crowd = (0..1001).fold(HEAD.to_owned(), |text, n| format!("{text}[services.s{n}]\npackage = \"p\"\n"));
    assert!(refused(&crowd).to_string().contains("1002 services"));
    let many = (0..500).fold(HEAD.to_owned(), |text, n| format!("{text}k{n} = 1\n"));
    assert_eq!(refused(&many).mistakes.len(), MOST_MISTAKES);
    assert!(refused("[project]\nname = \"../x\"").to_string().contains("`../x` is no project name"));
}

#[test]
fn a_secret_written_into_the_file_is_not_shown() {
    for rest in [
        "secrets = { K = \"hunter2\" }",
        "secrets = { K = { env = \"hunter2!\" } }",
        "secrets = { K = { env = 5, file = \"hunter2\" } }",
        "secrets = { K = { file = \"hunter2\" } }, prot = 1",
        "secrets = { K = { file = \"hunter2\" }, \"A-B\" = \"hunter2\" }",
        "[services.web.secrets]\nK = \"hunter2",
        "[services.web.secrets]\nK = 'hunter2\nL = 1",
        "[notify.webhook]\nurl = \"https://hunter2\"",
        "[notify.slack]\nwebhook = { env = \"https://hunter2\" }",
        "[registries.\"a.io\"]\nusername = \"ci\"\npassword = \"hunter2\"",
        "[signing]\nkey = \"hunter2\"",
        "[signing]\npassword = \"hunter2",
    ] {
        let error = refused(&format!("{HEAD}{rest}"));
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

#[test]
fn a_circle_of_dependencies_is_told_with_its_path() {
    let text = "[project]\nname = \"p\"\n[services.a]\npackage = \"p\"\ndepends_on = [\"b\"]\n[services.b]\npackage = \"p\"\ndepends_on = [\"c\"]\n[services.c]\npackage = \"p\"\ndepends_on = [\"b\"]\n";
    let error = refused(text);
    assert_eq!(error.mistakes.len(), 1);
    assert_eq!((error.mistakes[0].line, error.mistakes[0].column), (8, 14));
    assert!(error.to_string().contains("`b` → `c` → `b`"), "{error}");
}

#[test]
fn a_port_belongs_to_one_service_of_one_environment() {
    let two = format!("{HEAD}port = 80\n[services.api]\npackage = \"p\"\nport = 80\n[environments.a]\n");
    let error = refused(&two).to_string();
    assert!(error.contains("port 80 is used twice: by `api` in `a` and by `web` in `a`"), "{error}");
    let apart = format!("{HEAD}port = 80\n[environments.a]\n[environments.b.services.web]\nport = 81\n");
    let config = read(&apart);
    let port = |name: &str| config.resolved(&name.parse().expect(name)).expect(name)[0].port;
    assert_eq!((port("a"), port("b")), (Some(80), Some(81)));
}

#[test]
fn nearer_settings_win_over_farther_ones() {
    let config = read(
        "[project]\nname = \"p\"\n\
         [defaults]\nreplicas = 2\ndrain = \"1s\"\nenv = { A = \"defaults\", B = \"defaults\", C = \"defaults\", D = \"defaults\" }\n\
         health = { path = \"/up\", deadline = \"5s\" }\n\
         [services.web]\npackage = \"p\"\ndrain = \"2s\"\nenv = { B = \"service\", C = \"service\", D = \"service\" }\n\
         health = { deadline = \"6s\" }\n\
         [environments.a]\nenv = { C = \"environment\", D = \"environment\" }\n\
         [environments.a.services.web]\nreplicas = 3\ndrain = \"3s\"\nenv = { D = \"override\" }\n\
         [environments.b]\n",
    );
    let [here] = config.resolved(&"a".parse().unwrap()).unwrap().try_into().unwrap();
    let values: Vec<&str> = here.env.values().map(String::as_str).collect();
    assert_eq!(values, ["defaults", "service", "environment", "override"]);
    assert_eq!((here.replicas, here.drain_ms, here.stop_grace_ms), (3, 3_000, 10_000));
    assert_eq!(here.health, ResolvedHealth { path: "/up".to_owned(), deadline_ms: 6_000, interval_ms: 100 });
    assert_eq!(here.bin, "web");
    let there = &config.resolved(&"b".parse().unwrap()).unwrap()[0];
    assert_eq!((there.replicas, there.drain_ms), (2, 2_000));
}

#[test]
fn resources_are_merged_by_key_and_what_is_not_said_leaves_no_trace() {
    let config = read(
        "[project]\nname = \"p\"\n[defaults]\nresources = { cpu = \"1\", memory = \"1Gi\" }\n\
         [services.web]\npackage = \"p\"\nstate = \"shared\"\nresources = { memory = \"2Gi\" }\n\
         autoscale = { min = 1, max = 2, cpu_pct = 70 }\nstorage = { size = \"1Gi\" }\n\
         metrics = { port = 9090, status = \"code\" }\n\
         [environments.a.services.web]\nresources = { cpu_limit = \"1500m\" }\n\
         autoscale = { min = 2, max = 9, memory_pct = 80, scale_down_after = \"2m\" }\nstorage = { size = \"2Gi\" }\n",
    );
    let here = serde_json::to_value(&config.resolved(&"a".parse().unwrap()).unwrap()[0]).unwrap();
    let resources = serde_json::json!({ "cpu": "1", "memory": "2Gi", "cpu_limit": "1500m" });
    let autoscale =
        serde_json::json!({ "min": 2, "max": 9, "cpu_pct": null, "memory_pct": 80, "scale_down_after_s": 120 });
    assert_eq!((&here["resources"], &here["autoscale"]), (&resources, &autoscale));
    assert_eq!(here["storage"], serde_json::json!({ "size": "2Gi", "access": "ReadWriteOnce" }));
    assert_eq!(here["metrics"], serde_json::json!({ "port": 9090, "status": "code" }));
    let plain = read(&format!("{HEAD}[environments.a]\n"));
    let plain = serde_json::to_value(&plain.resolved(&"a".parse().unwrap()).unwrap()[0]).unwrap();
    assert!(["resources", "autoscale", "storage", "metrics"].iter().all(|key| plain.get(key).is_none()), "{plain}");
}

#[test]
fn an_unknown_environment_is_refused_with_the_nearest_name() {
    let config = read(&format!("{HEAD}[environments.staging]\n"));
    let error = config.resolved(&"stagin".parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("did you mean `staging`?"), "{error}");
    assert_eq!(error.class(), ErrorClass::User);
}

#[test]
fn a_profile_can_ask_for_more_evidence_than_an_environment_but_not_for_less() {
    let config = read(&format!(
        "{HEAD}[environments.a]\napproval = {{ evidence = \"slack-signed\" }}\n[environments.b]\n[profiles.local]\nevidence = \"terminal\"\n"
    ));
    let least = |name: &str, profile| config.evidence(config.environment(&name.parse().unwrap()).unwrap(), profile);
    assert_eq!(least("a", Profile::Local), Evidence::SlackSigned);
    assert_eq!(least("b", Profile::Local), Evidence::Terminal);
    assert_eq!(least("b", Profile::Github), Evidence::SshSignature);
    assert_eq!(config.profile(Profile::Local).missing_toolchain, Severity::Warn);
    assert_eq!(config.profile(Profile::Github).missing_toolchain, Severity::Error);
}

#[test]
fn what_is_left_out_has_the_documented_defaults() {
    let config = read(&format!("{HEAD}[environments.a]\n[notify.slack]\nwebhook = {{ env = \"HOOK\" }}\n"));
    let environment = config.environment(&"a".parse().unwrap()).unwrap();
    assert_eq!((environment.target, environment.gate, &environment.branch), (Target::Local, None, &None));
    assert_eq!((environment.approval.quorum, environment.approval.expires.to_string().as_str()), (1, "1d"));
    assert_eq!((environment.slo.probe_rate, environment.slo.watch.millis()), (50, 3_000));
    assert_eq!((config.images.platforms.len(), &config.images.registry), (2, &Registry::Embedded));
    assert!(config.notify.console.enabled);
    assert_eq!(config.notify.slack.unwrap().events, NoticeEvent::ALL);
}

#[test]
fn the_configuration_of_this_repository_is_read() {
    let config = read(include_str!("../../../../plimsoll.toml"));
    assert_eq!(config.project.name.as_str(), "kairos");
    let names: Vec<&str> = config.services_in_order().into_iter().map(ServiceName::as_str).collect();
    assert_eq!(names, ["market-data-ingestor", "risk-manager", "strategy-orchestrator", "api-gateway"]);
    for (name, gate) in [("staging", Gate::Open), ("production", Gate::Approval)] {
        let name: EnvironmentName = name.parse().unwrap();
        assert_eq!(config.environments[&name].gate, Some(gate));
        for service in config.resolved(&name).unwrap() {
            assert_eq!(service.env["DEPLOY_ENV"], name.as_str());
            assert_eq!(service.smoke[1].json["/service"], service.name.as_str());
            assert_eq!(service.health.path, "/ready");
        }
    }
}

#[test]
fn what_was_read_can_be_written_and_read_again() {
    let config = read(include_str!("../../../../plimsoll.toml"));
    assert_eq!(read(&toml::to_string(&config).expect("it can be written")), config);
}

#[test]
fn the_examples_of_the_book_are_read() {
    let book = include_str!("../../../../docs/book/configuration.md");
    let examples: Vec<&str> = book.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!examples.is_empty());
    for example in examples {
        let project = if example.contains("[project]") { "" } else { "[project]\nname = \"shop\"\n" };
        read(&format!("{project}{example}"));
    }
}

#[test]
fn tables_that_only_headers_make_have_a_place_too() {
    let error =
        refused("[project]\nname = \"p\"\n[services.api.health]\npfad = \"/x\"\n[environments.a]\n\"b\\u001b\" = 1\n");
    let told: Vec<(usize, &str)> = error.mistakes.iter().map(|one| (one.line, one.message.as_str())).collect();
    assert_eq!(
        told,
        [(3, "missing key `package`"), (4, "unknown key `pfad`"), (6, "unknown key `b\\u{1b}`")],
        "{error}"
    );
}

#[test]
fn a_later_request_keeps_its_place_when_an_earlier_one_cannot_be_read() {
    let error = refused(&format!(
        "{HEAD}[[services.web.smoke]]\nstatus = 200\n[[services.web.smoke]]\npath = \"/\"\nwithn = \"1s\"\nstatus = 99\n"
    ));
    let lines: Vec<usize> = error.mistakes.iter().map(|one| one.line).collect();
    // The second is looked at for its shape and for its sense.
    assert_eq!(lines, [5, 9, 10], "{error}");
}

#[test]
fn one_file_changed_anywhere_is_read_or_refused_at_a_place_that_exists() {
    let text = include_str!("../../../../plimsoll.toml");
    for at in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
        for insert in ["", "\"", "=", "[", "x", "\n", "é"] {
            // Each 7th place takes each 7th text: every text meets every kind of place, in little time.
            if (at + insert.len()) % 7 != 0 {
                continue;
            }
            let rest = &text[at..];
            let skipped = rest.chars().next().map_or(0, char::len_utf8);
            let changed = format!("{}{insert}{}", &text[..at], &rest[skipped..]);
            let Err(error) = Config::parse(&changed, "plimsoll.toml") else { continue };
            let lines = changed.split('\n').count();
            assert!(!error.mistakes.is_empty() && error.mistakes.len() <= MOST_MISTAKES);
            assert!(error.mistakes.iter().all(|one| (1..=lines).contains(&one.line) && one.column >= 1), "{error}");
        }
    }
}
