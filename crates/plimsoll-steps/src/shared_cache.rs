//! The shared cache in a registry: one collection of blobs for each recorded output, under a tag that is made of the step's
//! fingerprint.
//!
//! An entry is a signed statement that names the fingerprint and the builder, holds the output, and lists the digests of the
//! blobs beside it. Without a trusted key's signature nothing of it is believed, and what it brings goes only where the
//! step itself says: an entry that somebody else made, or meddled with, is found out, and the work is done instead. Whoever
//! holds the key is trusted with what is built, which is why the jobs of pull requests never write.
//!
//! Machines share with their like alone: what a builder attests it built, a builder of that name has built.

mod prune;

pub use prune::{Pruned, prune};

use crate::trust::Trust;
use futures_util::future::BoxFuture;
use plimsoll_attest::{BUNDLE, Bundle, SigningKey, Statement};
use plimsoll_core::{ByteSize, Digest, Fingerprint, ImageRef, Timestamp, config::SharedCache as Rules};
use plimsoll_engine::{Cx, Found, Kept, Leaf, SharedCache, StepError, write_atomically};
use plimsoll_oci::{BlobStore, ClientError, Descriptor, RegistryClient, write_collection};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// What kind of artifact an entry is.
const KIND: &str = "application/vnd.plimsoll.cache.v1";
/// The predicate of the statement that is the first blob of an entry.
const RECORD: &str = "urn:plimsoll:cache:v1";
/// The media type of what an output stands for.
const LEAF: &str = "application/octet-stream";
/// The largest recorded output.
const MAX_RECORD: u64 = 4 * 1024 * 1024;
/// When an entry was made (OCI image specification, "Pre-Defined Annotation Keys").
const CREATED: &str = "org.opencontainers.image.created";
const TITLE: &str = "org.opencontainers.image.title";
/// How far clocks may be apart, in milliseconds.
const AHEAD: i64 = 3_600_000;
/// Files that an output stands for are reports.
const OWN: &str = super::scan::REPORTS;
/// The largest of them.
const MAX_FILE: u64 = 64 * 1024 * 1024;
/// Bytes in a second that a registry is believed to take before anything was sent to it: a line of 64 Mbit/s.
const PACE: u64 = 8 * 1024 * 1024;
/// What the requests for one entry take besides its bytes, in milliseconds.
const REQUESTS: u64 = 500;
/// What is sent below this says nothing of the pace: it is all waiting.
const TELLING: u64 = 256 * 1024;
/// How long a registry may take to say what it has.
const FIND: Duration = Duration::from_secs(10);
/// How long the bytes of an entry may take at least; besides that, twice as long as making them took.
const MOVE: Duration = Duration::from_secs(30);

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
    /// Why it is not asked any more: each step would wait again for a registry that does not answer.
    off: Arc<OnceLock<String>>,
}

