//! Orders of the time before the database: `orders.jsonl`, one decision per line, is taken over when a service starts.
//!
//! The file is left as it is, and how far it has been read is in the database, so that a copy which still writes to it
//! loses nothing: the next start takes over what has come since.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::{Ledger, LedgerError};
use crate::risk::Record;

/// Takes over what the order log in `directory` has beyond what was taken over before.
pub(super) fn earlier_log(ledger: &Ledger, directory: &Path) -> Result<(), LedgerError> {
    let path = directory.join("orders.jsonl");
    let mut log = match File::open(&path) {
        Ok(log) => log,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(LedgerError::File { action: "open the order log", path, source }),
    };
    ledger.write(|state| {
        let before = state.imported()?;
        // A writer of the log holds its lock until its line is whole and synced.
        let read = log.lock_shared().and_then(|()| log.seek(SeekFrom::Start(before))).and_then(|_| {
            let mut text = Vec::new();
            log.read_to_end(&mut text).map(|_| text)
        });
        let text =
            read.map_err(|source| LedgerError::File { action: "read the order log", path: path.clone(), source })?;
        let mut bytes = before;
        // A line without its end is of a process that died: never acknowledged.
        for line in text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            let mut record: Record = serde_json::from_slice(line).map_err(|source| LedgerError::DamagedLine {
                path: path.clone(),
                offset: bytes,
                source,
            })?;
            if state.known(&record.order.id)?.is_none() {
                // Whoever wrote the line knew nothing of what has been decided here meanwhile.
                let held = state.holdings()?.get(&record.order.instrument).map_or(0, |held| held.position);
                let change = if record.accepted { record.order.signed_quantity() } else { 0 };
                record.position = i32::try_from(i64::from(held) + change).unwrap_or(record.position);
                state.add(&record)?;
            }
            bytes += line.len() as u64;
        }
        if bytes > before {
            tracing::info!(bytes, "the orders of an earlier order log were taken over");
            state.set_imported(bytes)?;
        }
        Ok(())
    })
}
