//! The machine that releases to a cluster is lost in the middle of a cut-over. From another one, with a fresh clone, another home
//! and no state, a person sees it and puts it right; or goes on with the very run, where its journal and executable came along.

use crate::{
    journals::{begun, journal, killed, runs},
    load,
    place::{self, Place, Ran, tool},
    scene::{Cluster, Scene},
    whole::is_whole,
    world::eventually,
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

/// A cut-over that was over before the kill arrived is made again, so often.
const TRIES: usize = 5;
/// More than the half minute after which a dead run's lock lapses.
const LAPSE: Duration = Duration::from_mins(1);
const PATIENCE: Duration = Duration::from_mins(3);
const SOME: u64 = 1_000;

/// Another machine, as far as the command can tell.
struct Elsewhere<'a> {
    place: &'a Place,
    directory: tempfile::TempDir,
    executable: PathBuf,
}

impl<'a> Elsewhere<'a> {
    fn new(place: &'a Place, who: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clone = directory.path().join("kairos");
        let root = Path::new("/");
        tool("git", &["clone", "--quiet", place::clone().to_str().unwrap(), clone.to_str().unwrap()], root);
        tool("git", &["config", "user.name", who], &clone);
        tool("git", &["config", "user.email", &format!("{who}@example.org")], &clone);
        fs::create_dir(directory.path().join("home")).unwrap();
        // Another build: what it does is the same, its digest is not.
        let executable = directory.path().join("xtask-delivery");
        fs::copy(place::executable(), &executable).unwrap();
        let mut file = fs::File::options().append(true).open(&executable).unwrap();
        std::io::Write::write_all(&mut file, b"another build").unwrap();
        Self { place, directory, executable }
    }

    fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    fn state(&self) -> PathBuf {
        self.home().join(".local/state/plimsoll/kairos")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command_in(&self.executable, &self.directory.path().join("kairos"), args);
        // Cargo's own things are no state of the release.
        let old = PathBuf::from(env::var_os("HOME").unwrap());
        for (name, directory) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            command.env(name, env::var_os(name).map_or_else(|| old.join(directory), PathBuf::from));
        }
        command.env("HOME", self.home()).env_remove("XDG_STATE_HOME");
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.run(&["status", "--json"]).expect(0).out).unwrap()
    }

    /// Runs a command, and returns which executables its process was.
    fn executables_of(&self, args: &[&str]) -> (Ran, BTreeSet<PathBuf>) {
        let mut seen = BTreeSet::new();
        let mut child = self.command(args).spawn().unwrap();
        let exe = format!("/proc/{}/exe", child.id());
        while child.try_wait().unwrap().is_none() {
            seen.extend(fs::read_link(&exe));
            std::thread::sleep(Duration::from_millis(1));
        }
        (Ran::of(child.wait_with_output().unwrap()), seen)
    }
}

/// Sees the first Service of production that selects another slot.
struct FirstMove {
    kubectl: Child,
    seen: Arc<AtomicBool>,
}

impl FirstMove {
    fn watch(scene: &Scene<'_>) -> Self {
        let form = r#"jsonpath={.spec.selector}{"\n"}"#;
        let namespace = scene.namespace("production");
        let args = ["-n", &namespace, "get", "services", "--watch", "-o", form];
        let mut kubectl = scene.cluster.command(&args).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(kubectl.stdout.take().unwrap()).lines();
        let seen = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut slots = BTreeSet::new();
            for line in lines.map_while(Result::ok) {
                slots.extend(["traffic-of-blue", "traffic-of-green"].into_iter().filter(|slot| line.contains(slot)));
                // All Services select the same slot before, and the same one after.
                tell.store(slots.len() > 1, Relaxed);
            }
        });
        Self { kubectl, seen }
    }
}

impl Drop for FirstMove {
    fn drop(&mut self) {
        self.kubectl.kill().unwrap();
        self.kubectl.wait().unwrap();
    }
}

fn production(status: &Value) -> &Value {
    status["environments"].as_array().unwrap().iter().find(|e| e["name"] == "production").unwrap()
}

