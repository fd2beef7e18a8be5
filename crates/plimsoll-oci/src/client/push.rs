//! Push: blobs that are missing, then manifests, then the index, then the tag. So a tag never points at half an image.

use super::{ClientError, RegistryClient, Session, transfer_time};
use crate::{BlobStore, Descriptor, MAX_MANIFEST, ManifestView};
use futures_util::{StreamExt, TryStreamExt};
use plimsoll_core::{Digest, ImageRef, RetryPolicy};
use plimsoll_http::{Client, HttpError, Method, Repeat, Response, StatusCode, Url, file_body, header, retry};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

/// Blobs sent at once: enough to hide one's round trips behind another's bytes.
const CONCURRENT: usize = 3;
/// Bytes of one chunk where a blob cannot be sent in one piece.
const CHUNK: u64 = 16 * 1024 * 1024;

/// How often it is told how far a push is: a bar that moves, and no more events than that takes.
const TELL: Duration = Duration::from_millis(250);

/// What a push did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushReport {
    /// What the tag points at now.
    pub digest: Digest,
    /// Blobs that were sent.
    pub blobs_sent: u32,
    /// Blobs that were there.
    pub blobs_present: u32,
    /// Blobs that another repository of the registry had, and that were mounted from it.
    pub blobs_mounted: u32,
    /// Bytes of blobs that were sent, repetitions included.
    pub bytes_sent: u64,
    /// Requests, repetitions included and those for tokens apart.
    pub requests: u64,
}

/// What happens while pushing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushEvent {
    /// The registry has the blob already.
    BlobPresent(Descriptor),
    /// The registry took the blob over from another of its repositories.
    BlobMounted(Descriptor),
    /// The blob was sent.
    BlobSent(Descriptor),
    /// So many bytes of blobs went out, repetitions included, of so many that are to be sent; told a few times a second.
    Moving {
        /// Bytes that went out.
        bytes: u64,
        /// Bytes of blobs that the registry is not known to have.
        of: u64,
    },
    /// The manifest or index was sent.
    ManifestSent(Digest),
}

impl RegistryClient {
    /// Pushes the index (or the single manifest) `digest` of `store` and all it names, then lets the tag of `image` point at
    /// it. What the registry has is not sent again.
    pub async fn push_index(
        &self,
        store: &BlobStore,
        digest: &Digest,
        image: &ImageRef,
        progress: &(dyn Fn(PushEvent) + Send + Sync),
    ) -> Result<PushReport, ClientError> {
        let session = self.session(image, "pull,push")?;
        let contents = Contents::read(store, digest, &session)?;
        let [sent, present, mounted] = [const { AtomicU32::new(0) }; 3];
        let left = AtomicU64::new(contents.blobs.values().map(|blob| blob.size).sum());
        let blobs = futures_util::stream::iter(contents.blobs.into_values().map(|blob| {
            let (session, sent, present, mounted, left) = (&session, &sent, &present, &mounted, &left);
            async move {
                let size = blob.size;
                let (count, event) = match session.push_blob(store, &blob).await? {
                    Arrived::Before => (present, PushEvent::BlobPresent(blob)),
                    Arrived::Mounted => (mounted, PushEvent::BlobMounted(blob)),
                    Arrived::Sent => (sent, PushEvent::BlobSent(blob)),
                };
                if !matches!(event, PushEvent::BlobSent(_)) {
                    left.fetch_sub(size, Ordering::Relaxed);
                }
                count.fetch_add(1, Ordering::Relaxed);
                progress(event);
                Ok::<(), ClientError>(())
            }
        }))
        .buffer_unordered(CONCURRENT)
        .try_collect::<()>();
        tokio::select! {
            arrived = blobs => arrived?,
            () = session.tell(&left, progress) => {}
        }
        for (digest, media_type, bytes) in &contents.manifests {
            session.put_manifest(digest.as_str(), digest, media_type, bytes).await?;
            progress(PushEvent::ManifestSent(digest.clone()));
        }
        if let (Some(tag), Some((digest, media_type, bytes))) = (&image.tag, contents.manifests.last()) {
            session.put_manifest(tag, digest, media_type, bytes).await?;
        }
        Ok(PushReport {
            digest: digest.clone(),
            blobs_sent: sent.into_inner(),
            blobs_present: present.into_inner(),
            blobs_mounted: mounted.into_inner(),
            bytes_sent: session.bytes.load(Ordering::Relaxed),
            requests: session.requests.load(Ordering::Relaxed),
        })
    }
}

