//! Who may do what: users out of a file as `htpasswd -B` writes it, and short-lived tokens as Docker's clients ask for them
//! ("Token Authentication Specification" of the distribution project). Every user may do everything; who has no name may
//! read, or nothing.
//!
//! A token names the repositories it is for, is signed with a key that only this process knows, and ends after minutes: after
//! a restart clients ask for another one.

use super::error::ApiError;
use axum::http::{HeaderMap, StatusCode, header};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How long a token is good for: longer than the clock differs, shorter than a thief needs.
const LIFETIME: Duration = Duration::from_mins(5);
/// Scopes of one token at most; a client asks for one or two.
const MAX_SCOPES: usize = 32;

/// Who has access to a registry.
pub struct Access {
    /// Names, and passwords as bcrypt keeps them.
    users: HashMap<String, String>,
    anonymous_pull: bool,
    key: [u8; 32],
}

/// Why a file of users is refused.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A line is not `name:hash`.
    #[error("line {line} is not `NAME:HASH`, as `htpasswd -B` writes it")]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// A password is kept in a way that is easily guessed.
    #[error("line {line}: the password of `{user}` is not kept by bcrypt; make it with `htpasswd -B`")]
    Hash {
        /// Counted from 1.
        line: usize,
        /// Whose.
        user: String,
    },
    /// There is nobody in it.
    #[error("it names no user")]
    Empty,
    /// The system has no random numbers.
    #[error("the system gives no random number")]
    Random(#[source] getrandom::Error),
}

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    Pull,
    Push,
    Delete,
}

impl Action {
    /// What a token for it is asked for: who pushes looks at what is there first.
    fn scope(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
            Self::Delete => "pull,push,delete",
        }
    }
}

/// What a token says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Claims {
    /// Seconds since 1970.
    until: u64,
    /// Whether it was got with a name and a password.
    known: bool,
    grants: BTreeSet<(String, Action)>,
}

/// What who asks may do.
#[derive(Debug)]
pub(super) struct Permit(Option<Claims>);

impl Permit {
    /// Where nobody is asked who they are.
    pub(super) const ALL: Self = Self(None);

    /// Whether all repositories may be read. A token is asked for one of them; what its owner may read elsewhere need not be
    /// in it.
    pub(super) fn reads_all(&self) -> bool {
        self.0.as_ref().is_none_or(|claims| claims.known)
    }

    pub(super) fn allows(&self, repository: &str, action: Action) -> bool {
        self.0.as_ref().is_none_or(|claims| claims.grants.contains(&(repository.to_owned(), action)))
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("users", &self.users.len()).finish_non_exhaustive()
    }
}

impl Access {
    /// The users of a file in the format of Apache's `htpasswd`, with passwords by bcrypt. With `anonymous_pull` others may
    /// read.
    pub fn from_htpasswd(text: &str, anonymous_pull: bool) -> Result<Self, AccessError> {
        let mut users = HashMap::new();
        for (line, text) in (1..).zip(text.lines().map(str::trim)).filter(|(_, text)| !text.is_empty()) {
            let Some((user, hash)) = text.split_once(':').filter(|(user, _)| !user.is_empty()) else {
                return Err(AccessError::Line { line });
            };
            if hash.parse::<bcrypt::HashParts>().is_err() {
                return Err(AccessError::Hash { line, user: user.to_owned() });
            }
            users.insert(user.to_owned(), hash.to_owned());
        }
        if users.is_empty() {
            return Err(AccessError::Empty);
        }
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(AccessError::Random)?;
        Ok(Self { users, anonymous_pull, key })
    }

    /// Whether the token of a request, if it has one, is good for what it does. If not, the answer says where to get one.
    pub(super) fn check(
        &self,
        headers: &HeaderMap,
        wanted: Option<(&str, Action)>,
        realm: &str,
        now: SystemTime,
    ) -> Result<Permit, ApiError> {
        let token = text(headers, "Bearer").and_then(|token| self.read(token, now));
        let insufficient = token.is_some();
        let permit = token.map(|claims| Permit(Some(claims)));
        let fits = |permit: &Permit| wanted.is_none_or(|(repository, action)| permit.allows(repository, action));
        permit.filter(fits).ok_or_else(|| {
            let scope = wanted.map(|(name, action)| format!(",scope=\"repository:{name}:{}\"", action.scope()));
            let reason = if insufficient { ",error=\"insufficient_scope\"" } else { "" };
            let scope = scope.unwrap_or_default();
            let challenge = format!("Bearer realm=\"{realm}\",service=\"plimsoll\"{scope}{reason}");
            let mut error = ApiError::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication is required");
            error.headers.push((header::WWW_AUTHENTICATE, challenge));
            error
        })
    }

