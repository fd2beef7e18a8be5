//! The shared cache in a registry: one collection of blobs for each recorded output, under a tag that is made of the step's
//! fingerprint.
//!
//! Every byte is checked against its digest, an entry names the fingerprint that it is for, and what it brings goes only
//! where the output itself says, so an entry that somebody meddled with is found out, and the work is done instead. What
//! nobody can find out is an entry that was made wrong from the beginning: whoever may write to the repository is trusted
//! with what is built, which is why pull requests never write.
//!
//! Machines share with their like alone: what a builder attests it built, a builder of that name has built.

mod prune;

pub use prune::{Pruned, prune};

use plimsoll_core::{ByteSize, Digest, Fingerprint, ImageRef, Timestamp, config::SharedCache as Rules};
use plimsoll_engine::{Cx, Found, Kept, Leaf, SharedCache, StepError, write_atomically};
use plimsoll_oci::{BlobStore, Descriptor, RegistryClient, write_collection};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Component, Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

/// What kind of artifact an entry is.
const KIND: &str = "application/vnd.plimsoll.cache.v1";
/// The media type of the recorded output, the first blob of an entry.
const RECORD: &str = "application/vnd.plimsoll.cache.record.v1+json";
/// The media type of what an output stands for.
const LEAF: &str = "application/octet-stream";
/// The largest recorded output.
const MAX_RECORD: u64 = 4 * 1024 * 1024;
/// When an entry was made (OCI image specification, "Pre-Defined Annotation Keys").
const CREATED: &str = "org.opencontainers.image.created";
const TITLE: &str = "org.opencontainers.image.title";
/// Files that an output stands for lie below this directory, which is Plimsoll's own.
const OWN: &str = ".plimsoll";
/// Bytes in a second that a registry is believed to take before anything was sent to it.
const PACE: u64 = 8 * 1024 * 1024;
/// What is sent or fetched below this says nothing of the pace: it is all waiting.
const TELLING: u64 = 256 * 1024;

/// Whether a machine writes to the shared cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheAccess {
    /// It takes and gives.
    Write,
    /// It only takes, and why.
    ReadOnly(String),
}

/// The shared cache of a project, as one machine uses it.
#[derive(Clone)]
pub struct RegistryCache {
    client: RegistryClient,
    store: Arc<BlobStore>,
    repository: ImageRef,
    rules: Rules,
    access: CacheAccess,
    /// Who shares: the builder's id.
    scope: String,
    /// Bytes in a second, as last seen.
    pace: Arc<AtomicU64>,
}

/// The first blob of an entry.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    print: Fingerprint,
    kept: Kept,
}

impl RegistryCache {
    /// The cache in the repository that `rules` name, if they name one.
    pub fn new(
        client: RegistryClient,
        store: Arc<BlobStore>,
        rules: &Rules,
        access: CacheAccess,
        scope: String,
    ) -> Option<Self> {
        let (repository, rules) = (rules.repository.clone()?, rules.clone());
        Some(Self { client, store, repository, rules, access, scope, pace: Arc::new(AtomicU64::new(PACE)) })
    }

    fn image(&self, print: &Fingerprint) -> ImageRef {
        let key = Fingerprint::of_parts([self.scope.as_bytes(), print.as_bytes().as_slice()]);
        self.repository.tagged(&key.to_string())
    }

    fn is_too_old(&self, annotations: &BTreeMap<String, String>, now: Timestamp) -> bool {
        let made = annotations.get(CREATED).and_then(|at| Timestamp::try_from(at.clone()).ok());
        let age = made.map_or(i64::MAX, |made| now.as_millis().saturating_sub(made.as_millis()));
        age > i64::try_from(self.rules.max_age.millis()).unwrap_or(i64::MAX)
    }

