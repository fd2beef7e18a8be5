//! The name of an image in a registry.

use crate::Digest;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// `registry/repository[:tag][@digest]`, always with an explicit registry host.
///
/// The grammar is that of the OCI distribution specification ("Pulling manifests") for repository and tag; there is no default
/// registry, because what a bare `nginx` means differs between tools.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageRef {
    /// Host with an optional port, such as `127.0.0.1:5000`.
    pub registry: String,
    /// Path below the host, such as `kairos/api-gateway`.
    pub repository: String,
    /// The tag: advisory, it can be moved.
    pub tag: Option<String>,
    /// The digest: what is deployed.
    pub digest: Option<Digest>,
}

/// A text that is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no image reference: {reason}")]
pub struct ImageRefError {
    /// The refused text.
    pub text: String,
    /// Which part is wrong.
    pub reason: &'static str,
}

impl ImageRef {
    /// The same image by digest alone.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), tag: None, ..self.clone() }
    }

    /// The same repository by tag alone.
    #[must_use]
    pub fn tagged(&self, tag: &str) -> Self {
        Self { digest: None, tag: Some(tag.to_owned()), ..self.clone() }
    }

    /// What to ask the registry for: the digest if there is one, else the tag, else `latest`.
    pub fn reference(&self) -> &str {
        self.digest.as_ref().map(Digest::as_str).or(self.tag.as_deref()).unwrap_or("latest")
    }
}

fn valid_component(part: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !part.is_empty()
        && part.bytes().all(|b| alnum(b) || matches!(b, b'.' | b'_' | b'-'))
        && part.bytes().next().is_some_and(alnum)
        && part.bytes().last().is_some_and(alnum)
        && !part.contains("..")
}

fn valid_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
        && tag.bytes().next().is_some_and(word)
}

impl FromStr for ImageRef {
    type Err = ImageRefError;

    fn from_str(text: &str) -> Result<Self, ImageRefError> {
        let err = |reason| ImageRefError { text: text.chars().take(300).collect(), reason };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| err("its digest is malformed"))?)),
            None => (text, None),
        };
        let (registry, path) = rest.split_once('/').ok_or_else(|| err("it names no registry host"))?;
        let host_like = registry.contains(['.', ':']) || registry == "localhost";
        let host_bytes = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b':' | b'-' | b'[' | b']');
        if !host_like || !registry.bytes().all(host_bytes) {
            return Err(err("its first part is no registry host"));
        }
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        if repository.len() > 255 || !repository.split('/').all(valid_component) {
            return Err(err("its repository is malformed"));
        }
        if tag.is_some_and(|t| !valid_tag(t)) {
            return Err(err("its tag is malformed"));
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

impl TryFrom<String> for ImageRef {
    type Error = ImageRefError;

    fn try_from(text: String) -> Result<Self, ImageRefError> {
        text.parse()
    }
}

impl From<ImageRef> for String {
    fn from(image: ImageRef) -> Self {
        image.to_string()
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_read_back_as_they_were_written() {
        let digest = Digest::of(b"x");
        for text in [
            "127.0.0.1:5000/kairos/api-gateway:0.1.0",
            "localhost/a",
            "[::1]:5000/a:b",
            &format!("ghcr.io/o/r@{digest}"),
            &format!("ghcr.io/o/r:v1@{digest}"),
        ] {
            assert_eq!(text.parse::<ImageRef>().map(|r| r.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn malformed_references_say_which_part() {
        for (text, part) in [
            ("nginx", "host"),
            ("library/nginx", "host"),
            ("h.io/../etc", "repository"),
            ("h.io/A", "repository"),
            ("h.io/a//b", "repository"),
            ("h.io/a:", "tag"),
            ("h.io/a@sha256:zz", "digest"),
        ] {
            let error = text.parse::<ImageRef>().expect_err(text);
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
