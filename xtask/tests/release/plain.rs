//! Releases when nothing is wrong: the first one, one with nothing to do, one changed line, the way back.

use crate::{
    fixture::tool,
    place::{Place, Ran},
    world::{eventually, processes_of, version_at, work_of},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

#[test]
fn a_release_from_nothing_ends_with_both_environments_live_and_the_images_in_the_registry() {
    let place = Place::cold();
    let began = Instant::now();
    let ran = place.release().expect(0);
    println!("from nothing: {} ms", began.elapsed().as_millis());

    let status = place.status();
    let version = status.live("production").version.clone();
    assert!(version.starts_with("0.3.0-dev.1.g") && ran.out.contains(&version), "{version} {}", ran.text());
    for environment in ["staging", "production"] {
        assert_eq!(status.live(environment).version, version);
        status.live(environment).answers();
    }
    assert_eq!(status.live("production").approved_by.as_deref(), Some("ada@example.org"));
    assert_eq!(status.live("staging").approved_by, None);

    let runs = place.runs();
    assert_eq!(
        (runs.len(), &runs[0]["outcome"], &runs[0]["version"]),
        (1, &"succeeded".into(), &version.as_str().into())
    );
    assert_eq!(place.steps(true), Vec::<String>::new());
    journal_verifies(&place, runs[0]["id"].as_str().unwrap());
    registry_is_readable(&place, &version, &status.live("production").digests());
    eventually("production's worker works", Duration::from_secs(5), || work_of(place.state(), "production").0 > 3);
}

/// The journal is believed as it is, and is not when a letter of it is another.
fn journal_verifies(place: &Place, run: &str) {
    let path = place.state().join("runs").join(run).join("journal.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    fs::write(&path, text.replacen("ada@example.org", "eve@example.org", 1)).unwrap();
    place.run(&["resume", run]).expect(3).says("journal");
    fs::write(&path, text).unwrap();
    assert_eq!(place.runs()[0]["outcome"], "succeeded");
}

fn registry_is_readable(place: &Place, version: &str, digests: &BTreeMap<&str, &str>) {
    if !Command::new("skopeo").arg("--version").output().is_ok_and(|o| o.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "in CI skopeo is installed");
        println!("skipped: skopeo is not installed, so the registry is not read by it");
        return;
    }
    let port = registry_port(place);
    for (service, digest) in digests {
        let image = format!("docker://127.0.0.1:{port}/shop/{service}");
        for reference in [format!("{image}:{version}"), format!("{image}@{digest}")] {
            let output = Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &reference]).output();
            let ran = Ran::of(output.unwrap()).expect(0);
            let index: Value = serde_json::from_str(&ran.out).unwrap();
            assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json", "{}", ran.text());
            assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
        }
    }
}

/// The port that the registry's process listens on, as the log of the step `push` names it.
pub(crate) fn registry_port(place: &Place) -> u16 {
    let run = place.runs()[0]["id"].as_str().unwrap().to_owned();
    let log = place.run(&["logs", &run, "push"]).expect(0).out;
    let host = log.split("127.0.0.1:").nth(1).unwrap_or_else(|| panic!("no registry in {log}"));
    host.split('/').next().unwrap().parse().unwrap()
}

/// Programs first on PATH that write down that they were started, and then are what they stand for.
fn shims(place: &mut Place) -> PathBuf {
    let (bin, log) = (place.beside("bin"), place.beside("log").join("started"));
    let path = std::env::var("PATH").unwrap();
    for name in ["cargo", "rustc", "rustfmt", "rustup", "git", "cc", "ld", "sh"] {
        let real = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
        let Some(real) = real else { continue };
        let shim = bin.join(name);
        let text = format!("#!/bin/sh\necho {name} \"$@\" >> {}\nexec {} \"$@\"\n", log.display(), real.display());
        fs::write(&shim, text).unwrap();
        fs::set_permissions(&shim, fs::Permissions::from_mode(0o755)).unwrap();
    }
    place.set("PATH", format!("{}:{path}", bin.display()));
    log
}

