//! A directory of dated backups: each call makes one, and removes what is older than it should be.
//!
//! A backup is written and verified under a temporary name and then renamed, so that whatever bears a dated name is whole.
//! What is removed loses that name first, for the same reason. Everything else in the directory is left alone.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::Ledger;
use super::backup::{BackupError, Manifest, backup, verify};

/// Of a finished backup; the time is UTC.
const NAME: &str = "orders-%Y%m%dT%H%M%SZ";
/// After the name and a process id: not finished yet, or being removed.
const TEMPORARY: &str = ".tmp";
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// What was done.
#[derive(Debug, Serialize)]
pub(crate) struct Done {
    /// Where the backup is.
    made: PathBuf,
    /// Names of older backups, and of what was left of interrupted ones.
    removed: Vec<String>,
    manifest: Manifest,
}

/// What a name in the directory tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Finished(Timestamp),
    Leftover(Timestamp),
}

impl Entry {
    /// None for a name that is none of ours.
    fn of(name: &str) -> Option<Self> {
        let dated = |name: &str| {
            let at = DateTime::strptime(NAME, name).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
            // The parser takes `1` for `01`; we write no such name.
            (self::name(at) == name).then_some(at)
        };
        let Some(leftover) = name.strip_suffix(TEMPORARY) else { return dated(name).map(Self::Finished) };
        let (name, process) = leftover.rsplit_once('.')?;
        process.parse::<u32>().ok()?;
        dated(name).map(Self::Leftover)
    }

    /// Whether it goes. An interrupted backup is kept for a day, as it may be one that is still being made.
    fn is_too_old(self, now: Timestamp, days: u32) -> bool {
        match self {
            Self::Finished(at) => now.duration_since(at) > DAY * i32::try_from(days).unwrap_or(i32::MAX),
            Self::Leftover(at) => now.duration_since(at) > DAY,
        }
    }
}

fn name(at: Timestamp) -> String {
    at.strftime(NAME).to_string()
}

fn temporary(name: &str) -> String {
    format!("{name}.{}{TEMPORARY}", std::process::id())
}

/// Makes a backup in `directory`, named by `now`, and then removes backups older than `days`.
///
/// Without a new one that was found whole no backup is removed: the newest good one always stays.
pub(crate) fn backup_dated(ledger: &Ledger, directory: &Path, days: u32, now: Timestamp) -> Result<Done, BackupError> {
    fs::create_dir_all(directory).map_err(failed("make the directory", directory))?;
    let mut removed = Vec::new();
    // Before, as the new backup may need the room; whether that fails is told after it is made.
    let leftovers = |entry: Entry| matches!(entry, Entry::Leftover(_)) && entry.is_too_old(now, days);
    let first = remove(directory, leftovers, &mut removed);
    let (made, manifest) = make(ledger, directory, &name(now))?;
    let old = |entry: Entry| matches!(entry, Entry::Finished(_)) && entry.is_too_old(now, days);
    match first.and(remove(directory, old, &mut removed)) {
        Ok(()) => Ok(Done { made, removed, manifest }),
        Err(source) => Err(BackupError::Remains { made, source: Box::new(source) }),
    }
}

/// Makes a whole backup of that name, or none.
fn make(ledger: &Ledger, directory: &Path, name: &str) -> Result<(PathBuf, Manifest), BackupError> {
    let (unfinished, made) = (directory.join(temporary(name)), directory.join(name));
    // Another process of the same id, in another container, may be at it: what it makes is not ours to remove.
    fs::create_dir(&unfinished).map_err(failed("make the directory", &unfinished))?;
    let finished = backup(ledger, &unfinished).and_then(|_| verify(&unfinished)).and_then(|manifest| {
        fs::rename(&unfinished, &made).map_err(|source| match source.kind() {
            ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists => BackupError::Exists { path: made.clone() },
            _ => BackupError::File { action: "rename the finished backup to", path: made.clone(), source },
        })?;
        sync(directory)?;
        Ok(manifest)
    });
    if finished.is_err() {
        // Best effort: the error that counts is the one returned, and what remains goes after a day.
        let _ = fs::remove_dir_all(&unfinished);
    }
    Ok((made, finished?))
}

/// Removes all that `goes`; what cannot be removed hinders nothing else, and the first such failure is returned.
fn remove(directory: &Path, goes: impl Fn(Entry) -> bool, removed: &mut Vec<String>) -> Result<(), BackupError> {
    let mut names = Vec::new();
    let reading = failed("read the directory", directory);
    let listed = fs::read_dir(directory).and_then(|entries| {
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().into_string().ok();
            if let Some(name) = name.filter(|name| Entry::of(name).is_some_and(&goes))
                && entry.file_type()?.is_dir()
            {
                names.push(name);
            }
        }
        Ok(())
    });
    listed.map_err(reading)?;
    names.sort_unstable();
    let mut result = Ok(());
    for name in names {
        match remove_one(directory, &name) {
            Ok(()) => removed.push(name),
            // Another backup has removed it meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => result = result.and(Err(failed("remove", &directory.join(&name))(error))),
        }
    }
    result.and(sync(directory))
}

