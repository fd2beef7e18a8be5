//! The registry's directory: manifests, tags and referrers. Synchronous; the callers are on blocking threads.

use super::error::ApiError;
use crate::{
    BlobError, BlobStore, Descriptor, MAX_MANIFEST, ManifestView,
    blob_store::{sync_dir, write_atomically},
};
use axum::http::StatusCode;
use plimsoll_core::Digest;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Referrers of one manifest listed at most: signatures, bills of material and reports of one image are tens.
const MAX_REFERRERS: usize = 1000;

pub(super) struct Storage {
    root: PathBuf,
    pub(super) blobs: BlobStore,
    /// Held while a manifest's blobs are looked up and it is written, and while a blob is deleted: else one could be
    /// deleted in between.
    links: Mutex<()>,
}

/// A referrer as the referrers API lists it.
pub(super) struct Referrer {
    pub(super) descriptor: Descriptor,
    pub(super) view: ManifestView,
}

impl Storage {
    pub(super) fn open(root: PathBuf) -> Result<Self, BlobError> {
        let blobs = BlobStore::open(&root)?;
        Ok(Self { root, blobs, links: Mutex::new(()) })
    }

    fn links(&self) -> MutexGuard<'_, ()> {
        // It guards no data of its own, so a panic elsewhere leaves nothing broken behind.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A directory of a repository; both names are checked by the router.
    pub(super) fn dir(&self, repository: &str, kind: &str) -> PathBuf {
        self.root.join("repositories").join(repository).join(kind)
    }

    fn manifest_path(&self, repository: &str, digest: &Digest) -> PathBuf {
        self.dir(repository, "_manifests").join(digest.hex())
    }

    fn tag_path(&self, repository: &str, tag: &str) -> PathBuf {
        self.dir(repository, "_tags").join(tag)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), ApiError> {
        let dir = path.parent().expect("a file of the registry has a directory");
        fs::create_dir_all(dir)?;
        Ok(write_atomically(&self.root.join("tmp"), path, bytes)?)
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
        let bytes = fs::read(self.manifest_path(repository, digest)).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => unknown(),
            _ => e.into(),
        })?;
        if Digest::of(&bytes) == *digest {
            return Ok(bytes);
        }
        tracing::error!(%digest, "a stored manifest is damaged");
        Err(unknown())
    }

    /// Stores a manifest whose parts are all here, then lets `tag` point at it.
    pub(super) fn put_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        bytes: &[u8],
        view: &ManifestView,
    ) -> Result<Digest, ApiError> {
        let digest = Digest::of(bytes);
        let _links = self.links();
        let lacking = |d: &Descriptor| {
            let message = format!("the manifest names {}, which is not here", d.digest);
            ApiError::bad("MANIFEST_BLOB_UNKNOWN", message)
        };
        for blob in view.blobs() {
            if self.blobs.size(&blob.digest).ok() != Some(blob.size) {
                return Err(lacking(blob));
            }
        }
        if let Some(child) = view.manifests.iter().find(|m| !self.manifest_path(repository, &m.digest).is_file()) {
            return Err(lacking(child));
        }
        self.write(&self.manifest_path(repository, &digest), bytes)?;
        if let Some(subject) = &view.subject {
            self.write(&self.referrer_path(repository, &subject.digest, &digest), b"")?;
        }
        if let Some(tag) = tag {
            self.write(&self.tag_path(repository, tag), digest.as_str().as_bytes())?;
        }
        Ok(digest)
    }

    fn referrer_path(&self, repository: &str, subject: &Digest, digest: &Digest) -> PathBuf {
        self.dir(repository, "_referrers").join(subject.hex()).join(digest.hex())
    }

    /// What refers to `subject`, sorted by digest.
    pub(super) fn referrers(&self, repository: &str, subject: &Digest) -> Result<Vec<Referrer>, ApiError> {
        let names = names(&self.dir(repository, "_referrers").join(subject.hex()))?;
        let mut referrers = Vec::new();
        for digest in names.iter().take(MAX_REFERRERS).filter_map(|hex| format!("sha256:{hex}").parse::<Digest>().ok())
        {
            let Ok(bytes) = self.manifest(repository, &digest) else { continue };
            let Ok(view) = ManifestView::parse(&bytes) else { continue };
            let descriptor = Descriptor::new(view.media_type(), digest, bytes.len() as u64);
            referrers.push(Referrer { descriptor, view });
        }
        Ok(referrers)
    }

    /// Removes a tag, and nothing it points at.
    pub(super) fn remove_tag(&self, repository: &str, tag: &str) -> Result<(), ApiError> {
        self.tag(repository, tag)?;
        remove(&self.tag_path(repository, tag))
    }

    /// Removes a manifest, the tags that point at it and its place among referrers.
    pub(super) fn remove_manifest(&self, repository: &str, digest: &Digest) -> Result<(), ApiError> {
        let _links = self.links();
        let view = ManifestView::parse(&self.manifest(repository, digest)?).ok();
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
        if !self.dir(repository, "_manifests").is_dir() {
            return Err(ApiError::absent("NAME_UNKNOWN", "there is no such repository"));
        }
        names(&self.dir(repository, "_tags"))
    }

    /// Removes a blob that no manifest names.
    pub(super) fn remove_blob(&self, digest: &Digest) -> Result<(), ApiError> {
        let _links = self.links();
        if is_named(&self.root.join("repositories"), digest)? {
            let message = format!("{digest} is part of a manifest");
            return Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "DENIED", message));
        }
        if self.blobs.remove(digest)? {
            Ok(())
        } else {
            Err(ApiError::absent("BLOB_UNKNOWN", format!("there is no blob {digest}")))
        }
    }
}

fn remove(path: &Path) -> Result<(), ApiError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(sync_dir(path.parent().unwrap_or(path))?),
    }
}

fn names(dir: &Path) -> Result<Vec<String>, ApiError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// Whether any manifest below `dir` names the blob. Its depth is bounded by the length of repository names.
fn is_named(dir: &Path, digest: &Digest) -> Result<bool, ApiError> {
    for name in names(dir)? {
        let path = dir.join(&name);
        if name == "_manifests" {
            for hex in names(&path)? {
                let file = path.join(hex);
                if file.metadata()?.len() > MAX_MANIFEST {
                    continue;
                }
                // One that does not read may name anything: keep the blob.
                let named = ManifestView::parse(&fs::read(file)?)
                    .map_or(true, |view| view.blobs().any(|blob| blob.digest == *digest));
                if named {
                    return Ok(true);
                }
            }
        } else if !name.starts_with('_') && path.is_dir() && is_named(&path, digest)? {
            return Ok(true);
        }
    }
    Ok(false)
}
