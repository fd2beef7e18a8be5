//! Signed envelopes: the Dead Simple Signing Envelope (DSSE) 1.0, whose payload here is an in-toto statement.

use crate::{PublicKey, SigningKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

/// What the payload is.
pub(crate) const IN_TOTO: &str = "application/vnd.in-toto+json";

/// A payload and the signatures of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// The payload, in Base64.
    pub payload: String,
    /// What the payload is.
    pub payload_type: String,
    /// Who says so.
    pub signatures: Vec<EnvelopeSignature>,
}

/// One signature of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvelopeSignature {
    /// ASN.1 DER, in Base64.
    pub sig: String,
}

impl Envelope {
    /// Signs a statement's bytes.
    pub(crate) fn sign(key: &SigningKey, payload: &[u8]) -> Self {
        let sig = STANDARD.encode(key.sign(&encoded(IN_TOTO, payload)));
        Self {
            payload: STANDARD.encode(payload),
            payload_type: IN_TOTO.to_owned(),
            signatures: vec![EnvelopeSignature { sig }],
        }
    }

    /// The statement's bytes; nothing if it is none.
    pub(crate) fn statement(&self) -> Option<Vec<u8>> {
        (self.payload_type == IN_TOTO).then(|| STANDARD.decode(&self.payload).ok()).flatten()
    }

    /// Whether `key` signed it.
    pub(crate) fn is_signed_by(&self, key: &PublicKey) -> bool {
        let Some(payload) = self.statement() else { return false };
        let message = encoded(&self.payload_type, &payload);
        self.signatures.iter().filter_map(|one| STANDARD.decode(&one.sig).ok()).any(|one| key.verify(&message, &one))
    }
}

/// What is signed: type and payload with their lengths (DSSE, "PAE").
fn encoded(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_encoded_as_the_specification_shows() {
        let expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
        assert_eq!(encoded("http://example.com/HelloWorld", b"hello world"), expected);
    }

    #[test]
    fn a_signature_holds_for_payload_type_and_key() {
        let [ours, other] = [7, 8].map(|byte| SigningKey::of_random(&[byte; 32]).unwrap());
        let envelope = Envelope::sign(&ours, b"{}");
        assert!(envelope.is_signed_by(ours.public()) && !envelope.is_signed_by(other.public()));
        let changed = Envelope { payload: STANDARD.encode(b"{} "), ..envelope.clone() };
        assert!(!changed.is_signed_by(ours.public()));
        let of_another_type = Envelope { payload_type: "text/plain".into(), ..envelope };
        assert!(!of_another_type.is_signed_by(ours.public()));
    }
}
