//! Statements: in-toto attestation framework v1. Of which bytes something is said, and what.

use plimsoll_core::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The predicate of a signature that says nothing but that it was made; `cosign sign` makes it.
pub const SIGNATURE: &str = "https://sigstore.dev/cosign/sign/v1";
/// The predicate of SLSA's provenance.
pub const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
/// The predicate of a `CycloneDX` bill of materials.
pub const CYCLONEDX: &str = "https://cyclonedx.org/bom";

const STATEMENT: &str = "https://in-toto.io/Statement/v1";

/// Something that is said of some bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    /// Of what.
    pub subject: Vec<Subject>,
    /// What kind of thing is said: [`SIGNATURE`], [`PROVENANCE`], [`CYCLONEDX`].
    pub predicate_type: String,
    /// What is said.
    #[serde(default)]
    pub predicate: Value,
}

/// What a statement is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Its name, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its digests in hex, by algorithm.
    pub digest: BTreeMap<String, String>,
}

impl Statement {
    /// Says `predicate` of the bytes with this digest.
    pub fn of(subject: &Digest, predicate_type: &str, predicate: Value) -> Self {
        let digest = BTreeMap::from([(subject.algorithm().name().to_owned(), subject.hex().to_owned())]);
        Self {
            kind: STATEMENT.to_owned(),
            subject: vec![Subject { name: None, digest }],
            predicate_type: predicate_type.to_owned(),
            predicate,
        }
    }

    /// Reads one; nothing if it is none of this version.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(bytes).ok().filter(|read| read.kind == STATEMENT)
    }

    /// Whether it is about these bytes.
    pub fn is_about(&self, digest: &Digest) -> bool {
        let named =
            |subject: &Subject| subject.digest.get(digest.algorithm().name()).is_some_and(|h| h == digest.hex());
        self.subject.iter().any(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_about_the_bytes_it_names_and_no_others() {
        let [one, other] = [b"one".as_slice(), b"other"].map(Digest::of);
        let statement = Statement::of(&one, SIGNATURE, Value::Null);
        assert!(statement.is_about(&one) && !statement.is_about(&other));
        let bytes = serde_json::to_vec(&statement).unwrap();
        assert_eq!(Statement::parse(&bytes), Some(statement));
        assert_eq!(
            Statement::parse(br#"{"_type":"https://in-toto.io/Statement/v0.1","subject":[],"predicateType":""}"#),
            None
        );
    }
}
