//! Push and pull, to and from any registry of the OCI distribution specification, the embedded one included.
//!
//! Nothing that comes back is believed: manifests and blobs are checked against the digest and size that asked for them, and
//! what is wrong is a data error that no retry follows. Credentials go to the registry and its token service, never to a
//! foreign host that an upload's `Location` or a redirect names.

mod auth;
mod collection;
mod error;
mod pull;
mod push;
mod referrers;
mod verify;

pub use auth::{AuthSource, CredentialHelpers, Credentials};
pub use error::ClientError;
pub use pull::PullReport;
pub use push::{PushEvent, PushReport};
pub use referrers::Referrer;
pub use verify::Verified;

use crate::{DOCKER_LIST, DOCKER_MANIFEST, Descriptor, INDEX, MANIFEST, MAX_MANIFEST, ManifestView};
use bytes::Bytes;
use plimsoll_core::{Digest, ImageRef, RetryPolicy, Secret};
use plimsoll_http::{
    Client, HttpError, MAX_REDIRECTS, Method, Repeat, Request, RequestBuilder, Response, StatusCode, Url, header,
    is_loopback_authority, read_limited,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// How a registry client behaves.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// Where credentials come from.
    pub auth: AuthSource,
    /// When to try again.
    pub policy: RetryPolicy,
    /// What is different for some registries, as they stand in references.
    pub hosts: BTreeMap<String, HostOptions>,
}

/// What is different for a registry.
#[derive(Debug, Clone, Default)]
pub struct HostOptions {
    /// Its own client: one that trusts further certificates, or may speak plain HTTP.
    pub http: Option<Client>,
    /// Spoken to in plain HTTP; loopback ones are unless they have a client of their own. The HTTP client must allow it too.
    pub plain_http: bool,
    /// Who logs in, whatever the other sources have.
    pub credentials: Option<Credentials>,
    /// Where its images are looked for first, each `host[:port]` with an optional path before the repositories' names. For pulls
    /// by digest alone: what a tag means only the registry itself knows.
    pub mirrors: Vec<String>,
}

/// A client for registries. Cheap to clone; clones share connections and tokens.
#[derive(Debug, Clone)]
pub struct RegistryClient {
    http: Client,
    options: Arc<RegistryOptions>,
    /// What registries were answered with, by registry, repository and rights. Bounded by what one run touches: a few
    /// repositories.
    tokens: Arc<Mutex<HashMap<String, Token>>>,
    /// Held while a token is asked for: who finds theirs too old at the same time waits for it and takes it as well.
    renewing: Arc<tokio::sync::Mutex<()>>,
    /// Held while the index under a subject's tag is read and written: of two who do so at once one loses the other's entry.
    listing: Arc<tokio::sync::Mutex<()>>,
    /// A repository that has a blob, by registry and digest, for others to mount it from. Forgotten when it gets large.
    seen: Arc<Mutex<HashMap<(String, Digest), String>>>,
}

/// How a registry's challenge was answered.
#[derive(Debug, Clone)]
struct Token {
    /// The `Authorization` header.
    header: Secret,
    /// The challenges, for a registry that does not repeat them when the token is too old.
    challenges: Vec<String>,
}

/// Where blobs are that were pushed lately: as many as some large releases have.
const MAX_SEEN: usize = 4096;

impl RegistryClient {
    /// A client that sends through `http`.
    pub fn new(http: Client, options: RegistryOptions) -> Self {
        Self {
            http,
            options: Arc::new(options),
            tokens: Arc::default(),
            renewing: Arc::default(),
            listing: Arc::default(),
            seen: Arc::default(),
        }
    }

    /// What a reference points at, or nothing. A digest in the reference must be the answer's.
    pub async fn head(&self, image: &ImageRef) -> Result<Option<Descriptor>, ClientError> {
        let session = self.session(image, "pull")?;
        let path = format!("manifests/{}", image.reference());
        let response = session.send(Repeat::IfIdempotent, |s| s.manifest_request(Method::HEAD, &path)).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = session.expect(response, StatusCode::OK).await?;
        let text = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        let size = text("content-length").and_then(|l| l.parse::<u64>().ok());
        match (text("docker-content-digest"), size, text("content-type")) {
            (Some(digest), Some(size), Some(media_type)) => {
                let found: Digest = digest.parse().map_err(|_| session.data("sends a malformed digest"))?;
                if image.digest.as_ref().is_some_and(|wanted| *wanted != found) {
                    return Err(session.data("answers with another digest than was asked for"));
                }
                Ok(Some(Descriptor::new(media_type, found, size)))
            }
            // Older registries answer HEAD without these: the manifest itself tells.
            _ => self.resolve(image).await.map(Some),
        }
    }

