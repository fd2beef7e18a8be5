//! The registry's directory: which repository has which blobs, manifests, tags and referrers. Synchronous; the callers are on
//! blocking threads.

use super::{
    error::ApiError,
    turn::{Turn, Turns},
};
use crate::{
    BlobError, BlobStore, Descriptor, MAX_MANIFEST, ManifestView,
    blob_store::{sync_dir, write_atomically},
};
use axum::http::StatusCode;
use plimsoll_core::Digest;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Referrers of one manifest listed at most: signatures, bills of material and reports of one image are tens.
const MAX_REFERRERS: usize = 1000;
/// What a repository has: empty files named after blobs.
pub(super) const BLOBS: &str = "_blobs";
pub(super) const MANIFESTS: &str = "_manifests";
pub(super) const TAGS: &str = "_tags";
const REFERRERS: &str = "_referrers";
pub(super) const UPLOADS: &str = "_uploads";
/// The layout of the directory. Before the second one there was no such file, and every repository had all blobs.
const FORMAT: &str = "2\n";

pub(super) struct Storage {
    root: PathBuf,
    pub(super) blobs: BlobStore,
    turns: Turns,
}

/// A referrer as the referrers API lists it.
pub(super) struct Referrer {
    pub(super) descriptor: Descriptor,
    pub(super) view: ManifestView,
}

impl Storage {
    pub(super) fn open(root: PathBuf) -> Result<Self, BlobError> {
        let blobs = BlobStore::open(&root)?;
        let storage = Self { turns: Turns::of(&root), root, blobs };
        let format = storage.root.join("format");
        storage.upgrade(&format).map_err(|source| BlobError::Io { action: "upgrade", path: format, source })?;
        Ok(storage)
    }

    /// Gives repositories that have none links to the blobs their manifests name.
    fn upgrade(&self, format: &Path) -> io::Result<()> {
        let _alone = self.turns.alone()?;
        if format.exists() {
            return Ok(());
        }
        for repository in self.repositories()? {
            for digest in self.digests(&repository, MANIFESTS)? {
                let bytes = self.stored_manifest(&repository, &digest)?.unwrap_or_default();
                // What does not read is served to nobody, and keeps all blobs from being collected.
                let Ok(view) = ManifestView::parse(&bytes) else { continue };
                for blob in view.blobs() {
                    self.link(&repository, &blob.digest)?;
                }
            }
        }
        fs::write(format, FORMAT)
    }

    /// A turn of those who add.
    pub(super) fn shared(&self) -> Result<Turn, ApiError> {
        Ok(self.turns.shared()?)
    }

    /// A turn of those who remove.
    pub(super) fn alone(&self) -> Result<Turn, ApiError> {
        Ok(self.turns.alone()?)
    }

    /// A directory of a repository; both names are checked by the router.
    pub(super) fn dir(&self, repository: &str, kind: &str) -> PathBuf {
        self.root.join("repositories").join(repository).join(kind)
    }

    pub(super) fn link_path(&self, repository: &str, digest: &Digest) -> PathBuf {
        self.dir(repository, BLOBS).join(digest.hex())
    }

    pub(super) fn manifest_path(&self, repository: &str, digest: &Digest) -> PathBuf {
        self.dir(repository, MANIFESTS).join(digest.hex())
    }

    fn tag_path(&self, repository: &str, tag: &str) -> PathBuf {
        self.dir(repository, TAGS).join(tag)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), ApiError> {
        let dir = path.parent().expect("a file of the registry has a directory");
        fs::create_dir_all(dir)?;
        Ok(write_atomically(&self.root.join("tmp"), path, bytes)?)
    }

    /// The size of a blob that the repository has. Who asks may be about to name it: for a while it is not rubbish.
    pub(super) fn blob(&self, repository: &str, digest: &Digest) -> Result<u64, ApiError> {
        let unknown = || ApiError::absent("BLOB_UNKNOWN", format!("there is no blob {digest}"));
        if !renew(&self.link_path(repository, digest))? {
            // A process of an earlier version that still serves makes no links.
            let size = self.blobs.size(digest)?;
            let named = self.named(repository, &BTreeSet::new())?.is_some_and(|named| named.contains(digest));
            return if named { Ok(size) } else { Err(unknown()) };
        }
        Ok(self.blobs.size(digest)?)
    }

    /// Says that a manifest is wanted: who asks may be about to name it.
    pub(super) fn renew_manifest(&self, repository: &str, digest: &Digest) -> Result<(), ApiError> {
        renew(&self.manifest_path(repository, digest))?;
        Ok(())
    }

