//! The risk manager's state: every decision, and what follows from them, in one redb database.
//!
//! The two copies of the risk manager that a release has share the file. A decision is one write transaction, of which
//! there is one at a time over all processes; an answer is given after its commit is synced, so that a killed process
//! loses no acknowledged order. Without a directory the same database lives in memory. Everything here blocks; callers
//! are on a blocking thread. Why redb: `docs/adr/0013-kairos-state-in-redb.md`.

mod backup;
mod dated;
mod import;
mod replace;
mod replay;
mod schema;
mod store;
mod stream;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use redb::backends::InMemoryBackend;
use redb::{Builder, ConcurrencyMode, Database, ReadableDatabase};

use crate::risk::{Holdings, Limits, Order, Past, Record, Verdict, decide};

pub(crate) use backup::{BackupError, Manifest, backup, restore, verify};
pub(crate) use dated::backup_dated;
pub(crate) use replace::replace;
pub(crate) use replay::check_state;
pub(crate) use schema::{Compat, Schema};
use store::{Reading, Writing};
pub(crate) use stream::{receive, send};

/// The database's name in the state directory.
const FILE: &str = "risk.redb";
/// Of the database's pages; the working set is the holdings and the latest orders.
const CACHE: usize = 16 * 1024 * 1024;

/// What could not be done with the state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    #[error("{action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{action} in the order database")]
    Store {
        action: &'static str,
        #[source]
        source: Box<redb::Error>,
    },
    #[error("open the order database {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
    #[error("record {number} of the order database is damaged")]
    Damaged {
        number: u64,
        #[source]
        source: serde_json::Error,
    },
    #[error("what the order database holds of {instrument} is damaged")]
    DamagedHolding {
        instrument: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("{} is damaged at byte {offset}", path.display())]
    DamagedLine {
        path: PathBuf,
        offset: u64,
        #[source]
        source: serde_json::Error,
    },
    #[error("pages of the order database were damaged and have been repaired: verify once more")]
    Repaired,
    #[error("the state needs a version that reads schema {readable_from}: this one reads up to {known}")]
    TooNew { readable_from: u64, known: u64 },
    #[error("a state is contracted by a version that reads it afterwards: this one reads up to schema {known}")]
    CannotContract { known: u64 },
    #[error("there is no order database {}", path.display())]
    Absent { path: PathBuf },
}

/// The database.
#[derive(Debug)]
pub(crate) struct Ledger {
    database: Database,
    /// What this process reads up to.
    schema: Schema,
}

/// A part of the orders, numbered from 1 in the order of their decisions.
#[derive(Debug)]
pub(crate) struct Orders {
    pub(crate) records: Vec<Record>,
    /// How many there are in all.
    pub(crate) total: u64,
    /// The number of the last one here.
    pub(crate) next: u64,
}

