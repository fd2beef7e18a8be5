//! From a path to what is meant. Pure; every name that reaches the disk is checked here.

use super::error::ApiError;
use plimsoll_core::{Digest, ImageRef};

/// What a path is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Base,
    Blob(String, Digest),
    Uploads(String),
    Upload(String, String),
    Manifest(String, Reference),
    Tags(String),
    Referrers(String, Digest),
}

impl Place {
    /// The repository it is about.
    pub(super) fn repository(&self) -> Option<&str> {
        match self {
            Self::Base => None,
            Self::Blob(repository, _)
            | Self::Uploads(repository)
            | Self::Upload(repository, _)
            | Self::Manifest(repository, _)
            | Self::Tags(repository)
            | Self::Referrers(repository, _) => Some(repository),
        }
    }
}

/// How a manifest is named.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reference {
    Tag(String),
    Digest(Digest),
}

/// Reads the path of a request.
pub(super) fn parse(path: &str) -> Result<Place, ApiError> {
    let path = path.replace("%3A", ":").replace("%3a", ":");
    let rest = path.strip_prefix("/v2").ok_or_else(unknown)?;
    if matches!(rest, "" | "/") {
        return Ok(Place::Base);
    }
    let rest = rest.strip_prefix('/').ok_or_else(unknown)?;
    let parts: Vec<&str> = rest.split('/').collect();
    match parts.as_slice() {
        [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => Ok(Place::Uploads(repository(name)?)),
        [name @ .., "blobs", "uploads", id] => Ok(Place::Upload(repository(name)?, upload_id(id)?)),
        [name @ .., "blobs", digest] => Ok(Place::Blob(repository(name)?, parse_digest(digest)?)),
        [name @ .., "manifests", reference] => {
            Ok(Place::Manifest(repository(name)?, parse_reference(name, reference)?))
        }
        [name @ .., "tags", "list"] => Ok(Place::Tags(repository(name)?)),
        [name @ .., "referrers", digest] => Ok(Place::Referrers(repository(name)?, parse_digest(digest)?)),
        _ => Err(unknown()),
    }
}

fn unknown() -> ApiError {
    ApiError::absent("UNSUPPORTED", "there is nothing at this path")
}

/// A repository's name by the specification's grammar; nothing that passes can leave its directory.
pub(super) fn repository(parts: &[&str]) -> Result<String, ApiError> {
    let name = parts.join("/");
    match format!("localhost/{name}").parse::<ImageRef>() {
        Ok(parsed) if parsed.repository == name => Ok(name),
        _ => Err(ApiError::bad("NAME_INVALID", "the repository's name is malformed")),
    }
}

/// A digest.
pub(super) fn parse_digest(text: &str) -> Result<Digest, ApiError> {
    text.parse().map_err(|_| ApiError::bad("DIGEST_INVALID", "the digest is malformed, or neither SHA-256 nor SHA-512"))
}

fn parse_reference(name: &[&str], text: &str) -> Result<Reference, ApiError> {
    if text.contains(':') {
        return parse_digest(text).map(Reference::Digest);
    }
    parse_tag(&name.join("/"), text).map(Reference::Tag)
}

/// A tag of a repository.
pub(super) fn parse_tag(repository: &str, text: &str) -> Result<String, ApiError> {
    match format!("localhost/{repository}:{text}").parse::<ImageRef>() {
        Ok(parsed) if parsed.tag.as_deref() == Some(text) => Ok(text.to_owned()),
        _ => Err(ApiError::bad("MANIFEST_INVALID", "the tag is malformed")),
    }
}

fn upload_id(text: &str) -> Result<String, ApiError> {
    let valid = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if valid { Ok(text.to_owned()) } else { Err(ApiError::absent("BLOB_UPLOAD_UNKNOWN", "there is no such upload")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(path: &str, expected: Result<Place, &'static str>) {
        let both = [parse(path).map_err(|e| e.code), expected];
        assert_eq!(both[0], both[1], "{path}");
    }

    #[test]
    fn paths_say_what_is_meant() {
        let digest = Digest::of(b"x");
        let id = "0123456789abcdef0123456789abcdef";
        check("/v2/", Ok(Place::Base));
        check("/v2/a/b/blobs/uploads/", Ok(Place::Uploads("a/b".into())));
        check("/v2/a/blobs/uploads", Ok(Place::Uploads("a".into())));
        check(&format!("/v2/a/blobs/uploads/{id}"), Ok(Place::Upload("a".into(), id.into())));
        check(&format!("/v2/a/blobs/{digest}"), Ok(Place::Blob("a".into(), digest.clone())));
        let encoded = digest.to_string().replace(':', "%3A");
        check(
            &format!("/v2/a/manifests/{encoded}"),
            Ok(Place::Manifest("a".into(), Reference::Digest(digest.clone()))),
        );
        check("/v2/manifests/manifests/v1.0", Ok(Place::Manifest("manifests".into(), Reference::Tag("v1.0".into()))));
        check("/v2/a/tags/list", Ok(Place::Tags("a".into())));
        check(&format!("/v2/a/referrers/{digest}"), Ok(Place::Referrers("a".into(), digest)));
    }

    #[test]
    fn names_that_could_leave_their_directory_are_refused() {
        check("/v2/../x/tags/list", Err("NAME_INVALID"));
        check("/v2/a/../../x/tags/list", Err("NAME_INVALID"));
        check("/v2/_tags/tags/list", Err("NAME_INVALID"));
        check("/v2/A/tags/list", Err("NAME_INVALID"));
        check("/v2//tags/list", Err("NAME_INVALID"));
        check("/v2/a%2f..%2fb/tags/list", Err("NAME_INVALID"));
        check("/v2/a/manifests/..", Err("MANIFEST_INVALID"));
        check("/v2/a/manifests/v1@sha256:", Err("DIGEST_INVALID"));
        check("/v2/a/blobs/sha256:../../x", Err("UNSUPPORTED"));
        check("/v2/a/blobs/uploads/../../x", Err("UNSUPPORTED"));
        check("/v2/a/blobs/uploads/xyz", Err("BLOB_UPLOAD_UNKNOWN"));
        check("/v1/", Err("UNSUPPORTED"));
    }

    proptest! {
        #[test]
        fn no_accepted_name_has_a_part_that_climbs(path in "/v2/[a-z./_%-]{0,20}/(tags/list|manifests/[a-z.:]{1,5})") {
            if let Ok(Place::Tags(name) | Place::Manifest(name, _)) = parse(&path) {
                prop_assert!(name.split('/').all(|p| !p.is_empty() && !p.starts_with(['.', '_'])));
            }
        }
    }
}