#[test]
fn a_release_with_nothing_to_do_starts_no_process_but_git_and_changes_nothing() {
    let mut place = Place::new();
    let started = shims(&mut place);
    place.set("PLIMSOLL_TIMINGS", "1");
    place.release().expect(0);
    let (before, running) = (place.status(), processes_of(place.state()));
    fs::write(&started, "").unwrap();

    let ran = place.release().expect(0);
    println!("nothing to do: {}", ran.err.lines().last().unwrap_or_default());
    let log = fs::read_to_string(&started).unwrap();
    let other: Vec<&str> = log.lines().filter(|line| !line.starts_with("git ")).collect();
    assert!(other.is_empty() && !log.is_empty(), "{log}");

    assert_eq!(place.status(), before);
    assert_eq!(processes_of(place.state()), running);
    let pure = ["fmt", "clippy", "test[web]", "test[worker]", "image[web]", "image[worker]"];
    let cached = place.steps(true);
    assert!(pure.iter().all(|step| cached.iter().any(|c| c == step)), "{cached:?}");
    assert_eq!(cached.iter().filter(|step| step.starts_with("compile[")).count(), 2, "{cached:?}");
}

#[test]
fn one_changed_line_of_one_service_leaves_the_other_alone_and_can_be_taken_back_without_a_build() {
    let mut place = Place::released();
    let before = place.status();
    place.greet("web", "three");
    place.commit("a third greeting");
    place.release().expect(0);

    let ran = place.steps(false);
    let of_worker: Vec<&String> = ran.iter().filter(|step| step.contains("worker")).collect();
    assert!(of_worker.is_empty() && ran.iter().any(|step| step.starts_with("compile[web")), "{ran:?}");
    let after = place.status();
    for environment in ["staging", "production"] {
        let (then, now) = (before.live(environment), after.live(environment));
        assert_eq!(then.services["worker"], now.services["worker"], "{environment}");
        assert_ne!(then.services["web"].digest, now.services["web"].digest);
        assert_eq!(then.url("web"), now.url("web"));
        now.answers();
    }
    assert_eq!(version_at(after.live("production").url("web")).unwrap()["greeting"], "three");

    let started = shims(&mut place);
    place.run(&["rollback", "production", "--dry-run"]).expect(0).says(&before.live("production").version);
    assert_eq!(place.status(), after);
    place.run(&["rollback", "production", "--yes"]).expect(0);
    let log = fs::read_to_string(started).unwrap();
    assert!(!log.contains("cargo build"), "{log}");
    let back = place.status();
    assert_eq!(back.live("production").version, before.live("production").version);
    assert_eq!(back.live("production").digests(), before.live("production").digests());
    back.live("production").answers();
    assert_eq!(version_at(back.live("production").url("web")).unwrap()["greeting"], "one");
    assert_eq!(back.live("staging"), after.live("staging"));

    let third = after.live("production").version.clone();
    place.run(&["rollback", "production", "--yes", "--to", &third]).expect(0);
    assert_eq!(place.status().live("production").version, third);
    place.run(&["rollback", "production", "--yes", "--to", "9.9.9"]).expect(2).says("never served 9.9.9");
    work_of(place.state(), "production");
}

#[test]
fn there_is_no_way_back_from_the_first_release() {
    let place = Place::released();
    let before = place.status();
    place.run(&["rollback", "production", "--yes"]).expect(2).says("no former release");
    assert_eq!(place.status(), before);
}

#[test]
fn cleaning_the_clone_loses_nothing_that_is_live() {
    let place = Place::released();
    let before = place.status();
    place.git(&["clean", "--quiet", "-fdx"]);
    assert!(!place.repository().join(".plimsoll").exists());
    assert_eq!(place.status(), before);
    place.release().expect(0);
    // Built anew, to the same bytes: so nothing is to be done with them.
    assert_eq!(place.status(), before);
    assert!(place.steps(false).iter().any(|step| step.starts_with("compile[web")));
}