    async fn look(&self, cx: &Cx, print: &Fingerprint) -> Result<Option<Entry>, StepError> {
        let image = self.image(print);
        let found = self.client.collection(&image).await.map_err(|e| StepError::of(&e))?;
        let Some((digest, view)) = found else { return Ok(None) };
        if self.is_too_old(&view.annotations, cx.now()) {
            cx.log("what the shared cache has is too old");
            return Ok(None);
        }
        let strange = |what: &str| Err(StepError::external(format!("{image} {what}")));
        let Some((record, leaves)) = view.layers.split_first().filter(|_| view.artifact_type.as_deref() == Some(KIND))
        else {
            return strange("is no entry of a cache");
        };
        let size = view.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
        if record.size > MAX_RECORD || size > self.rules.max_entry.get() {
            return strange("is larger than an entry may be");
        }
        let image = image.at(digest);
        self.client.fetch_blob(&image, record, &self.store).await.map_err(|e| StepError::of(&e))?;
        let bytes = self.store.read(&record.digest, MAX_RECORD).map_err(|e| StepError::of(&e))?;
        let Ok(record) = serde_json::from_slice::<Record>(&bytes) else { return strange("does not read as an entry") };
        if record.print != *print {
            return strange("is an entry for something else: its tag was moved");
        }
        Ok(Some(Entry { cache: self.clone(), image, kept: record.kept, leaves: leaves.to_vec() }))
    }

    async fn put(&self, cx: &Cx, print: &Fingerprint, kept: &Kept, leaves: &[Leaf]) -> Result<(), StepError> {
        if let CacheAccess::ReadOnly(why) = &self.access {
            cx.log(&format!("not given to the shared cache: {why}"));
            return Ok(());
        }
        let sizes = leaves.iter().map(|leaf| self.size(cx, leaf)).collect::<Result<Vec<_>, _>>()?;
        let size = sizes.into_iter().fold(0, u64::saturating_add);
        if let Some(why) = not_worth(size, kept.millis, self.pace.load(Ordering::Relaxed), self.rules.max_entry) {
            cx.note(format!("not given to the shared cache: {why}"));
            return Ok(());
        }
        let (store, root, leaves) = (Arc::clone(&self.store), cx.root().to_owned(), leaves.to_vec());
        let record = Record { print: *print, kept: kept.clone() };
        let annotations = [(CREATED, cx.now().to_string()), (TITLE, kept.step.to_string())];
        let annotations = annotations.map(|(key, value)| (key.to_owned(), value)).into();
        let written = cx.blocking(move || write(&store, &root, &record, &leaves, &annotations)).await??;
        let begun = Instant::now();
        let sent = self.client.push_index(&self.store, &written.digest, &self.image(print), &|_| {}).await;
        let sent = sent.map_err(|e| StepError::of(&e))?;
        self.saw(sent.bytes_sent, begun);
        cx.log(&format!("given to the shared cache: {} bytes", sent.bytes_sent));
        Ok(())
    }

    /// Remembers how fast it went.
    fn saw(&self, bytes: u64, begun: Instant) {
        let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        if bytes >= TELLING {
            self.pace.store(bytes.saturating_mul(1_000) / millis, Ordering::Relaxed);
        }
    }

    fn size(&self, cx: &Cx, leaf: &Leaf) -> Result<u64, StepError> {
        match leaf {
            Leaf::Blob(digest) => self.store.size(digest).map_err(|e| StepError::of(&e)),
            Leaf::File(path) => {
                let meta = fs::metadata(own(cx.root(), path)?);
                meta.map(|meta| meta.len()).map_err(|e| unreadable(path, &e))
            }
        }
    }
}

impl SharedCache for RegistryCache {
    fn find<'a>(
        &'a self,
        cx: &'a Cx,
        print: &'a Fingerprint,
    ) -> futures_util::future::BoxFuture<'a, Result<Option<Arc<dyn Found>>, StepError>> {
        Box::pin(async move { Ok(self.look(cx, print).await?.map(|entry| Arc::new(entry) as Arc<dyn Found>)) })
    }

    fn give<'a>(
        &'a self,
        cx: &'a Cx,
        print: &'a Fingerprint,
        kept: &'a Kept,
        leaves: &'a [Leaf],
    ) -> futures_util::future::BoxFuture<'a, Result<(), StepError>> {
        Box::pin(self.put(cx, print, kept, leaves))
    }
}

/// An entry that was found.
struct Entry {
    cache: RegistryCache,
    image: ImageRef,
    kept: Kept,
    leaves: Vec<Descriptor>,
}

