//! The order log: one JSON line per decision, shared by the two copies of the risk manager that a release has.
//!
//! Each decision holds an exclusive advisory lock on the file while it reads what the other process added, decides,
//! appends and syncs. An answer is given after the sync, so that a killed process loses no acknowledged order. Without
//! a file the book lives in memory. Everything here blocks; callers are on a blocking thread.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::risk::{Book, Limits, Order, Record, Verdict};

/// Ids are remembered for good, so their number has a bound: about one gigabyte of memory.
const MAX_RECORDS: usize = 1_000_000;

/// What could not be done with the order log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    #[error("{action} the order log {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the order log {} is damaged at byte {offset}", path.display())]
    Damaged {
        path: PathBuf,
        offset: u64,
        #[source]
        source: serde_json::Error,
    },
    #[error("the order log is full with {MAX_RECORDS} orders")]
    Full,
}

/// The book and, behind it, the log.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    book: Book,
    log: Option<Log>,
}

#[derive(Debug)]
struct Log {
    file: File,
    path: PathBuf,
    /// Bytes already in the book; always at the beginning of a line.
    offset: u64,
}

impl Ledger {
    /// Opens `orders.jsonl` in `directory`, or begins an empty book in memory.
    pub(crate) fn open(directory: Option<&Path>) -> Result<Self, LedgerError> {
        let Some(directory) = directory else { return Ok(Self::default()) };
        let path = directory.join("orders.jsonl");
        let open = || {
            std::fs::create_dir_all(directory)?;
            let file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
            // A new file is only as durable as its entry in the directory.
            File::open(directory)?.sync_all()?;
            Ok(file)
        };
        let file = open().map_err(|source| LedgerError::File { action: "open", path: path.clone(), source })?;
        let mut ledger = Self { book: Book::default(), log: Some(Log { file, path, offset: 0 }) };
        ledger.book()?;
        Ok(ledger)
    }

    /// Decides `order`; a new decision is in the log, synced, when this returns.
    pub(crate) fn decide(
        &mut self,
        order: &Order,
        limits: Limits,
        handled_by: Option<&str>,
    ) -> Result<Verdict, LedgerError> {
        let Self { book, log } = self;
        let _lock = match log {
            Some(log) => Some(Lock::exclusive(log, book)?),
            None => None,
        };
        let verdict = book.decide(order, limits, handled_by);
        if let Verdict::Decided(record) = &verdict {
            if book.records().len() >= MAX_RECORDS {
                return Err(LedgerError::Full);
            }
            if let Some(log) = log {
                log.append(record)?;
            }
            book.apply(record.clone());
        }
        Ok(verdict)
    }

    /// The book, with what another process has added since.
    pub(crate) fn book(&mut self) -> Result<&Book, LedgerError> {
        if let Some(log) = &mut self.log {
            log.file.lock_shared().map_err(|source| log.error("lock", source))?;
            let read = log.catch_up(&mut self.book);
            let unlocked = log.file.unlock().map_err(|source| log.error("unlock", source));
            read.and(unlocked)?;
        }
        Ok(&self.book)
    }
}

/// Unlocks on every way out. A second handle of the open file, so that the log stays usable meanwhile.
struct Lock(File);

impl Lock {
    fn exclusive(log: &mut Log, book: &mut Book) -> Result<Self, LedgerError> {
        let handle = log.file.try_clone().map_err(|source| log.error("open", source))?;
        handle.lock().map_err(|source| log.error("lock", source))?;
        let lock = Self(handle);
        log.catch_up(book)?;
        log.cut_torn_line()?;
        Ok(lock)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the process unlocks as well; there is nobody to tell here.
        let _ = self.0.unlock();
    }
}

impl Log {
    fn error(&self, action: &'static str, source: io::Error) -> LedgerError {
        LedgerError::File { action, path: self.path.clone(), source }
    }

