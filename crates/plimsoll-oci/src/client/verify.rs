//! Verify: every byte of an image as the registry has it now, read and thrown away; and artifacts, which are small, read whole.

use super::{ClientError, RegistryClient, Session, transfer_time};
use crate::{Descriptor, PlatformSpec};
use plimsoll_core::{Digest, Hasher, ImageRef};
use plimsoll_http::{Client, Method, Repeat, StatusCode, retry};
use std::collections::BTreeSet;

/// The largest artifact that is read into memory: bills of materials of thousands of packages fit.
const MAX_ARTIFACT: u64 = 8 * 1024 * 1024;
/// Manifests of one index: there are a dozen platforms, and some builders add one of attestations for each.
const MAX_MANIFESTS: usize = 100;
/// Bytes of one image's blobs, for all platforms: several times what one may have when it is unpacked.
const MAX_BYTES: u64 = 32 << 30;

/// An image whose every byte is as its digest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The index or manifest that the reference points at.
    pub digest: Digest,
    /// The manifests that an index names, with what they are for.
    pub platforms: Vec<(PlatformSpec, Digest)>,
    /// Bytes of blobs that were read.
    pub bytes: u64,
}

impl RegistryClient {
    /// Reads all that belongs to an image, for all platforms, and compares it with the digests that name it.
    pub async fn verify(&self, image: &ImageRef) -> Result<Verified, ClientError> {
        let session = self.session(image, "pull")?;
        let (found, view, _) = session.manifest(image.reference(), image.digest.as_ref(), None).await?;
        if view.manifests.len() > MAX_MANIFESTS {
            return Err(session.data("has an index of too many images"));
        }
        let mut platforms = Vec::new();
        let mut views = vec![view.clone()];
        for manifest in &view.manifests {
            let (_, view, _) =
                session.manifest(manifest.digest.as_str(), Some(&manifest.digest), Some(manifest.size)).await?;
            views.push(view);
            if let Some(platform) = &manifest.platform {
                platforms.push((platform.clone(), manifest.digest.clone()));
            }
        }
        let (mut read, mut bytes) = (BTreeSet::new(), 0);
        for blob in views.iter().flat_map(crate::ManifestView::blobs) {
            if read.insert(blob.digest.clone()) {
                bytes = blob.size.saturating_add(bytes);
                if bytes > MAX_BYTES {
                    return Err(session.data("has an image that is too large to be read"));
                }
                session.read(blob, None).await?;
            }
        }
        Ok(Verified { digest: found.digest, platforms, bytes })
    }

    /// The content of an artifact that has one layer, of at most 8 MiB.
    pub async fn artifact(&self, image: &ImageRef, artifact: &Digest) -> Result<Vec<u8>, ClientError> {
        let session = self.session(image, "pull")?;
        let (_, view, _) = session.manifest(artifact.as_str(), Some(artifact), None).await?;
        match view.layers.as_slice() {
            [only] => session.read(only, Some(MAX_ARTIFACT)).await,
            _ => Err(session.data("has an artifact of another number of layers than one")),
        }
    }
}

impl Session<'_> {
    /// Reads a blob and compares it with its digest; keeps its bytes if it has at most `keep`.
    async fn read(&self, blob: &Descriptor, keep: Option<u64>) -> Result<Vec<u8>, ClientError> {
        if keep.is_some_and(|limit| blob.size > limit) {
            return Err(self.data("has an artifact that is too large to be read"));
        }
        retry(&self.client.options.policy, ClientError::judge, || self.read_once(blob, keep.is_some())).await
    }

    async fn read_once(&self, blob: &Descriptor, keep: bool) -> Result<Vec<u8>, ClientError> {
        let (path, time) = (format!("blobs/{}", blob.digest), transfer_time(blob.size));
        let get = |s: &Self| Client::build(s.request(Method::GET, &path)?.timeout(time));
        let mut response = self.expect(self.send(Repeat::IfIdempotent, get).await?, StatusCode::OK).await?;
        let (mut hasher, mut kept, mut received) = (Hasher::by(blob.digest.algorithm()), Vec::new(), 0_u64);
        let url = response.url().clone();
        while let Some(piece) = response.chunk().await.map_err(|error| plimsoll_http::HttpError::broken(&url, error))? {
            received += piece.len() as u64;
            if received > blob.size {
                return Err(self.data("sends more bytes than the manifest announces"));
            }
            hasher.update(&piece);
            if keep {
                kept.extend_from_slice(&piece);
            }
        }
        if received != blob.size || hasher.finish() != blob.digest {
            return Err(self.data("sends other bytes than its digest says"));
        }
        Ok(kept)
    }
}
