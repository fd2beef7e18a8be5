//! Artifacts that say something of an image: a bill of materials, a provenance, a signature. A manifest with a `subject`, an
//! empty configuration and what is said as its layers (OCI image specification, "Guidelines for Artifact Usage").

use crate::{BlobStore, Descriptor, ImageError, MANIFEST, image::canonical};
use plimsoll_core::Digest;
use serde_json::json;
use std::collections::BTreeMap;

/// The type of a configuration that says nothing.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// That configuration.
const NOTHING: &[u8] = b"{}";

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

impl Artifact {
    /// Its manifest.
    fn manifest(&self) -> Result<Vec<u8>, ImageError> {
        let layer = |said: &Said| {
            let digest = Digest::of(&said.bytes);
            let mut layer = json!({ "mediaType": said.media_type, "digest": digest, "size": said.bytes.len() });
            if !said.annotations.is_empty() {
                layer["annotations"] = json!(said.annotations);
            }
            layer
        };
        let subject = &self.subject;
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": self.kind,
            "config": { "mediaType": EMPTY, "digest": Digest::of(NOTHING), "size": NOTHING.len() },
            "layers": self.layers.iter().map(layer).collect::<Vec<_>>(),
            "subject": { "mediaType": subject.media_type, "digest": subject.digest, "size": subject.size },
        });
        if !self.annotations.is_empty() {
            manifest["annotations"] = json!(self.annotations);
        }
        canonical(&manifest, "artifact")
    }

    /// The digest of its manifest, wherever it is written: the same artifact has the same one each time.
    pub fn digest(&self) -> Result<Digest, ImageError> {
        Ok(Digest::of(&self.manifest()?))
    }
}

/// Writes an artifact into a store; gives its manifest's descriptor.
pub fn write_artifact(store: &BlobStore, artifact: &Artifact) -> Result<Descriptor, ImageError> {
    store.put(NOTHING)?;
    for said in &artifact.layers {
        store.put(&said.bytes)?;
    }
    let manifest = artifact.manifest()?;
    Ok(Descriptor::new(MANIFEST, store.put(&manifest)?, manifest.len() as u64))
}

/// Writes a manifest that holds blobs of the store together and is about nothing else, with remarks; gives its descriptor.
pub fn write_collection(
    store: &BlobStore,
    kind: &str,
    blobs: &[Descriptor],
    annotations: &BTreeMap<String, String>,
) -> Result<Descriptor, ImageError> {
    store.put(NOTHING)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": kind,
        "config": { "mediaType": EMPTY, "digest": Digest::of(NOTHING), "size": NOTHING.len() },
        "layers": blobs,
        "annotations": annotations,
    });
    let manifest = canonical(&manifest, "collection")?;
    Ok(Descriptor::new(MANIFEST, store.put(&manifest)?, manifest.len() as u64))
}
