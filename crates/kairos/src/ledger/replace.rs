//! Putting a backup in the place of a state, whatever that is: for who lost it, or wants an earlier one.
//!
//! The new database is made beside the old one and renamed over it, so that a process that is killed leaves the one or the
//! other. What was there stays under another name. No service may be at work on the state meanwhile.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use jiff::Timestamp;

use super::stream::beside;
use super::{BackupError, FILE, Ledger, Manifest, Schema, restore, verify};

/// What the directory is called in which the new database is made.
const MAKING: &str = "restoring";

/// Replaces the state in `state` by the backup in `backup`.
pub(crate) fn replace(state: &Path, backup: &Path, now: Timestamp) -> Result<Manifest, BackupError> {
    verify(backup)?;
    let failed = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| BackupError::File { action, path, source }
    };
    fs::create_dir_all(state).map_err(failed("make the directory", state))?;
    // What one that was killed left: nobody else puts anything back now.
    for left in fs::read_dir(state).map_err(failed("read the directory", state))?.flatten() {
        if left.file_name().to_string_lossy().starts_with(&format!(".{MAKING}-")) {
            fs::remove_dir_all(left.path()).map_err(failed("remove", &left.path()))?;
        }
    }
    let making = beside(state, MAKING)?;
    let ledger = Ledger::open(Some(making.path()), Schema::NEWEST)?;
    let manifest = restore(&ledger, backup)?;
    // What an order log of before the database holds is in the past of this backup, or was not wanted any more.
    let log = fs::metadata(state.join("orders.jsonl")).map_or(0, |log| log.len());
    ledger.write(|state| state.set_imported(log).map_err(BackupError::from))?;
    drop(ledger);
    let (new, old) = (making.path().join(FILE), state.join(FILE));
    File::open(&new).and_then(|file| file.sync_all()).map_err(failed("sync", &new))?;
    let kept = state.join(format!("{}-{FILE}", now.strftime("replaced-%Y%m%dT%H%M%S%.3fZ")));
    match fs::hard_link(&old, &kept) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("keep", &old)(error)),
        _ => {}
    }
    fs::rename(&new, &old).map_err(failed("replace", &old))?;
    File::open(state).and_then(|directory| directory.sync_all()).map_err(failed("sync the directory", state))?;
    Ok(manifest)
}
