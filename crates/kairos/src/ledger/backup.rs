//! Backups: a directory with every decision of one moment as a line of `orders.jsonl`, and a `manifest.json` that is
//! written last and says what must be in it.
//!
//! A backup is a snapshot: orders go on while it is taken. Verifying replays every decision, so that a damage is told
//! by its file, its digests and the first record that is wrong; a restore does that before it writes anything, and
//! writes all in one transaction into an empty state.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::replay::Replay;
use super::{Ledger, LedgerError};
use crate::risk::Record;
use crate::state::{self, StateError};
use crate::telemetry;

/// Of the backup's own form.
const FORMAT: u32 = 1;
pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const ORDERS: &str = "orders.jsonl";
/// Many times the longest record; what is longer is no record.
const LONGEST_LINE: u64 = 16 * 1024;

/// Why there is no backup, why it is refused, or why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    #[error("{action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not empty: a backup needs a directory of its own", path.display())]
    Exists { path: PathBuf },
    #[error("{} has no {MANIFEST}: the backup was not finished", path.display())]
    Unfinished { path: PathBuf },
    #[error("{} is a backup of format {found}: this version reads format {FORMAT}", path.display())]
    Format { path: PathBuf, found: u32 },
    #[error("the backup's file {} is damaged: expected {expected}, found {found}", path.display())]
    Digest {
        path: PathBuf,
        expected: Sum,
        found: Sum,
        /// The first record that is wrong by itself; a change within its bounds is seen by the digest only.
        #[source]
        record: Option<Box<BackupError>>,
    },
    #[error("record {number} of {} is damaged", path.display())]
    Record {
        path: PathBuf,
        number: u64,
        #[source]
        source: serde_json::Error,
    },
    #[error("record {number} of {} is damaged: {reason}", path.display())]
    Wrong { path: PathBuf, number: u64, reason: String },
    #[error("{} tells {told} {what}, and {} has {found}", MANIFEST, ORDERS)]
    Count { what: &'static str, told: u64, found: u64 },
    #[error("the state holds {orders} orders already: a restore needs an empty one")]
    NotEmpty { orders: u64 },
    #[error("the state contradicts itself: {0}")]
    Contradiction(String),
    #[error("the backup {} is made, and an older one remains", made.display())]
    Remains {
        made: PathBuf,
        #[source]
        source: Box<BackupError>,
    },
    #[error("a stream has no date: leave out --keep-days")]
    Undated,
    #[error("{action} the stream of a backup")]
    Stream {
        action: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("write the manifest")]
    Manifest(#[source] StateError),
    #[error("read the manifest")]
    ReadManifest(#[source] StateError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// What a file must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sum {
    bytes: u64,
    sha256: String,
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes with sha256 {}", self.bytes, self.sha256)
    }
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    /// RFC 3339, UTC.
    created: String,
    /// The number of the last decision.
    last_sequence: u64,
    orders: u64,
    accepted: u64,
    /// Instruments that are held.
    positions: u64,
    #[serde(rename = "orders.jsonl")]
    file: Sum,
}

/// One line of the backup.
#[derive(Serialize, Deserialize)]
struct Line {
    number: u64,
    #[serde(flatten)]
    record: Record,
}

/// A digest of what is given to it, piece by piece.
#[derive(Default)]
struct Summing {
    bytes: u64,
    digest: Sha256,
}

impl Summing {
    fn add(&mut self, text: &[u8]) {
        self.bytes += text.len() as u64;
        self.digest.update(text);
    }

    fn sum(self) -> Sum {
        Sum { bytes: self.bytes, sha256: hex(&self.digest.finalize()) }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all that is written");
        text
    })
}

