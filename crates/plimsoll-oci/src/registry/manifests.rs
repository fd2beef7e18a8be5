//! Manifests, tags and referrers.

use super::{
    api::{Api, Parameters},
    blobs::CONTENT_DIGEST,
    error::ApiError,
    route::{self, Reference},
};
use crate::{INDEX, MAX_MANIFEST, ManifestView};
use axum::{
    extract::Request,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use plimsoll_core::Digest;
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// How long a manifest may take to arrive: 4 MiB over a slow line.
const SLOWEST: Duration = Duration::from_mins(1);
/// Tags listed in one answer.
const PAGE: usize = 1000;

/// Tags given to one manifest at once; the specification wants ten at least.
const MAX_TAGS: usize = 100;

pub(super) async fn get(api: &Arc<Api>, repository: String, reference: Reference) -> Result<Response, ApiError> {
    let (digest, bytes) = api
        .blocking(move |api| {
            let digest = match reference {
                Reference::Digest(digest) => digest,
                Reference::Tag(tag) => api.storage.tag(&repository, &tag)?,
            };
            let _turn = api.storage.shared()?;
            let bytes = api.storage.manifest(&repository, &digest)?;
            api.storage.renew_manifest(&repository, &digest)?;
            Ok((digest, bytes))
        })
        .await?;
    let view = ManifestView::parse(&bytes).map_err(|e| ApiError::internal(&e))?;
    let headers = [
        (header::CONTENT_TYPE.as_str(), view.media_type().to_owned()),
        (header::CONTENT_LENGTH.as_str(), bytes.len().to_string()),
        (header::ETAG.as_str(), format!("\"{digest}\"")),
        (CONTENT_DIGEST, digest.to_string()),
    ];
    Ok((StatusCode::OK, headers, bytes).into_response())
}

pub(super) async fn put(
    api: &Arc<Api>,
    repository: String,
    reference: Reference,
    query: &Parameters,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let limit = usize::try_from(MAX_MANIFEST).expect("4 MiB fit");
    let read = tokio::time::timeout(SLOWEST, axum::body::to_bytes(body, limit)).await;
    let read = read.map_err(|_| ApiError::bad("MANIFEST_INVALID", "the manifest took too long"))?;
    let bytes = read.map_err(|_| {
        let message = "the manifest is longer than 4 MiB, or broke off";
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID", message)
    })?;
    let view = ManifestView::parse(&bytes).map_err(|e| ApiError::bad("MANIFEST_INVALID", e.to_string()))?;
    let declared = head.headers.get(header::CONTENT_TYPE).and_then(|t| t.to_str().ok());
    if declared.is_some_and(|declared| declared != view.media_type()) {
        return Err(ApiError::bad("MANIFEST_INVALID", "the manifest is not of the type the request says"));
    }
    let (digest, tags) = match reference {
        Reference::Tag(tag) => (Digest::of(&bytes), vec![tag]),
        Reference::Digest(digest) if digest.is_of(&bytes) => {
            let tags = query.all("tag").map(|tag| route::parse_tag(&repository, tag)).collect::<Result<Vec<_>, _>>()?;
            if tags.len() > MAX_TAGS {
                return Err(ApiError::new(StatusCode::URI_TOO_LONG, "UNSUPPORTED", "too many tags at once"));
            }
            (digest, tags)
        }
        Reference::Digest(_) => {
            return Err(ApiError::bad("DIGEST_INVALID", "the manifest does not have the digest of its path"));
        }
    };
    let subject = view.subject.as_ref().map(|s| s.digest.to_string());
    let accepted = tags.join(", ");
    let (name, stored) = (repository.clone(), digest.clone());
    api.blocking(move |api| api.storage.put_manifest(&name, &stored, &tags, &bytes, &view)).await?;
    let headers = [
        (header::LOCATION.as_str(), format!("/v2/{repository}/manifests/{digest}")),
        (CONTENT_DIGEST, digest.to_string()),
    ];
    let mut response = (StatusCode::CREATED, headers).into_response();
    if query.get("tag").is_some() && !accepted.is_empty() {
        response.headers_mut().insert("oci-tag", accepted.parse().expect("tags are plain"));
    }
    if let Some(subject) = subject {
        response.headers_mut().insert("oci-subject", subject.parse().expect("a digest is a header"));
    }
    Ok(response)
}

pub(super) async fn delete(api: &Arc<Api>, repository: String, reference: Reference) -> Result<Response, ApiError> {
    api.blocking(move |api| match reference {
        Reference::Tag(tag) => api.storage.remove_tag(&repository, &tag),
        Reference::Digest(digest) => api.storage.remove_manifest(&repository, &digest),
    })
    .await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

pub(super) async fn tags(api: &Arc<Api>, repository: String, query: Parameters) -> Result<Response, ApiError> {
    let name = repository.clone();
    let mut tags = api.blocking(move |api| api.storage.tags(&name)).await?;
    if let Some(last) = query.get("last") {
        tags.retain(|tag| tag.as_str() > last);
    }
    let wanted = match query.get("n").map(str::parse::<usize>) {
        None => PAGE,
        Some(Ok(n)) => n.min(PAGE),
        Some(Err(_)) => return Err(ApiError::bad("PAGINATION_NUMBER_INVALID", "`n` is no number")),
    };
    let more = tags.len() > wanted;
    tags.truncate(wanted);
    let body = json!({ "name": repository, "tags": tags }).to_string();
    let mut response = (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response();
    if let (true, Some(last)) = (more, tags.last()) {
        let link = format!("</v2/{repository}/tags/list?n={wanted}&last={last}>; rel=\"next\"");
        response.headers_mut().insert(header::LINK, link.parse().expect("tags are plain"));
    }
    Ok(response)
}

pub(super) async fn referrers(
    api: &Arc<Api>,
    repository: String,
    subject: Digest,
    query: Parameters,
) -> Result<Response, ApiError> {
    let found = api.blocking(move |api| api.storage.referrers(&repository, &subject)).await?;
    let kind = query.get("artifactType");
    let manifests: Vec<_> = found
        .iter()
        .filter_map(|referrer| {
            let config = referrer.view.config.as_ref().map(|c| c.media_type.clone());
            let artifact_type = referrer.view.artifact_type.clone().or(config);
            if kind.is_some() && artifact_type.as_deref() != kind {
                return None;
            }
            let mut entry = serde_json::to_value(&referrer.descriptor).ok()?;
            entry["artifactType"] = json!(artifact_type);
            if !referrer.view.annotations.is_empty() {
                entry["annotations"] = json!(referrer.view.annotations);
            }
            Some(entry)
        })
        .collect();
    let body = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }).to_string();
    let mut response = (StatusCode::OK, [(header::CONTENT_TYPE, INDEX)], body).into_response();
    if kind.is_some() {
        response.headers_mut().insert("oci-filters-applied", axum::http::HeaderValue::from_static("artifactType"));
    }
    Ok(response)
}
