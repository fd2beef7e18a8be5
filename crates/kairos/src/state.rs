//! Small state files: replaced whole or not at all, even when the machine stops in between.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What could not be done with a state file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("read the state file {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("parse the state file {}", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("write the state file {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The state in `path`, or none when there is no such file.
pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| StateError::Parse { path: path.to_owned(), source }),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateError::Read { path: path.to_owned(), source }),
    }
}

/// Replaces the state in `path`; on return it survives a power cut.
pub(crate) fn save<T: Serialize>(path: &Path, value: &T) -> Result<(), StateError> {
    let text = serde_json::to_vec(value).expect("state has string keys and no failing serializer");
    replace(path, &text).map_err(|source| StateError::Write { path: path.to_owned(), source })
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    // The process id keeps two processes that share the directory out of each other's half-written file.
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(text)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&temporary, path));
    if renamed.is_err() {
        // Best effort: the error that counts is the one returned.
        let _ = fs::remove_file(&temporary);
    }
    renamed?;
    // The rename itself lives in the directory.
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_state_is_loaded_and_leaves_no_other_file() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("deep/state.json");
        assert_eq!(load::<Vec<u8>>(&path).expect("absent is fine"), None);
        save(&path, &vec![1, 2]).expect("saved");
        save(&path, &vec![3]).expect("replaced");
        assert_eq!(load::<Vec<u8>>(&path).expect("loaded"), Some(vec![3]));
        assert_eq!(fs::read_dir(path.parent().expect("parent")).expect("listed").count(), 1);
    }

    #[test]
    fn a_damaged_state_is_an_error_and_not_an_empty_state() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("state.json");
        fs::write(&path, "[1,").expect("written");
        assert!(matches!(load::<Vec<u8>>(&path), Err(StateError::Parse { .. })));
    }
}
