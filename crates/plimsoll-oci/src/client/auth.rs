//! Credentials: where they come from, and how a registry's challenge is answered (Basic, or a Bearer token).
//!
//! What it is not: a keeper of credentials. Whoever starts credential helpers is passed in.

use super::{ClientError, RegistryClient, Session};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::future::BoxFuture;
use plimsoll_core::Secret;
use plimsoll_http::{Client, Method, Repeat, Request, StatusCode, Url, header, is_loopback_host, read_limited};
use serde::Deserialize;
use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

/// A name and a password or token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name; `<token>` where the password is an identity token, to be exchanged for one for the registry.
    pub username: String,
    /// The password or token.
    pub password: Secret,
}

/// The name that stands for an identity token, in the words of Docker's credential helpers.
const IDENTITY: &str = "<token>";

/// Where credentials come from.
#[derive(Debug, Clone, Default)]
pub enum AuthSource {
    /// There are none.
    #[default]
    Anonymous,
    /// These, for every registry.
    Fixed(Credentials),
    /// A file as `docker login` writes it; a missing one holds none.
    DockerConfig {
        /// The file.
        path: PathBuf,
        /// Who asks the helpers that the file names.
        helpers: CredentialHelpers,
    },
}

/// Asks Docker's credential helpers: gets the name of one, such as `ecr-login` for `docker-credential-ecr-login`, and the
/// registry, as the helper knows it.
#[derive(Clone)]
pub struct CredentialHelpers(Arc<AskHelper>);

type AskHelper = dyn Fn(String, String) -> BoxFuture<'static, Result<Option<Credentials>, String>> + Send + Sync;

impl CredentialHelpers {
    /// Helpers that are asked by `ask`, which tells what went wrong without what it was told.
    pub fn new(
        ask: impl Fn(String, String) -> BoxFuture<'static, Result<Option<Credentials>, String>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(ask))
    }
}

impl fmt::Debug for CredentialHelpers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialHelpers")
    }
}

/// What a credential helper answers to `get`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

impl Credentials {
    /// Reads what a credential helper prints for `get`.
    pub fn of_helper(output: &[u8]) -> Option<Self> {
        let helped: Helped = serde_json::from_slice(output).ok()?;
        Some(Self { username: helped.username, password: Secret::new(helped.secret) })
    }
}

/// Docker's file is some entries long.
const MAX_CONFIG: usize = 1024 * 1024;
/// What Docker calls its own registry, in that file.
const HUB: &str = "https://index.docker.io/v1/";

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DockerConfig {
    auths: BTreeMap<String, DockerAuth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DockerAuth {
    auth: Option<String>,
    identitytoken: Option<String>,
}

/// What Docker's file says of a registry.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    These(Credentials),
    Helper(String),
}

impl RegistryClient {
    /// The credentials for a registry, as it stands in references.
    pub async fn credentials(&self, registry: &str) -> Result<Option<Credentials>, ClientError> {
        if let Some(named) = self.options.hosts.get(registry).and_then(|host| host.credentials.as_ref()) {
            return Ok(Some(named.clone()));
        }
        self.options.auth.lookup(registry).await
    }
}

impl AuthSource {
    async fn lookup(&self, registry: &str) -> Result<Option<Credentials>, ClientError> {
        let (path, helpers) = match self {
            Self::Anonymous => return Ok(None),
            Self::Fixed(credentials) => return Ok(Some(credentials.clone())),
            Self::DockerConfig { path, helpers } => (path, helpers),
        };
        let err =
            |reason: String| ClientError::Credentials { registry: registry.to_owned(), path: path.clone(), reason };
        let bytes = match std::fs::read(path) {
            Ok(bytes) if bytes.len() > MAX_CONFIG => return Err(err("it is longer than 1 MiB".to_owned())),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(_) => return Err(err("it is not readable".to_owned())),
        };
        match from_docker_config(&bytes, registry).map_err(|reason| err(reason.to_owned()))? {
            Said::Nothing => Ok(None),
            Said::These(credentials) => Ok(Some(credentials)),
            Said::Helper(helper) => {
                let server = if is_hub(registry) { HUB } else { registry };
                let asked = (helpers.0)(helper.clone(), server.to_owned()).await;
                asked.map_err(|reason| err(format!("docker-credential-{helper} {reason}")))
            }
        }
    }
}

/// Whether this is Docker's own registry, which has several names.
pub(super) fn is_hub(registry: &str) -> bool {
    matches!(registry, "docker.io" | "index.docker.io" | "registry-1.docker.io")
}

