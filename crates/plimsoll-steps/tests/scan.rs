//! The steps that scan, with real tools in a real workspace: what they find, what they leave out, and what of it is cached.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_macros,
    reason = "git makes a workspace to scan, and a skipped test says so"
)]

use plimsoll_core::{Ending, ErrorClass, RunId, Timestamp, config::Profile};
use plimsoll_engine::{Graph, Resources, Setup, Silent, Start, StateDir, StepReport, try_pipeline};
use plimsoll_process::{Cancel, Environment, which};
use plimsoll_steps::{Advisories, Deny, Inputs, Licences, Options, SemverChecks, Source, Unused, Workspace};
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

/// 2026-07-01.
const NOW: i64 = 1_782_864_000_000;
const HOUR: i64 = 3_600_000;

const MANIFEST: &str = "[package]\nname = \"shop\"\nversion = \"0.1.0\"\nedition = \"2024\"\nlicense = \"MIT\"\n\
                        [dependencies]\nother = { path = \"other\" }\n[workspace]\n";
const OTHER: &str = "[package]\nname = \"other\"\nversion = \"0.1.0\"\nedition = \"2024\"\nlicense = \"ISC\"\n";
const DENY: &str = "[licenses]\nallow = [\"MIT\"]\n[bans]\nallow-wildcard-paths = true\n";
/// `reader` is in the lock file alone: what scans a lock file needs no sources.
const LOCKED: &str = "\n[[package]]\nname = \"reader\"\nversion = \"1.0.0\"\n\
                      source = \"registry+https://github.com/rust-lang/crates.io-index\"\n";

