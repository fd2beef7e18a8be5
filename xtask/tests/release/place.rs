//! A place to release from: a repository of a small shop, a state directory of its own, and the command. What a place
//! started is ended with it, and it is an error if anything of it is left.

use crate::world::{Status, processes_of};
use serde_json::Value;
use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

pub(crate) const CONFIG: &str = include_str!("shop/plimsoll.toml");
const WEB: &str = include_str!("shop/web.rs");
const WORKER: &str = include_str!("shop/worker.rs");
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
    directory: tempfile::TempDir,
    repository: PathBuf,
    state: PathBuf,
    variables: Vec<(String, String)>,
}

impl Place {
    /// A new clone with nothing built and nothing released.
    pub(crate) fn cold() -> Self {
        let place = Self::around(tempfile::tempdir().unwrap());
        let from = warm().join("repository");
        tool("git", &["clone", "--quiet", from.to_str().unwrap(), place.repository.to_str().unwrap()], "/");
        place.who();
        place.at("first");
        place
    }

    /// A copy of a repository in which both releases were built before, with nothing live.
    pub(crate) fn new() -> Self {
        let place = Self::around(tempfile::tempdir().unwrap());
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

    /// A second clone that shares this place's state.
    pub(crate) fn neighbour(&self) -> Self {
        let mut place = Self::new();
        place.state.clone_from(&self.state);
        place
    }

    fn around(directory: tempfile::TempDir) -> Self {
        let (repository, state) = (directory.path().join("shop"), directory.path().join("s"));
        Self { directory, repository, state, variables: Vec::new() }
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

    fn who(&self) {
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

/// What a program of this machine prints; it must succeed.
fn tool(program: &str, args: &[&str], directory: impl AsRef<Path>) -> String {
    let output = clean(program).args(args).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A program that gets nothing of what cargo tells to a test, nor of what this machine is set to.
fn clean(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let ours = ["CARGO", "PLIMSOLL", "GITHUB", "RUSTFLAGS", "RUSTDOCFLAGS", "LD_LIBRARY_PATH", "GIT_"];
        let kept = ["CARGO_HOME", "CARGO_NET_OFFLINE"];
        if text == "CI" || (ours.iter().any(|o| text.starts_with(o)) && !kept.contains(&text.as_ref())) {
            command.env_remove(&name);
        }
    }
    command.env("CARGO_NET_OFFLINE", "true");
    command
}

/// The full executable, built once for all tests, and copied: another build may replace it while they run.
pub(crate) fn executable() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let thin = Path::new(env!("CARGO_BIN_EXE_xtask"));
        let (profile, target) = (thin.parent().unwrap(), thin.parent().unwrap().parent().unwrap());
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["build", "--quiet", "--package", "xtask", "--features", "delivery", "--bin", "xtask-delivery"]);
        cargo.arg("--target-dir").arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "the full executable does not compile");
        let copy = shared().join("xtask-delivery");
        fs::copy(profile.join("xtask-delivery"), &copy).unwrap();
        copy
    })
}

/// What all tests of this process share. A static is never dropped, so the next process removes it.
fn shared() -> &'static Path {
    const PREFIX: &str = "plimsoll-release-";
    static SHARED: OnceLock<PathBuf> = OnceLock::new();
    SHARED.get_or_init(|| {
        let temporary = env::temp_dir();
        for entry in fs::read_dir(&temporary).unwrap().flatten() {
            let name = entry.file_name();
            let owner = name.to_str().and_then(|n| n.strip_prefix(PREFIX)?.parse::<u32>().ok());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                // Another process may be removing it as well.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let own = temporary.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir_all(&own).unwrap();
        own
    })
}

/// A repository with two commits, `first` and `second`, whose checks and images are in its cache.
fn warm() -> &'static Path {
    static WARM: OnceLock<PathBuf> = OnceLock::new();
    WARM.get_or_init(|| {
        let base = shared().to_owned();
        let mut place = Place::around(tempfile::tempdir().unwrap());
        place.repository = base.join("repository");
        write_shop(&place.repository);
        place.git(&["init", "--quiet", "--initial-branch=main"]);
        place.who();
        place.commit("the first shop");
        place.git(&["tag", "first"]);
        place.release().expect(0);
        place.greet("web", "two");
        place.greet("worker", "two");
        place.commit("another greeting");
        place.git(&["tag", "second"]);
        place.release().expect(0);
        fs::remove_dir_all(place.repository.join("target")).unwrap();
        base
    })
}

fn write_shop(root: &Path) {
    let architecture = if env::consts::ARCH == "aarch64" { "linux/arm64" } else { "linux/amd64" };
    let config = CONFIG.replace("linux/amd64", architecture);
    for (package, source) in [("web", WEB), ("worker", WORKER)] {
        fs::create_dir_all(root.join(package).join("src")).unwrap();
        fs::write(root.join(package).join("src/main.rs"), source).unwrap();
        let manifest = format!("[package]\nname = \"{package}\"\nversion = \"0.3.0\"\nedition = \"2024\"\n");
        fs::write(root.join(package).join("Cargo.toml"), manifest).unwrap();
    }
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for file in ["rust-toolchain.toml", "rustfmt.toml"] {
        fs::copy(ours.join(file), root.join(file)).unwrap();
    }
    fs::write(root.join("Cargo.toml"), "[workspace]\nresolver = \"3\"\nmembers = [\"web\", \"worker\"]\n").unwrap();
    let locked = |name: &str| format!("\n[[package]]\nname = \"{name}\"\nversion = \"0.3.0\"\n");
    fs::write(root.join("Cargo.lock"), format!("version = 4\n{}{}", locked("web"), locked("worker"))).unwrap();
    fs::write(root.join("plimsoll.toml"), config).unwrap();
    fs::write(root.join(".gitignore"), "/target\n/.plimsoll\n").unwrap();
}
