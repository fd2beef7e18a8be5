//! A backup as one stream, a tar archive of its two files: for who has a pipe to the service and no directory with it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use super::backup::{MANIFEST, ORDERS};
use super::{BackupError, Ledger, Manifest, backup};

/// A stream that is longer is none of a backup: many times the orders of a year.
const LONGEST: u64 = 64 << 30;

/// Writes a backup to `to`; it is made in `work` first, a directory on the state's own disk, and removed there.
pub(crate) fn send(ledger: &Ledger, work: &Path, to: &mut impl Write) -> Result<Manifest, BackupError> {
    let directory = beside(work, "sending")?;
    let manifest = backup(ledger, directory.path())?;
    let mut archive = tar::Builder::new(to);
    for name in [ORDERS, MANIFEST] {
        archive.append_path_with_name(directory.path().join(name), name).map_err(streamed("write"))?;
    }
    archive.into_inner().and_then(Write::flush).map_err(streamed("write"))?;
    Ok(manifest)
}

/// Takes the backup that comes from `from` into a directory below `work`, which goes with what is returned.
pub(crate) fn receive(from: impl Read, work: &Path) -> Result<tempfile::TempDir, BackupError> {
    let directory = beside(work, "receiving")?;
    let mut from = from.take(LONGEST);
    let mut archive = tar::Archive::new(&mut from);
    for entry in archive.entries().map_err(streamed("read"))? {
        let mut entry = entry.map_err(streamed("read"))?;
        let name = entry.path().map_err(streamed("read"))?.to_string_lossy().into_owned();
        let known = [ORDERS, MANIFEST].into_iter().find(|known| *known == name);
        let known = known.ok_or_else(|| streamed("read")(io::Error::other(format!("it has a file `{name}`"))))?;
        let copied = File::create(directory.path().join(known)).and_then(|mut file| io::copy(&mut entry, &mut file));
        copied.map_err(streamed("read"))?;
    }
    // Whoever writes it must not see a closed pipe.
    io::copy(&mut from, &mut io::sink()).map_err(streamed("read"))?;
    Ok(directory)
}

/// A directory on the disk of `work`, which goes with what is returned. Its name begins with a dot and `what`.
pub(super) fn beside(work: &Path, what: &str) -> Result<tempfile::TempDir, BackupError> {
    let made =
        fs::create_dir_all(work).and_then(|()| tempfile::Builder::new().prefix(&format!(".{what}-")).tempdir_in(work));
    made.map_err(|source| BackupError::File { action: "make a directory in", path: work.to_owned(), source })
}

fn streamed(action: &'static str) -> impl Fn(io::Error) -> BackupError {
    move |source| BackupError::Stream { action, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Schema, verify};

    #[test]
    fn a_stream_is_the_backup_it_was_made_of_and_nothing_else_is_taken_from_it() {
        let work = tempfile::tempdir().expect("temporary directory");
        let ledger = Ledger::open(None, Schema::NEWEST).expect("opened");
        let mut stream = Vec::new();
        let sent = send(&ledger, work.path(), &mut stream).expect("sent");
        let received = receive(stream.as_slice(), work.path()).expect("received");
        assert_eq!(verify(received.path()).expect("whole"), sent);
        drop(received);
        assert!(fs::read_dir(work.path()).expect("read").next().is_none(), "nothing is left");

        let short = receive(&stream[..700], work.path()).expect_err("cut off");
        assert!(matches!(short, BackupError::Stream { action: "read", .. }), "{short}");
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        archive.append_data(&mut header, "elsewhere", io::empty()).expect("appended");
        let stray = receive(archive.into_inner().expect("written").as_slice(), work.path()).expect_err("a stray file");
        assert!(
            std::error::Error::source(&stray).is_some_and(|why| why.to_string().contains("`elsewhere`")),
            "{stray}"
        );
    }
}
