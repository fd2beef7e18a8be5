//! What is said of images: artifacts that name them as their subject, pushed and listed.
//!
//! A registry without the referrers API (OCI distribution specification 1.1, "Listing Referrers") gets an index under a tag
//! made of the subject's digest ("Referrers Tag Schema"). One client's writes of it follow each other. Nobody can lock it
//! against other machines: who writes looks afterwards whether their entry is there, which makes a loss unlikely, and not
//! impossible.

use super::{ClientError, RegistryClient, Session};
use crate::{BlobStore, Descriptor, INDEX, MAX_MANIFEST, ManifestView, image::canonical};
use bytes::Bytes;
use plimsoll_core::{Digest, ImageRef, RetryDecision};
use plimsoll_http::{Client, Method, Repeat, Response, StatusCode, Url, header, random_unit, read_limited};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Instant};

/// Pages of a list of referrers; one has hundreds.
const MAX_PAGES: usize = 32;
/// How often the tag of a subject is written anew because somebody else wrote it at the same time.
const MAX_WRITES: u32 = 10;

/// Something that is said of an image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// Its manifest.
    #[serde(flatten)]
    pub descriptor: Descriptor,
    /// What kind of thing it is.
    #[serde(default)]
    pub artifact_type: Option<String>,
    /// Remarks.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl RegistryClient {
    /// Pushes an artifact of `store` beside its subject, which lies in the repository of `image`. Doing it again changes
    /// nothing.
    pub async fn attach(&self, store: &BlobStore, artifact: &Digest, image: &ImageRef) -> Result<(), ClientError> {
        let session = self.session(image, "pull,push")?;
        let (bytes, view) = session.local(store, artifact)?;
        for blob in view.blobs() {
            session.push_blob(store, blob).await?;
        }
        let listed = session.put_manifest(artifact.as_str(), artifact, view.media_type(), &bytes).await?;
        match &view.subject {
            Some(subject) if !listed => session.list_by_tag(&subject.digest, artifact, &view, bytes.len()).await,
            _ => Ok(()),
        }
    }

    /// What is said of `subject`, which lies in the repository of `image`; of one kind, or all.
    pub async fn referrers(
        &self,
        image: &ImageRef,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Referrer>, ClientError> {
        let session = self.session(image, "pull")?;
        let mut found = session.listed(subject, artifact_type).await?;
        // Filtering is something a registry may do.
        found.retain(|one| artifact_type.is_none_or(|wanted| one.artifact_type.as_deref() == Some(wanted)));
        Ok(found)
    }
}

/// The tag of the index for a subject.
fn tag_of(subject: &Digest) -> String {
    subject.as_str().replace(':', "-")
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    manifests: Vec<Referrer>,
}

impl Session<'_> {
    async fn listed(&self, subject: &Digest, artifact_type: Option<&str>) -> Result<Vec<Referrer>, ClientError> {
        let mut url = self.url(&format!("referrers/{subject}"))?;
        if let Some(artifact_type) = artifact_type {
            url.query_pairs_mut().append_pair("artifactType", artifact_type);
        }
        let mut found = Vec::new();
        for _ in 0..MAX_PAGES {
            let get = |s: &Self| Client::build(s.http.request(Method::GET, url.clone()).header(header::ACCEPT, INDEX));
            let response = self.send(Repeat::IfIdempotent, get).await?;
            if response.status() == StatusCode::NOT_FOUND {
                return self.listed_by_tag(subject).await;
            }
            let response = self.expect(response, StatusCode::OK).await?;
            let next = next_page(&response);
            found.extend(self.list(&read_limited(response, MAX_MANIFEST).await?)?);
            match next {
                Some(next) => url = next,
                None => return Ok(found),
            }
        }
        Err(self.data("lists referrers without end"))
    }

    fn list(&self, bytes: &[u8]) -> Result<Vec<Referrer>, ClientError> {
        let read: Result<List, _> = serde_json::from_slice(bytes);
        read.map(|list| list.manifests).map_err(|_| self.data("sends a list of referrers that does not read as one"))
    }

    async fn listed_by_tag(&self, subject: &Digest) -> Result<Vec<Referrer>, ClientError> {
        self.tagged(&tag_of(subject)).await?.map_or(Ok(Vec::new()), |bytes| self.list(&bytes))
    }

    /// The index under a tag, if there is one.
    async fn tagged(&self, tag: &str) -> Result<Option<Bytes>, ClientError> {
        match self.manifest(tag, None, None).await {
            Ok((_, _, bytes)) => Ok(Some(bytes)),
            Err(ClientError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds an artifact to the index under the tag of its subject.
    async fn list_by_tag(
        &self,
        subject: &Digest,
        artifact: &Digest,
        view: &ManifestView,
        size: usize,
    ) -> Result<(), ClientError> {
        let tag = tag_of(subject);
        let mut entry = json!({ "mediaType": view.media_type(), "digest": artifact, "size": size });
        let kind = view.artifact_type.as_ref().or(view.config.as_ref().map(|config| &config.media_type));
        entry["artifactType"] = json!(kind);
        if !view.annotations.is_empty() {
            entry["annotations"] = json!(view.annotations);
        }
        let _alone = self.client.listing.lock().await;
        let begun = Instant::now();
        for write in 1..=MAX_WRITES {
            let entries = self.entries(&tag).await?;
            if entries.iter().any(|one| one["digest"] == artifact.as_str()) {
                return Ok(());
            }
            let manifests: Vec<&Value> = entries.iter().chain(std::iter::once(&entry)).collect();
            let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
            let index =
                canonical(&index, "list of referrers").map_err(|_| self.data("has a list that cannot be written"))?;
            self.put_manifest(&tag, &Digest::of(&index), INDEX, &index).await?;
            // The next round looks whether somebody else's took its place.
            if let RetryDecision::After(wait) =
                self.client.options.policy.decide(write.min(2), begun.elapsed(), random_unit(), None)
            {
                tokio::time::sleep(wait).await;
            }
        }
        Err(self.data("keeps losing an entry in its list of referrers, which others write at the same time"))
    }

    /// The entries under a tag, as they are written.
    async fn entries(&self, tag: &str) -> Result<Vec<Value>, ClientError> {
        let Some(bytes) = self.tagged(tag).await? else { return Ok(Vec::new()) };
        let mut index: Value = serde_json::from_slice(&bytes)
            .map_err(|_| self.data("sends a list of referrers that does not read as one"))?;
        Ok(index["manifests"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }
}

/// Where the next page is (RFC 8288), if it lies in the same place.
pub(super) fn next_page(response: &Response) -> Option<Url> {
    let link = response.headers().get(header::LINK)?.to_str().ok()?;
    let (target, rest) = link.strip_prefix('<')?.split_once('>')?;
    let next = rest.contains("rel=\"next\"") || rest.contains("rel=next");
    let url = response.url().join(target).ok()?;
    (next && url.origin() == response.url().origin()).then_some(url)
}
