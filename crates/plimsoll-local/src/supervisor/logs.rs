//! The files that replicas write to: opened for appending, kept small, read from the end.
//!
//! A replica holds its log itself and goes on writing when the supervisor dies; so a full log is copied aside and
//! emptied in place. Lines written in the microseconds between the two are lost.

use crate::supervisor::paths::create_parent;
use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// A log is moved aside at this size, in bytes.
pub(crate) const MAX_BYTES: u64 = 10 << 20;

/// Full logs kept beside the one written to, which makes three files of at most 10 MiB each.
const KEPT: u32 = 2;

/// The most bytes read for a tail: enough for a thousand long lines.
const TAIL_BYTES: u64 = 1 << 20;

/// Opens a log for a process to append to.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    create_parent(path)?;
    File::options().append(true).create(true).mode(0o600).open(path)
}

/// Moves the log aside when it has reached `limit`.
pub(crate) fn rotate(path: &Path, limit: u64) -> io::Result<bool> {
    match path.metadata() {
        Ok(meta) if meta.len() >= limit => {}
        Ok(_) => return Ok(false),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    }
    for n in (1..KEPT).rev() {
        match std::fs::rename(numbered(path, n), numbered(path, n + 1)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    std::fs::copy(path, numbered(path, 1))?;
    File::options().write(true).open(path)?.set_len(0)?;
    Ok(true)
}

fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    PathBuf::from(name)
}

/// The last `lines` lines of a log, oldest first; none when there is no log.
pub(crate) fn tail(path: &Path, lines: usize) -> Vec<String> {
    let mut found = read_end(path).unwrap_or_default();
    if found.len() < lines {
        // Just rotated: the lines before are in the newest full log.
        let mut before = read_end(&numbered(path, 1)).unwrap_or_default();
        before.append(&mut found);
        found = before;
    }
    found.split_off(found.len().saturating_sub(lines))
}

fn read_end(path: &Path) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // The first line may have lost its beginning.
    Ok(text.lines().skip(usize::from(start > 0)).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_full_log_moves_aside_and_its_writer_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/blue-0.log");
        let mut writer = open(&path).unwrap();
        for round in 0..4 {
            writeln!(writer, "round {round}").unwrap();
            assert!(!rotate(&path, 1000).unwrap());
            assert!(rotate(&path, 1).unwrap());
            assert_eq!(path.metadata().unwrap().len(), 0);
        }
        writeln!(writer, "after").unwrap();
        assert_eq!(tail(&path, 5), ["round 3", "after"]);
        assert_eq!(tail(&path, 1), ["after"]);
        assert!(numbered(&path, 2).exists() && !numbered(&path, 3).exists());
        assert_eq!(tail(&directory.path().join("none"), 5), [""; 0]);
    }
}