impl Ledger {
    /// Opens the database in `directory`, or begins an empty one there or in memory.
    pub(crate) fn open(directory: Option<&Path>, schema: Schema) -> Result<Self, LedgerError> {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE);
        let Some(directory) = directory else {
            let database = builder.create_with_backend(InMemoryBackend::new());
            return Self::begin(database.map_err(failed("begin"))?, schema);
        };
        let path = directory.join(FILE);
        let made = std::fs::create_dir_all(directory);
        made.map_err(|source| LedgerError::File { action: "make the directory", path: directory.to_owned(), source })?;
        let database = builder.set_concurrency_mode(ConcurrencyMode::MultiWriter).create(&path);
        let database = database.map_err(|error| LedgerError::Open { path, source: Box::new(error.into()) })?;
        // A new file is only as durable as its entry in the directory.
        let synced = File::open(directory).and_then(|file| file.sync_all());
        synced.map_err(|source| LedgerError::File {
            action: "sync the directory",
            path: directory.to_owned(),
            source,
        })?;
        let ledger = Self::begin(database, schema)?;
        import::earlier_log(&ledger, directory)?;
        Ok(ledger)
    }

    /// Opens the database in `directory`, where there must be one.
    pub(crate) fn existing(directory: &Path) -> Result<Self, LedgerError> {
        let path = directory.join(FILE);
        if path.exists() { Self::open(Some(directory), Schema::NEWEST) } else { Err(LedgerError::Absent { path }) }
    }

    fn begin(database: Database, schema: Schema) -> Result<Self, LedgerError> {
        let ledger = Self { database, schema };
        ledger.write(|state| {
            state.begin()?;
            Ok::<_, LedgerError>(())
        })?;
        Ok(ledger)
    }

    /// Decides `order`; a new decision is in the database, synced, when this returns. With `read_only` there is none.
    pub(crate) fn decide(
        &self,
        order: &Order,
        limits: Limits,
        handled_by: Option<&str>,
        read_only: bool,
    ) -> Result<Verdict, LedgerError> {
        // Both copies decide by the price that is kept, whichever form it is kept in.
        let order = order.rounded();
        self.write(|state| {
            let past = Past {
                known: state.known(&order.id)?,
                highest: state.highest(order.fence())?,
                holdings: state.holdings()?,
            };
            let verdict = decide(&order, &past, limits, handled_by);
            match &verdict {
                Verdict::Decided(_) if read_only => Ok(Verdict::ReadOnly),
                Verdict::Decided(record) => {
                    state.add(record)?;
                    Ok(verdict)
                }
                _ => Ok(verdict),
            }
        })
    }

    /// Who can read the state as it is now.
    pub(crate) fn compat(&self) -> Result<Compat, LedgerError> {
        self.read(|state| Ok(state.compat()))
    }

    /// Drops what only versions before this one need. Services of this version go on meanwhile; older ones refuse.
    pub(crate) fn contract(&self) -> Result<Compat, LedgerError> {
        self.write(|state| {
            if self.schema < Schema::NEWEST {
                return Err(LedgerError::CannotContract { known: self.schema.number() });
            }
            state.contract()
        })
    }

    /// What is held.
    pub(crate) fn holdings(&self) -> Result<Holdings, LedgerError> {
        self.read(Reading::holdings)
    }

    /// At most `limit` orders after the one numbered `since`.
    pub(crate) fn orders(&self, since: u64, limit: usize) -> Result<Orders, LedgerError> {
        self.read(|state| {
            let total = state.last()?;
            let records: Vec<Record> = state.records(since.saturating_add(1))?.take(limit).collect::<Result<_, _>>()?;
            let next = since.min(total) + u64::try_from(records.len()).expect("a page fits 64 bits");
            Ok(Orders { records, total, next })
        })
    }

    /// Hands every decision of one moment to `each`, with its number.
    fn each<E: From<LedgerError>>(&self, each: &mut impl FnMut(u64, Record) -> Result<(), E>) -> Result<(), E> {
        self.read(|state| {
            for (number, record) in (1..).zip(state.records(1)?) {
                each(number, record?)?;
            }
            Ok(())
        })
    }

    /// Reads every page and compares its checksum. Nothing is decided meanwhile, by no process.
    fn check_pages(&mut self) -> Result<(), LedgerError> {
        if self.database.check_integrity().map_err(failed("check the pages"))? {
            Ok(())
        } else {
            Err(LedgerError::Repaired)
        }
    }

    /// Runs `work` on a snapshot.
    fn read<T, E: From<LedgerError>>(&self, work: impl FnOnce(&Reading) -> Result<T, E>) -> Result<T, E> {
        let transaction = self.database.begin_read().map_err(failed("begin to read"))?;
        work(&Reading::new(&transaction, self.schema)?)
    }

    /// Runs `work` alone over all processes. What it has written stands, synced, when this returns; after an error, and
    /// when it has written nothing, nothing is changed.
    fn write<T, E: From<LedgerError>>(&self, work: impl FnOnce(&mut Writing) -> Result<T, E>) -> Result<T, E> {
        let transaction = self.database.begin_write().map_err(failed("begin to write"))?;
        let (done, changed) = {
            let mut state = Writing::new(&transaction, self.schema)?;
            (work(&mut state)?, state.changed())
        };
        if changed {
            transaction.commit().map_err(failed("commit"))?;
        } else {
            transaction.abort().map_err(failed("end a transaction"))?;
        }
        Ok(done)
    }
}

/// Tells what failed in the database.
fn failed<E: Into<redb::Error>>(action: &'static str) -> impl FnOnce(E) -> LedgerError {
    move |error| LedgerError::Store { action, source: Box::new(error.into()) }
}
