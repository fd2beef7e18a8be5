//! Bundles: a signed statement with a hint at its key, as Sigstore's bundle 0.3 in JSON.

use crate::{Envelope, PublicKey, SigningKey, Statement};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The media type of a bundle, and the artifact type of its referrer.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The annotation of a referrer that says what its bundle holds; here always `dsse-envelope`.
pub const CONTENT: &str = "dev.sigstore.bundle.content";
/// The annotation of a referrer that says what its statement is.
pub const PREDICATE: &str = "dev.sigstore.bundle.predicateType";

/// A signed statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    media_type: String,
    verification_material: Value,
    dsse_envelope: Envelope,
}

/// Why a bundle is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// It is no bundle with a statement in it.
    #[error("it is no bundle with a statement in it")]
    Unreadable,
    /// None of the keys signed it.
    #[error("it is signed by none of the trusted keys, but {0}")]
    OtherKey(String),
    /// It names a trusted key, which did not sign this.
    #[error("its signature does not fit: it was changed after it was signed")]
    Changed,
}

impl Bundle {
    /// Signs a statement.
    pub fn sign(key: &SigningKey, statement: &Statement) -> Self {
        let payload = serde_json::to_vec(statement).expect("statements are plain data");
        Self {
            media_type: BUNDLE.to_owned(),
            verification_material: json!({ "publicKey": { "hint": key.public().hint() } }),
            dsse_envelope: Envelope::sign(key, &payload),
        }
    }

    /// The bytes that lie in the registry.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("bundles are plain data")
    }

    /// Its statement, if one of `keys` signed it.
    pub fn open(bytes: &[u8], keys: &[PublicKey]) -> Result<Statement, Untrusted> {
        let bundle: Self = serde_json::from_slice(bytes).map_err(|_| Untrusted::Unreadable)?;
        let statement = bundle.dsse_envelope.statement().and_then(|payload| Statement::parse(&payload));
        let statement = statement.ok_or(Untrusted::Unreadable)?;
        if keys.iter().any(|key| bundle.dsse_envelope.is_signed_by(key)) {
            return Ok(statement);
        }
        let material = &bundle.verification_material;
        let hint = material["publicKey"]["hint"].as_str();
        if hint.is_some_and(|hint| keys.iter().any(|key| key.hint() == hint)) {
            return Err(Untrusted::Changed);
        }
        // Anybody may have written it: only what has the form of one is repeated.
        let hint = hint.filter(|hint| is_hint(hint));
        let other = if material.get("certificate").is_some() || material.get("x509CertificateChain").is_some() {
            "by one of a certificate".to_owned()
        } else {
            hint.map_or_else(|| "by one that it does not name".to_owned(), |hint| format!("by the key {hint}"))
        };
        Err(Untrusted::OtherKey(other))
    }
}

/// Whether this is 32 bytes in Base64.
fn is_hint(text: &str) -> bool {
    text.len() == 44 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SIGNATURE;
    use plimsoll_core::Digest;

    #[test]
    fn a_bundle_is_believed_when_a_trusted_key_signed_it() {
        let [ours, other] = [7, 8].map(|byte| SigningKey::of_random(&[byte; 32]).unwrap());
        let statement = Statement::of(&Digest::of(b"image"), SIGNATURE, json!({}));
        let bytes = Bundle::sign(&ours, &statement).to_bytes();
        let keys = [other.public().clone(), ours.public().clone()];
        assert_eq!(Bundle::open(&bytes, &keys), Ok(statement.clone()));
        assert!(matches!(Bundle::open(&bytes, &keys[..1]), Err(Untrusted::OtherKey(_))));
        let signed_elsewhere =
            Bundle { dsse_envelope: Envelope::sign(&other, b"{}"), ..Bundle::sign(&ours, &statement) };
        assert_eq!(Bundle::open(&signed_elsewhere.to_bytes(), &keys), Err(Untrusted::Unreadable));
        let payload = serde_json::to_vec(&Statement::of(&Digest::of(b"another"), SIGNATURE, json!({}))).unwrap();
        let changed = Bundle { dsse_envelope: Envelope::sign(&other, &payload), ..Bundle::sign(&ours, &statement) };
        assert_eq!(Bundle::open(&changed.to_bytes(), &keys[1..]), Err(Untrusted::Changed));
        assert_eq!(Bundle::open(b"{}", &keys), Err(Untrusted::Unreadable));
        let named = Bundle {
            verification_material: json!({ "publicKey": { "hint": "x\n  signature  holds" } }),
            ..Bundle::sign(&other, &statement)
        };
        let told = Bundle::open(&named.to_bytes(), &keys[1..]).unwrap_err().to_string();
        assert!(told.ends_with("by one that it does not name"), "{told}");
    }
}