/// Releases with `kill -9` as soon as the first Service of production has moved, until that leaves a half made cut-over.
fn torn(scene: &Scene<'_>, place: &Place, next: &mut usize) -> String {
    for _ in 0..TRIES {
        *next += 1;
        place.change(*next);
        let (known, first) = (runs(place.state()), FirstMove::watch(scene));
        killed(place.command(&["release", "--yes"]), || first.seen.load(Relaxed));
        let run = begun(place.state(), &known).unwrap();
        let id = run.file_name().unwrap().to_str().unwrap().to_owned();
        if production(&place.status())["half_made"] == true {
            return id;
        }
        println!("the cut-over of {id} was over before the kill: {} records", journal(&run).lines().count());
        place.run(&["resume", &id, "--yes"]).expect(0);
    }
    panic!("no kill left a cut-over half made");
}

/// Copies what a run needs to go on: its directory, and the executable that it began with.
fn travel(place: &Place, elsewhere: &Elsewhere<'_>, run: &str) -> PathBuf {
    let (from, to) = (place.state().join("runs").join(run), elsewhere.state().join("runs"));
    fs::create_dir_all(&to).unwrap();
    tool("cp", &["-r", from.to_str().unwrap(), to.to_str().unwrap()], Path::new("/"));
    let journal = journal(&from);
    let started: Value = serde_json::from_str(journal.lines().next().unwrap()).unwrap();
    let digest = started["record"]["executable"].as_str().unwrap();
    let (from, to) = (place.state().join("bin").join(digest), elsewhere.state().join("bin"));
    fs::create_dir_all(&to).unwrap();
    fs::copy(from, to.join(digest)).unwrap();
    to.join(digest)
}

#[test]
fn a_release_whose_machine_is_lost_is_put_right_or_finished_from_a_fresh_clone() {
    let Some(cluster) = Cluster::find().filter(|_| load::available()) else { return };
    let scene = Scene::new(&cluster, "elsewhere");
    let place = Place::configured(|text| scene.configured(text, &|_| String::new()), cluster.variables());
    place.run(&["release", "--yes"]).expect(0);
    let load = cluster.load("-c16", &scene.url());
    eventually("the load begins", PATIENCE, || load.answered() >= SOME);

    let mut number = 1;
    let lost = torn(&scene, &place, &mut number);
    let served = place.production().1.version;
    let ben = Elsewhere::new(&place, "ben");
    assert!(!ben.state().exists());
    let told = ben.run(&["status"]).expect(0).text();
    for part in ["HALF MADE", &lost, "ada@example.org", "cargo xtask rollback production"] {
        assert!(told.contains(part), "`{part}` is not in: {told}");
    }
    let refused = ben.run(&["rollback", "production", "--yes"]).text();
    assert!(!refused.starts_with("exit code 0\n") && refused.contains(&lost), "{refused}");
    eventually("the lock of the lost run lapses", LAPSE, || production(&ben.status())["lock"].is_null());
    ben.run(&["rollback", "production", "--yes"]).expect(0);
    let back = is_whole(&scene, &ben.status(), "put back from elsewhere");
    assert_eq!(back.live("production").version, served);
    // The machine is found again, and its run has had its turn.
    let late = place.run(&["resume", &lost, "--yes"]);
    assert_ne!(late.code, 0, "{}", late.text());
    assert_eq!(is_whole(&scene, &place.status(), "after the late resume"), back);

    let lost = torn(&scene, &place, &mut number);
    let carol = Elsewhere::new(&place, "carol");
    let executable = travel(&place, &carol, &lost);
    let (ran, executables) = carol.executables_of(&["resume", &lost, "--yes"]);
    assert_eq!(ran.code, 0, "{}", ran.text());
    assert!(executables.contains(&executable), "it goes on in the executable that began it: {executables:?}");
    let done = is_whole(&scene, &carol.status(), "finished elsewhere");
    assert_ne!(done.live("production").version, served);
    assert_eq!(production(&carol.status())["live"]["run"], *lost);
    assert!(carol.run(&["runs"]).expect(0).out.contains(&lost));

    let load = load.stop();
    println!("put right and finished from elsewhere: {} requests, {} failed", load.requests, load.failed());
    assert_eq!(load.failed(), 0, "{load:?}");
}