/// What the first blob of an entry says.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    print: Fingerprint,
    /// Who shares.
    scope: String,
    kept: Kept,
    /// The digests of the blobs beside it.
    leaves: Vec<Digest>,
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
        Some(Self {
            client,
            store,
            repository,
            rules,
            access,
            scope,
            pace: Arc::new(AtomicU64::new(PACE)),
            off: Arc::default(),
        })
    }

    fn image(&self, print: &Fingerprint) -> ImageRef {
        let key = Fingerprint::of_parts([self.scope.as_bytes(), print.as_bytes().as_slice()]);
        self.repository.tagged(&key.to_string())
    }

    /// An error of the registry. After one that says nothing of the entry nobody asks again.
    fn failed(&self, error: &ClientError) -> StepError {
        if error.is_transient() || matches!(error, ClientError::Denied { .. }) {
            // The first reason stays.
            let _ = self.off.set(error.to_string());
        }
        StepError::of(error)
    }

    /// Does something in a bounded time; a registry that takes longer is not asked again.
    async fn within<T>(
        &self,
        bound: Duration,
        work: impl Future<Output = Result<T, StepError>>,
    ) -> Result<T, StepError> {
        tokio::time::timeout(bound, work).await.unwrap_or_else(|_| {
            let slow = format!("{} took longer than {} s", self.repository, bound.as_secs());
            let _ = self.off.set(slow.clone());
            Err(StepError::external(slow))
        })
    }

    async fn look(&self, cx: &Cx, print: &Fingerprint) -> Result<Option<Entry>, StepError> {
        let image = self.image(print);
        let found = self.client.collection(&image).await.map_err(|e| self.failed(&e))?;
        let Some((digest, view)) = found else { return Ok(None) };
        if is_too_old(&view.annotations, &self.rules, cx.now()) {
            cx.log("what the shared cache has is too old");
            return Ok(None);
        }
        let strange = |what: &str| Err(StepError::external(format!("{image} {what}")));
        let Some((first, leaves)) = view.layers.split_first().filter(|_| view.artifact_type.as_deref() == Some(KIND))
        else {
            return strange("is no entry of a cache");
        };
        let size = leaves.iter().map(|leaf| leaf.size).fold(0, u64::saturating_add);
        if let Some(why) = too_large(first.size, size, self.rules.max_entry) {
            return strange(&why);
        }
        let image = image.at(digest);
        self.client.fetch_blob(&image, first, &self.store).await.map_err(|e| self.failed(&e))?;
        let bytes = self.store.read(&first.digest, MAX_RECORD).map_err(|e| StepError::of(&e))?;
        let statement = Bundle::open(&bytes, &cx.resource::<Trust>()?.keys()?);
        let statement = statement.map_err(|e| StepError::external(format!("{image} is not believed")).caused_by(&e))?;
        let record =
            (statement.predicate_type == RECORD).then(|| serde_json::from_value::<Record>(statement.predicate));
        let Some(Ok(record)) = record else { return strange("does not read as an entry") };
        if record.print != *print || record.scope != self.scope {
            return strange("is an entry for something else: its tag was moved");
        }
        if !record.leaves.iter().eq(leaves.iter().map(|leaf| &leaf.digest)) {
            return strange("has other blobs than its statement lists");
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
        if let Some(why) = not_worth(size, kept.millis, self.pace.load(Ordering::Relaxed)) {
            cx.log(&format!("not given to the shared cache: {why}"));
            return Ok(());
        }
        let key = cx.resource::<Trust>()?.signer()?;
        let (store, root, leaves) = (Arc::clone(&self.store), cx.root().to_owned(), leaves.to_vec());
        let annotations = [(CREATED, cx.now().to_string()), (TITLE, kept.step.to_string())];
        let annotations = annotations.map(|(key, value)| (key.to_owned(), value)).into();
        let record = Record { print: *print, scope: self.scope.clone(), kept: kept.clone(), leaves: Vec::new() };
        let most = self.rules.max_entry;
        let written = cx.blocking(move || write(&store, &root, record, &leaves, &annotations, &key, most)).await??;
        let written = match written {
            Ok(written) => written,
            Err(why) => {
                cx.note(format!("not given to the shared cache: it {why}"));
                return Ok(());
            }
        };
        let begun = Instant::now();
        let sent = self.client.push_index(&self.store, &written.digest, &self.image(print), &|_| {}).await;
        let sent = sent.map_err(|e| self.failed(&e))?;
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
    ) -> BoxFuture<'a, Result<Option<Arc<dyn Found>>, StepError>> {
        Box::pin(async move {
            if let Some(why) = self.off.get() {
                cx.log(&format!("the shared cache is not asked any more: {why}"));
                return Ok(None);
            }
            let found = self.within(FIND, self.look(cx, print)).await?;
            Ok(found.map(|entry| Arc::new(entry) as Arc<dyn Found>))
        })
    }

    fn give<'a>(
        &'a self,
        cx: &'a Cx,
        print: &'a Fingerprint,
        kept: &'a Kept,
        leaves: &'a [Leaf],
    ) -> BoxFuture<'a, Result<(), StepError>> {
        Box::pin(async move {
            if let Some(why) = self.off.get() {
                cx.log(&format!("not given to the shared cache: {why}"));
                return Ok(());
            }
            self.within(moving(kept), self.put(cx, print, kept, leaves)).await
        })
    }
}

/// How long the bytes of an entry may take.
fn moving(kept: &Kept) -> Duration {
    MOVE.max(Duration::from_millis(kept.millis.saturating_mul(2)))
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
        for (leaf, blob) in leaves.iter().zip(&self.leaves) {
            if matches!(leaf, Leaf::Blob(digest) if *digest != blob.digest) {
                return Err(StepError::external(format!("{image} has another blob than its output stands for")));
            }
            cache.client.fetch_blob(image, blob, &cache.store).await.map_err(|e| cache.failed(&e))?;
            if let Leaf::File(path) = leaf {
                let (to, store, blob) = (own(cx.root(), path)?, Arc::clone(&cache.store), blob.clone());
                let written = cx.blocking(move || {
                    let bytes = store.read(&blob.digest, MAX_FILE).map_err(|e| StepError::of(&e))?;
                    write_atomically(&to, &bytes)
                        .map_err(|e| StepError::external(format!("cannot write {}", to.display())).caused_by(&e))
                });
                written.await??;
            }
        }
        Ok(())
    }
}

impl Found for Entry {
    fn kept(&self) -> &Kept {
        &self.kept
    }

    fn bring<'a>(&'a self, cx: &'a Cx, leaves: &'a [Leaf]) -> BoxFuture<'a, Result<(), StepError>> {
        Box::pin(self.cache.within(moving(&self.kept), self.fetch(cx, leaves)))
    }
}

