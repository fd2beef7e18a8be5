//! Bills of materials: what is linked into the executables of an image, as `CycloneDX` 1.6 in JSON.
//!
//! What is linked in is what `cargo tree` says of one package for one target without build dependencies, tests and
//! procedural macros, which run at compile time and are not shipped; the standard library and the C library come on top.

mod tree;

use plimsoll_core::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub use tree::Linked;

/// Something that is linked in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its version; empty where nobody knows it.
    pub version: String,
    /// Its package URL, if it can be had from somewhere; it is also how other components name it.
    pub purl: Option<String>,
    /// The licences, as its authors wrote them.
    pub licence: Option<String>,
    /// The SHA-256 of what was downloaded, in hex.
    pub sha256: Option<String>,
}

impl Component {
    /// How others name it.
    fn reference(&self) -> String {
        match (&self.purl, &self.sha256) {
            (Some(purl), _) => purl.clone(),
            (None, Some(sha256)) if self.version.is_empty() => format!("{}@sha256:{sha256}", self.name),
            (None, _) => format!("{}@{}", self.name, self.version),
        }
    }

    fn json(&self) -> Value {
        let mut out = json!({ "type": "library", "bom-ref": self.reference(), "name": self.name });
        if !self.version.is_empty() {
            out["version"] = json!(self.version);
        }
        if let Some(purl) = &self.purl {
            out["purl"] = json!(purl);
        }
        if let Some(sha256) = &self.sha256 {
            out["hashes"] = json!([{ "alg": "SHA-256", "content": sha256 }]);
        }
        if let Some(licence) = &self.licence {
            // Before SPDX expressions a slash stood for OR.
            out["licenses"] = json!([{ "expression": licence.replace(" / ", "/").replace('/', " OR ") }]);
        }
        out
    }
}

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bom {
    /// The image's name, such as `shop/web`.
    pub name: String,
    /// The image or index that this is about.
    pub subject: Digest,
    /// When its sources were committed, as RFC 3339 writes it.
    pub committed_at: String,
    /// What is linked into its executables, by platform.
    pub linked: BTreeMap<String, Linked>,
    /// Plimsoll's version.
    pub version: String,
}

impl Bom {
    /// As `CycloneDX` writes it. The same image has the same bytes each time.
    pub fn document(&self) -> Value {
        let image = self.subject.as_str();
        let mut components: BTreeMap<String, Value> = BTreeMap::new();
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let executables: Vec<String> = self
            .linked
            .iter()
            .map(|(platform, linked)| {
                let root = format!("{}:{platform}", linked.root().reference());
                let executable = json!({
                    "type": "application", "bom-ref": root, "name": linked.root().name, "version": linked.root().version,
                    "properties": [{ "name": "plimsoll:platform", "value": platform }],
                });
                components.insert(root.clone(), executable);
                let reference = |at: usize| if at == 0 { root.clone() } else { linked.components()[at].reference() };
                for (at, component) in linked.components().iter().enumerate() {
                    if at > 0 {
                        components.entry(reference(at)).or_insert_with(|| component.json());
                    }
                    edges.entry(reference(at)).or_default().extend(linked.needs(at).map(reference));
                }
                root
            })
            .collect();
        edges.insert(image.to_owned(), executables.into_iter().collect());
        let dependencies: Vec<Value> = edges.iter().map(|(of, on)| json!({ "ref": of, "dependsOn": on })).collect();
        let mut out = Map::new();
        let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
        put("bomFormat", json!("CycloneDX"));
        put("specVersion", json!("1.6"));
        put("serialNumber", json!(format!("urn:uuid:{}", uuid(&self.subject))));
        put("version", json!(1));
        put(
            "metadata",
            json!({
                "timestamp": self.committed_at,
                "tools": { "components": [{ "type": "application", "name": "plimsoll", "version": self.version }] },
                "component": { "type": "container", "bom-ref": image, "name": self.name, "version": image },
            }),
        );
        put("components", components.into_values().collect());
        put("dependencies", json!(dependencies));
        Value::Object(out)
    }
}

/// A UUID of version 8 (RFC 9562, section 5.8), made of the subject's digest.
fn uuid(subject: &Digest) -> String {
    let hex = Digest::of(subject.as_str().as_bytes());
    let hex = hex.hex();
    format!("{}-{}-8{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "0shop v0.1.0 (/w/shop)\tMIT\n1serde v1.0.229\tMIT OR Apache-2.0\n1log v0.4.0\tMIT/Apache-2.0\n";

    fn bom(platforms: &[&str]) -> Value {
        let lock = "[[package]]\nname = \"serde\"\nversion = \"1.0.229\"\nsource = \"registry+https://h\"\nchecksum = \"00ff\"\n";
        let linked = Linked::parse(TREE, lock).unwrap();
        let linked = platforms.iter().map(|p| ((*p).to_owned(), linked.clone())).collect();
        let (name, committed_at) = ("shop/web".to_owned(), "2026-01-01T00:00:00Z".to_owned());
        Bom { name, subject: Digest::of(b"image"), committed_at, linked, version: "1.0.0".into() }.document()
    }

    #[test]
    fn it_reads_as_cyclonedx_writes_it() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&bom(&["linux/amd64"])).unwrap());
    }

    #[test]
    fn an_index_names_the_executables_of_all_platforms_and_each_library_once() {
        let bom = bom(&["linux/amd64", "linux/arm64"]);
        let kinds = |kind: &str| bom["components"].as_array().unwrap().iter().filter(|c| c["type"] == kind).count();
        assert_eq!((kinds("application"), kinds("library")), (2, 2));
        assert_eq!(bom["dependencies"].as_array().unwrap().len(), 5);
    }
}
