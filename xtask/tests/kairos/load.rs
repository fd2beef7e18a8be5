//! The load: `wrk`, a client that is not ours. It repeats nothing, keeps its connections, and counts what went wrong.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

const SCRIPT: &str = include_str!("wrk.lua");
/// Connections that are kept; as many requests are under way at any time.
const CONNECTIONS: &str = "-c128";
/// No test takes so long: it is ended when all has been seen. It bounds what a test that was killed leaves behind.
const LONGEST: &str = "-d1200s";

/// Whether the load can be made here. Where everything must be tested, it is an error if not.
pub(crate) fn available() -> bool {
    let there = Command::new("wrk").arg("-v").output().is_ok();
    assert!(there || std::env::var_os("CI").is_none(), "wrk is not installed");
    if !there {
        println!("skipped: wrk is not installed");
    }
    there
}

/// `wrk` at work.
pub(crate) struct Load {
    child: Child,
    reader: Option<JoinHandle<Summary>>,
    answered: Arc<AtomicU64>,
    _script: tempfile::NamedTempFile,
}

/// What `wrk` counted.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) requests: u64,
    pub(crate) micros: u64,
    /// Failed connects, reads, writes, statuses, timeouts, and wrong answers.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Right answers by slot and version.
    pub(crate) seen: BTreeMap<String, u64>,
    /// The last wrong answer.
    pub(crate) example: String,
    /// What else a script counted.
    pub(crate) told: BTreeMap<String, u64>,
}

impl Summary {
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    fn read(&mut self, line: &str) {
        let (head, last) = line.rsplit_once(' ').unwrap_or((line, ""));
        let number = last.parse().unwrap_or(0.0_f64);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "wrk counts in floating point")]
        let count = number as u64;
        match head.split_once(' ') {
            None if head == "requests" => self.requests = count,
            None if head == "micros" => self.micros = count,
            None if head == "errors" => {}
            None => _ = self.told.insert(head.to_owned(), count),
            Some(("seen", key)) => *self.seen.entry(key.to_owned()).or_default() += count,
            Some(("errors", kind)) => *self.errors.entry(kind.to_owned()).or_default() += count,
            _ => {}
        }
        if let Some(example) = line.strip_prefix("example ").filter(|text| !text.is_empty()) {
            example.clone_into(&mut self.example);
        }
    }
}

impl Load {
    pub(crate) fn on(url: &str) -> Self {
        Self::running(Command::new("wrk"), SCRIPT, &["-t2", CONNECTIONS], url)
    }

    /// The same, from where `command` runs what it is given. Fewer connections: the cluster shares this machine.
    pub(crate) fn by_way_of(mut command: Command, connections: &str, url: &str) -> Self {
        command.arg("wrk");
        Self::running(command, SCRIPT, &["-t1", connections], url)
    }

    /// A script of another kind, by a command that is `wrk` or runs it.
    pub(crate) fn running(mut command: Command, text: &str, threads: &[&str], url: &str) -> Self {
        let mut script = tempfile::Builder::new().suffix(".lua").tempfile().unwrap();
        script.write_all(text.as_bytes()).unwrap();
        command.args(threads).args([LONGEST, "--timeout", "10s", "-s"]).arg(script.path()).arg(url);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let answered = Arc::new(AtomicU64::new(0));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let counter = Arc::clone(&answered);
        let reader = std::thread::spawn(move || {
            let mut summary = Summary::default();
            for line in lines.map_while(Result::ok) {
                match line.strip_prefix("answered ") {
                    Some(more) => _ = counter.fetch_add(more.parse().unwrap_or(0), Ordering::Relaxed),
                    None => summary.read(&line),
                }
            }
            summary
        });
        Self { child, reader: Some(reader), answered, _script: script }
    }

    /// How many requests have been answered so far, a thousand more or less.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends it, as a person does.
    pub(crate) fn stop(mut self) -> Summary {
        let wrk = innermost(self.child.id());
        let wrk = rustix::process::Pid::from_raw(i32::try_from(wrk).unwrap()).unwrap();
        rustix::process::kill_process(wrk, rustix::process::Signal::INT).unwrap();
        let summary = self.reader.take().unwrap().join().unwrap();
        assert!(self.child.wait().unwrap().success());
        summary
    }
}

/// The process itself, or the one it waits for: what runs `wrk` elsewhere does not hand signals on.
fn innermost(pid: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().next().map_or(pid, |child| innermost(child.parse().unwrap()))
}

impl Drop for Load {
    fn drop(&mut self) {
        // Already ended and waited for, unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