/// Whether an entry is older than the rules allow; one that says nothing of its age, or is of tomorrow, is.
fn is_too_old(annotations: &BTreeMap<String, String>, rules: &Rules, now: Timestamp) -> bool {
    let made = annotations.get(CREATED).and_then(|at| Timestamp::try_from(at.clone()).ok());
    let age = made.map(|made| now.as_millis().saturating_sub(made.as_millis()));
    let most = i64::try_from(rules.max_age.millis()).unwrap_or(i64::MAX);
    !age.is_some_and(|age| (-AHEAD..=most).contains(&age))
}

/// How an entry is larger than it may be: the statement, and all beside it.
fn too_large(record: u64, leaves: u64, most: ByteSize) -> Option<String> {
    let record =
        (record > MAX_RECORD).then(|| format!("has an output of {record} bytes, and {MAX_RECORD} is the most"));
    record.or_else(|| (leaves > most.get()).then(|| format!("has {leaves} bytes, more than the {most} of one entry")))
}

/// Why so many bytes are not worth giving away that took so long to make, at a pace in bytes a second.
fn not_worth(size: u64, millis: u64, pace: u64) -> Option<String> {
    let expected = REQUESTS + size.saturating_mul(1_000) / pace.max(1);
    let longer =
        format!("{size} bytes would take {expected} ms to send, at {pace} bytes/s, and took {millis} ms to make");
    (expected > millis).then_some(longer)
}

/// A file that an output stands for: a report, whatever the output says.
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

/// Writes an entry into the store, or says why it is none.
fn write(
    store: &BlobStore,
    root: &Path,
    mut record: Record,
    leaves: &[Leaf],
    annotations: &BTreeMap<String, String>,
    key: &SigningKey,
    most: ByteSize,
) -> Result<Result<Descriptor, String>, StepError> {
    let mut blobs = Vec::new();
    for leaf in leaves {
        let (digest, size) = match leaf {
            Leaf::Blob(digest) => (digest.clone(), store.size(digest).map_err(|e| StepError::of(&e))?),
            Leaf::File(path) => {
                let file = File::open(own(root, path)?).map_err(|e| unreadable(path, &e))?;
                let mut writer = store.writer().map_err(|e| StepError::of(&e))?;
                io::copy(&mut file.take(MAX_FILE), &mut writer).map_err(|e| unreadable(path, &e))?;
                writer.finish().map_err(|e| StepError::of(&e))?
            }
        };
        record.leaves.push(digest.clone());
        blobs.push(Descriptor::new(LEAF, digest, size));
    }
    let about = Digest::of(record.print.to_string().as_bytes());
    let predicate = serde_json::to_value(record).expect("a record is plain data");
    let bytes = Bundle::sign(key, &Statement::of(&about, RECORD, predicate)).to_bytes();
    let size = blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add);
    if let Some(why) = too_large(bytes.len() as u64, size, most) {
        return Ok(Err(why));
    }
    let first = Descriptor::new(BUNDLE, store.put(&bytes).map_err(|e| StepError::of(&e))?, bytes.len() as u64);
    blobs.insert(0, first);
    write_collection(store, KIND, &blobs, annotations).map(Ok).map_err(|e| StepError::of(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_longer_to_send_than_to_make_is_not_given_away() {
        // Its requests take half a second, and each 100,000 bytes one.
        assert_eq!(not_worth(100_000, 1_500, 100_000), None);
        let why = not_worth(200_000, 1_500, 100_000).unwrap();
        assert!(why.contains("200000 bytes would take 2500 ms to send, at 100000 bytes/s, and took 1500 ms"), "{why}");
        assert!(not_worth(0, 200, 100_000).is_some(), "a verdict that is had in a moment");
    }

    #[test]
    fn an_entry_has_a_size_an_age_and_nothing_but_reports() {
        let most = ByteSize::new(1_000);
        assert_eq!(too_large(MAX_RECORD, 1_000, most), None);
        assert!(too_large(MAX_RECORD + 1, 0, most).is_some() && too_large(0, 1_001, most).is_some());

        let (rules, now) = (Rules::default(), Timestamp::from_millis(1_782_864_000_000));
        let made = |hours: i64| {
            let at = Timestamp::from_millis(now.as_millis() - hours * 3_600_000).to_string();
            BTreeMap::from([(CREATED.to_owned(), at)])
        };
        assert!(!is_too_old(&made(0), &rules, now) && !is_too_old(&made(14 * 24), &rules, now));
        assert!(is_too_old(&made(14 * 24 + 1), &rules, now) && is_too_old(&made(-2), &rules, now));
        assert!(is_too_old(&BTreeMap::new(), &rules, now));

        let root = Path::new("/w");
        assert_eq!(own(root, Path::new(".plimsoll/reports/a.xml")).unwrap(), Path::new("/w/.plimsoll/reports/a.xml"));
        for path in [".plimsoll/steps.jsonl", ".plimsoll/reports/../steps.jsonl", "/etc/passwd", "../x", ""] {
            assert!(own(root, Path::new(path)).is_err(), "{path}");
        }
    }
}
