//! Artifacts that say something of an image: a bill of materials, a provenance, a signature. A manifest with a `subject`, an
//! empty configuration and what is said as its layers (OCI image specification, "Guidelines for Artifact Usage").

use crate::{BlobError, BlobStore, Descriptor, ImageError, MANIFEST, image::canonical};
use plimsoll_core::Digest;
use serde_json::json;
use std::collections::BTreeMap;

/// The type of a configuration that says nothing.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// What is said of an image.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// What kind of thing it is, such as `application/vnd.cyclonedx+json`.
    pub kind: String,
    /// The image or index that it is about.
    pub subject: Descriptor,
    /// Media types and contents of what is said.
    pub layers: Vec<Said>,
    /// Remarks.
    pub annotations: BTreeMap<String, String>,
}

/// One thing that is said.
#[derive(Debug, Clone)]
pub struct Said {
    /// Its media type.
    pub media_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Remarks on it.
    pub annotations: BTreeMap<String, String>,
}

/// Writes an artifact into a store; gives its manifest's descriptor. The same artifact has the same digest each time.
pub fn write_artifact(store: &BlobStore, artifact: &Artifact) -> Result<Descriptor, ImageError> {
    let put = |bytes: &[u8]| -> Result<Digest, BlobError> { store.put(bytes) };
    let mut layers = Vec::new();
    for said in &artifact.layers {
        let mut layer = json!({ "mediaType": said.media_type, "digest": put(&said.bytes)?, "size": said.bytes.len() });
        if !said.annotations.is_empty() {
            layer["annotations"] = json!(said.annotations);
        }
        layers.push(layer);
    }
    let subject = &artifact.subject;
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": artifact.kind,
        "config": { "mediaType": EMPTY, "digest": put(b"{}")?, "size": 2 },
        "layers": layers,
        "subject": { "mediaType": subject.media_type, "digest": subject.digest, "size": subject.size },
    });
    if !artifact.annotations.is_empty() {
        manifest["annotations"] = json!(artifact.annotations);
    }
    let manifest = canonical(&manifest, "artifact")?;
    Ok(Descriptor::new(MANIFEST, store.put(&manifest)?, manifest.len() as u64))
}
