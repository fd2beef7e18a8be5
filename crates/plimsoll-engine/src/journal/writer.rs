//! Appending to a journal: effects' records reach the disk before the call returns, the others with the next that does.

use super::{genesis, link, reader, record::Record, render};
use crate::{
    context::{Clock, lock},
    error::StepError,
};
use plimsoll_core::{Fingerprint, RunId};
use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    sync::{Arc, Mutex},
};

/// A journal open for appending. One process at a time has it: see [`crate::RunDir`], which holds the lock.
pub struct Journal {
    file: File,
    pending: Vec<u8>,
    seq: u64,
    head: Fingerprint,
    clock: Clock,
}

/// Pending bytes are written (not synced) at the latest when they are this many: memory stays bounded in runs of
/// thousands of cached steps.
const PENDING_MAX: usize = 256 * 1024;

impl Journal {
    /// Creates the journal of `run` at `path`, where none may be.
    pub fn create(path: &Path, run: &RunId, clock: Clock) -> io::Result<Self> {
        let file = File::options().create_new(true).append(true).open(path)?;
        Ok(Self { file, pending: Vec::new(), seq: 0, head: genesis(run), clock })
    }

    /// Opens an existing journal to append to it, cutting a torn last line. What it held comes with it.
    pub fn open(path: &Path, run: &RunId, clock: Clock) -> Result<(Self, reader::ReadJournal), reader::JournalError> {
        let read = reader::read(path, run)?;
        let io = |source| reader::JournalError::Io { path: path.to_owned(), source };
        let file = File::options().append(true).open(path).map_err(io)?;
        file.set_len(read.valid_bytes).map_err(io)?;
        let seq = read.entries.len() as u64;
        Ok((Self { file, pending: Vec::new(), seq, head: read.head, clock }, read))
    }

    /// Appends a record; it is on disk at the latest after the next [`Journal::sync`].
    pub fn append(&mut self, record: &Record) -> io::Result<()> {
        let text = serde_json::to_string(record).expect("records are plain data");
        let at = (self.clock)().to_string();
        let hash = link(&self.head, self.seq, &at, &text);
        let prev = self.head;
        self.pending.extend_from_slice(render(self.seq, &at, &prev, &text, &hash).as_bytes());
        self.pending.push(b'\n');
        self.seq += 1;
        self.head = hash;
        if self.pending.len() >= PENDING_MAX { self.write() } else { Ok(()) }
    }

    /// Appends a record and returns when it and all before it are on disk.
    pub fn append_synced(&mut self, record: &Record) -> io::Result<()> {
        self.append(record)?;
        self.sync()
    }

    /// Returns when all records are on disk.
    pub fn sync(&mut self) -> io::Result<()> {
        self.write()?;
        self.file.sync_data()
    }

    /// The hash of the last record.
    pub const fn head(&self) -> Fingerprint {
        self.head
    }

    fn write(&mut self) -> io::Result<()> {
        // Taken only once written: what a full disk refused is tried again with the next record, whole.
        self.file.write_all(&self.pending)?;
        self.pending.clear();
        Ok(())
    }
}

/// One step's access to its run's journal.
#[derive(Clone)]
pub struct Ledger {
    pub(crate) journal: Arc<Mutex<Journal>>,
    pub(crate) step: Arc<str>,
    pub(crate) intended: bool,
}

impl Ledger {
    /// Whether an earlier process wrote this step's intent and no outcome.
    pub const fn intended(&self) -> bool {
        self.intended
    }

    /// Writes the step's intent; it is on disk when this returns.
    #[expect(
        clippy::unused_async,
        reason = "the call may come to wait for a shared sync; its callers are async already"
    )]
    pub async fn intend(&self) -> Result<(), StepError> {
        lock(&self.journal)
            .append_synced(&Record::Intent { step: self.step.to_string() })
            .map_err(|e| StepError::external("cannot write to the run's journal").caused_by(&e))
    }
}
