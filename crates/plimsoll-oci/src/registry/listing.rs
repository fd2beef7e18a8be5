//! What a registry's directory holds, for people.

use super::{
    RegistryError,
    storage::{MANIFESTS, Storage},
};
use crate::{BlobError, ManifestView};
use plimsoll_core::Digest;
use serde::Serialize;
use std::path::Path;

/// A repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repository {
    /// Its name.
    pub name: String,
    /// Its tags, sorted.
    pub tags: Vec<Tag>,
    /// How many manifests and indexes it has, those without a tag too.
    pub manifests: u64,
    /// The bytes of the blobs that its manifests name; other repositories may share them.
    pub bytes: u64,
}

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tag {
    /// Its name.
    pub name: String,
    /// What it points at.
    pub digest: Digest,
}

/// Lists the registry below `root`.
pub fn list(root: &Path) -> Result<Vec<Repository>, RegistryError> {
    let storage = Storage::open(root.to_owned())?;
    let io = |source| BlobError::Io { action: "list", path: root.to_owned(), source };
    let mut repositories = Vec::new();
    for name in storage.repositories().map_err(io)? {
        let tags = storage.tags(&name).unwrap_or_default().into_iter();
        let tags = tags.filter_map(|tag| Some(Tag { digest: storage.tag(&name, &tag).ok()?, name: tag })).collect();
        let digests = storage.digests(&name, MANIFESTS).map_err(io)?;
        let mut blobs = std::collections::BTreeMap::new();
        for digest in &digests {
            let bytes = storage.stored_manifest(&name, digest).map_err(io)?.unwrap_or_default();
            if let Ok(view) = ManifestView::parse(&bytes) {
                blobs.extend(view.blobs().map(|blob| (blob.digest.clone(), blob.size)));
            }
        }
        let (manifests, bytes) =
            (digests.len() as u64, blobs.values().fold(0, |sum: u64, size| sum.saturating_add(*size)));
        repositories.push(Repository { name, tags, manifests, bytes });
    }
    Ok(repositories)
}