impl Entry {
    async fn fetch(&self, cx: &Cx, leaves: &[Leaf]) -> Result<(), StepError> {
        let Self { cache, image, .. } = self;
        if leaves.len() != self.leaves.len() {
            return Err(StepError::external(format!("{image} does not have what its output stands for")));
        }
        let begun = Instant::now();
        for (leaf, blob) in leaves.iter().zip(&self.leaves) {
            if matches!(leaf, Leaf::Blob(digest) if *digest != blob.digest) {
                return Err(StepError::external(format!("{image} has another blob than its output stands for")));
            }
            cache.client.fetch_blob(image, blob, &cache.store).await.map_err(|e| StepError::of(&e))?;
            if let Leaf::File(path) = leaf {
                let (to, bytes) = (own(cx.root(), path)?, cache.store.read(&blob.digest, blob.size));
                let bytes = bytes.map_err(|e| StepError::of(&e))?;
                write_atomically(&to, &bytes)
                    .map_err(|e| StepError::external(format!("cannot write {}", path.display())).caused_by(&e))?;
            }
        }
        cache.saw(self.leaves.iter().map(|blob| blob.size).sum(), begun);
        Ok(())
    }
}

impl Found for Entry {
    fn kept(&self) -> &Kept {
        &self.kept
    }

    fn bring<'a>(
        &'a self,
        cx: &'a Cx,
        leaves: &'a [Leaf],
    ) -> futures_util::future::BoxFuture<'a, Result<(), StepError>> {
        Box::pin(self.fetch(cx, leaves))
    }
}

/// Why so many bytes are not worth giving away that took so long to make, at a pace in bytes a second.
fn not_worth(size: u64, millis: u64, pace: u64, most: ByteSize) -> Option<String> {
    if size > most.get() {
        return Some(format!("{size} bytes are more than the {most} of one entry"));
    }
    let expected = size.saturating_mul(1_000) / pace.max(1);
    let longer =
        format!("{size} bytes would take {expected} ms to send, at {pace} bytes/s, and took {millis} ms to make");
    (expected > millis).then_some(longer)
}

/// A file that an output stands for: below Plimsoll's own directory, whatever the output says.
fn own(root: &Path, path: &Path) -> Result<PathBuf, StepError> {
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    if plain && path.starts_with(OWN) {
        return Ok(root.join(path));
    }
    Err(StepError::external(format!("{} does not lie in {OWN}", path.display())))
}

fn unreadable(path: &Path, error: &io::Error) -> StepError {
    StepError::external(format!("cannot read {}", path.display())).caused_by(error)
}

/// Writes an entry into the store.
fn write(
    store: &BlobStore,
    root: &Path,
    record: &Record,
    leaves: &[Leaf],
    annotations: &BTreeMap<String, String>,
) -> Result<Descriptor, StepError> {
    let bytes = serde_json::to_vec(record).expect("a record is plain data");
    let digest = store.put(&bytes).map_err(|e| StepError::of(&e))?;
    let mut blobs = vec![Descriptor::new(RECORD, digest, bytes.len() as u64)];
    for leaf in leaves {
        let (digest, size): (Digest, u64) = match leaf {
            Leaf::Blob(digest) => (digest.clone(), store.size(digest).map_err(|e| StepError::of(&e))?),
            Leaf::File(path) => {
                let mut file = File::open(own(root, path)?).map_err(|e| unreadable(path, &e))?;
                let mut writer = store.writer().map_err(|e| StepError::of(&e))?;
                io::copy(&mut file, &mut writer).map_err(|e| unreadable(path, &e))?;
                writer.finish().map_err(|e| StepError::of(&e))?
            }
        };
        blobs.push(Descriptor::new(LEAF, digest, size));
    }
    write_collection(store, KIND, &blobs, annotations).map_err(|e| StepError::of(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_longer_to_send_than_to_make_is_not_given_away() {
        let most = ByteSize::new(1_000_000);
        assert_eq!(not_worth(100_000, 1_000, 100_000, most), None);
        let why = not_worth(100_001, 1_000, 100_000, most).or_else(|| not_worth(200_000, 1_000, 100_000, most));
        assert!(why.unwrap().contains("200000 bytes would take 2000 ms to send, at 100000 bytes/s, and took 1000 ms"));
        assert!(not_worth(1_000_001, u64::MAX, u64::MAX, most).unwrap().contains("more than the"));
    }

    #[test]
    fn an_entry_brings_nothing_outside_of_plimsolls_own_directory() {
        let root = Path::new("/w");
        assert_eq!(own(root, Path::new(".plimsoll/reports/a.xml")).unwrap(), Path::new("/w/.plimsoll/reports/a.xml"));
        for path in ["src/main.rs", ".plimsoll/../src/main.rs", "/etc/passwd", "../x", ""] {
            assert!(own(root, Path::new(path)).is_err(), "{path}");
        }
    }
}
