//! Runs as they lie in a state directory, and killing the command that works on one.

use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::Duration,
};

/// The directories of all runs.
pub(crate) fn runs(state: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(state.join("runs")).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// The run that is not among the `known` ones.
pub(crate) fn begun(state: &Path, known: &BTreeSet<PathBuf>) -> Option<PathBuf> {
    runs(state).difference(known).next().cloned()
}

/// A run's journal, empty where there is none yet.
pub(crate) fn journal(run: &Path) -> String {
    fs::read_to_string(run.join("journal.jsonl")).unwrap_or_default()
}

/// How many whole records a journal has.
pub(crate) fn records(journal: &str) -> usize {
    journal.matches('\n').count()
}

/// The last whole line's record.
pub(crate) fn last_record(journal: &str) -> Option<Value> {
    let whole = journal.rsplit_once('\n')?.0;
    Some(serde_json::from_str::<Value>(whole.lines().last()?).ok()?["record"].take())
}

/// Whether the log of a step whose name begins with one of `steps` has `text` in it.
pub(crate) fn log_says(run: &Path, steps: &[&str], text: &str) -> bool {
    let logs = fs::read_dir(run.join("logs")).into_iter().flatten().flatten();
    let of = |name: &str| steps.iter().any(|step| name.starts_with(step));
    let logs = logs.filter(|entry| entry.file_name().to_str().is_some_and(of));
    logs.into_iter().any(|entry| fs::read_to_string(entry.path()).is_ok_and(|log| log.contains(text)))
}

/// Starts a command, and kills its process with SIGKILL as soon as `reached` says so. It may have ended well before.
pub(crate) fn killed(mut command: Command, mut reached: impl FnMut() -> bool) -> Output {
    let mut child = command.spawn().unwrap();
    // Ends with the command at the latest.
    while !reached() && child.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_micros(500));
    }
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    let code = output.status.code();
    assert!(code.is_none_or(|code| code == 0), "{code:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
