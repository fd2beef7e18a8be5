//! A content-addressed directory: `blobs/<algorithm>/<hex>`, as in the OCI image layout.
//!
//! A blob is visible under its digest or not at all: it is written beside the others, synced and renamed. It is no cache:
//! nothing is dropped on its own, and no metadata is kept.

use plimsoll_core::{Algorithm, Classify, Digest, ErrorClass, Hasher};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use tempfile::NamedTempFile;

/// Unfinished writes older than this are leftovers of a killed process: no write takes that long.
const STALE: Duration = Duration::from_hours(24);

/// A directory of blobs. Cheap to clone; processes may share one.
#[derive(Debug, Clone)]
pub struct BlobStore {
    root: PathBuf,
}

/// What went wrong in a store of blobs.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The disk refused.
    #[error("cannot {action} `{path}`")]
    Io {
        /// The attempt, as a verb.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No such blob.
    #[error("there is no blob {digest}")]
    Absent {
        /// The digest looked for.
        digest: Digest,
    },
    /// The bytes are not those that were asked for.
    #[error("the bytes for {expected} have the digest {actual}")]
    WrongDigest {
        /// The digest asked for.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// More or fewer bytes than announced.
    #[error("{digest} should have {expected} bytes, not {actual}")]
    WrongSize {
        /// The digest asked for.
        digest: Digest,
        /// The announced size, in bytes.
        expected: u64,
        /// The size found, in bytes.
        actual: u64,
    },
}

impl Classify for BlobError {
    fn class(&self) -> ErrorClass {
        ErrorClass::External
    }
}

impl BlobError {
    fn io<'p>(action: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> Self + use<'p> {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

impl BlobStore {
    /// Opens the store below `root`, making it if it is not there.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, BlobError> {
        let store = Self { root: root.into() };
        for dir in [store.blob_dir(Algorithm::Sha256), store.temp_dir()] {
            make_dir(&dir)?;
        }
        sweep_stale(&store.temp_dir(), SystemTime::now());
        Ok(store)
    }

    /// The directory this store lies in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn blob_dir(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("blobs").join(algorithm.name())
    }

    fn temp_dir(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Where the blob lies, or would lie.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.blob_dir(digest.algorithm()).join(digest.hex())
    }

    /// Whether the blob is here.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// The blob's size in bytes.
    pub fn size(&self, digest: &Digest) -> Result<u64, BlobError> {
        let file = self.open_blob(digest)?;
        file.metadata().map(|m| m.len()).map_err(BlobError::io("measure", &self.path(digest)))
    }

    /// Opens the blob as it lies there; [`read`](Self::read) and [`verify`](Self::verify) check its bytes.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, BlobError> {
        let path = self.path(digest);
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BlobError::Absent { digest: digest.clone() }),
            other => other.map_err(BlobError::io("open", &path)),
        }
    }

    /// The blob's bytes, verified; refused when there are more than `limit`.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, BlobError> {
        let path = self.path(digest);
        let mut bytes = Vec::new();
        self.open_blob(digest)?
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(BlobError::io("read", &path))?;
        if bytes.len() as u64 > limit {
            let actual = self.size(digest)?;
            return Err(BlobError::WrongSize { digest: digest.clone(), expected: limit, actual });
        }
        expect_digest(digest, Digest::by(digest.algorithm(), &bytes))?;
        Ok(bytes)
    }

    /// Reads the whole blob and checks its digest; memory does not depend on its size. Gives its size in bytes.
    pub fn verify(&self, digest: &Digest) -> Result<u64, BlobError> {
        let mut file = self.open_blob(digest)?;
        let mut hasher = Hasher::by(digest.algorithm());
        let size = copy(&mut file, &mut hasher).map_err(BlobError::io("read", &self.path(digest)))?;
        expect_digest(digest, hasher.finish())?;
        Ok(size)
    }

    /// Stores `bytes`; storing what is there already changes nothing.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        self.put_by(Algorithm::Sha256, bytes)
    }

    /// The same with a digest by an algorithm.
    pub fn put_by(&self, algorithm: Algorithm, bytes: &[u8]) -> Result<Digest, BlobError> {
        let digest = Digest::by(algorithm, bytes);
        if self.contains(&digest) {
            return Ok(digest);
        }
        let mut writer = self.writer_by(algorithm)?;
        writer.write_all(bytes).map_err(BlobError::io("write", &self.temp_dir()))?;
        writer.finish().map(|(digest, _)| digest)
    }

    /// Begins a blob whose bytes come in pieces; its digest is a SHA-256 one.
    pub fn writer(&self) -> Result<BlobWriter, BlobError> {
        self.writer_by(Algorithm::Sha256)
    }

    /// Begins a blob that is to have a digest by an algorithm.
    pub fn writer_by(&self, algorithm: Algorithm) -> Result<BlobWriter, BlobError> {
        let dir = self.temp_dir();
        let file = NamedTempFile::new_in(&dir).map_err(BlobError::io("create a file in", &dir))?;
        Ok(BlobWriter { store: self.clone(), file, hasher: Hasher::by(algorithm), size: 0 })
    }

    /// Takes over the finished file at `path`, whose digest the caller has computed. It must lie on the same file system.
    pub(crate) fn adopt(&self, path: &Path, digest: &Digest) -> Result<(), BlobError> {
        let target = self.path(digest);
        make_dir(&self.blob_dir(digest.algorithm()))?;
        File::open(path).and_then(|f| f.sync_all()).map_err(BlobError::io("sync", path))?;
        fs::rename(path, &target).map_err(BlobError::io("rename to", &target))?;
        sync_dir(&self.blob_dir(digest.algorithm()))
    }

    /// Every blob's digest, sorted.
    pub fn list(&self) -> Result<Vec<Digest>, BlobError> {
        let mut digests = Vec::new();
        for dir in Algorithm::ALL.map(|algorithm| self.blob_dir(algorithm)) {
            let entries = match fs::read_dir(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(BlobError::io("list", &dir))?,
            };
            for entry in entries {
                let name = entry.map_err(BlobError::io("list", &dir))?.file_name();
                digests.extend(name.to_str().and_then(Digest::from_hex));
            }
        }
        digests.sort();
        Ok(digests)
    }

    /// Removes the blob; tells whether it was there.
    pub fn remove(&self, digest: &Digest) -> Result<bool, BlobError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(BlobError::io("remove", &path)(error)),
        }
    }
}

