//! Blobs and their uploads.

use super::{
    access::{Action, Permit},
    api::{Api, Parameters},
    error::ApiError,
    route,
    uploads::{self, Held},
};
use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::Stream;
use plimsoll_core::Digest;
use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc};

pub(super) const CONTENT_DIGEST: &str = "docker-content-digest";
/// Bytes of a blob read at once.
const PIECE: usize = 256 * 1024;
const UPLOAD_ID: &str = "docker-upload-uuid";

pub(super) async fn get(
    api: &Arc<Api>,
    repository: String,
    digest: Digest,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let wanted = digest.clone();
    let size = api
        .blocking(move |api| {
            let _turn = api.storage.shared()?;
            api.storage.blob(&repository, &wanted)
        })
        .await?;
    let range = headers.get(header::RANGE).and_then(|r| r.to_str().ok()).map(|r| parse_range(r, size));
    let (status, first, length) = match range {
        None | Some(Wanted::All) => (StatusCode::OK, 0, size),
        Some(Wanted::Part(first, length)) => (StatusCode::PARTIAL_CONTENT, first, length),
        Some(Wanted::Impossible) => {
            let mut error =
                ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "UNSUPPORTED", "the range lies behind the end");
            error.headers.push((header::CONTENT_RANGE, format!("bytes */{size}")));
            return Err(error);
        }
    };
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::ETAG, format!("\"{digest}\"")),
    ];
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        let wanted = digest.clone();
        let file = api.blocking(move |api| Ok(api.storage.blobs.open_blob(&wanted)?)).await?;
        Body::from_stream(pieces(Arc::new(file), first, length))
    };
    let mut response = (status, headers, [(CONTENT_DIGEST, digest.to_string())], body).into_response();
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {first}-{}/{size}", first + length - 1);
        response.headers_mut().insert(header::CONTENT_RANGE, range.parse().expect("digits are a header"));
    }
    Ok(response)
}

/// A part of a file, piece by piece as the other side takes it: no thread waits for somebody who reads slowly.
fn pieces(file: Arc<File>, first: u64, length: u64) -> impl Stream<Item = io::Result<Bytes>> + Send {
    futures_util::stream::try_unfold((file, first, length), |(file, at, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let source = Arc::clone(&file);
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; usize::try_from(left).map_or(PIECE, |left| left.min(PIECE))];
            source.read_exact_at(&mut piece, at).map(|()| Bytes::from(piece))
        });
        let piece = read.await.map_err(io::Error::other)??;
        let count = piece.len() as u64;
        Ok(Some((piece, (file, at + count, left - count))))
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Part(u64, u64),
    Impossible,
}

/// Reads a `Range` header of one range; several, and other units, are ignored (RFC 9110, section 14.2).
fn parse_range(text: &str, size: u64) -> Wanted {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|r| r.split_once('-')) else { return Wanted::All };
    let (first, end) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) => (first, last.saturating_add(1).min(size)),
        (Ok(first), Err(_)) if last.is_empty() => (first, size),
        (Err(_), Ok(suffix)) if first.is_empty() => (size.saturating_sub(suffix), size),
        _ => return Wanted::All,
    };
    if first < end { Wanted::Part(first, end - first) } else { Wanted::Impossible }
}

/// Begins an upload; with `mount` or `digest` it may end at once.
pub(super) async fn start(
    api: &Arc<Api>,
    repository: String,
    permit: &Permit,
    query: &Parameters,
    request: Request,
) -> Result<Response, ApiError> {
    if let Some(digest) = query.get("mount") {
        let digest = route::parse_digest(digest)?;
        if mount(api, &repository, permit, query.get("from"), &digest).await? {
            return Ok(created(&repository, &digest));
        }
        // Else a usual upload begins.
    }
    let digest = query.get("digest").map(route::parse_digest).transpose()?;
    let name = repository.clone();
    let id = api.blocking(move |api| api.uploads.start(&api.storage, &name)).await?;
    let Some(digest) = digest else { return Ok(accepted(&repository, &id, 0)) };
    let held = hold(api, &repository, &id).await?;
    let outcome = uploads::receive(held, request.into_body()).await;
    complete(api, &repository, id, outcome, digest).await
}

/// Takes a blob over from another repository, if who asks may read it there.
async fn mount(
    api: &Arc<Api>,
    repository: &str,
    permit: &Permit,
    from: Option<&str>,
    digest: &Digest,
) -> Result<bool, ApiError> {
    let from = match from {
        Some(from) => Some(route::repository(&from.split('/').collect::<Vec<_>>())?),
        None => None,
    };
    // If no source is named it may lie in any.
    let may = permit.reads_all() || from.as_ref().is_some_and(|from| permit.allows(from, Action::Pull));
    let (repository, digest) = (repository.to_owned(), digest.clone());
    Ok(may && api.blocking(move |api| api.storage.mount(&repository, from.as_deref(), &digest)).await?)
}