/// Writes a backup of the state into `directory`, which must be empty or absent.
pub(crate) fn backup(ledger: &Ledger, directory: &Path) -> Result<Manifest, BackupError> {
    let failed = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| BackupError::File { action, path, source }
    };
    fs::create_dir_all(directory).map_err(failed("make the directory", directory))?;
    if fs::read_dir(directory).map_err(failed("read the directory", directory))?.next().is_some() {
        return Err(BackupError::Exists { path: directory.to_owned() });
    }
    let path = directory.join(ORDERS);
    let mut file = BufWriter::new(File::create(&path).map_err(failed("create", &path))?);
    let (mut replay, mut summing) = (Replay::default(), Summing::default());
    let mut each = |number, record| {
        replay.next(number, &record).map_err(|reason| BackupError::Wrong { path: path.clone(), number, reason })?;
        let mut line =
            serde_json::to_vec(&Line { number, record }).expect("a record has string keys and finite numbers");
        line.push(b'\n');
        summing.add(&line);
        file.write_all(&line).map_err(failed("write", &path))
    };
    ledger.each(&mut each)?;
    file.flush().and_then(|()| file.get_ref().sync_all()).map_err(failed("write", &path))?;
    let manifest = Manifest {
        format: FORMAT,
        created: telemetry::now(),
        last_sequence: replay.orders,
        orders: replay.orders,
        accepted: replay.accepted,
        positions: replay.positions(),
        file: summing.sum(),
    };
    // Its rename also syncs the directory, with the entry of the other file.
    state::save(&directory.join(MANIFEST), &manifest).map_err(BackupError::Manifest)?;
    Ok(manifest)
}

/// Checks a backup wholly; each record is handed to `each` after it is found right by itself.
fn read(directory: &Path, mut each: impl FnMut(&Record) -> Result<(), BackupError>) -> Result<Manifest, BackupError> {
    let manifest: Option<Manifest> = state::load(&directory.join(MANIFEST)).map_err(BackupError::ReadManifest)?;
    let manifest = manifest.ok_or_else(|| BackupError::Unfinished { path: directory.to_owned() })?;
    if manifest.format != FORMAT {
        return Err(BackupError::Format { path: directory.to_owned(), found: manifest.format });
    }
    let path = directory.join(ORDERS);
    let failed = |source| BackupError::File { action: "read", path: path.clone(), source };
    let mut file = BufReader::new(File::open(&path).map_err(failed)?);
    let (mut replay, mut summing, mut wrong) = (Replay::default(), Summing::default(), None);
    // Bounded by the file; the whole of it is read also after a damage, to tell its digest.
    loop {
        let mut line = Vec::new();
        let read = io::Read::take(&mut file, LONGEST_LINE).read_until(b'\n', &mut line).map_err(failed)?;
        if read == 0 {
            break;
        }
        summing.add(&line);
        if wrong.is_none() {
            wrong = check(&path, &line, &mut replay).and_then(|record| each(&record)).err();
        }
    }
    let found = summing.sum();
    if found != manifest.file {
        let (expected, record) = (manifest.file, wrong.map(Box::new));
        return Err(BackupError::Digest { path, expected, found, record });
    }
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    let counts = [
        ("orders", manifest.orders, replay.orders),
        ("as last sequence", manifest.last_sequence, replay.orders),
        ("accepted", manifest.accepted, replay.accepted),
        ("positions", manifest.positions, replay.positions()),
    ];
    match counts.into_iter().find(|(_, told, found)| told != found) {
        Some((what, told, found)) => Err(BackupError::Count { what, told, found }),
        None => Ok(manifest),
    }
}

fn check(path: &Path, line: &[u8], replay: &mut Replay) -> Result<Record, BackupError> {
    let number = replay.orders + 1;
    let Line { number: told, record } =
        serde_json::from_slice(line).map_err(|source| BackupError::Record { path: path.to_owned(), number, source })?;
    match replay.next(told, &record) {
        Ok(()) => Ok(record),
        Err(reason) => Err(BackupError::Wrong { path: path.to_owned(), number, reason }),
    }
}

/// Checks the backup in `directory`.
pub(crate) fn verify(directory: &Path) -> Result<Manifest, BackupError> {
    read(directory, |_| Ok(()))
}

/// Puts the backup in `directory` into an empty state. Services that share it see it at once.
pub(crate) fn restore(ledger: &Ledger, directory: &Path) -> Result<Manifest, BackupError> {
    verify(directory)?;
    ledger.write(|state| {
        let orders = state.last()?;
        if orders > 0 {
            return Err(BackupError::NotEmpty { orders });
        }
        read(directory, |record| Ok(state.add(record)?))
    })
}