fn run(program: &str, args: &[&str], directory: &Path) {
    let who = [("GIT_AUTHOR_NAME", "ann"), ("GIT_AUTHOR_EMAIL", "a@x"), ("GIT_COMMITTER_NAME", "ann")];
    let output = Command::new(program)
        .args(args)
        .current_dir(directory)
        .envs(who)
        .env("GIT_COMMITTER_EMAIL", "a@x")
        .env("GIT_COMMITTER_DATE", format!("{} +0000", NOW / 1000 - 86_400))
        .output()
        .unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A workspace of a library and what it names as its dependency.
struct Place {
    directory: tempfile::TempDir,
    rules: String,
    environment: Environment,
    now: i64,
    runs: u16,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (rules, environment) = (String::new(), Environment::capture());
        let place = Self { directory, rules, environment, now: NOW, runs: 0 };
        place.write("shop/Cargo.toml", MANIFEST);
        place.write("shop/src/lib.rs", "pub fn ask() -> u32 { other::answer() }\npub fn tell() {}\n");
        place.write("shop/other/Cargo.toml", OTHER);
        place.write("shop/other/src/lib.rs", "pub fn answer() -> u32 { 1 }\n");
        place.write("shop/other/LICENSE", "Permission to use, copy, modify");
        place.write("shop/deny.toml", DENY);
        place.write("shop/.gitignore", "/target\n/.plimsoll\n");
        run("cargo", &["generate-lockfile", "--offline"], &place.root());
        run("git", &["init", "--quiet"], &place.root());
        place.commit("shop");
        place
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("shop")
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn commit(&self, repository: &str) {
        let repository = self.directory.path().join(repository);
        run("git", &["add", "--all"], &repository);
        run("git", &["commit", "--quiet", "--message", "change"], &repository);
    }

    /// An advisory on `reader` in a directory.
    fn advise(&self, database: &str, id: &str, more: &str) {
        let text = format!(
            "```toml\n[advisory]\nid = \"{id}\"\npackage = \"reader\"\ndate = \"2026-06-28\"\n{more}\n```\n\n# Reads on\n\nIt does.\n"
        );
        self.write(&format!("{database}/crates/reader/{id}.md"), &text);
    }

    /// One step of the usual pipeline.
    async fn scan(&mut self, step: impl FnOnce(&mut Graph<'_>, &Inputs)) -> StepReport {
        self.runs += 1;
        let (root, cache) = (self.root(), self.directory.path().join("cache"));
        let source = Source::read(&root, &self.environment, &"0.1.0".parse().unwrap()).await.unwrap();
        let workspace = Workspace::load(&root, &cache, &self.environment).await.unwrap();
        let config = format!("[project]\nname = \"shop\"\n[advisories]\n{}\n", self.rules);
        let inputs = Inputs::new("ci", config, source, "ann".to_owned(), Profile::Local, Options::default()).unwrap();
        let now = self.now;
        let setup = Setup {
            state: StateDir::new(self.directory.path().join("state")),
            cache,
            root,
            environment: Arc::new(self.environment.clone()),
            resources: Resources::new().with(Arc::new(workspace)),
            observer: Arc::new(Silent),
            redactor: None,
            clock: Arc::new(move || Timestamp::from_millis(now)),
            jobs: 2,
            fail_fast: false,
            use_cache: true,
        };
        let pipeline = try_pipeline("ci", |g| {
            step(g, &inputs);
            Ok::<_, plimsoll_engine::StepError>(())
        });
        let id = RunId::new(Timestamp::from_millis(0), self.runs);
        let (actor, executable, engine) = ("ann".to_owned(), "none".to_owned(), "0".to_owned());
        let start = Start { inputs: serde_json::Value::Null, actor, executable, engine };
        let report = setup.start(&pipeline.unwrap(), &id, start, Cancel::new()).await.unwrap();
        let [step] = <[_; 1]>::try_from(report.steps).unwrap();
        step
    }

    async fn advisories(&mut self) -> StepReport {
        self.scan(|g, inputs| {
            g.pure("", Advisories::new(inputs), ());
        })
        .await
    }

    /// Rules and messages of a report, as a reader of SARIF sees them.
    fn report(&self, step: &str) -> Vec<String> {
        let text = fs::read_to_string(self.root().join(".plimsoll/reports").join(format!("{step}.sarif"))).unwrap();
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        let results = read["runs"][0]["results"].as_array().unwrap().clone();
        let place = |result: &serde_json::Value| {
            let place = &result["locations"][0]["physicalLocation"];
            format!("{}:{}", place["artifactLocation"]["uri"].as_str().unwrap_or("-"), place["region"]["startLine"])
        };
        results
            .iter()
            .map(|one| format!("{} {} {}", place(one), one["level"], one["ruleId"]).replace('"', ""))
            .collect()
    }
}

/// Expects a failure of a class that says all of `parts`.
fn failed(step: &StepReport, wanted: ErrorClass, parts: &[&str]) {
    let Ending::Failed { class, error, detail } = &step.ending else { panic!("{:?}", step.ending) };
    let text = format!("{error}\n{}", detail.join("\n"));
    assert_eq!(*class, wanted, "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

fn skipped(step: &StepReport, part: &str) {
    let Ending::Skipped { reason } = &step.ending else { panic!("{:?}", step.ending) };
    assert!(reason.contains(part), "`{part}` is not in: {reason}");
}

/// Whether a tool is here. Where everything is to be tested, those that `.ci/run` installs must be.
fn is_installed(program: &str, provided: bool) -> bool {
    let environment = Environment::capture();
    let found = which(program, &environment).is_some();
    assert!(found || !provided || environment.get("CI").is_none_or(|ci| ci != "true"), "{program} is not installed");
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_is_not_installed_is_a_visible_skip_or_an_error_with_the_command_that_installs_it() {
    let mut place = Place::new();
    // git, cargo and rustc by themselves, and nothing beside them.
    let bin = place.directory.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for tool in ["git", "cargo", "rustc", "cc"] {
        std::os::unix::fs::symlink(which(tool, &place.environment).unwrap(), bin.join(tool)).unwrap();
    }
    let path = bin.into_os_string();
    let others = place.environment.iter().filter(|(name, _)| *name != "PATH");
    let others = others.map(|(name, value)| (name.to_owned(), value.to_owned()));
    place.environment = Environment::of(others.chain([("PATH".into(), path)]).collect::<Vec<(OsString, OsString)>>());
    for _ in 0..2 {
        let step = place
            .scan(|g, _| {
                g.pure("", Deny::new(), ());
            })
            .await;
        skipped(&step, "cargo-deny is not installed: cargo install --locked cargo-deny");
    }
    skipped(
        &place
            .scan(|g, _| {
                g.pure("", Unused::new(), ());
            })
            .await,
        "cargo install --locked cargo-machete",
    );
    let step = place
        .scan(|g, _| {
            g.pure("", Deny::new().required(), ());
        })
        .await;
    failed(&step, ErrorClass::User, &["cargo-deny is not installed", "install it: cargo install --locked cargo-deny"]);
    let step = place
        .scan(|g, _| {
            g.pure("", Unused::new().required(), ());
        })
        .await;
    failed(&step, ErrorClass::User, &["install it: cargo install --locked cargo-machete"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_licence_that_is_not_allowed_is_found_and_a_clean_verdict_is_kept() {
    if !is_installed("cargo-deny", true) {
        return;
    }
    let mut place = Place::new();
    let step = place
        .scan(|g, _| {
            g.pure("", Deny::new(), ());
        })
        .await;
    failed(&step, ErrorClass::CheckFailed, &["other 0.1.0", "`ISC`", "the whole report: .plimsoll/reports/deny.sarif"]);
    assert!(place.report("deny").contains(&"Cargo.lock:null error rejected".to_owned()), "{:?}", place.report("deny"));
    place.write("shop/deny.toml", &DENY.replace("\"MIT\"", "\"MIT\", \"ISC\""));
    for ending in [Ending::Done, Ending::Cached] {
        assert_eq!(
            place
                .scan(|g, _| {
                    g.pure("", Deny::new(), ());
                })
                .await
                .ending,
            ending
        );
    }
    // A configuration that does not read is told, too.
    place.write("shop/deny.toml", "[licenses]\nallow = 3\n");
    failed(
        &place
            .scan(|g, _| {
                g.pure("", Deny::new(), ());
            })
            .await,
        ErrorClass::CheckFailed,
        &["`3` expected an array"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dependency_that_nothing_uses_is_found() {
    if !is_installed("cargo-machete", true) {
        return;
    }
    let mut place = Place::new();
    assert_eq!(
        place
            .scan(|g, _| {
                g.pure("", Unused::new(), ());
            })
            .await
            .ending,
        Ending::Done
    );
    place.write("shop/src/lib.rs", "pub fn ask() -> u32 { 2 }\n");
    let step = place
        .scan(|g, _| {
            g.pure("", Unused::new(), ());
        })
        .await;
    failed(&step, ErrorClass::CheckFailed, &["Cargo.toml: error unused-dependency: shop names `other`"]);
    assert_eq!(place.report("unused"), ["Cargo.toml:null error unused-dependency"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_function_that_is_gone_is_found_once_there_is_a_version_to_compare_with() {
    let mut place = Place::new();
    let checks = |g: &mut Graph<'_>, inputs: &Inputs| {
        g.pure("shop", SemverChecks::of("shop", inputs), ());
    };
    skipped(&place.scan(checks).await, "no version is tagged yet");
    if !is_installed("cargo-semver-checks", false) {
        return;
    }
    run("git", &["tag", "v0.1.0"], &place.root());
    assert_eq!(place.scan(checks).await.ending, Ending::Done);
    place.write("shop/src/lib.rs", "pub fn ask() -> u32 { other::answer() }\n");
    let step = place.scan(checks).await;
    failed(&step, ErrorClass::CheckFailed, &["src/lib.rs:2: error function_missing: shop:", "function shop::tell"]);
    assert_eq!(place.report("semver-checks-shop"), ["src/lib.rs:2 error function_missing"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn licences_of_what_is_linked_in_are_written_down_with_their_texts() {
    let mut place = Place::new();
    place.write("shop/Cargo.toml", &MANIFEST.replace("[workspace]\n", "[workspace]\nexclude = [\"other\"]\n"));
    let step = place
        .scan(|g, _| {
            g.pure("", Licences::of(["shop"]), ());
        })
        .await;
    assert_eq!(step.ending, Ending::Done);
    let text = fs::read_to_string(place.root().join(".plimsoll/reports/licences.md")).unwrap();
    assert!(text.contains("| ISC | other 0.1.0 |") && text.contains("    Permission to use, copy, modify"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_advisory_above_the_limit_is_found_on_its_line_and_those_below_are_told() {
    let mut place = Place::new();
    place.rules = "database = \"../known\"\n".to_owned();
    let lock = fs::read_to_string(place.root().join("Cargo.lock")).unwrap();
    place.write("shop/Cargo.lock", &format!("{lock}{LOCKED}"));
    let line = lock.lines().count() + 3;
    let versions = "[versions]\npatched = [\">= 1.1.0\"]";
    place.advise(
        "known",
        "RUSTSEC-2026-0001",
        &format!("cvss = \"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H\"\n{versions}"),
    );
    place.advise("known", "RUSTSEC-2026-0002", &format!("informational = \"unmaintained\"\n{versions}"));
    let step = place.advisories().await;
    let told =
        format!("Cargo.lock:{line}: error RUSTSEC-2026-0001: reader 1.0.0: Reads on (critical; mended in >=1.1.0)");
    failed(&step, ErrorClass::CheckFailed, &["advisories has a finding that does not pass", &told]);
    let both =
        [format!("Cargo.lock:{line} error RUSTSEC-2026-0001"), format!("Cargo.lock:{line} warning RUSTSEC-2026-0002")];
    assert_eq!(place.report("advisories"), both);

    place.rules +=
        "[[advisories.ignore]]\nid = \"RUSTSEC-2026-0001\"\nreason = \"never called\"\nuntil = \"2026-07-01\"\n";
    assert_eq!(place.advisories().await.ending, Ending::Done);
    assert_eq!(place.advisories().await.ending, Ending::Cached);
    // What is known changes without the workspace, and a day passes.
    place.advise("known", "RUSTSEC-2026-0003", versions);
    failed(&place.advisories().await, ErrorClass::CheckFailed, &["RUSTSEC-2026-0003"]);
    fs::remove_file(place.directory.path().join("known/crates/reader/RUSTSEC-2026-0003.md")).unwrap();
    place.now += 24 * HOUR;
    failed(&place.advisories().await, ErrorClass::CheckFailed, &["RUSTSEC-2026-0001"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_fetched_each_hour_and_its_last_state_counts_where_it_cannot_be() {
    let mut place = Place::new();
    place.advise("remote", "RUSTSEC-2026-0001", "[versions]\npatched = [\">= 1.1.0\"]");
    run("git", &["init", "--quiet", "remote"], place.directory.path());
    place.commit("remote");
    let remote = place.directory.path().join("remote");
    place.rules = format!("database = \"file://{}\"\n", remote.display());
    // Twice, because what is fetched while it is looked at is no verdict of what was there before.
    for ending in [Ending::Done, Ending::Done, Ending::Cached] {
        assert_eq!(place.advisories().await.ending, ending);
    }
    let lock = fs::read_to_string(place.root().join("Cargo.lock")).unwrap();
    place.write("shop/Cargo.lock", &format!("{lock}{}", LOCKED.replace("1.0.0", "1.1.0")));
    assert_eq!(place.advisories().await.ending, Ending::Done);
    place.advise("remote", "RUSTSEC-2026-0002", "[versions]\npatched = [\">= 1.2.0\"]");
    place.commit("remote");
    assert_eq!(place.advisories().await.ending, Ending::Cached);
    place.now += 2 * HOUR;
    failed(&place.advisories().await, ErrorClass::CheckFailed, &["RUSTSEC-2026-0002"]);
    // Whoever reads the one before now may do so; those before that are removed.
    for _ in 0..2 {
        place.write("remote/more", &place.now.to_string());
        place.commit("remote");
        place.now += 2 * HOUR;
        failed(&place.advisories().await, ErrorClass::CheckFailed, &["RUSTSEC-2026-0002"]);
    }
    let checkouts = fs::read_dir(place.root().join(".plimsoll/advisories")).unwrap();
    assert_eq!(checkouts.filter(|entry| entry.as_ref().unwrap().file_name().len() == 40).count(), 2);

    // It is gone, and what was fetched last counts; until that is too old for a release that asks for it.
    fs::rename(&remote, place.directory.path().join("elsewhere")).unwrap();
    place.now += 2 * HOUR;
    failed(&place.advisories().await, ErrorClass::CheckFailed, &["RUSTSEC-2026-0002"]);
    place.rules += "max_age = \"1d\"\nrequired = true\n";
    place.now += 48 * HOUR;
    failed(
        &place.advisories().await,
        ErrorClass::External,
        &["the advisories are 3 days old, of 2026-06-30", "max_age"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_gets_old_although_nothing_of_it_changes() {
    let mut place = Place::new();
    place.advise("known", "RUSTSEC-2026-0001", "[versions]\npatched = [\">= 1.1.0\"]");
    place.rules = "database = \"../known\"\nrequired = true\n".to_owned();
    for ending in [Ending::Done, Ending::Cached] {
        assert_eq!(place.advisories().await.ending, ending);
    }
    place.now += 20 * 24 * HOUR;
    failed(&place.advisories().await, ErrorClass::External, &["the advisories are 23 days old, of 2026-06-28"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_names_another_directory_than_a_commit_is_no_checkout() {
    let mut place = Place::new();
    place.write("elsewhere/kept", "1");
    let nowhere = format!("file://{}", place.directory.path().join("nowhere").display());
    place.rules = format!("database = \"{nowhere}\"\n");
    let elsewhere = place.directory.path().join("elsewhere");
    let told = format!(
        "{{\"from\":\"{nowhere}\",\"commit\":\"{}\",\"committed_at\":1,\"at\":{}}}",
        elsewhere.display(),
        NOW / 1000
    );
    place.write("shop/.plimsoll/advisories/fetched.json", &told);
    skipped(&place.advisories().await, "git could not clone it");
    assert!(elsewhere.join("kept").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_database_is_a_visible_skip_or_an_error_where_one_is_required() {
    let mut place = Place::new();
    let nowhere = place.directory.path().join("nowhere");
    place.rules = format!("database = \"file://{}\"\n", nowhere.display());
    skipped(&place.advisories().await, "name a directory with a snapshot: [advisories] database");
    place.rules += "required = true\n";
    failed(&place.advisories().await, ErrorClass::External, &["cannot fetch the advisories from file://"]);
    place.rules = "database = \"nothing\"\n".to_owned();
    skipped(&place.advisories().await, "nothing cannot be read");
}