    /// Lets the repository have a blob whose bytes are here.
    pub(super) fn link(&self, repository: &str, digest: &Digest) -> io::Result<()> {
        let path = self.link_path(repository, digest);
        let dir = path.parent().expect("a link has a directory");
        fs::create_dir_all(dir)?;
        File::create(&path)?.set_modified(SystemTime::now())?;
        renew(&self.blobs.path(digest))?;
        File::open(dir)?.sync_all()
    }

    /// Lets a repository have a blob that another one has, or any if none is named; tells whether it has it now.
    pub(super) fn mount(&self, repository: &str, from: Option<&str>, digest: &Digest) -> Result<bool, ApiError> {
        let _turn = self.shared()?;
        let there = self.blobs.contains(digest) && from.is_none_or(|from| self.link_path(from, digest).is_file());
        if there {
            self.link(repository, digest)?;
        }
        Ok(there)
    }

    /// The digest a tag points at.
    pub(super) fn tag(&self, repository: &str, tag: &str) -> Result<Digest, ApiError> {
        let unknown = || ApiError::absent("MANIFEST_UNKNOWN", format!("there is no tag {tag}"));
        let text = fs::read_to_string(self.tag_path(repository, tag)).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => unknown(),
            _ => e.into(),
        })?;
        text.trim().parse().map_err(|_| unknown())
    }

    /// A manifest's bytes, verified.
    pub(super) fn manifest(&self, repository: &str, digest: &Digest) -> Result<Vec<u8>, ApiError> {
        let unknown = || ApiError::absent("MANIFEST_UNKNOWN", format!("there is no manifest {digest}"));
        let bytes = self.stored_manifest(repository, digest)?.ok_or_else(unknown)?;
        if digest.is_of(&bytes) {
            return Ok(bytes);
        }
        tracing::error!(%digest, "a stored manifest is damaged");
        Err(unknown())
    }

    /// Stores a manifest whose parts are all here, then lets `tags` point at it.
    pub(super) fn put_manifest(
        &self,
        repository: &str,
        digest: &Digest,
        tags: &[String],
        bytes: &[u8],
        view: &ManifestView,
    ) -> Result<(), ApiError> {
        let _turn = self.shared()?;
        let lacking = |d: &Descriptor| {
            let message = format!("the manifest names {}, which is not here", d.digest);
            ApiError::bad("MANIFEST_BLOB_UNKNOWN", message)
        };
        for blob in view.blobs().filter(|blob| blob.is_distributed()) {
            let size =
                self.blob(repository, &blob.digest).map_err(|e| if e.is_absence() { lacking(blob) } else { e })?;
            if size != blob.size {
                let message = format!("{} has {size} bytes, not {}", blob.digest, blob.size);
                return Err(ApiError::bad("SIZE_INVALID", message));
            }
        }
        for child in &view.manifests {
            if !renew(&self.manifest_path(repository, &child.digest))? {
                return Err(lacking(child));
            }
        }
        if let Some(subject) = &view.subject {
            renew(&self.manifest_path(repository, &subject.digest))?;
            self.write(&self.referrer_path(repository, &subject.digest, digest), b"")?;
        }
        self.write(&self.manifest_path(repository, digest), bytes)?;
        for tag in tags {
            self.write(&self.tag_path(repository, tag), digest.as_str().as_bytes())?;
        }
        Ok(())
    }

    fn referrer_path(&self, repository: &str, subject: &Digest, digest: &Digest) -> PathBuf {
        self.dir(repository, REFERRERS).join(subject.hex()).join(digest.hex())
    }

    /// What refers to `subject`, sorted by digest.
    pub(super) fn referrers(&self, repository: &str, subject: &Digest) -> Result<Vec<Referrer>, ApiError> {
        let digests = digests(&self.dir(repository, REFERRERS).join(subject.hex()))?;
        let mut referrers = Vec::new();
        for digest in digests.into_iter().take(MAX_REFERRERS) {
            // Of one whose push broke off there is only the name.
            let Ok(bytes) = self.manifest(repository, &digest) else { continue };
            let Ok(view) = ManifestView::parse(&bytes) else { continue };
            let descriptor = Descriptor::new(view.media_type(), digest, bytes.len() as u64);
            referrers.push(Referrer { descriptor, view });
        }
        Ok(referrers)
    }

    /// Removes a tag, and nothing it points at.
    pub(super) fn remove_tag(&self, repository: &str, tag: &str) -> Result<(), ApiError> {
        let _alone = self.alone()?;
        self.tag(repository, tag)?;
        remove(&self.tag_path(repository, tag))
    }

    /// Removes a manifest, the tags that point at it and its place among referrers.
    pub(super) fn remove_manifest(&self, repository: &str, digest: &Digest) -> Result<(), ApiError> {
        let _alone = self.alone()?;
        self.drop_manifest(repository, digest)
    }

    /// The same by who has the turn alone.
    pub(super) fn drop_manifest(&self, repository: &str, digest: &Digest) -> Result<(), ApiError> {
        let unknown = || ApiError::absent("MANIFEST_UNKNOWN", format!("there is no manifest {digest}"));
        // Also one that is damaged: it is to go.
        let view = ManifestView::parse(&self.stored_manifest(repository, digest)?.ok_or_else(unknown)?).ok();
        for tag in self.tags(repository)? {
            if self.tag(repository, &tag).is_ok_and(|d| d == *digest) {
                remove(&self.tag_path(repository, &tag))?;
            }
        }
        remove(&self.manifest_path(repository, digest))?;
        if let Some(subject) = view.and_then(|v| v.subject) {
            remove(&self.referrer_path(repository, &subject.digest, digest))?;
        }
        Ok(())
    }

    /// The tags, sorted. A repository nobody pushed to has no name yet.
    pub(super) fn tags(&self, repository: &str) -> Result<Vec<String>, ApiError> {
        if ![MANIFESTS, BLOBS].iter().any(|kind| self.dir(repository, kind).is_dir()) {
            return Err(ApiError::absent("NAME_UNKNOWN", "there is no such repository"));
        }
        Ok(names(&self.dir(repository, TAGS))?)
    }

    /// Takes a blob that no manifest names out of the repository. Its bytes go when rubbish is collected, if no other one
    /// has it.
    pub(super) fn remove_blob(&self, repository: &str, digest: &Digest) -> Result<(), ApiError> {
        let _alone = self.alone()?;
        let link = self.link_path(repository, digest);
        if !link.is_file() {
            return Err(ApiError::absent("BLOB_UNKNOWN", format!("there is no blob {digest}")));
        }
        if self.named(repository, &BTreeSet::new())?.is_none_or(|named| named.contains(digest)) {
            let message = format!("{digest} is part of a manifest");
            return Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "DENIED", message));
        }
        remove(&link)
    }

    /// The blobs that a repository's manifests name but those `without`, or nothing if one does not read: it may name
    /// anything.
    pub(super) fn named(&self, repository: &str, without: &BTreeSet<Digest>) -> io::Result<Option<BTreeSet<Digest>>> {
        let mut named = BTreeSet::new();
        for digest in self.digests(repository, MANIFESTS)?.into_iter().filter(|digest| !without.contains(digest)) {
            let Some(bytes) = self.stored_manifest(repository, &digest)? else { continue };
            let Ok(view) = ManifestView::parse(&bytes) else { return Ok(None) };
            named.extend(view.blobs().map(|blob| blob.digest.clone()));
        }
        Ok(Some(named))
    }

    /// A manifest's bytes as they lie there, unless it is gone.
    pub(super) fn stored_manifest(&self, repository: &str, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        match File::open(self.manifest_path(repository, digest)) {
            // What is longer than a manifest may be reads as none.
            Ok(file) => file.take(MAX_MANIFEST).read_to_end(&mut bytes).map(|_| Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All repositories, sorted.
    pub(super) fn repositories(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        below(&self.root.join("repositories"), "", &mut found)?;
        Ok(found)
    }

    /// The digests that files of a repository's directory are named after.
    pub(super) fn digests(&self, repository: &str, kind: &str) -> io::Result<Vec<Digest>> {
        digests(&self.dir(repository, kind))
    }
}

/// Collects the repositories below a directory. Its depth is bounded by the length of their names.
fn below(dir: &Path, prefix: &str, found: &mut Vec<String>) -> io::Result<()> {
    let all = names(dir)?;
    if !prefix.is_empty() && all.iter().any(|name| name.starts_with('_')) {
        found.push(prefix.to_owned());
    }
    for name in all.iter().filter(|name| !name.starts_with('_')) {
        let inner = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        below(&dir.join(name), &inner, found)?;
    }
    Ok(())
}

/// Says that a file is wanted now; tells whether it is there. On a directory that may only be read this is no failure.
fn renew(path: &Path) -> io::Result<bool> {
    match File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now())) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            Ok(path.is_file())
        }
        Err(error) => Err(error),
    }
}

/// Removes a file that may be gone.
pub(super) fn remove(path: &Path) -> Result<(), ApiError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(sync_dir(path.parent().unwrap_or(path))?),
    }
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other?,
    };
    let mut names: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

fn digests(dir: &Path) -> io::Result<Vec<Digest>> {
    Ok(names(dir)?.iter().filter_map(|name| Digest::from_hex(name)).collect())
}
