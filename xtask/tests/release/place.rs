//! A place to release from: a repository of a small shop, a state directory of its own, and the command. What a place
//! started is ended with it, and it is an error if anything of it is left.

use crate::{
    disk::Disk,
    fixture::{clean, executable, tool, warm},
    world::{Status, processes_of},
};
use serde_json::Value;
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

const USER: &str = "ada@example.org";

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Both streams, as a person sees them.
    pub(crate) fn text(&self) -> String {
        format!("exit code {}\n{}{}", self.code, self.out, self.err)
    }

    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.text());
        self
    }

    pub(crate) fn says(self, part: &str) -> Self {
        assert!(self.text().contains(part), "`{part}` is not in: {}", self.text());
        self
    }

    /// The run that the text tells to approve or resume.
    pub(crate) fn run(&self) -> String {
        let after = self.out.split("cargo xtask resume ").nth(1).unwrap_or_else(|| panic!("no run in {}", self.text()));
        after.split_whitespace().next().unwrap().to_owned()
    }
}

pub(crate) struct Place {
    /// Goes before the directory it lies in, and after what runs on it.
    disk: Option<Disk>,
    directory: tempfile::TempDir,
    repository: PathBuf,
    state: PathBuf,
    variables: Vec<(String, String)>,
}

impl Place {
    /// A new clone with nothing built and nothing released.
    pub(crate) fn cold() -> Self {
        let place = Self::empty();
        let from = warm().join("repository");
        tool("git", &["clone", "--quiet", from.to_str().unwrap(), place.repository.to_str().unwrap()], "/");
        place.who();
        place.at("first");
        place
    }

    /// A copy of a repository in which both releases were built before, with nothing live.
    pub(crate) fn new() -> Self {
        let place = Self::empty();
        tool("cp", &["-a", warm().join("repository").to_str().unwrap(), place.repository.to_str().unwrap()], "/");
        place.at("first");
        place
    }

    /// The same repository at its first commit, and that commit released.
    pub(crate) fn released() -> Self {
        let place = Self::new();
        place.release().expect(0);
        place
    }

    /// A new clone of what is committed here, with nothing built and a state of its own.
    pub(crate) fn again(&self) -> Self {
        let place = Self::cold();
        place.git(&["fetch", "--quiet", self.repository.to_str().unwrap(), "HEAD"]);
        place.git(&["reset", "--quiet", "--hard", "FETCH_HEAD"]);
        place
    }

    /// A second clone that shares this place's state.
    pub(crate) fn neighbour(&self) -> Self {
        let mut place = Self::new();
        place.state.clone_from(&self.state);
        place
    }

    /// A new place whose state lies on a disk of its own; `None` where nobody may mount one.
    pub(crate) fn on_a_disk() -> Option<Self> {
        let mut place = Self::new();
        place.disk = Some(Disk::at(&place.state)?);
        Some(place)
    }

    pub(crate) fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let repository = directory.path().join("shop");
        Self::around(directory, repository)
    }

    /// A place whose repository lies elsewhere.
    pub(crate) fn around(directory: tempfile::TempDir, repository: PathBuf) -> Self {
        let state = directory.path().join("s");
        Self { disk: None, directory, repository, state, variables: Vec::new() }
    }

    pub(crate) fn repository(&self) -> &Path {
        &self.repository
    }

    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// A directory beside repository and state.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Every later command gets this variable.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.push((name.to_owned(), value.into()));
    }

    /// Checks `main` out anew at a tag: `first` and `second` are in every place.
    pub(crate) fn at(&self, tag: &str) {
        self.git(&["checkout", "--quiet", "--force", "-B", "main", tag]);
    }

    pub(crate) fn commit(&self, message: &str) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
    }

    /// Commits another configuration: the usual one with `from` replaced by `to`.
    pub(crate) fn configure(&self, from: &str, to: &str) {
        let path = self.repository.join("plimsoll.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).unwrap();
        self.commit("another configuration");
    }

    /// Changes the one line of a service that tells releases apart.
    pub(crate) fn greet(&self, service: &str, greeting: &str) {
        let path = self.repository.join(service).join("src/main.rs");
        let text = fs::read_to_string(&path).unwrap();
        let line = text.lines().find(|line| line.starts_with("const GREETING")).unwrap();
        fs::write(&path, text.replace(line, &format!("const GREETING: &str = \"{greeting}\";"))).unwrap();
    }

    pub(crate) fn git(&self, args: &[&str]) -> String {
        tool("git", args, &self.repository)
    }

    pub(crate) fn who(&self) {
        self.git(&["config", "user.name", "Ada"]);
        self.git(&["config", "user.email", USER]);
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = clean(executable());
        command.args(args).current_dir(&self.repository).env("PLIMSOLL_STATE_DIR", &self.state);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    pub(crate) fn release(&self) -> Ran {
        self.run(&["release", "--yes"])
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let ran = self.run(args).expect(0);
        serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.text()))
    }

    pub(crate) fn status(&self) -> Status {
        Status::of(&self.json(&["status", "--json"]))
    }

    /// `runs --json`, newest first.
    pub(crate) fn runs(&self) -> Vec<Value> {
        self.json(&["runs", "--json"])["runs"].as_array().unwrap().clone()
    }

    /// The steps that the newest run took from its cache, or those that it did not.
    pub(crate) fn steps(&self, cached: bool) -> Vec<String> {
        let run = self.runs().remove(0);
        let wanted = run["steps"].as_array().unwrap().iter().filter(|s| s["cached"] == cached);
        wanted.map(|s| s["name"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The neighbour's state belongs to somebody else, who ends it.
        if !self.state.starts_with(self.directory.path()) || !self.state.exists() {
            return;
        }
        if std::thread::panicking() {
            let log = |name| fs::read_to_string(self.state.join("logs").join(name)).unwrap_or_default();
            let _ = writeln!(std::io::stderr(), "--- supervisor\n{}", log("supervisor.log"));
        }
        let ran = self.run(&["down"]);
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut left = processes_of(&self.state);
        while !left.is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
            left = processes_of(&self.state);
        }
        if !std::thread::panicking() {
            assert!(ran.code == 0 && left.is_empty(), "left: {left:?}; {}", ran.text());
        }
    }
}
