//! Where runs live: the state directory, one directory per run, and the executables that runs were started with.
//!
//! ```text
//! STATE/runs/<run>/journal.jsonl   the journal
//! STATE/runs/<run>/lock            held by the process that works on the run
//! STATE/runs/<run>/logs/           one file per step
//! STATE/turns/<pipeline>           held by the process that works on a run of it
//! STATE/bin/<fingerprint>          executables, one per build
//! STATE/head                       the head of the newest ended journal, and its run
//! ```

use crate::{
    journal::{self, JournalError, ReadJournal},
    prior::Prior,
};
use plimsoll_core::{Fingerprint, RunId, RunOutcome};
use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// The state directory of a project: what must survive `git clean`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// The state directory at `path`; it is made when something is first written to it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The directory of a run.
    pub fn run(&self, run: &RunId) -> RunDir {
        RunDir { path: self.0.join("runs").join(run.as_str()), run: run.clone() }
    }

    /// All runs, newest first.
    pub fn runs(&self) -> io::Result<Vec<RunId>> {
        let entries = match fs::read_dir(self.0.join("runs")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut runs: Vec<RunId> = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect();
        runs.sort_unstable_by(|a, b| b.cmp(a));
        Ok(runs)
    }

    /// The head of the newest ended journal: what the next run's journal begins with.
    pub fn head(&self) -> Option<Fingerprint> {
        let text = fs::read_to_string(self.0.join("head")).ok()?;
        Fingerprint::try_from(text.split_whitespace().next()?.to_owned()).ok()
    }

    /// Records the head of an ended journal.
    pub fn set_head(&self, head: Fingerprint, run: &RunId) -> io::Result<()> {
        write_atomically(&self.0.join("head"), format!("{head} {run}\n").as_bytes())
    }
}

/// One run's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
    run: RunId,
}

/// The right to write to a run; given back when dropped, or when its process dies.
#[derive(Debug)]
pub struct RunLock(#[expect(dead_code, reason = "the lock lasts as long as the file is open")] File);

impl RunDir {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run.
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// The journal's path.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal.jsonl")
    }

    /// Makes the directory, durably: what is synced into it later must not lack its own name after a loss of power.
    pub fn create(&self) -> io::Result<()> {
        create_private(&self.path.join("logs"))?;
        // Of `runs`, and of the state directory in case that was made as well.
        self.path.ancestors().skip(1).take(2).try_for_each(|above| File::open(above)?.sync_all())
    }

    /// Takes the run's lock; `None` when another process works on it.
    pub fn lock(&self) -> io::Result<Option<RunLock>> {
        let file = File::options().create(true).truncate(false).write(true).open(self.path.join("lock"))?;
        Ok(lock_now(&file)?.then_some(RunLock(file)))
    }

    /// Reads the journal and where the run stands.
    pub fn read(&self) -> Result<(ReadJournal, RunOutcome), JournalError> {
        let read = journal::read(&self.journal(), &self.run)?;
        let running = self.path.join("lock").exists() && matches!(self.lock(), Ok(None));
        let outcome = match Prior::of(&read.entries).ended {
            _ if running => RunOutcome::Running,
            Some(outcome) => outcome,
            None => RunOutcome::Interrupted,
        };
        Ok((read, outcome))
    }
}

/// Locks a file as long as it is open; false when another process has it.
pub(crate) fn lock_now(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// Makes a directory and those above it, for their owner alone: journals and logs are nobody else's business.
pub(crate) fn create_private(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Writes a file so that a reader, and a crash, sees the old content or the new, never a part.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_atomically_as(path, bytes, None)
}

/// The same, with the file's mode: it has it from the moment it has its name.
pub(crate) fn write_atomically_as(path: &Path, bytes: &[u8], mode: Option<u32>) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("the path has no directory"))?;
    create_private(dir)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temp = dir.join(format!(".{name}.{}", std::process::id()));
    let mut file = File::create(&temp)?;
    let allowed = mode.map_or(Ok(()), |mode| file.set_permissions(fs::Permissions::from_mode(mode)));
    let written = allowed
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temp, path));
    if let Err(error) = written {
        // What failed is reported; a temporary file that cannot be removed either changes nothing about it.
        let _ = fs::remove_file(&temp);
        return Err(error);
    }
    File::open(dir)?.sync_all()
}