    /// What a reference points at, read and verified. That it points at nothing is an error.
    pub async fn resolve(&self, image: &ImageRef) -> Result<Descriptor, ClientError> {
        let session = self.session(image, "pull")?;
        session.manifest(image.reference(), image.digest.as_ref(), None).await.map(|(descriptor, ..)| descriptor)
    }

    fn session<'c>(&'c self, image: &'c ImageRef, rights: &'static str) -> Result<Session<'c>, ClientError> {
        let registry = image.registry.as_str();
        let named = self.options.hosts.get(registry);
        // A client of its own that may not speak plain HTTP is for a certificate, on loopback too.
        let plain = match named {
            Some(named) if named.plain_http || named.http.is_some() => named.plain_http,
            _ => is_loopback_authority(registry),
        };
        let scheme = if plain { "http" } else { "https" };
        // Docker's own registry answers elsewhere than its name says, and has what has no owner in `library`.
        let hub = auth::is_hub(registry);
        let address = if hub { "registry-1.docker.io" } else { registry };
        let owner = if hub && !image.repository.contains('/') { "library/" } else { "" };
        let repository = format!("{owner}{}", image.repository);
        let base = Url::parse(&format!("{scheme}://{address}/v2/{repository}/"))
            .map_err(|_| ClientError::Registry { registry: registry.to_owned() })?;
        let http = named.and_then(|host| host.http.as_ref()).unwrap_or(&self.http);
        Ok(Session {
            client: self,
            http,
            image,
            repository,
            base,
            rights,
            requests: AtomicU64::new(0),
            bytes: Arc::default(),
        })
    }
}

/// Requests about one repository, with what they count.
struct Session<'c> {
    client: &'c RegistryClient,
    http: &'c Client,
    image: &'c ImageRef,
    /// As the registry knows it.
    repository: String,
    /// `…/v2/<repository>/`.
    base: Url,
    rights: &'static str,
    requests: AtomicU64,
    bytes: Arc<AtomicU64>,
}

