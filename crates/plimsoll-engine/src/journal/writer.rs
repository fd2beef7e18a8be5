//! Appending to a journal: effects' records reach the disk before the call returns, the others with the next that does.

use super::{genesis, link, reader, record::Record, render};
use crate::{
    context::{Clock, lock},
    error::StepError,
    fault::Crash,
};
use plimsoll_core::{Fingerprint, RunId};
use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

/// A journal open for appending. One process at a time has it: see [`crate::RunDir`], which holds the lock.
pub struct Journal {
    file: File,
    pending: Vec<u8>,
    seq: u64,
    head: Fingerprint,
    clock: Clock,
    /// Once something could not be written nothing more is: what follows a gap would be worth nothing. Why, for whoever asks
    /// after the first.
    stopped: Option<String>,
    crash: Option<Crash>,
}

/// Pending bytes are written (not synced) at the latest when they are this many: memory stays bounded in runs of
/// thousands of cached steps.
const PENDING_MAX: usize = 256 * 1024;

impl Journal {
    /// Creates the journal of `run` at `path`, where none may be.
    pub fn create(path: &Path, run: &RunId, clock: Clock) -> io::Result<Self> {
        let file = File::options().create_new(true).append(true).open(path)?;
        // The file's name must be as durable as its first record.
        if let Some(dir) = path.parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok(Self { file, pending: Vec::new(), seq: 0, head: genesis(run), clock, stopped: None, crash: None })
    }

    /// Opens an existing journal to append to it, cutting a torn last line. What it held comes with it.
    pub fn open(path: &Path, run: &RunId, clock: Clock) -> Result<(Self, reader::ReadJournal), reader::JournalError> {
        let read = reader::read(path, run)?;
        let io = |source| reader::JournalError::Io { path: path.to_owned(), source };
        let file = File::options().append(true).open(path).map_err(io)?;
        file.set_len(read.valid_bytes).map_err(io)?;
        let seq = read.entries.len() as u64;
        Ok((Self { file, pending: Vec::new(), seq, head: read.head, clock, stopped: None, crash: None }, read))
    }

    /// Appends a record; it is on disk at the latest after the next [`Journal::sync`].
    ///
    /// After the first failure everything fails: a journal with a gap would say that what it lacks did not happen.
    pub fn append(&mut self, record: &Record) -> io::Result<()> {
        self.check()?;
        self.crash_if(Crash::Before(self.seq))?;
        let text = serde_json::to_string(record).expect("records are plain data");
        let at = (self.clock)().to_string();
        let hash = link(&self.head, self.seq, &at, &text);
        let prev = self.head;
        self.pending.extend_from_slice(render(self.seq, &at, &prev, &text, &hash).as_bytes());
        self.pending.push(b'\n');
        self.seq += 1;
        self.head = hash;
        self.crash_if(Crash::After(self.seq - 1))?;
        if self.pending.len() >= PENDING_MAX { self.write() } else { Ok(()) }
    }

    /// Appends a record and returns when it and all before it are on disk.
    pub fn append_synced(&mut self, record: &Record) -> io::Result<()> {
        self.append(record)?;
        self.sync()
    }

    /// Returns when all records are on disk.
    pub fn sync(&mut self) -> io::Result<()> {
        self.check()?;
        self.write()?;
        // After a failed sync the kernel may have dropped what it could not write: a second one that succeeds proves nothing.
        self.file.sync_data().inspect_err(|e| self.stopped = Some(e.to_string()))
    }

    /// Makes this journal fail at `crash`.
    pub(crate) fn fail_at(&mut self, crash: Option<Crash>) {
        self.crash = crash;
    }

    /// Whether a record could not be written.
    pub(crate) const fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// The hash of the last record.
    pub const fn head(&self) -> Fingerprint {
        self.head
    }

    fn write(&mut self) -> io::Result<()> {
        // What a full disk took of the last line before it refused the rest is a torn write: the next reader cuts it.
        self.file.write_all(&self.pending).inspect_err(|e| self.stopped = Some(e.to_string()))?;
        self.pending.clear();
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        match &self.stopped {
            Some(why) => Err(io::Error::other(format!("an earlier record could not be written: {why}"))),
            None => Ok(()),
        }
    }

    fn crash_if(&mut self, here: Crash) -> io::Result<()> {
        if self.crash != Some(here) {
            return Ok(());
        }
        self.write()?;
        let why = format!("the process was made to stop here: {here:?}");
        self.stopped = Some(why.clone());
        Err(io::Error::other(why))
    }
}

/// One step's access to its run's journal.
#[derive(Clone)]
pub struct Ledger {
    pub(crate) journal: Arc<Mutex<Journal>>,
    pub(crate) step: Arc<str>,
    pub(crate) intended: Arc<AtomicBool>,
    pub(crate) twice: bool,
}

impl Ledger {
    /// Whether the run holds this step's intent, from an earlier process or an earlier attempt, and has not taken it back.
    pub fn intended(&self) -> bool {
        self.intended.load(Ordering::Acquire)
    }

    /// Whether the journal takes no more records.
    pub(crate) fn is_stopped(&self) -> bool {
        lock(&self.journal).is_stopped()
    }

    /// Writes the step's intent; it is on disk when this returns.
    #[expect(
        clippy::unused_async,
        reason = "the call may come to wait for a shared sync; its callers are async already"
    )]
    pub async fn intend(&self) -> Result<(), StepError> {
        lock(&self.journal)
            .append_synced(&Record::Intent { step: self.step.to_string() })
            .map_err(|e| StepError::external("cannot write to the run's journal").caused_by(&e))?;
        self.intended.store(true, Ordering::Release);
        Ok(())
    }
}