#[test]
fn stopped_environments_are_started_again_as_they_were() {
    let place = Place::released();
    let url = place.status().live("production").url("web").to_owned();
    place.run(&["stop", "production", "--reason", "the till is on fire"]).expect(0);
    assert!(version_at(&url).is_err());
    place.run(&["status"]).expect(0).says("STOPPED").says("stopped by ada@example.org").says("the till is on fire");
    place.run(&["smoke", "production"]).expect(1);
    place.run(&["start", "production"]).expect(0);
    place.status().live("production").answers();
    place.run(&["smoke", "production"]).expect(0);
}

#[test]
fn another_user_in_another_directory_builds_the_same_images() {
    let (here, mut there) = (Place::new(), Place::cold());
    let home = std::env::var("HOME").unwrap();
    let of = |name: &str, default: &str| {
        std::env::var(name).unwrap_or_else(|_| Path::new(&home).join(default).display().to_string())
    };
    let elsewhere = there.beside("a home of another name").display().to_string();
    there.set("HOME", elsewhere);
    there.set("TZ", "Pacific/Chatham");
    there.set("LANG", "tr_TR.UTF-8");
    // Root of a container may have no namespaces to make.
    let namespaces = Command::new("unshare").args(["--mount", "true"]).output().is_ok_and(|o| o.status.success());
    let root = rustix::process::geteuid().is_root() && namespaces;
    let mut shell = if root {
        // The shop needs no packages, so an empty CARGO_HOME will do.
        let (cargo, toolchain) = (there.beside("cargo"), there.beside("toolchain"));
        there.set("CARGO_HOME", cargo.display().to_string());
        there.set("PATH", format!("{}/bin:{}", toolchain.display(), std::env::var("PATH").unwrap()));
        let sysroot = tool("rustc", &["--print", "sysroot"], there.repository());
        let directory = there.repository().parent().unwrap();
        tool("chown", &["--recursive", &format!("{STRANGER}:{STRANGER}"), directory.to_str().unwrap()], "/");
        as_a_stranger(&fs::canonicalize(sysroot).unwrap(), &toolchain)
    } else {
        println!("skipped: only root with namespaces can build as another user, so both builds are by the same one");
        there.set("CARGO_HOME", of("CARGO_HOME", ".cargo"));
        there.set("RUSTUP_HOME", of("RUSTUP_HOME", ".rustup"));
        Command::new("sh")
    };
    let build = there.command(&["image"]);
    shell.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(build.get_program()).args(build.get_args());
    shell.current_dir(there.repository()).envs(build.get_envs().filter_map(|(k, v)| Some((k, v?))));
    for name in build.get_envs().filter_map(|(name, value)| value.is_none().then_some(name)) {
        shell.env_remove(name);
    }
    Ran::of(shell.output().unwrap()).expect(0);
    here.run(&["image"]).expect(0);
    let builder = fs::metadata(there.repository().join("target")).unwrap();
    assert_eq!((builder.uid(), builder.mode() & 0o777), (if root { STRANGER } else { builder.uid() }, 0o700));
    let (here, there) = (images(&here), images(&there));
    assert!(here.len() == 2 && here == there, "{here:?} {there:?}");
}

/// A user whom nothing here belongs to.
const STRANGER: u32 = 65534;

/// A shell of another user, who sees a directory of ours in a place of their own: they may not look into our home. The mount is of
/// that shell's own namespace, so it ends with it.
fn as_a_stranger(ours: &Path, theirs: &Path) -> Command {
    let script = format!(
        "mount --bind '{}' '{}' && exec setpriv --reuid={STRANGER} --regid={STRANGER} --clear-groups sh \"$@\"",
        ours.display(),
        theirs.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]);
    command
}

/// What the newest run recorded of its images: the digests of indexes and manifests.
fn images(place: &Place) -> BTreeMap<String, Value> {
    let run = place.runs()[0]["id"].as_str().unwrap().to_owned();
    let journal = fs::read_to_string(place.state().join("runs").join(run).join("journal.jsonl")).unwrap();
    let records = journal.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["record"].take());
    let image = |record: Value| {
        let name = record["step"].as_str()?.strip_prefix("image[")?.to_owned();
        let output = serde_json::from_str(record["output"].as_str()?).unwrap();
        Some((name, output))
    };
    records.filter_map(image).collect()
}