fn from_docker_config(bytes: &[u8], registry: &str) -> Result<Said, &'static str> {
    // serde's message may quote the file, so it is not passed on.
    let config: DockerConfig = serde_json::from_slice(bytes).map_err(|_| "it is no JSON of that shape")?;
    let host = |key: &str| {
        let key = key.trim_start_matches("https://").trim_start_matches("http://");
        key.split('/').next().unwrap_or(key).to_owned()
    };
    let is_it = |key: &str| host(key) == registry || is_hub(registry) && is_hub(&host(key));
    if let Some((_, helper)) = config.cred_helpers.iter().find(|(key, _)| is_it(key)) {
        return helper_named(helper);
    }
    let entry = config.auths.iter().find(|(key, _)| is_it(key)).map(|(_, entry)| entry);
    if let Some(token) = entry.and_then(|entry| entry.identitytoken.as_ref()).filter(|token| !token.is_empty()) {
        return Ok(Said::These(Credentials { username: IDENTITY.to_owned(), password: Secret::new(token.as_str()) }));
    }
    let Some(auth) = entry.and_then(|entry| entry.auth.as_ref()) else {
        return config.creds_store.as_deref().map_or(Ok(Said::Nothing), helper_named);
    };
    let plain = STANDARD.decode(auth).ok().and_then(|b| String::from_utf8(b).ok());
    let plain = plain.ok_or("its entry is not base64")?;
    let (username, password) = plain.split_once(':').ok_or("its entry has no colon")?;
    Ok(Said::These(Credentials { username: username.to_owned(), password: Secret::new(password) }))
}

/// A program's name becomes part of a path: nothing that leads elsewhere.
fn helper_named(helper: &str) -> Result<Said, &'static str> {
    let plain =
        !helper.is_empty() && helper.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if plain { Ok(Said::Helper(helper.to_owned())) } else { Err("it names a credential helper that cannot be one") }
}

fn basic(credentials: &Credentials) -> Secret {
    Secret::new(format!(
        "Basic {}",
        STANDARD.encode(format!("{}:{}", credentials.username, credentials.password.expose()))
    ))
}

#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

/// Reads a `WWW-Authenticate` header (RFC 9110, section 11.6.1).
fn parse_challenge(text: &str) -> Option<Challenge> {
    let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut rest) = (None, None, rest.trim());
    while let Some((name, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value.to_owned()),
            "service" => service = Some(value.to_owned()),
            _ => {}
        }
        rest = next.trim_start_matches([',', ' ']);
    }
    Some(Challenge::Bearer { realm: realm?, service })
}

/// Some services use the one name, some the other, and some both.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// The `Authorization` header that answers the registry's challenges, good for reading the repository `also` too.
pub(super) async fn answer(
    session: &Session<'_>,
    challenges: &[String],
    also: Option<&str>,
) -> Result<Secret, ClientError> {
    let registry = &session.image.registry;
    let denied = || ClientError::Denied { registry: registry.clone() };
    let credentials = session.client.credentials(registry).await?;
    match challenges.iter().find_map(|text| parse_challenge(text)) {
        Some(Challenge::Basic) => Ok(basic(&credentials.ok_or_else(denied)?)),
        Some(Challenge::Bearer { realm, service }) => {
            let url = token_url(session, &realm, service.as_deref(), also)
                .ok_or_else(|| session.data("names a token service that must not be asked"))?;
            let http = session.http;
            let build = || token_request(http, &url, credentials.as_ref());
            let response = http.send_with_retry(&session.client.options.policy, Repeat::Always, build).await?;
            if response.status() != StatusCode::OK {
                return Err(denied());
            }
            let body = read_limited(response, 256 * 1024).await?;
            let token = serde_json::from_slice::<Token>(&body).ok().and_then(|told| told.token.or(told.access_token));
            let token = token.ok_or_else(|| session.data("has a token service that sends no token"))?;
            Ok(Secret::new(format!("Bearer {token}")))
        }
        None => Err(denied()),
    }
}