/// A blob that is being written. Dropped before [`finish`](Self::finish), it leaves nothing.
pub struct BlobWriter {
    store: BlobStore,
    file: NamedTempFile,
    hasher: Hasher,
    size: u64,
}

impl BlobWriter {
    /// Bytes written so far.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Makes the blob visible under its digest. Gives digest and size in bytes.
    pub fn finish(self) -> Result<(Digest, u64), BlobError> {
        let digest = self.hasher.finish();
        let target = self.store.path(&digest);
        // A second writer of the same bytes leaves the first one's file alone.
        if !target.is_file() {
            make_dir(&self.store.blob_dir(digest.algorithm()))?;
            persist(self.file, &target)?;
        }
        Ok((digest, self.size))
    }

    /// Makes the blob visible if it is the one announced; otherwise nothing stays.
    pub fn finish_as(self, expected: &Digest, size: Option<u64>) -> Result<u64, BlobError> {
        if let Some(expected_size) = size.filter(|size| *size != self.size) {
            let digest = expected.clone();
            return Err(BlobError::WrongSize { digest, expected: expected_size, actual: self.size });
        }
        expect_digest(expected, self.hasher.clone().finish())?;
        self.finish().map(|(_, size)| size)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let count = self.file.write(piece)?;
        self.hasher.update(&piece[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn expect_digest(expected: &Digest, actual: Digest) -> Result<(), BlobError> {
    if *expected == actual { Ok(()) } else { Err(BlobError::WrongDigest { expected: expected.clone(), actual }) }
}

fn make_dir(dir: &Path) -> Result<(), BlobError> {
    fs::create_dir_all(dir).map_err(BlobError::io("create", dir))
}

/// Copies with one buffer that is large beside a system call and small beside memory.
pub(crate) fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<u64> {
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => {
                to.write_all(&buffer[..count])?;
                total += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Syncs a finished temporary file, makes it readable for all, and renames it to `target`; the directory is synced too.
pub(crate) fn persist(file: NamedTempFile, target: &Path) -> Result<(), BlobError> {
    use std::os::unix::fs::PermissionsExt;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))
        .and_then(|()| file.as_file().sync_all())
        .map_err(BlobError::io("sync", target))?;
    file.persist(target).map_err(|e| BlobError::io("rename to", target)(e.error))?;
    sync_dir(target.parent().unwrap_or(target))
}

/// Writes a small file so that its old or its new content is seen, never a part.
pub(crate) fn write_atomically(temp_dir: &Path, target: &Path, bytes: &[u8]) -> Result<(), BlobError> {
    let mut file = NamedTempFile::new_in(temp_dir).map_err(BlobError::io("create a file in", temp_dir))?;
    file.write_all(bytes).map_err(BlobError::io("write", target))?;
    persist(file, target)
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), BlobError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(BlobError::io("sync", dir))
}

/// Removes leftovers of killed processes. Best effort: what stays is invisible and is swept the next time.
pub(crate) fn sweep_stale(dir: &Path, now: SystemTime) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|m| m.modified()).map(|at| now.duration_since(at).unwrap_or_default());
        if age.is_ok_and(|age| age > STALE) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, BlobStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        (dir, store)
    }