fn remove_one(directory: &Path, name: &str) -> io::Result<()> {
    let mut path = directory.join(name);
    if let Some(Entry::Finished(_)) = Entry::of(name) {
        let going = directory.join(temporary(name));
        fs::rename(&path, &going)?;
        path = going;
    }
    fs::remove_dir_all(path)
}

/// What was renamed in the directory is renamed after a power cut too.
fn sync(directory: &Path) -> Result<(), BackupError> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(failed("sync the directory", directory))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Schema;

    const NOW: &str = "2025-03-31T12:00:00Z";

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn ledger() -> Ledger {
        Ledger::open(None, Schema::NEWEST).expect("opened")
    }

    /// A directory with an empty directory of each name in it.
    fn with(names: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("temporary directory");
        for name in names {
            fs::create_dir(directory.path().join(name)).expect("made");
        }
        directory
    }

    fn names(directory: &tempfile::TempDir) -> Vec<String> {
        let entries = fs::read_dir(directory.path()).expect("read");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("read").file_name().into_string().expect("UTF-8")).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn only_names_as_we_write_them_are_ours() {
        let time = at("2025-03-01T02:17:09Z");
        for (name, expected) in [
            ("orders-20250301T021709Z", Some(Entry::Finished(time))),
            ("orders-20250301T021709Z.1.tmp", Some(Entry::Leftover(time))),
            ("orders-20250301T021709", None),
            ("orders-20250301T021709Z.tmp", None),
            ("orders-20250301T021709Z.x.tmp", None),
            ("orders-20250301T021709Z.bak", None),
            ("orders-20250230T021709Z", None),
            ("orders-202531T21709Z", None),
            ("my-orders-20250301T021709Z", None),
            ("lost+found", None),
        ] {
            assert_eq!(Entry::of(name), expected, "{name}");
        }
    }

    #[test]
    fn backups_go_after_the_days_and_leftovers_after_one_day_and_nothing_else_goes() {
        let stays = ["lost+found", "notes", "orders-20250301T120000Z", "orders-20250330T130000Z.7.tmp"];
        let goes = ["orders-20250301T115959Z", "orders-20250330T115959Z.7.tmp", "orders-20240101T000000Z.1.tmp"];
        let directory = with(&[&stays[..], &goes].concat());
        let file = "orders-20200101T000000Z";
        fs::write(directory.path().join(file), "a file is no backup").expect("written");

        let done = backup_dated(&ledger(), directory.path(), 30, at(NOW)).expect("made");
        assert_eq!(done.made, directory.path().join("orders-20250331T120000Z"));
        assert_eq!(verify(&done.made).expect("whole"), done.manifest);
        let mut removed = done.removed;
        removed.sort_unstable();
        assert_eq!(removed, ["orders-20240101T000000Z.1.tmp", goes[0], goes[1]]);
        let mut expected = [&stays[..], &[file, "orders-20250331T120000Z"]].concat();
        expected.sort_unstable();
        assert_eq!(names(&directory), expected);
    }

    #[test]
    fn without_a_new_backup_no_old_one_is_removed() {
        // One of this second is there already: the new one cannot get its name.
        let there = ["orders-20200101T000000Z", "orders-20250331T120000Z"];
        let directory = with(&there);
        fs::write(directory.path().join(there[1]).join("orders.jsonl"), "").expect("written");
        let refused = backup_dated(&ledger(), directory.path(), 1, at(NOW));
        assert!(matches!(&refused, Err(BackupError::Exists { path }) if path.ends_with(there[1])), "{refused:?}");
        assert_eq!(names(&directory), there, "nothing of the failed one remains either");
    }

    #[test]
    fn a_backup_that_another_process_of_this_id_is_making_is_left_to_it() {
        let theirs = temporary("orders-20250331T120000Z");
        let directory = with(&[&theirs]);
        let refused = backup_dated(&ledger(), directory.path(), 1, at(NOW));
        assert!(matches!(refused, Err(BackupError::File { action: "make the directory", .. })), "{refused:?}");
        assert_eq!(names(&directory), [theirs]);
    }

    #[test]
    fn a_day_after_day_series_keeps_its_days() {
        let directory = with(&[]);
        for day in 0..10_i32 {
            let done = backup_dated(&ledger(), directory.path(), 3, at(NOW) + DAY * day).expect("made");
            assert_eq!(done.removed.len(), usize::from(day >= 4), "{done:?}");
        }
        assert_eq!(
            names(&directory),
            [
                "orders-20250406T120000Z",
                "orders-20250407T120000Z",
                "orders-20250408T120000Z",
                "orders-20250409T120000Z"
            ]
        );
    }

    #[test]
    fn what_cannot_be_removed_is_told_and_hinders_nothing_else() {
        let old = ["orders-20200101T000000Z", "orders-20200102T000000Z"];
        let directory = with(&old);
        // A directory that is not empty stands where the first one would go on its way out.
        let way_out = directory.path().join(temporary(old[0]));
        fs::create_dir_all(way_out.join("full")).expect("made");
        let mut removed = Vec::new();
        let goes = |entry: Entry| matches!(entry, Entry::Finished(_));
        let error = remove(directory.path(), goes, &mut removed).expect_err("one remains");
        assert!(
            matches!(&error, BackupError::File { action: "remove", path, .. } if path.ends_with(old[0])),
            "{error:?}"
        );
        assert_eq!(removed, [old[1]]);
    }
}