async fn hold(api: &Arc<Api>, repository: &str, id: &str) -> Result<Held, ApiError> {
    let (repository, id) = (repository.to_owned(), id.to_owned());
    api.blocking(move |api| api.uploads.find(&api.storage, &repository, &id)).await?.hold().await
}

async fn complete(
    api: &Arc<Api>,
    repository: &str,
    id: String,
    outcome: Result<Held, ApiError>,
    digest: Digest,
) -> Result<Response, ApiError> {
    let held = outcome?;
    let (name, expected) = (repository.to_owned(), digest.clone());
    api.blocking(move |api| api.uploads.finish(&api.storage, &name, &id, &held, &expected)).await?;
    Ok(created(repository, &digest))
}

pub(super) async fn status(api: &Arc<Api>, repository: String, id: String) -> Result<Response, ApiError> {
    let held = hold(api, &repository, &id).await?;
    let mut response = accepted(&repository, &id, held.offset);
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

fn chunk_fits(headers: &HeaderMap, offset: u64) -> Result<(), ApiError> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let length = text(header::CONTENT_LENGTH).and_then(|l| l.parse().ok());
    uploads::check_range(text(header::CONTENT_RANGE), offset, length)
}

pub(super) async fn chunk(
    api: &Arc<Api>,
    repository: String,
    id: String,
    request: Request,
) -> Result<Response, ApiError> {
    let held = hold(api, &repository, &id).await?;
    chunk_fits(request.headers(), held.offset)?;
    let held = uploads::receive(held, request.into_body()).await?;
    Ok(accepted(&repository, &id, held.offset))
}

pub(super) async fn finish(
    api: &Arc<Api>,
    repository: String,
    id: String,
    query: &Parameters,
    request: Request,
) -> Result<Response, ApiError> {
    let digest = query.get("digest").ok_or_else(|| ApiError::bad("DIGEST_INVALID", "the digest is missing"))?;
    let digest = route::parse_digest(digest)?;
    let held = hold(api, &repository, &id).await?;
    chunk_fits(request.headers(), held.offset)?;
    let outcome = uploads::receive(held, request.into_body()).await;
    complete(api, &repository, id, outcome, digest).await
}

pub(super) async fn abandon(api: &Arc<Api>, repository: String, id: String) -> Result<Response, ApiError> {
    let held = hold(api, &repository, &id).await?;
    api.blocking(move |api| {
        api.uploads.abandon(&id, &held);
        Ok(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn accepted(repository: &str, id: &str, offset: u64) -> Response {
    let headers = [
        (header::LOCATION.as_str(), format!("/v2/{repository}/blobs/uploads/{id}")),
        (header::RANGE.as_str(), uploads::held_range(offset)),
        (UPLOAD_ID, id.to_owned()),
    ];
    (StatusCode::ACCEPTED, headers).into_response()
}

fn created(repository: &str, digest: &Digest) -> Response {
    let headers =
        [(header::LOCATION.as_str(), format!("/v2/{repository}/blobs/{digest}")), (CONTENT_DIGEST, digest.to_string())];
    (StatusCode::CREATED, headers).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_honoured_and_nonsense_ignored() {
        for (text, expected) in [
            ("bytes=0-3", Wanted::Part(0, 4)),
            ("bytes=8-", Wanted::Part(8, 2)),
            ("bytes=8-99", Wanted::Part(8, 2)),
            ("bytes=-3", Wanted::Part(7, 3)),
            ("bytes=10-", Wanted::Impossible),
            ("bytes=3-2", Wanted::Impossible),
            ("bytes=0-1,3-4", Wanted::All),
            ("lines=1-2", Wanted::All),
            ("bytes=0-18446744073709551615", Wanted::Part(0, 10)),
        ] {
            assert_eq!(parse_range(text, 10), expected, "{text}");
        }
    }

    #[test]
    fn a_chunk_follows_what_is_here() {
        for (range, length, fits) in [
            (None, None, true),
            (Some("5-9"), Some(5), true),
            (Some("5-9"), Some(4), false),
            (Some("0-4"), Some(5), false),
            (Some("6-9"), Some(4), false),
            (Some("5-18446744073709551615"), Some(5), false),
            (Some("x"), None, false),
        ] {
            assert_eq!(uploads::check_range(range, 5, length).is_ok(), fits, "{range:?} {length:?}");
        }
    }
}
