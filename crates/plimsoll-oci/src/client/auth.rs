//! Credentials: where they come from, and how a registry's challenge is answered (Basic, or a Bearer token).
//!
//! What it is not: a keeper of credentials, or a caller of credential helpers.

use super::{ClientError, Session};
use base64::{Engine, engine::general_purpose::STANDARD};
use plimsoll_core::Secret;
use plimsoll_http::{Client, Method, Repeat, StatusCode, Url, header, is_loopback_host, read_limited};
use serde::Deserialize;
use std::{collections::BTreeMap, path::PathBuf};

/// A name and a password or token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub username: String,
    /// The password or token.
    pub password: Secret,
}

/// Where credentials come from.
#[derive(Debug, Clone, Default)]
pub enum AuthSource {
    /// There are none.
    #[default]
    Anonymous,
    /// These, for every registry.
    Fixed(Credentials),
    /// The `auths` of a file as `docker login` writes it; a missing file holds none.
    DockerConfig(PathBuf),
}

/// Docker's file is some entries long.
const MAX_CONFIG: usize = 1024 * 1024;

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    #[serde(default)]
    auth: Option<String>,
}

impl AuthSource {
    /// The credentials for a registry.
    pub fn lookup(&self, registry: &str) -> Result<Option<Credentials>, ClientError> {
        match self {
            Self::Anonymous => Ok(None),
            Self::Fixed(credentials) => Ok(Some(credentials.clone())),
            Self::DockerConfig(path) => {
                let err =
                    |reason| ClientError::Credentials { registry: registry.to_owned(), path: path.clone(), reason };
                let bytes = match std::fs::read(path) {
                    Ok(bytes) if bytes.len() > MAX_CONFIG => return Err(err("it is longer than 1 MiB")),
                    Ok(bytes) => bytes,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    Err(_) => return Err(err("it is not readable")),
                };
                from_docker_config(&bytes, registry).map_err(err)
            }
        }
    }
}

fn from_docker_config(bytes: &[u8], registry: &str) -> Result<Option<Credentials>, &'static str> {
    // serde's message may quote the file, so it is not passed on.
    let config: DockerConfig = serde_json::from_slice(bytes).map_err(|_| "it is no JSON of that shape")?;
    let host = |key: &str| {
        let key = key.trim_start_matches("https://").trim_start_matches("http://");
        key.split('/').next().unwrap_or(key).to_owned()
    };
    let Some(auth) = config.auths.iter().find(|(key, _)| host(key) == registry).and_then(|(_, a)| a.auth.as_ref())
    else {
        return Ok(None);
    };
    let plain = STANDARD.decode(auth).ok().and_then(|b| String::from_utf8(b).ok());
    let plain = plain.ok_or("its entry is not base64")?;
    let (username, password) = plain.split_once(':').ok_or("its entry has no colon")?;
    Ok(Some(Credentials { username: username.to_owned(), password: Secret::new(password) }))
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

#[derive(Deserialize)]
struct Token {
    #[serde(alias = "access_token")]
    token: String,
}

/// The `Authorization` header that answers the registry's challenges, good for reading the repository `also` too.
pub(super) async fn answer(
    session: &Session<'_>,
    challenges: &[String],
    also: Option<&str>,
) -> Result<Secret, ClientError> {
    let registry = &session.image.registry;
    let denied = || ClientError::Denied { registry: registry.clone() };
    let credentials = session.client.options.auth.lookup(registry)?;
    match challenges.iter().find_map(|text| parse_challenge(text)) {
        Some(Challenge::Basic) => Ok(basic(&credentials.ok_or_else(denied)?)),
        Some(Challenge::Bearer { realm, service }) => {
            let url = token_url(session, &realm, service.as_deref(), also)
                .ok_or_else(|| session.data("names a token service that must not be asked"))?;
            let http = &session.client.http;
            let build = || {
                let mut request = http.request(Method::GET, url.clone());
                if let Some(credentials) = &credentials {
                    request = request.header(header::AUTHORIZATION, basic(credentials).expose());
                }
                Client::build(request)
            };
            let response = http.send_with_retry(&session.client.options.policy, Repeat::IfIdempotent, build).await?;
            if response.status() != StatusCode::OK {
                return Err(denied());
            }
            let body = read_limited(response, 256 * 1024).await?;
            let token: Token =
                serde_json::from_slice(&body).map_err(|_| session.data("has a token service that sends no token"))?;
            Ok(Secret::new(format!("Bearer {}", token.token)))
        }
        None => Err(denied()),
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
    let scope = format!("repository:{}:{}", session.image.repository, session.rights);
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

    #[test]
    fn docker_config_entries_are_found_by_host() {
        let auth = STANDARD.encode("me:pa:ss");
        let config =
            format!(r#"{{"auths":{{"https://a.io/v1/":{{"auth":"{auth}"}},"b.io:5000":{{"auth":"!"}},"c.io":{{}}}}}}"#);
        let look = |registry| from_docker_config(config.as_bytes(), registry);
        let found = look("a.io").unwrap().unwrap();
        assert_eq!((found.username.as_str(), found.password.expose()), ("me", "pa:ss"));
        assert!(look("b.io:5000").is_err());
        assert_eq!((look("c.io"), look("d.io")), (Ok(None), Ok(None)));
        assert!(from_docker_config(b"[", "a.io").is_err());
    }
}
