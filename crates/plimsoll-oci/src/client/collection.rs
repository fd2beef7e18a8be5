//! Collections: blobs that belong together under a tag and are no image, such as the recorded output of a step. And what keeps
//! a repository of them small: its tags, and their removal.

use super::{ClientError, RegistryClient, referrers::next_page};
use crate::{BlobStore, Descriptor, ManifestView};
use plimsoll_core::{Digest, ImageRef};
use plimsoll_http::{Client, Method, Repeat, StatusCode, read_limited};
use serde::Deserialize;

/// Pages of tags that are read, of a hundred or a thousand each.
const MAX_PAGES: usize = 1_000;
/// Tags of one repository: each is asked for by those who list them.
const MAX_TAGS: usize = 100_000;
/// Bytes of one page.
const MAX_PAGE: u64 = 4 * 1024 * 1024;

#[derive(Deserialize)]
struct Tags {
    /// Some registries send `null` for none.
    tags: Option<Vec<String>>,
}

impl RegistryClient {
    /// The manifest that a reference points at, by its digest; nothing if there is none.
    pub async fn collection(&self, image: &ImageRef) -> Result<Option<(Digest, ManifestView)>, ClientError> {
        let session = self.session(image, "pull")?;
        match session.manifest(image.reference(), image.digest.as_ref(), None).await {
            Ok((found, view, _)) => Ok(Some((found.digest, view))),
            Err(ClientError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches one blob of the repository of `image` into a store, unless it is there and sound.
    pub async fn fetch_blob(&self, image: &ImageRef, blob: &Descriptor, store: &BlobStore) -> Result<(), ClientError> {
        self.session(image, "pull")?.fetch(store, blob).await
    }

    /// The tags of the repository of `image`; none where there is no such repository.
    pub async fn tags(&self, image: &ImageRef) -> Result<Vec<String>, ClientError> {
        let session = self.session(image, "pull")?;
        let (mut url, mut found) = (session.url("tags/list")?, Vec::new());
        for _ in 0..MAX_PAGES {
            let get = |s: &super::Session<'_>| Client::build(s.http.request(Method::GET, url.clone()));
            let response = session.send(Repeat::IfIdempotent, get).await?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(found);
            }
            let response = session.expect(response, StatusCode::OK).await?;
            let next = next_page(&response);
            let page: Tags = serde_json::from_slice(&read_limited(response, MAX_PAGE).await?)
                .map_err(|_| session.data("sends a list of tags that does not read as one"))?;
            found.extend(page.tags.unwrap_or_default());
            if found.len() > MAX_TAGS {
                break;
            }
            match next {
                Some(next) => url = next,
                None => return Ok(found),
            }
        }
        Err(session.data("lists tags without end"))
    }

    /// Removes the manifest with this digest and the tags that point at it. What is not there is no error.
    pub async fn remove(&self, image: &ImageRef, digest: &Digest) -> Result<(), ClientError> {
        let session = self.session(image, "pull,push,delete")?;
        let path = format!("manifests/{digest}");
        let delete = |s: &super::Session<'_>| Client::build(s.request(Method::DELETE, &path)?);
        let response = session.send(Repeat::IfIdempotent, delete).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(());
        }
        session.expect(response, StatusCode::ACCEPTED).await.map(drop)
    }
}