    /// A token for who asks: by name and password, or without. Slow, as bcrypt is meant to be.
    pub(super) fn grant<'a>(
        &self,
        headers: &HeaderMap,
        scopes: impl Iterator<Item = &'a str>,
        now: SystemTime,
    ) -> Result<String, ApiError> {
        let refused = || ApiError::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "the name or the password is wrong");
        let known = match text(headers, "Basic") {
            None if self.anonymous_pull => false,
            Some(basic) if self.knows(basic) => true,
            None | Some(_) => return Err(refused()),
        };
        let asked = scopes.take(MAX_SCOPES).filter_map(scope).flatten();
        let grants = asked.filter(|(_, action)| known || *action == Action::Pull).collect();
        Ok(self.write(&Claims { until: seconds(now + LIFETIME), known, grants }))
    }

    fn knows(&self, basic: &str) -> bool {
        let decoded = base64::engine::general_purpose::STANDARD.decode(basic).ok();
        let Some(text) = decoded.and_then(|bytes| String::from_utf8(bytes).ok()) else { return false };
        let Some((user, password)) = text.split_once(':') else { return false };
        // A name that is not there must not be told by how fast the answer comes.
        let hash = self.users.get(user).or_else(|| self.users.values().next());
        let right = hash.is_some_and(|hash| bcrypt::verify(password, hash).unwrap_or(false));
        right && self.users.contains_key(user)
    }

    fn mac(&self, claims: &str) -> Hmac<sha2::Sha256> {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        mac.update(claims.as_bytes());
        mac
    }

    fn write(&self, claims: &Claims) -> String {
        let claims = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims).expect("claims are plain data"));
        let mac = URL_SAFE_NO_PAD.encode(self.mac(&claims).finalize().into_bytes());
        format!("{claims}.{mac}")
    }

    fn read(&self, token: &str, now: SystemTime) -> Option<Claims> {
        let (claims, mac) = token.split_once('.')?;
        // Compared in a time that tells nothing of where they differ.
        self.mac(claims).verify_slice(&URL_SAFE_NO_PAD.decode(mac).ok()?).ok()?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        (claims.until > seconds(now)).then_some(claims)
    }
}

/// For how many seconds a token is good.
pub(super) const fn lifetime() -> u64 {
    LIFETIME.as_secs()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What follows the scheme in `Authorization`.
fn text<'h>(headers: &'h HeaderMap, scheme: &str) -> Option<&'h str> {
    let (found, rest) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    found.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

/// Reads `repository:NAME:ACTION,…`.
fn scope(text: &str) -> Option<Vec<(String, Action)>> {
    let (name, actions) = text.strip_prefix("repository:")?.rsplit_once(':')?;
    let of = |action: &str| match action {
        "pull" => vec![Action::Pull],
        "push" => vec![Action::Push],
        "delete" => vec![Action::Delete],
        "*" => vec![Action::Pull, Action::Push, Action::Delete],
        _ => Vec::new(),
    };
    Some(actions.split(',').flat_map(of).map(|action| (name.to_owned(), action)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn access(anonymous_pull: bool) -> Access {
        let hash = bcrypt::hash("secret", 4).unwrap();
        Access::from_htpasswd(&format!("ci:{hash}\n\n"), anonymous_pull).unwrap()
    }

    fn basic(text: &str) -> HeaderMap {
        with(&format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text)))
    }

    fn with(authorization: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(authorization).unwrap())])
    }

    fn check(access: &Access, token: &str, wanted: (&str, Action), now: SystemTime) -> bool {
        access.check(&with(&format!("Bearer {token}")), Some(wanted), "http://h/token", now).is_ok()
    }

    #[test]
    fn a_token_is_good_for_what_was_asked_and_for_minutes() {
        let (access, now) = (access(false), SystemTime::now());
        let token = access.grant(&basic("ci:secret"), ["repository:a/b:pull,push"].into_iter(), now).unwrap();
        assert!(check(&access, &token, ("a/b", Action::Push), now));
        assert!(!check(&access, &token, ("a/b", Action::Delete), now));
        assert!(!check(&access, &token, ("a", Action::Pull), now));
        assert!(!check(&access, &token, ("a/b", Action::Pull), now + LIFETIME));
        let (claims, mac) = token.split_once('.').unwrap();
        assert!(!check(&access, &format!("{claims}A.{mac}"), ("a/b", Action::Pull), now));
        assert!(!check(&super::tests::access(false), &token, ("a/b", Action::Pull), now), "by another key");
    }

    #[test]
    fn a_wrong_password_gets_nothing_and_nobody_may_read_at_most() {
        let now = SystemTime::now();
        for wrong in ["ci:wrong", "other:secret", "ci", ""] {
            assert!(access(true).grant(&basic(wrong), std::iter::empty(), now).is_err(), "{wrong}");
        }
        assert!(access(false).grant(&HeaderMap::new(), std::iter::empty(), now).is_err());
        let access = access(true);
        let token = access.grant(&HeaderMap::new(), ["repository:a:pull,push,delete"].into_iter(), now).unwrap();
        assert!(check(&access, &token, ("a", Action::Pull), now) && !check(&access, &token, ("a", Action::Push), now));
    }

    #[test]
    fn the_answer_without_a_token_says_where_to_get_one() {
        let error = access(false)
            .check(&HeaderMap::new(), Some(("a", Action::Push)), "http://h/token", SystemTime::now())
            .unwrap_err();
        let challenge = "Bearer realm=\"http://h/token\",service=\"plimsoll\",scope=\"repository:a:pull,push\"";
        assert_eq!((error.status.as_u16(), error.code, &*error.headers[0].1), (401, "UNAUTHORIZED", challenge));
    }

    #[test]
    fn only_bcrypt_is_good_enough() {
        for (text, part) in [
            ("ci:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "line 1: the password of `ci`"),
            ("nobody", "line 1"),
            (":x", "line 1"),
            ("", "no user"),
        ] {
            let error = Access::from_htpasswd(text, false).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