/// Asks for a token: by name and password, or by an identity token (OAuth 2.0, RFC 6749, section 6).
fn token_request(
    http: &Client,
    url: &Url,
    credentials: Option<&Credentials>,
) -> Result<Request, plimsoll_http::HttpError> {
    match credentials {
        Some(identity) if identity.username == IDENTITY => {
            let mut to = url.clone();
            to.set_query(None);
            // The same pairs, in a body: a URL stands in logs.
            let mut form = url.clone();
            form.query_pairs_mut()
                .append_pair("grant_type", "refresh_token")
                .append_pair("client_id", "plimsoll")
                .append_pair("refresh_token", identity.password.expose());
            let form = form.query().unwrap_or_default().to_owned();
            let request = http.request(Method::POST, to).body(form);
            Client::build(request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded"))
        }
        Some(credentials) => Client::build(
            http.request(Method::GET, url.clone()).header(header::AUTHORIZATION, basic(credentials).expose()),
        ),
        None => Client::build(http.request(Method::GET, url.clone())),
    }
}

/// Where to ask for a token: by TLS, or on this machine when the registry is on it too.
fn token_url(session: &Session<'_>, realm: &str, service: Option<&str>, also: Option<&str>) -> Option<Url> {
    let mut url = Url::parse(realm).ok()?;
    let local = |url: &Url| url.host_str().is_some_and(is_loopback_host);
    let allowed = if local(&url) { local(&session.base) } else { url.scheme() == "https" };
    if !allowed {
        return None;
    }
    let scope = format!("repository:{}:{}", session.repository, session.rights);
    let also = also.map(|repository| ("scope", format!("repository:{repository}:pull")));
    let mut pairs = url.query_pairs_mut();
    pairs.extend_pairs(service.map(|s| ("service", s))).append_pair("scope", &scope).extend_pairs(also);
    drop(pairs);
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_with_and_without_quotes() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
        };
        for (text, expected) in [
            ("Basic realm=\"x\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://a.io/token?x=1,2\",service=\"a.io\",scope=\"repository:x:pull,push\"",
                bearer("https://a.io/token?x=1,2", Some("a.io")),
            ),
            ("bearer realm=https://a.io, error=invalid", bearer("https://a.io", None)),
            ("Bearer service=\"x\"", None),
            ("Bearer realm=\"unclosed", None),
            ("Negotiate", None),
        ] {
            assert_eq!(parse_challenge(text), expected, "{text}");
        }
    }

    fn check(config: &str, registry: &str, expected: Result<Said, &'static str>) {
        let both = [from_docker_config(config.as_bytes(), registry), expected];
        assert_eq!(both[0], both[1], "{registry} in {config}");
    }

    fn these(username: &str, password: &str) -> Said {
        Said::These(Credentials { username: username.to_owned(), password: Secret::new(password) })
    }

    #[test]
    fn docker_config_entries_are_found_by_host() {
        let auth = STANDARD.encode("me:pa:ss");
        let config = format!(
            r#"{{"auths":{{"https://a.io/v1/":{{"auth":"{auth}"}},"b.io:5000":{{"auth":"!"}},"c.io":{{}},
                "https://index.docker.io/v1/":{{"auth":"{auth}"}},"e.io":{{"identitytoken":"t"}}}}}}"#
        );
        check(&config, "a.io", Ok(these("me", "pa:ss")));
        check(&config, "docker.io", Ok(these("me", "pa:ss")));
        check(&config, "e.io", Ok(these("<token>", "t")));
        check(&config, "b.io:5000", Err("its entry is not base64"));
        check(&config, "c.io", Ok(Said::Nothing));
        check(&config, "d.io", Ok(Said::Nothing));
        check("[", "a.io", Err("it is no JSON of that shape"));
    }

    #[test]
    fn helpers_are_asked_for_their_registries_and_the_store_for_the_others() {
        let auth = STANDARD.encode("me:pass");
        let config = format!(
            r#"{{"credHelpers":{{"a.io":"ecr-login","evil.io":"../../bin/sh"}},"credsStore":"desktop",
                "auths":{{"b.io":{{"auth":"{auth}"}},"c.io":{{}}}}}}"#
        );
        check(&config, "a.io", Ok(Said::Helper("ecr-login".to_owned())));
        check(&config, "b.io", Ok(these("me", "pass")));
        check(&config, "c.io", Ok(Said::Helper("desktop".to_owned())));
        check(&config, "evil.io", Err("it names a credential helper that cannot be one"));
    }

    #[test]
    fn an_identity_token_is_sent_in_a_body_and_a_password_in_a_header() {
        let http = Client::new(&plimsoll_http::ClientOptions::default()).unwrap();
        let url: Url = "https://a.io/token?service=s&scope=repository:x:pull".parse().unwrap();
        let credentials = |name: &str| Credentials { username: name.to_owned(), password: Secret::new("hunter2") };
        let request = token_request(&http, &url, Some(&credentials(IDENTITY))).unwrap();
        assert_eq!((request.method(), request.url().as_str()), (&Method::POST, "https://a.io/token"));
        let body = String::from_utf8(request.body().unwrap().as_bytes().unwrap().to_vec()).unwrap();
        assert!(body.contains("grant_type=refresh_token") && body.contains("refresh_token=hunter2"), "{body}");
        let request = token_request(&http, &url, Some(&credentials("ci"))).unwrap();
        assert!(request.headers().contains_key("authorization") && request.body().is_none());
    }
}
