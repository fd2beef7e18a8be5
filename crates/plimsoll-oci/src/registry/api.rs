//! From a request to an answer.

use super::{
    blobs,
    error::ApiError,
    manifests,
    route::{self, Place},
    storage::Storage,
    uploads::Uploads,
};
use crate::BlobError;
use axum::{
    extract::{Query, Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use std::{collections::HashMap, path::PathBuf, sync::Arc};
use tokio::sync::Semaphore;

/// Requests worked on at once; each may hold a blocking thread, of which tokio has 512.
const MAX_REQUESTS: usize = 256;

pub(super) struct Api {
    pub(super) storage: Storage,
    pub(super) uploads: Uploads,
    slots: Semaphore,
}

impl Api {
    pub(super) fn open(root: PathBuf) -> Result<Self, BlobError> {
        let storage = Storage::open(root)?;
        Ok(Self { storage, uploads: Uploads::default(), slots: Semaphore::new(MAX_REQUESTS) })
    }

    /// Runs work on the disk where it may block.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let api = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&api)).await.map_err(|e| ApiError::internal(&e))?
    }
}

pub(super) type Parameters = HashMap<String, String>;

pub(super) async fn handle(State(api): State<Arc<Api>>, request: Request) -> Response {
    let Ok(_slot) = api.slots.acquire().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let method = request.method().clone();
    let mut response = dispatch(&api, request).await.unwrap_or_else(IntoResponse::into_response);
    if method == Method::HEAD {
        *response.body_mut() = axum::body::Body::empty();
    }
    response
        .headers_mut()
        .insert("docker-distribution-api-version", axum::http::HeaderValue::from_static("registry/2.0"));
    response
}

async fn dispatch(api: &Arc<Api>, request: Request) -> Result<Response, ApiError> {
    let place = route::parse(request.uri().path())?;
    let query = Query::<Parameters>::try_from_uri(request.uri())
        .map_err(|_| ApiError::bad("UNSUPPORTED", "the query does not read"))?
        .0;
    let (method, headers) = (request.method().clone(), request.headers().clone());
    match (place, method.as_str()) {
        (Place::Base, "GET" | "HEAD") => Ok((StatusCode::OK, "{}").into_response()),
        (Place::Blob(_, digest), "GET" | "HEAD") => blobs::get(api, digest, &method, &headers).await,
        (Place::Blob(_, digest), "DELETE") => {
            api.blocking(move |api| api.storage.remove_blob(&digest)).await?;
            Ok(StatusCode::ACCEPTED.into_response())
        }
        (Place::Uploads(repository), "POST") => blobs::start(api, repository, &query, request).await,
        (Place::Upload(repository, id), "GET") => blobs::status(api, repository, id).await,
        (Place::Upload(repository, id), "PATCH") => blobs::chunk(api, repository, id, request).await,
        (Place::Upload(repository, id), "PUT") => blobs::finish(api, repository, id, &query, request).await,
        (Place::Upload(repository, id), "DELETE") => blobs::abandon(api, repository, id).await,
        (Place::Manifest(repository, reference), "GET" | "HEAD") => manifests::get(api, repository, reference).await,
        (Place::Manifest(repository, reference), "PUT") => manifests::put(api, repository, reference, request).await,
        (Place::Manifest(repository, reference), "DELETE") => manifests::delete(api, repository, reference).await,
        (Place::Tags(repository), "GET") => manifests::tags(api, repository, query).await,
        (Place::Referrers(repository, digest), "GET") => manifests::referrers(api, repository, digest, query).await,
        _ => Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "the method does not fit the path")),
    }
}
