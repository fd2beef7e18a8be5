//! Descriptors, media types and the parts of manifests that are read (OCI image specification, "Content Descriptors").
//!
//! Reading is tolerant (Docker's older manifests have the same shape) and bounded; writing is in [`image`](crate::image).

use plimsoll_core::{Digest, Platform};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Manifests larger than this are refused, as most registries do (OCI distribution specification, "Pushing Manifests").
pub const MAX_MANIFEST: u64 = 4 * 1024 * 1024;

/// Media type of an image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an image configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of a layer without compression.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Media type of a layer compressed with gzip.
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The media type of a tar layer, compressed with zstd.
pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Docker's name for [`INDEX`].
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's name for [`MANIFEST`].
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's name for [`LAYER_GZIP`].
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// What is pointed at: type, digest and size in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type.
    pub media_type: String,
    /// The digest.
    pub digest: Digest,
    /// The size in bytes.
    pub size: u64,
    /// What it runs on; in an index only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<PlatformSpec>,
}

/// A platform as an index writes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlatformSpec {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64` and so on, in Go's words.
    pub architecture: String,
}

impl PlatformSpec {
    /// Whether this is `platform`.
    pub fn is(&self, platform: Platform) -> bool {
        self.os == "linux" && self.architecture == platform.architecture()
    }
}

impl Descriptor {
    /// A descriptor without a platform.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.to_owned(), digest, size, platform: None }
    }

    /// Whether registries have it. Layers that must not be given away are fetched from elsewhere (OCI image specification,
    /// "Non-Distributable Layers").
    pub fn is_distributed(&self) -> bool {
        !self.media_type.contains(".nondistributable.") && !self.media_type.contains(".foreign.")
    }

    /// Whether it points at an index of manifests.
    pub fn is_index(&self) -> bool {
        self.media_type == INDEX || self.media_type == DOCKER_LIST
    }
}

/// What Plimsoll reads of a manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestView {
    /// Always 2.
    pub schema_version: u32,
    /// The manifest's own idea of its type.
    #[serde(default)]
    pub media_type: Option<String>,
    /// What kind of artifact it is, if it is no image.
    #[serde(default)]
    pub artifact_type: Option<String>,
    /// The configuration; not in an index.
    #[serde(default)]
    pub config: Option<Descriptor>,
    /// The layers, lowest first; not in an index.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// The manifests; in an index only.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    /// The manifest this one says something about.
    #[serde(default)]
    pub subject: Option<Descriptor>,
    /// Remarks.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// A text that is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is no JSON of that shape.
    #[error("the manifest does not read as one")]
    Json(#[source] serde_json::Error),
    /// It contradicts itself.
    #[error("the manifest {0}")]
    Contradiction(&'static str),
}

impl ManifestView {
    /// Reads a manifest or index.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let view: Self = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
        if view.schema_version != 2 {
            return Err(ManifestError::Contradiction("has a schema version other than 2"));
        }
        // Being both would let two readers see two images under one digest (CVE-2021-41190).
        if !view.manifests.is_empty() && (view.config.is_some() || !view.layers.is_empty()) {
            return Err(ManifestError::Contradiction("is an index and an image at once"));
        }
        let says_index = view.media_type.as_deref().map(|t| t == INDEX || t == DOCKER_LIST);
        if says_index == Some(true) && view.config.is_some() || says_index == Some(false) && !view.manifests.is_empty()
        {
            return Err(ManifestError::Contradiction("is not what its media type says"));
        }
        Ok(view)
    }

    /// Its media type: its own, or what its shape says.
    pub fn media_type(&self) -> &str {
        self.media_type.as_deref().unwrap_or(if self.config.is_some() { MANIFEST } else { INDEX })
    }

    /// Whether it lists manifests.
    pub fn is_index(&self) -> bool {
        matches!(self.media_type(), INDEX | DOCKER_LIST)
    }

    /// The configuration and the layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.config.iter().chain(&self.layers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: Result<&str, &str>) {
        match (ManifestView::parse(json.as_bytes()), expected) {
            (Ok(view), Ok(media_type)) => assert_eq!(view.media_type(), media_type, "{json}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{json}: {error}"),
            (got, _) => panic!("{json}: {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn manifests_say_what_they_are_and_do_not_contradict_themselves() {
        let blob = format!(r#"{{"mediaType":"x","digest":"{}","size":1}}"#, Digest::of(b"x"));
        check(&format!(r#"{{"schemaVersion":2,"config":{blob},"layers":[]}}"#), Ok(MANIFEST));
        check(r#"{"schemaVersion":2,"manifests":[]}"#, Ok(INDEX));
        check(r#"{"schemaVersion":1}"#, Err("schema version"));
        check(r"<html>", Err("does not read"));
        check(r#"{"schemaVersion":2,"config":{"mediaType":"x","digest":"../../x","size":1}}"#, Err("does not read"));
        check(&format!(r#"{{"schemaVersion":2,"config":{blob},"manifests":[{blob}]}}"#), Err("at once"));
        check(&format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","config":{blob}}}"#), Err("media type"));
    }

    #[test]
    fn a_platform_is_known_by_os_and_architecture() {
        let arm = PlatformSpec { os: "linux".into(), architecture: "arm64".into() };
        assert!(arm.is(Platform::LinuxArm64) && !arm.is(Platform::LinuxAmd64));
    }
}