    /// Reads whole lines from `offset` on. A line without its end is left alone.
    fn catch_up(&mut self, book: &mut Book) -> Result<(), LedgerError> {
        let mut text = Vec::new();
        let read = self.file.seek(SeekFrom::Start(self.offset)).and_then(|_| self.file.read_to_end(&mut text));
        read.map_err(|source| self.error("read", source))?;
        for line in text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            let record: Record = serde_json::from_slice(line).map_err(|source| LedgerError::Damaged {
                path: self.path.clone(),
                offset: self.offset,
                source,
            })?;
            book.apply(record);
            self.offset += line.len() as u64;
        }
        Ok(())
    }

    /// Under the exclusive lock nobody is writing: bytes after the last whole line are of a process that died.
    fn cut_torn_line(&self) -> Result<(), LedgerError> {
        let length = self.file.metadata().map_err(|source| self.error("read", source))?.len();
        if length > self.offset {
            self.file.set_len(self.offset).map_err(|source| self.error("cut", source))?;
        }
        Ok(())
    }

    fn append(&mut self, record: &Record) -> Result<(), LedgerError> {
        let mut line = serde_json::to_vec(record).expect("a record has string keys and finite numbers");
        line.push(b'\n');
        if let Err(source) = self.file.write_all(&line).and_then(|()| self.file.sync_data()) {
            // Not acknowledged, so it must not stand either. When even this fails, the next lock cuts a torn line.
            let _ = self.file.set_len(self.offset);
            return Err(self.error("append to", source));
        }
        self.offset += line.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::risk::Side;

    const LIMITS: Limits = Limits { max_position: 1000, max_loss: 1e6 };

    fn order(id: &str) -> Order {
        Order {
            id: id.to_owned(),
            instrument: "AAPL".to_owned(),
            side: Side::Buy,
            quantity: 1,
            price: 10.25,
            generation: Some(3),
            placed_by: Some("blue".to_owned()),
            placer: None,
        }
    }

    fn position(ledger: &mut Ledger) -> i32 {
        ledger.book().expect("readable").holdings().get("AAPL").map_or(0, |held| held.position)
    }

    #[test]
    fn two_ledgers_over_one_log_see_each_other_and_lose_nothing() {
        let directory = tempfile::tempdir().expect("temporary directory");
        std::thread::scope(|scope| {
            for name in ["a", "b"] {
                let mut ledger = Ledger::open(Some(directory.path())).expect("opened");
                scope.spawn(move || {
                    for number in 0..20 {
                        let verdict = ledger.decide(&order(&format!("{name}-{number}")), LIMITS, Some(name));
                        assert!(matches!(verdict, Ok(Verdict::Decided(_))), "{verdict:?}");
                    }
                });
            }
        });
        let mut third = Ledger::open(Some(directory.path())).expect("opened");
        assert_eq!(position(&mut third), 40);
        let last = third.book().expect("readable").records().last().expect("some").position;
        assert_eq!(last, 40, "each decision saw all before it");
    }

    #[test]
    fn an_id_decided_by_one_process_is_known_to_the_other() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut one = Ledger::open(Some(directory.path())).expect("opened");
        let mut two = Ledger::open(Some(directory.path())).expect("opened");
        one.decide(&order("x"), LIMITS, Some("blue")).expect("decided");
        let verdict = two.decide(&order("x"), LIMITS, Some("green")).expect("decided");
        assert!(matches!(verdict, Verdict::Known(record) if record.handled_by.as_deref() == Some("blue")));
    }

    #[test]
    fn a_torn_last_line_is_ignored_by_readers_and_cut_by_the_next_decision() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("orders.jsonl");
        let mut ledger = Ledger::open(Some(directory.path())).expect("opened");
        ledger.decide(&order("1"), LIMITS, None).expect("decided");
        let mut text = std::fs::read(&path).expect("read");
        text.extend_from_slice(br#"{"id":"2","instr"#);
        std::fs::write(&path, &text).expect("torn");
        let mut ledger = Ledger::open(Some(directory.path())).expect("opened");
        assert_eq!(position(&mut ledger), 1);
        ledger.decide(&order("3"), LIMITS, None).expect("decided");
        let lines = std::fs::read_to_string(&path).expect("read");
        assert_eq!(lines.lines().count(), 2, "{lines}");
        assert_eq!(position(&mut Ledger::open(Some(directory.path())).expect("opened")), 2);
    }

    #[test]
    fn damage_before_the_last_line_stops_decisions() {
        let directory = tempfile::tempdir().expect("temporary directory");
        std::fs::write(directory.path().join("orders.jsonl"), "nonsense\n").expect("written");
        assert!(matches!(Ledger::open(Some(directory.path())), Err(LedgerError::Damaged { offset: 0, .. })));
    }
}