    fn files(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn a_blob_reads_back_under_its_digest() {
        let (_dir, store) = store();
        let digest = store.put(b"hello").unwrap();
        assert_eq!(digest, Digest::of(b"hello"));
        assert_eq!(store.put(b"hello").unwrap(), digest);
        assert_eq!(store.read(&digest, 5).unwrap(), b"hello");
        assert_eq!((store.size(&digest).unwrap(), store.verify(&digest).unwrap()), (5, 5));
        assert_eq!(store.list().unwrap(), std::slice::from_ref(&digest));
        assert!(store.remove(&digest).unwrap() && !store.remove(&digest).unwrap());
        assert!(matches!(store.read(&digest, 5), Err(BlobError::Absent { .. })));
    }

    #[test]
    fn an_unfinished_blob_is_not_visible_and_leaves_nothing() {
        let (dir, store) = store();
        let mut writer = store.writer().unwrap();
        writer.write_all(b"half").unwrap();
        assert_eq!(store.list().unwrap(), []);
        drop(writer);
        assert_eq!(files(&dir.path().join("tmp")), 0);
    }

    #[test]
    fn a_blob_that_is_not_the_announced_one_is_dropped() {
        let (dir, store) = store();
        let write = |bytes: &[u8]| {
            let mut writer = store.writer().unwrap();
            writer.write_all(bytes).unwrap();
            writer
        };
        let wanted = Digest::of(b"wanted");
        assert!(matches!(write(b"others").finish_as(&wanted, Some(6)), Err(BlobError::WrongDigest { .. })));
        assert!(matches!(write(b"wanted").finish_as(&wanted, Some(7)), Err(BlobError::WrongSize { .. })));
        assert_eq!((store.list().unwrap().len(), files(&dir.path().join("tmp"))), (0, 0));
        assert_eq!(write(b"wanted").finish_as(&wanted, None).unwrap(), 6);
    }

    #[test]
    fn a_tampered_blob_is_refused_when_it_is_read() {
        let (_dir, store) = store();
        let digest = store.put(b"hello").unwrap();
        fs::write(store.path(&digest), b"hullo").unwrap();
        assert!(matches!(store.read(&digest, 5), Err(BlobError::WrongDigest { .. })));
        assert!(matches!(store.verify(&digest), Err(BlobError::WrongDigest { .. })));
        assert!(matches!(store.read(&digest, 4), Err(BlobError::WrongSize { .. })));
    }

    #[test]
    fn leftovers_of_a_killed_process_are_swept_after_a_day() {
        let (dir, _store) = store();
        let temp = dir.path().join("tmp");
        fs::write(temp.join("left"), b"x").unwrap();
        sweep_stale(&temp, SystemTime::now());
        assert_eq!(files(&temp), 1);
        sweep_stale(&temp, SystemTime::now() + STALE + Duration::from_mins(1));
        assert_eq!(files(&temp), 0);
    }
}
