//! The thin executable as a process, in workspaces made for it.

#![expect(clippy::disallowed_types, reason = "the executable is started as a person does")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// A workspace of one package, with its own state.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let manifest = "[package]\nname = \"shop\"\nversion = \"0.3.0\"\nedition = \"2024\"\n[workspace]\n";
        fs::create_dir(root.join("src")).unwrap();
        fs::write(root.join("Cargo.toml"), manifest).unwrap();
        fs::write(root.join("Cargo.lock"), "version = 4\n\n[[package]]\nname = \"shop\"\nversion = \"0.3.0\"\n")
            .unwrap();
        fs::write(root.join("src/lib.rs"), "//! A shop.\n").unwrap();
        fs::write(root.join(".gitignore"), "/.plimsoll\n/target\n/state\n").unwrap();
        fs::write(root.join("plimsoll.toml"), config).unwrap();
        Self { dir }
    }

    fn committed(config: &str) -> Self {
        let this = Self::new(config);
        this.git(&["init", "--quiet", "--initial-branch=main"]);
        this.git(&["add", "."]);
        this.git(&["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "commit", "--quiet", "--message=first"]);
        this
    }

    fn root(&self) -> &Path {
        self.dir.path()
    }

    fn git(&self, args: &[&str]) {
        assert!(Command::new("git").args(args).current_dir(self.root()).status().unwrap().success());
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(args).current_dir(self.root()).env("PLIMSOLL_STATE_DIR", "state").env("GITHUB_ACTIONS", "");
        command
    }

    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.command(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }
}

const MINIMAL: &str = "[project]\nname = \"shop\"\n";

#[test]
fn an_unknown_key_is_shown_where_it_stands_and_nothing_is_touched() {
    let place = Place::committed("[project]\nname = \"shop\"\nnmae = \"x\"\n");
    let (code, out, err) = place.run(&["ci"]);
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("plimsoll.toml:3:1") && err.contains('^'), "{err}");
    assert!(!place.root().join("state").exists() && !place.root().join(".plimsoll").exists());
}

#[test]
fn without_a_configuration_the_message_shows_one() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_xtask")).arg("ci").current_dir(dir.path()).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains("there is no plimsoll.toml") && err.contains("[project]"), "{err}");
}

#[test]
fn without_a_repository_or_a_commit_the_sentence_says_so() {
    let place = Place::new(MINIMAL);
    let (code, _, err) = place.run(&["ci"]);
    assert!(code == 2 && err.contains("is not in a git repository"), "{code} {err}");
    place.git(&["init", "--quiet"]);
    let (code, _, err) = place.run(&["ci"]);
    assert!(code == 2 && err.contains("has no commit yet"), "{code} {err}");
}

#[test]
fn a_check_that_fails_ends_with_the_command_that_resumes_and_stands_in_the_list_of_runs() {
    let place = Place::committed(MINIMAL);
    // The rules are those of another workspace, so they are broken here.
    let (code, out, _) = place.run(&["tidy"]);
    assert_eq!(code, 1, "{out}");
    let last = out.lines().last().unwrap();
    let run = last.strip_prefix("resume: cargo xtask resume ").expect("the last line says how to go on");
    assert!(out.contains("failed: tidy: the workspace breaks its own rules"), "{out}");

    let (code, out, _) = place.run(&["runs", "--json"]);
    let runs: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &runs["runs"][0]["id"], &runs["runs"][0]["outcome"]), (0, &run.into(), &"failed".into()));
    assert!(runs["runs"][0]["version"].as_str().unwrap().starts_with("0.3.0-dev.1.g"), "{out}");

    let (code, out, _) = place.run(&["resume"]);
    assert!(code == 1 && out.starts_with(&format!("resumed ci, run {run}")), "{code} {out}");
}

#[test]
fn a_run_of_another_executable_goes_on_in_that_executable() {
    let place = Place::committed(MINIMAL);
    assert_eq!(place.run(&["tidy"]).0, 1);
    // Another build: the same program with a byte more.
    let other = place.root().join("target/other");
    fs::create_dir(place.root().join("target")).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_xtask"), &other).unwrap();
    let mut bytes = fs::OpenOptions::new().append(true).open(&other).unwrap();
    std::io::Write::write_all(&mut bytes, b"\n").unwrap();
    drop(bytes);
    let output = Command::new(&other)
        .args(["resume", "--quiet"])
        .current_dir(place.root())
        .env("PLIMSOLL_STATE_DIR", "state")
        .output()
        .unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(1) && out.contains("failed: tidy"), "{out}");
}

#[test]
fn json_reports_are_events_and_nothing_else() {
    let place = Place::committed(MINIMAL);
    let (_, out, _) = place.run(&["tidy", "--json"]);
    let events: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.first().unwrap()["event"], "run-started");
    assert_eq!(events.last().unwrap()["event"], "run-ended");
}

#[test]
fn a_name_that_means_nothing_lists_what_there_is() {
    let place = Place::committed(MINIMAL);
    let (code, _, err) = place.run(&["test", "nope"]);
    assert!(code == 2 && err.contains("`test[nope]`") && err.contains("test[kairos]"), "{code} {err}");
    let (code, _, err) = place.run(&["logs", "2020"]);
    assert!(code == 2 && err.contains("there is no run `2020`"), "{code} {err}");
}