/// All that belongs to an index.
struct Contents {
    blobs: BTreeMap<Digest, Descriptor>,
    /// In the order they must be sent: what is named comes before what names it.
    manifests: Vec<(Digest, String, Vec<u8>)>,
}

impl Contents {
    fn read(store: &BlobStore, digest: &Digest, session: &Session<'_>) -> Result<Self, ClientError> {
        let (bytes, view) = session.local(store, digest)?;
        let mut contents = Self { blobs: BTreeMap::new(), manifests: Vec::new() };
        for child in &view.manifests {
            let (bytes, view) = session.local(store, &child.digest)?;
            contents.add(&child.digest, bytes, &view);
        }
        contents.add(digest, bytes, &view);
        Ok(contents)
    }

    fn add(&mut self, digest: &Digest, bytes: Vec<u8>, view: &ManifestView) {
        self.blobs.extend(view.blobs().map(|blob| (blob.digest.clone(), blob.clone())));
        self.manifests.push((digest.clone(), view.media_type().to_owned(), bytes));
    }
}

/// How a blob got into the repository.
pub(super) enum Arrived {
    Before,
    Mounted,
    Sent,
}

/// What a request for a blob's upload led to.
enum Begun {
    Mounted,
    Upload(Url),
}

impl Session<'_> {
    /// Tells how far it is, for as long as it is waited for.
    async fn tell(&self, left: &AtomicU64, progress: &(dyn Fn(PushEvent) + Send + Sync)) {
        loop {
            tokio::time::sleep(TELL).await;
            let (bytes, of) = (self.bytes.load(Ordering::Relaxed), left.load(Ordering::Relaxed));
            progress(PushEvent::Moving { bytes, of });
        }
    }

    /// A manifest of the store here, which is to be pushed.
    pub(super) fn local(&self, store: &BlobStore, digest: &Digest) -> Result<(Vec<u8>, ManifestView), ClientError> {
        let bytes = store.read(digest, MAX_MANIFEST)?;
        let view = ManifestView::parse(&bytes).map_err(|source| ClientError::Manifest {
            registry: "the local store".to_owned(),
            repository: self.image.repository.clone(),
            source,
        })?;
        Ok((bytes, view))
    }

    /// Sends a blob unless it is there, or can be taken over from another repository.
    pub(super) async fn push_blob(&self, store: &BlobStore, blob: &Descriptor) -> Result<Arrived, ClientError> {
        let attempts = AtomicU32::new(0);
        let arrived = retry(&self.client.options.policy, ClientError::judge, || {
            let attempt = attempts.fetch_add(1, Ordering::Relaxed);
            async move {
                // Also after a failure: the registry may have got all of it, and only its answer was lost.
                if self.has_blob(blob).await? {
                    return Ok(if attempt > 0 { Arrived::Sent } else { Arrived::Before });
                }
                let location = match self.begin(blob).await? {
                    Begun::Mounted => return Ok(Arrived::Mounted),
                    Begun::Upload(location) => location,
                };
                // What failed in one piece is tried in chunks, which can go on where they broke off.
                if attempt > 0 || !self.send_whole(store, blob, location.clone()).await? {
                    self.send_chunks(store, blob, location).await?;
                }
                Ok(Arrived::Sent)
            }
        })
        .await?;
        self.saw(&blob.digest);
        Ok(arrived)
    }

    /// Mounts a blob from a repository that is known to have it, or begins an upload.
    async fn begin(&self, blob: &Descriptor) -> Result<Begun, ClientError> {
        let Some(from) = self.seen_in(&blob.digest) else { return self.begin_upload().await.map(Begun::Upload) };
        let path = format!("blobs/uploads/?mount={}&from={from}", blob.digest);
        let post = |s: &Self| Client::build(s.request(Method::POST, &path)?.header(header::CONTENT_LENGTH, 0));
        let policy = &self.client.options.policy;
        // Twice is as once: a blob that is mounted already is mounted.
        match self.send_under(policy, Some(&from), Repeat::Always, post).await {
            Ok(response) if response.status() == StatusCode::CREATED => Ok(Begun::Mounted),
            Ok(response) if response.status() == StatusCode::ACCEPTED => self.location(&response).map(Begun::Upload),
            // Who may not read it there sends it; whatever else is wrong shows then, too.
            Ok(_) | Err(ClientError::Denied { .. }) => self.begin_upload().await.map(Begun::Upload),
            Err(error) => Err(error),
        }
    }

    async fn has_blob(&self, blob: &Descriptor) -> Result<bool, ClientError> {
        let path = format!("blobs/{}", blob.digest);
        let response = self.send(Repeat::IfIdempotent, |s| Client::build(s.request(Method::HEAD, &path)?)).await?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(ClientError::from_answer(response).await),
        }
    }

    async fn begin_upload(&self) -> Result<Url, ClientError> {
        // Twice is as once: an upload that nobody goes on with is dropped by the registry.
        let response = self
            .send(Repeat::Always, |s| {
                Client::build(s.request(Method::POST, "blobs/uploads/")?.header(header::CONTENT_LENGTH, 0))
            })
            .await?;
        let response = self.expect(response, StatusCode::ACCEPTED).await?;
        self.location(&response)
    }

    fn location(&self, response: &Response) -> Result<Url, ClientError> {
        let location = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
        location
            .and_then(|l| self.base.join(l).ok())
            .ok_or_else(|| self.data("accepts an upload but does not say where to"))
    }

    /// Sends the blob in one piece. `false`: the registry does not take it that way.
    async fn send_whole(&self, store: &BlobStore, blob: &Descriptor, location: Url) -> Result<bool, ClientError> {
        let response =
            self.send_part(store, blob, Method::PUT, with_digest(location, &blob.digest), 0, blob.size).await?;
        match response.status() {
            StatusCode::CREATED => Ok(true),
            StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::LENGTH_REQUIRED
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::NOT_IMPLEMENTED => Ok(false),
            _ => Err(ClientError::from_answer(response).await),
        }
    }

    /// Sends the blob in chunks, and goes on where the registry says that it is when one fails.
    async fn send_chunks(&self, store: &BlobStore, blob: &Descriptor, location: Url) -> Result<(), ClientError> {
        let (mut location, mut offset, mut furthest, mut failures) = (location, 0, 0, 0);
        while offset < blob.size {
            let length = CHUNK.min(blob.size - offset);
            let sent = self.send_part(store, blob, Method::PATCH, location.clone(), offset, length).await;
            match sent {
                Ok(response) if response.status() == StatusCode::ACCEPTED => {
                    location = self.location(&response)?;
                    offset += length;
                    furthest = offset.max(furthest);
                }
                Ok(response)
                    if !response.status().is_server_error()
                        && response.status() != StatusCode::RANGE_NOT_SATISFIABLE =>
                {
                    return Err(ClientError::from_answer(response).await);
                }
                Err(error) if !error.is_transient() => return Err(error),
                failed => {
                    failures += 1;
                    let held = self.upload_offset(location.clone()).await?.min(blob.size);
                    // A line that breaks again and again, and carries some of it each time, is a line.
                    if held > furthest {
                        (failures, furthest) = (0, held);
                    }
                    offset = held;
                    if failures >= self.client.options.policy.attempts {
                        return match failed {
                            Ok(response) => Err(ClientError::from_answer(response).await),
                            Err(error) => Err(error),
                        };
                    }
                }
            }
        }
        let end = with_digest(location, &blob.digest);
        let once = self.once();
        let response = self
            .send_under(&once, None, Repeat::IfIdempotent, |s| {
                Client::build(s.http.request(Method::PUT, end.clone()).header(header::CONTENT_LENGTH, 0))
            })
            .await?;
        self.expect(response, StatusCode::CREATED).await.map(drop)
    }

    /// The policy of requests that somebody above tries again; waits that the registry asks for are as long.
    fn once(&self) -> RetryPolicy {
        RetryPolicy { attempts: 1, ..self.client.options.policy }
    }

    /// How many bytes of an upload the registry has.
    async fn upload_offset(&self, location: Url) -> Result<u64, ClientError> {
        let response =
            self.send(Repeat::IfIdempotent, |s| Client::build(s.http.request(Method::GET, location.clone()))).await?;
        if matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE) {
            // It was restarted, or gave the upload up: another one may do.
            return Err(ClientError::Forgotten { registry: self.image.registry.clone() });
        }
        let response = self.expect(response, StatusCode::NO_CONTENT).await?;
        let range = response.headers().get(header::RANGE).and_then(|r| r.to_str().ok());
        let last = range.and_then(|r| r.trim_start_matches("bytes=").split_once('-')).and_then(|(_, l)| l.parse().ok());
        // `0-0` is written for no byte and for one; starting over at 0 is refused if it was one, and then a new upload begins.
        last.map(|last: u64| if last == 0 { 0 } else { last + 1 })
            .ok_or_else(|| self.data("does not say how far an upload is"))
    }

    /// Sends a part of a blob once; the bytes are counted as they go out.
    async fn send_part(
        &self,
        store: &BlobStore,
        blob: &Descriptor,
        method: Method,
        url: Url,
        offset: u64,
        length: u64,
    ) -> Result<Response, ClientError> {
        let path = store.path(&blob.digest);
        self.send_under(&self.once(), None, Repeat::IfIdempotent, |s| {
            let counter = Arc::clone(&s.bytes);
            let count = move |n: usize| {
                counter.fetch_add(n as u64, Ordering::Relaxed);
            };
            let body = file_body(&path, offset, length, count)?;
            let mut request = s
                .http
                .request(method.clone(), url.clone())
                .timeout(transfer_time(length))
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .header(header::CONTENT_LENGTH, length);
            if method == Method::PATCH {
                request = request.header(header::CONTENT_RANGE, format!("{offset}-{}", offset + length - 1));
            }
            Client::build(request.body(body))
        })
        .await
    }

    /// Sends a manifest; tells whether the registry lists it among the referrers of its subject.
    pub(super) async fn put_manifest(
        &self,
        reference: &str,
        digest: &Digest,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<bool, ClientError> {
        let path = format!("manifests/{reference}");
        let build = |s: &Self| -> Result<_, HttpError> {
            let request = s.request(Method::PUT, &path)?.header(header::CONTENT_TYPE, media_type);
            Client::build(request.body(bytes.to_vec()))
        };
        let response = self.send(Repeat::IfIdempotent, build).await?;
        let response = self.expect(response, StatusCode::CREATED).await?;
        let stored = response.headers().get("docker-content-digest").and_then(|d| d.to_str().ok());
        if stored.is_some_and(|stored| stored != digest.as_str()) {
            return Err(self.data("stored another manifest than was sent"));
        }
        Ok(response.headers().contains_key("oci-subject"))
    }
}

fn with_digest(mut location: Url, digest: &Digest) -> Url {
    location.query_pairs_mut().append_pair("digest", digest.as_str());
    location
}
