//! Pull: one platform of an image into a store, every byte verified.

use super::{ClientError, RegistryClient, Session, auth::is_hub, transfer_time};
use crate::{BlobError, BlobStore, Descriptor, MAX_MANIFEST};
use bytes::Bytes;
use plimsoll_core::{Digest, ImageRef, Platform};
use plimsoll_http::{Client, Method, Repeat, StatusCode, retry};
use serde::{Deserialize, Serialize};
use std::{io::Write, sync::atomic::Ordering};

/// Pieces waiting for the disk.
const AHEAD: usize = 4;

/// What a pull did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullReport {
    /// The index the reference pointed at, if it was one.
    pub index: Option<Digest>,
    /// The platform's manifest.
    pub manifest: Descriptor,
    /// Bytes of blobs received; those that were here are not fetched again.
    pub bytes_received: u64,
    /// Requests, repetitions included and those for tokens apart.
    pub requests: u64,
    /// The registry that it came from: its own, or a mirror.
    pub from: String,
}

#[derive(Deserialize)]
struct MadeFor {
    os: String,
    architecture: String,
}

impl RegistryClient {
    /// Pulls the image for `platform` into `store`: index, manifest, configuration and layers. An image by digest comes from the
    /// first of its registry's mirrors that has it; a mirror that has not, or does not answer, is passed over.
    pub async fn pull(
        &self,
        image: &ImageRef,
        platform: Platform,
        store: &BlobStore,
    ) -> Result<PullReport, ClientError> {
        for mirror in self.mirrors(image) {
            if let Ok(report) = self.pull_from(&mirror, platform, store).await {
                return Ok(report);
            }
        }
        self.pull_from(image, platform, store).await
    }

    /// The same image in the mirrors of its registry.
    fn mirrors(&self, image: &ImageRef) -> Vec<ImageRef> {
        let named = self.options.hosts.get(&image.registry).filter(|_| image.digest.is_some());
        let mirrors = named.map(|host| host.mirrors.as_slice()).unwrap_or_default();
        let owner = if is_hub(&image.registry) && !image.repository.contains('/') { "library/" } else { "" };
        let of = |mirror: &String| {
            let digest = image.digest.as_ref()?;
            format!("{}/{owner}{}@{digest}", mirror.trim_end_matches('/'), image.repository).parse().ok()
        };
        mirrors.iter().filter_map(of).collect()
    }

    async fn pull_from(
        &self,
        image: &ImageRef,
        platform: Platform,
        store: &BlobStore,
    ) -> Result<PullReport, ClientError> {
        let session = self.session(image, "pull")?;
        let none = || ClientError::Platform { image: image.to_string(), platform };
        let (mut found, mut view, mut bytes) = session.manifest(image.reference(), image.digest.as_ref(), None).await?;
        let mut index = None;
        if view.is_index() {
            store.put_by(found.digest.algorithm(), &bytes)?;
            let fits = |m: &&Descriptor| m.platform.as_ref().is_some_and(|p| p.is(platform));
            let chosen = view.manifests.iter().find(fits).ok_or_else(none)?.clone();
            index = Some(found.digest);
            (found, view, bytes) =
                session.manifest(chosen.digest.as_str(), Some(&chosen.digest), Some(chosen.size)).await?;
        }
        let config = view.config.clone().ok_or_else(|| session.data("has an index where an image should be"))?;
        session.fetch(store, &config).await?;
        let made: MadeFor = serde_json::from_slice(&store.read(&config.digest, MAX_MANIFEST)?)
            .map_err(|_| session.data("sends a configuration that does not read as one"))?;
        if made.os != "linux" || made.architecture != platform.architecture() {
            return Err(none());
        }
        for layer in &view.layers {
            session.fetch(store, layer).await?;
        }
        // Last, so that a manifest in the store is one whose parts are there.
        store.put_by(found.digest.algorithm(), &bytes)?;
        Ok(PullReport {
            index,
            manifest: found,
            bytes_received: session.bytes.load(Ordering::Relaxed),
            requests: session.requests.load(Ordering::Relaxed),
            from: image.registry.clone(),
        })
    }
}

impl Session<'_> {
    /// Fetches a blob unless it is here and sound. A broken transfer is tried again; wrong data is not.
    pub(super) async fn fetch(&self, store: &BlobStore, blob: &Descriptor) -> Result<(), ClientError> {
        let (here, wanted) = (store.clone(), blob.clone());
        let sound = tokio::task::spawn_blocking(move || here.verify(&wanted.digest).is_ok_and(|s| s == wanted.size));
        if sound.await.map_err(|_| ClientError::Cut)? {
            return Ok(());
        }
        // A damaged one would be taken for the one that comes.
        store.remove(&blob.digest)?;
        retry(&self.client.options.policy, ClientError::judge, || self.fetch_once(store, blob)).await
    }

    async fn fetch_once(&self, store: &BlobStore, blob: &Descriptor) -> Result<(), ClientError> {
        let path = format!("blobs/{}", blob.digest);
        let time = transfer_time(blob.size);
        let response =
            self.send(Repeat::IfIdempotent, |s| Client::build(s.request(Method::GET, &path)?.timeout(time))).await?;
        let mut response = self.expect(response, StatusCode::OK).await?;
        if response.content_length().is_some_and(|length| length != blob.size) {
            return Err(self.data("announces a blob of another size than the manifest does"));
        }
        let mut writer = store.writer_by(blob.digest.algorithm())?;
        let (tx, mut rx) = tokio::sync::mpsc::channel::<Bytes>(AHEAD);
        let (expected, path) = (blob.clone(), store.path(&blob.digest));
        let writing = tokio::task::spawn_blocking(move || {
            while let Some(piece) = rx.blocking_recv() {
                writer.write_all(&piece).map_err(|source| BlobError::Io {
                    action: "write",
                    path: path.clone(),
                    source,
                })?;
            }
            writer.finish_as(&expected.digest, Some(expected.size))
        });
        let mut received = 0;
        let url = response.url().clone();
        loop {
            match response.chunk().await {
                Ok(None) => break,
                Ok(Some(piece)) => {
                    received += piece.len() as u64;
                    self.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
                    if received > blob.size {
                        return Err(self.data("sends more bytes than the manifest announces"));
                    }
                    if tx.send(piece).await.is_err() {
                        break;
                    }
                }
                Err(error) => return Err(plimsoll_http::HttpError::broken(&url, error).into()),
            }
        }
        drop(tx);
        writing.await.map_err(|_| ClientError::Cut)??;
        Ok(())
    }
}
