//! Who may change what the registry's directory links: those who add share a turn, those who remove have it alone. Between
//! processes too, so that rubbish is collected beside a registry that serves.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// The file that is locked.
#[derive(Debug, Clone)]
pub(super) struct Turns(PathBuf);

/// A turn; it ends with this value.
#[must_use]
pub(super) struct Turn {
    /// Its lock goes when it is closed.
    _file: File,
}

impl Turns {
    /// The turns of a registry's directory, which is there.
    pub(super) fn of(root: &Path) -> Self {
        Self(root.join("lock"))
    }

    fn file(&self) -> io::Result<File> {
        // Opened each time: a lock belongs to an open file, and two threads with one would share it.
        File::options().create(true).truncate(false).write(true).open(&self.0)
    }

    /// With others who add. What is seen to be there stays there meanwhile.
    pub(super) fn shared(&self) -> io::Result<Turn> {
        let file = self.file().or_else(|error| match error.kind() {
            // Where nothing can be written, reading is enough to share.
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => File::open(&self.0),
            _ => Err(error),
        })?;
        file.lock_shared()?;
        Ok(Turn { _file: file })
    }

    /// Alone. Short: everybody waits.
    pub(super) fn alone(&self) -> io::Result<Turn> {
        let file = self.file()?;
        file.lock()?;
        Ok(Turn { _file: file })
    }
}
