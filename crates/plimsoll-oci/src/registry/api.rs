//! From a request to an answer.

use super::{
    Options,
    access::{self, Action, Permit},
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
    http::{Method, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
};
use plimsoll_http::is_loopback_authority;
use serde_json::json;
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::sync::Semaphore;

/// Requests worked on at once; each may hold a blocking thread, of which tokio has 512.
const MAX_REQUESTS: usize = 256;

/// Passwords compared at once: each keeps a processor busy for a while.
const MAX_LOGINS: usize = 2;
/// How long somebody waits for their turn.
const LOGIN: Duration = Duration::from_secs(5);

pub(super) struct Api {
    pub(super) storage: Storage,
    pub(super) uploads: Uploads,
    options: Options,
    slots: Semaphore,
    logins: Semaphore,
}

impl Api {
    pub(super) fn open(root: PathBuf, options: Options) -> Result<Self, BlobError> {
        let storage = Storage::open(root)?;
        let (slots, logins) = (Semaphore::new(MAX_REQUESTS), Semaphore::new(MAX_LOGINS));
        Ok(Self { storage, uploads: Uploads::default(), options, slots, logins })
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

/// What stands behind the question mark.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn of(uri: &Uri) -> Result<Self, ApiError> {
        let read = Query::try_from_uri(uri).map_err(|_| ApiError::bad("UNSUPPORTED", "the query does not read"))?;
        Ok(Self(read.0))
    }

    /// All values of a name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The first value of a name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }
}

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
    if request.uri().path() == "/token" && api.options.access.is_some() {
        let (head, _) = request.into_parts();
        return token(api, head).await;
    }
    let place = route::parse(request.uri().path())?;
    let query = Parameters::of(request.uri())?;
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let permit = permit(api, &place, &request)?;
    match (place, method.as_str()) {
        (Place::Base, "GET" | "HEAD") => Ok((StatusCode::OK, "{}").into_response()),
        (Place::Blob(repository, digest), "GET" | "HEAD") => {
            blobs::get(api, repository, digest, &method, &headers).await
        }
        (Place::Blob(repository, digest), "DELETE") => {
            api.blocking(move |api| api.storage.remove_blob(&repository, &digest)).await?;
            Ok(StatusCode::ACCEPTED.into_response())
        }
        (Place::Uploads(repository), "POST") => blobs::start(api, repository, &permit, &query, request).await,
        (Place::Upload(repository, id), "GET") => blobs::status(api, repository, id).await,
        (Place::Upload(repository, id), "PATCH") => blobs::chunk(api, repository, id, request).await,
        (Place::Upload(repository, id), "PUT") => blobs::finish(api, repository, id, &query, request).await,
        (Place::Upload(repository, id), "DELETE") => blobs::abandon(api, repository, id).await,
        (Place::Manifest(repository, reference), "GET" | "HEAD") => manifests::get(api, repository, reference).await,
        (Place::Manifest(repository, reference), "PUT") => {
            manifests::put(api, repository, reference, &query, request).await
        }
        (Place::Manifest(repository, reference), "DELETE") => manifests::delete(api, repository, reference).await,
        (Place::Tags(repository), "GET") => manifests::tags(api, repository, query).await,
        (Place::Referrers(repository, digest), "GET") => manifests::referrers(api, repository, digest, query).await,
        _ => Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "the method does not fit the path")),
    }
}

/// Whether who asks may do this, and what else they may do.
fn permit(api: &Api, place: &Place, request: &Request) -> Result<Permit, ApiError> {
    let action = match (place, request.method()) {
        (_, &Method::GET | &Method::HEAD) => Action::Pull,
        // An upload of one's own is dropped by who may push.
        (Place::Blob(..) | Place::Manifest(..), &Method::DELETE) => Action::Delete,
        _ => Action::Push,
    };
    if api.options.read_only && action != Action::Pull {
        return Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "the registry is read-only"));
    }
    let Some(access) = &api.options.access else {
        // A page in this machine's browser may have a name of its own lead here; it cannot have this one.
        let local = host(request).is_none_or(|host| is_loopback_authority(&host));
        let denied =
            || ApiError::new(StatusCode::FORBIDDEN, "DENIED", "this registry is called by its loopback address");
        return if local { Ok(Permit::ALL) } else { Err(denied()) };
    };
    let wanted = place.repository().map(|repository| (repository, action));
    access.check(request.headers(), wanted, &realm(api, request), SystemTime::now())
}

/// The host that the request is for, with its port.
fn host(request: &Request) -> Option<String> {
    let host = request.headers().get(header::HOST)?.to_str().ok()?;
    Some(host.to_owned()).filter(|host| !host.contains(['"', '\\', ' ']))
}

/// Where tokens are got, by the name under which who asks knows this registry.
fn realm(api: &Api, request: &Request) -> String {
    if let Some(url) = &api.options.url {
        return format!("{}/token", url.trim_end_matches('/'));
    }
    let host = host(request).unwrap_or_else(|| "localhost".to_owned());
    format!("{}://{host}/token", if api.options.tls.is_some() { "https" } else { "http" })
}

/// The token service.
async fn token(api: &Arc<Api>, request: Parts) -> Result<Response, ApiError> {
    if request.method != Method::GET {
        return Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "tokens are asked for by GET"));
    }
    let query = Parameters::of(&request.uri)?;
    let login = tokio::time::timeout(LOGIN, api.logins.acquire())
        .await
        .map_err(|_| ApiError::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", "too many log in at once"))?;
    let _login = login.map_err(|e| ApiError::internal(&e))?;
    let token = api
        .blocking(move |api| {
            let access = api.options.access.as_ref().expect("asked for only where there are users");
            let scopes = query.all("scope").flat_map(|scopes| scopes.split(' '));
            access.grant(&request.headers, scopes, SystemTime::now())
        })
        .await?;
    let body = json!({ "token": token, "access_token": token, "expires_in": access::lifetime() }).to_string();
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::OK, headers, body).into_response())
}
