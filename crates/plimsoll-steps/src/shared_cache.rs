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
mod rules;

pub use prune::{Pruned, prune};

use crate::trust::Trust;
use futures_util::future::BoxFuture;
use plimsoll_attest::{BUNDLE, Bundle, SigningKey, Statement};
use plimsoll_core::{ByteSize, Digest, Fingerprint, ImageRef, config::SharedCache as Rules};
use plimsoll_engine::{Cx, Found, Kept, Leaf, SharedCache, StepError, write_atomically};
use plimsoll_oci::{BlobStore, ClientError, Descriptor, RegistryClient, write_collection};
use rules::{MAX_RECORD, is_too_old, not_worth, own, too_large};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
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
/// When an entry was made (OCI image specification, "Pre-Defined Annotation Keys").
const CREATED: &str = "org.opencontainers.image.created";
const TITLE: &str = "org.opencontainers.image.title";
/// The largest report.
const MAX_FILE: u64 = 64 * 1024 * 1024;
/// Bytes in a second that a registry is believed to take before anything was sent to it: a line of 64 Mbit/s.
const PACE: u64 = 8 * 1024 * 1024;
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
