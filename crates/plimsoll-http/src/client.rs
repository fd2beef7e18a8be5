//! The client: reqwest behind a few refusals.

#![expect(clippy::disallowed_methods, reason = "the one HTTP client is made here")]

use crate::{HttpError, guard, pauses::Pauses};
use reqwest::{Certificate, Request, RequestBuilder, Response, Url, header::LOCATION, redirect};
use std::{
    sync::{Arc, Once, OnceLock},
    time::Duration,
};

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The `User-Agent` header.
    pub user_agent: String,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long one request may take from its start to the last byte of its answer; a request may set its own.
    pub timeout: Duration,
    /// Ignore the proxies that the environment names.
    pub no_proxy: bool,
    /// Allow plain HTTP to other machines; loopback is always allowed.
    pub plain_http: bool,
    /// Certificates (PEM) that are trusted besides the system's.
    pub roots: Vec<u8>,
    /// Follow redirects (five at most). Off, a redirect is an answer like any other.
    pub follow_redirects: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            user_agent: concat!("plimsoll/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_mins(1),
            no_proxy: false,
            plain_http: false,
            roots: Vec::new(),
            follow_redirects: true,
        }
    }
}

/// The one HTTP client; cheap to clone, and clones share their connections and the waits that servers ask for.
#[derive(Debug, Clone)]
pub struct Client {
    /// For plain HTTP. Where redirects are followed it is the other one, because they may lead to HTTPS.
    plain: reqwest::Client,
    /// For HTTPS, made with the first such request: reading the system's certificates costs more than all else a release that
    /// changes nothing does.
    tls: Arc<OnceLock<reqwest::Client>>,
    options: Arc<ClientOptions>,
    pub(crate) pauses: Pauses,
}

static PROVIDER: Once = Once::new();

impl Client {
    /// Sets up a client.
    pub fn new(options: &ClientOptions) -> Result<Self, HttpError> {
        PROVIDER.call_once(|| {
            // An error means that a provider is installed already, which serves as well.
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        if !options.roots.is_empty() {
            // Refused here, where somebody can be told which file it was.
            Certificate::from_pem_bundle(&options.roots).map_err(HttpError::Setup)?;
        }
        let plain = builder(options).tls_backend_preconfigured(trusting_nobody()).build();
        let (plain, tls) = (plain.map_err(HttpError::Setup)?, Arc::default());
        Ok(Self { plain, tls, options: Arc::new(options.clone()), pauses: Pauses::default() })
    }

    /// Begins a request.
    pub fn request(&self, method: reqwest::Method, url: Url) -> RequestBuilder {
        self.for_url(&url).request(method, url)
    }

    fn for_url(&self, url: &Url) -> &reqwest::Client {
        if url.scheme() == "http" && !self.options.follow_redirects {
            return &self.plain;
        }
        self.tls.get_or_init(|| {
            let roots = Certificate::from_pem_bundle(&self.options.roots).unwrap_or_default();
            builder(&self.options).tls_certs_merge(roots).build().unwrap_or_else(|error| {
                tracing::debug!(%error, "no system certificates: only plain HTTP to this machine can work");
                self.plain.clone()
            })
        })
    }

    /// Builds what [`request`](Self::request) began.
    pub fn build(builder: RequestBuilder) -> Result<Request, HttpError> {
        builder.build().map_err(|e| HttpError::Malformed { what: e.without_url().to_string() })
    }

    /// Where an answer leads that redirects, for a caller who follows redirects itself.
    pub fn redirect(&self, answer: &Response) -> Result<Option<Url>, HttpError> {
        let location = answer.headers().get(LOCATION).filter(|_| answer.status().is_redirection());
        let Some(location) = location.and_then(|location| location.to_str().ok()) else { return Ok(None) };
        let nowhere =
            |e| HttpError::Redirect { url: guard::shown(answer.url()), to: format!("a place that is none ({e})") };
        let to = answer.url().join(location).map_err(nowhere)?;
        if guard::may_follow(answer.url(), &to, self.options.plain_http) {
            return Ok(Some(to));
        }
        Err(HttpError::Redirect { url: guard::shown(answer.url()), to: guard::shown(&to) })
    }

    /// Sends a request once. An answer of any status is an answer.
    pub async fn send(&self, request: Request) -> Result<Response, HttpError> {
        if !guard::may_send(request.url(), self.options.plain_http) {
            return Err(HttpError::PlainHttp { url: guard::shown(request.url()) });
        }
        let (method, url) = (request.method().clone(), request.url().clone());
        self.for_url(&url).execute(request).await.map_err(|e| HttpError::from_reqwest(&method, &url, e))
    }
}

fn builder(options: &ClientOptions) -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder()
        .user_agent(&options.user_agent)
        .connect_timeout(options.connect_timeout)
        .timeout(options.timeout)
        .redirect(redirects(options));
    if options.no_proxy { builder.no_proxy() } else { builder }
}

/// reqwest drops `Authorization`, `Cookie` and their like when host or port change; this adds where not to go at all.
fn redirects(options: &ClientOptions) -> redirect::Policy {
    let plain_http = options.plain_http;
    if !options.follow_redirects {
        return redirect::Policy::none();
    }
    redirect::Policy::custom(move |attempt| {
        let allowed = attempt.previous().last().is_some_and(|from| guard::may_follow(from, attempt.url(), plain_http));
        if !allowed {
            attempt.error("the redirect leads where requests must not go")
        } else if attempt.previous().len() > guard::MAX_REDIRECTS {
            attempt.error("too many redirects")
        } else {
            attempt.follow()
        }
    })
}

/// TLS that trusts no certificate: a machine without certificates can still reach its own loopback.
fn trusting_nobody() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}
