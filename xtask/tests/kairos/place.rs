//! A place to release from: a clone of this repository as it is committed, set up for quick trading, with a state directory
//! of its own. What a place started is ended with it, and it is an error if anything of it is left.

use crate::world::{Live, Status, eventually, processes_of};
use serde_json::Value;
use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

/// Longer than the requests of the tests that are under way when a slot is drained.
const DRAIN: &str = "drain = \"4s\"";
/// The share of failed probes stays at one per cent. How fast they are answered depends on what else this machine does.
const SLO: &str = "slo = { watch = \"500ms\", max_error_pct = 1.0, max_p99 = \"30s\", probe_rate = 50 }";
/// Two hundred prices a second, and limits that no run of the tests reaches.
const PRODUCTION: &str = "ENABLE_TRADING = \"true\", TICK_MS = \"5\", SEED = \"11\", MAX_POSITION_SIZE = \"1000000\", \
                          RISK_LIMIT_PCT = \"100\", RELEASED = \"1\"";

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
}

pub(crate) struct Place {
    state: PathBuf,
    /// Further variables of every command.
    variables: Vec<(String, OsString)>,
    _directory: tempfile::TempDir,
    /// There is one clone, and one machine to be loaded: the tests go one after the other.
    _turn: MutexGuard<'static, ()>,
}

impl Place {
    /// The clone at its first commit, with nothing released.
    pub(crate) fn new() -> Self {
        Self::configured(configured, Vec::new())
    }

    /// The same with a configuration of its own, and variables for every command.
    pub(crate) fn configured(configured: impl Fn(&str) -> String, variables: Vec<(String, OsString)>) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().unwrap();
        let place = Self { state: directory.path().join("s"), variables, _directory: directory, _turn: turn };
        git(&["checkout", "--quiet", "--force", "-B", "main", "FETCH_HEAD"]);
        let path = clone().join("plimsoll.toml");
        let text = configured(&fs::read_to_string(&path).unwrap());
        // What the world comes to know of a crate must not change what is tested.
        fs::write(&path, format!("{text}\n[advisories]\ndatabase = \"no-advisories\"\n")).unwrap();
        // What the compiler does beyond this takes it minutes, and no test looks at it.
        let path = clone().join(".cargo/config.toml");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}\n[profile.release]\nopt-level = 1\n")).unwrap();
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--message", "trade"]);
        place
    }

    /// Forgets what this machine knows of runs, as a fresh clone on another one.
    pub(crate) fn forget(&mut self) {
        self.state = self.state.with_extension("fresh");
    }

    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// Commits another value of a variable that every service of production has, so that a release moves all of them.
    pub(crate) fn change(&self, number: usize) {
        let path = clone().join("plimsoll.toml");
        let text = fs::read_to_string(&path).unwrap();
        let (before, after) = text.split_once("RELEASED = \"").unwrap();
        let (_, after) = after.split_once('"').unwrap();
        fs::write(&path, format!("{before}RELEASED = \"{number}\"{after}")).unwrap();
        git(&["commit", "--quiet", "--all", "--message", &format!("release {number} of {}", self.state.display())]);
    }

    /// The command with its output caught, as it is run in a clone.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.command_in(executable(), clone(), args);
        command.env("PLIMSOLL_STATE_DIR", &self.state);
        command
    }

    /// The same by another executable in another clone, with the state where it lies by default.
    pub(crate) fn command_in(&self, executable: &Path, clone: &Path, args: &[&str]) -> Command {
        let mut command = clean(executable);
        command.args(args).current_dir(clone);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    /// What `status --json` prints.
    pub(crate) fn status(&self) -> Value {
        self.json(&["status", "--json"])
    }

    /// What is live in production, and its generation.
    pub(crate) fn production(&self) -> (u64, Live) {
        self.live("production")
    }

    /// The same of another environment.
    pub(crate) fn live(&self, environment: &str) -> (u64, Live) {
        let status = Status::of(&self.status());
        (status.0[environment].generation, status.live(environment).clone())
    }

    /// What a command prints with `--json`.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let ran = self.run(args).expect(0);
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}", ran.text()))
    }

    /// Ends everything, and waits until nothing is left.
    pub(crate) fn down(self) {
        self.run(&["down"]).expect(0);
        let left = || processes_of(&self.state);
        eventually("no process is left after `down`", Duration::from_secs(20), || left().is_empty());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.state.join("logs/supervisor.log")).unwrap_or_default();
            let _ = writeln!(std::io::stderr(), "--- supervisor\n{log}");
            let _ = self.run(&["down"]);
        }
    }
}

/// The repository's own configuration, for trading and for tests that wait.
pub(crate) fn configured(text: &str) -> String {
    let architecture = if env::consts::ARCH == "aarch64" { "linux/arm64" } else { "linux/amd64" };
    let slo = text.lines().find(|line| line.starts_with("slo = ")).unwrap();
    let staging = "[environments.staging]\n";
    let text = text.replace("ENABLE_TRADING = \"false\"", PRODUCTION).replace("drain = \"10s\"", DRAIN);
    let text = text.replace(slo, SLO).replace(staging, &format!("{staging}{SLO}\n"));
    assert!(text.contains(DRAIN) && text.matches(SLO).count() == 2 && text.contains(PRODUCTION), "{text}");
    format!("{text}\n[images]\nplatforms = [\"{architecture}\"]\n")
}

/// The commit that is checked out.
pub(crate) fn commit() -> String {
    git(&["rev-parse", "HEAD"])
}

/// Checks `main` out anew at a commit.
pub(crate) fn at(commit: &str) {
    git(&["checkout", "--quiet", "--force", "-B", "main", commit]);
}

fn git(args: &[&str]) -> String {
    tool("git", args, clone())
}

/// What a program prints; it must succeed.
pub(crate) fn tool(program: &str, args: &[&str], directory: &Path) -> String {
    let ran = Ran::of(clean(program).args(args).current_dir(directory).output().unwrap());
    assert_eq!(ran.code, 0, "{program} {args:?}: {}", ran.text());
    ran.out.trim().to_owned()
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

/// Where the clone and the executable lie. They stay for the next time, so that only the first one compiles all; nobody
/// else uses them as long as this process lives.
fn home() -> &'static Path {
    static HOME: OnceLock<(PathBuf, File)> = OnceLock::new();
    let (home, _) = HOME.get_or_init(|| {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kairos");
        fs::create_dir_all(&home).unwrap();
        let lock = File::create(home.join("lock")).unwrap();
        lock.lock().unwrap();
        (home, lock)
    });
    home
}

/// The clone, which has fetched what is committed here.
pub(crate) fn clone() -> &'static Path {
    static CLONE: OnceLock<PathBuf> = OnceLock::new();
    CLONE.get_or_init(|| {
        let clone = home().join("repository");
        if !clone.join(".git").exists() {
            tool("git", &["init", "--quiet", "--initial-branch=main", clone.to_str().unwrap()], home());
        }
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_str().unwrap();
        tool("git", &["fetch", "--quiet", "--update-shallow", "--no-tags", ours, "HEAD"], &clone);
        tool("git", &["config", "user.name", "Ada"], &clone);
        tool("git", &["config", "user.email", "ada@example.org"], &clone);
        clone
    })
}

/// The full executable, built once for all tests.
pub(crate) fn executable() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| crate::executable::build_into(home()))
}