impl Session<'_> {
    fn url(&self, path: &str) -> Result<Url, HttpError> {
        self.base.join(&format!("./{path}")).map_err(|e| HttpError::Malformed { what: e.to_string() })
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, HttpError> {
        Ok(self.http.request(method, self.url(path)?))
    }

    fn manifest_request(&self, method: Method, path: &str) -> Result<Request, HttpError> {
        let accept = [INDEX, MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", ");
        Client::build(self.request(method, path)?.header(header::ACCEPT, accept))
    }

    fn data(&self, reason: &'static str) -> ClientError {
        ClientError::Data { registry: self.image.registry.clone(), repository: self.image.repository.clone(), reason }
    }

    /// Sends with credentials, asking for them when the registry wants some. Any status is an answer, but 401.
    async fn send(
        &self,
        repeat: Repeat,
        build: impl Fn(&Self) -> Result<Request, HttpError>,
    ) -> Result<Response, ClientError> {
        self.send_under(&self.client.options.policy, None, repeat, build).await
    }

    /// The same by a policy; `also` is a repository that must be read for it, too.
    ///
    /// An answer that says that a token is too old (401, or 403 where one was kept from before) gets another one, once.
    async fn send_under(
        &self,
        policy: &RetryPolicy,
        also: Option<&str>,
        repeat: Repeat,
        build: impl Fn(&Self) -> Result<Request, HttpError>,
    ) -> Result<Response, ClientError> {
        let key = format!("{}/{} {} {}", self.image.registry, self.repository, self.rights, also.unwrap_or("-"));
        let kept = || self.client.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let build = &build;
        let attempt = |token: Option<Secret>| self.attempt(policy, repeat, token, build);
        let used = kept();
        let response = attempt(used.as_ref().map(|token| token.header.clone())).await?;
        let told = response.status() == StatusCode::UNAUTHORIZED;
        let too_old = response.status() == StatusCode::FORBIDDEN && used.is_some();
        if !(told || too_old) || response.url().origin() != self.base.origin() {
            return Ok(response);
        }
        let challenges = response.headers().get_all(header::WWW_AUTHENTICATE);
        let mut challenges: Vec<String> =
            challenges.iter().filter_map(|v| v.to_str().ok().map(str::to_owned)).collect();
        if challenges.is_empty() {
            challenges = used.as_ref().map(|token| token.challenges.clone()).unwrap_or_default();
        }
        let header = self.renewed(&key, used.as_ref(), challenges, also).await?;
        drop(response);
        let response = attempt(Some(header)).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err(ClientError::Denied { registry: self.image.registry.clone() });
        }
        Ok(response)
    }

    /// Sends with a token, and follows where the answer leads when something is only read: blobs often lie elsewhere.
    async fn attempt(
        &self,
        policy: &RetryPolicy,
        repeat: Repeat,
        token: Option<Secret>,
        build: &impl Fn(&Self) -> Result<Request, HttpError>,
    ) -> Result<Response, ClientError> {
        let mut to = None::<Url>;
        for _ in 0..=MAX_REDIRECTS {
            let mut reads = false;
            let send = self.http.send_with_retry(policy, repeat, || {
                self.requests.fetch_add(1, Ordering::Relaxed);
                let mut request = build(self)?;
                reads = matches!(*request.method(), Method::GET | Method::HEAD);
                if let Some(to) = &to {
                    request.url_mut().clone_from(to);
                }
                // Same scheme, host and port: an upload's location may lie elsewhere.
                if let Some(token) = token.as_ref().filter(|_| request.url().origin() == self.base.origin()) {
                    let mut value = header::HeaderValue::from_str(token.expose())
                        .map_err(|_| HttpError::Malformed { what: "an authorization header".to_owned() })?;
                    value.set_sensitive(true);
                    request.headers_mut().insert(header::AUTHORIZATION, value);
                }
                Ok(request)
            });
            let response = send.await?;
            match self.http.redirect(&response)? {
                Some(next) if reads => to = Some(next),
                _ => return Ok(response),
            }
        }
        Err(self.data("leads from one place to another without end"))
    }

    /// A token in the place of the `used` one: another request may have got one meanwhile.
    async fn renewed(
        &self,
        key: &str,
        used: Option<&Token>,
        challenges: Vec<String>,
        also: Option<&str>,
    ) -> Result<Secret, ClientError> {
        let tokens = || self.client.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let _one = self.client.renewing.lock().await;
        let now = tokens().get(key).map(|token| token.header.clone());
        if let Some(now) = now.filter(|now| used.is_none_or(|used| used.header != *now)) {
            return Ok(now);
        }
        let header = auth::answer(self, &challenges, also).await?;
        tokens().insert(key.to_owned(), Token { header: header.clone(), challenges });
        Ok(header)
    }

    /// A repository of this registry, but this one, that is known to have a blob.
    fn seen_in(&self, digest: &Digest) -> Option<String> {
        let seen = self.client.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let found = seen.get(&(self.image.registry.clone(), digest.clone()));
        found.filter(|repository| **repository != self.repository).cloned()
    }

    /// Remembers that this repository has a blob.
    fn saw(&self, digest: &Digest) {
        let mut seen = self.client.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MAX_SEEN {
            seen.clear();
        }
        seen.insert((self.image.registry.clone(), digest.clone()), self.repository.clone());
    }

    /// The answer if it has the status, else the error it tells of.
    async fn expect(&self, response: Response, status: StatusCode) -> Result<Response, ClientError> {
        if response.status() == status { Ok(response) } else { Err(ClientError::from_answer(response).await) }
    }

    /// A manifest, verified: against `digest` and `size` where they are known, against the answer's own header always.
    async fn manifest(
        &self,
        reference: &str,
        digest: Option<&Digest>,
        size: Option<u64>,
    ) -> Result<(Descriptor, ManifestView, Bytes), ClientError> {
        let path = format!("manifests/{reference}");
        let response = self.send(Repeat::IfIdempotent, |s| s.manifest_request(Method::GET, &path)).await?;
        let response = self.expect(response, StatusCode::OK).await?;
        let text = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (media_type, claimed) = (text("content-type"), text("docker-content-digest"));
        let bytes = read_limited(response, MAX_MANIFEST).await?;
        // A tag says nothing of the algorithm: then the answer may.
        let claim = claimed.as_deref().and_then(|claimed| claimed.parse::<Digest>().ok());
        let algorithm = digest.or(claim.as_ref()).map(Digest::algorithm).unwrap_or_default();
        let found = Digest::by(algorithm, &bytes);
        if digest.is_some_and(|d| *d != found) || size.is_some_and(|s| s != bytes.len() as u64) {
            return Err(self.data("sends another manifest than was asked for"));
        }
        if claimed.is_some_and(|claimed| claimed != found.as_str()) {
            return Err(self.data("sends a digest header that does not fit the manifest"));
        }
        let view = ManifestView::parse(&bytes).map_err(|source| ClientError::Manifest {
            registry: self.image.registry.clone(),
            repository: self.image.repository.clone(),
            source,
        })?;
        let media_type = media_type.as_deref().map_or(view.media_type(), |t| t.split(';').next().unwrap_or(t).trim());
        if ![INDEX, MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].contains(&media_type) || media_type != view.media_type() {
            return Err(self.data("sends something that is no manifest, or not of the type it says"));
        }
        Ok((Descriptor::new(media_type, found, bytes.len() as u64), view, bytes))
    }
}

/// How long a transfer of `size` bytes may take: a minute, and the time of a slow line (128 KiB/s).
fn transfer_time(size: u64) -> Duration {
    Duration::from_mins(1) + Duration::from_secs(size / (128 * 1024))
}
