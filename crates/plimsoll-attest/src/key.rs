//! Keys: ECDSA over P-256 with SHA-256, the kind that `cosign generate-key-pair` and `openssl` make.
//!
//! Signatures are made without randomness (RFC 6979): the same statement signed twice is the same bytes.

mod sealed;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use p256::{
    SecretKey,
    ecdsa::{
        DerSignature, Signature, VerifyingKey,
        signature::{Signer as _, Verifier as _},
    },
    pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _, LineEnding},
};
use plimsoll_core::{Classify, Digest, ErrorClass, Secret};
use std::fmt;

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It does not read as a key.
    #[error(
        "it is no key of ECDSA over P-256 in PEM (`cosign generate-key-pair` or `openssl ecparam -name prime256v1` make one)"
    )]
    Unreadable,
    /// It is sealed with a password, and none was given.
    #[error("it is sealed with a password, and none is given")]
    NoPassword,
    /// The password does not open it.
    #[error("the password does not open it")]
    WrongPassword,
    /// It is sealed in a way that is not known.
    #[error("it is sealed in a way that is not known: {way}")]
    Sealed {
        /// Which.
        way: String,
    },
}

impl Classify for KeyError {
    fn class(&self) -> ErrorClass {
        ErrorClass::User
    }
}

/// A key that signs. `Debug` shows its public half.
#[derive(Clone)]
pub struct SigningKey {
    secret: p256::ecdsa::SigningKey,
    public: PublicKey,
}

impl SigningKey {
    /// Reads a private key in PEM: PKCS #8, SEC 1, or sealed by `cosign` with a password.
    pub fn from_pem(pem: &Secret, password: Option<&Secret>) -> Result<Self, KeyError> {
        let text = pem.expose();
        let secret = if sealed::is_sealed(text) {
            let password = password.ok_or(KeyError::NoPassword)?;
            SecretKey::from_pkcs8_der(&sealed::open(text, password)?).map_err(|_| KeyError::Unreadable)?
        } else {
            SecretKey::from_pkcs8_pem(text)
                .ok()
                .or_else(|| SecretKey::from_sec1_pem(text).ok())
                .ok_or(KeyError::Unreadable)?
        };
        Ok(Self::of(&secret))
    }

    /// The key whose secret number is these random bytes; nothing for the few numbers that are no key.
    pub fn of_random(bytes: &[u8; 32]) -> Option<Self> {
        SecretKey::from_slice(bytes).ok().map(|secret| Self::of(&secret))
    }

    fn of(secret: &SecretKey) -> Self {
        let secret = p256::ecdsa::SigningKey::from(secret);
        let public = PublicKey(*secret.verifying_key());
        Self { secret, public }
    }

    /// Its public half.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The private key in PEM (PKCS #8).
    pub fn to_pem(&self) -> Secret {
        let pem = self.secret.to_pkcs8_pem(LineEnding::LF).expect("a key of P-256 can be written");
        Secret::new(pem.as_str())
    }

    /// Signs, in ASN.1 DER.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: DerSignature = self.secret.sign(message);
        signature.as_bytes().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public)
    }
}

/// A key that tells whether the other half signed. Shown as its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads a public key in PEM (SPKI).
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        VerifyingKey::from_public_key_pem(pem.trim()).map(Self).map_err(|_| KeyError::Unreadable)
    }

    /// The key in PEM (SPKI).
    pub fn to_pem(&self) -> String {
        self.0.to_public_key_pem(LineEnding::LF).expect("a key of P-256 can be written")
    }

    /// The digest of the key's DER.
    pub fn digest(&self) -> Digest {
        Digest::of(self.0.to_public_key_der().expect("a key of P-256 can be written").as_bytes())
    }

    /// What bundles name it by: its digest in Base64.
    pub fn hint(&self) -> String {
        let digest = self.digest();
        let pairs = digest.hex().as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        STANDARD.encode(pairs.filter_map(byte).collect::<Vec<_>>())
    }

    /// Whether `signature`, in ASN.1 DER, was made of `message` by the other half.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_der(signature).is_ok_and(|signature| self.0.verify(message, &signature).is_ok())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.digest().short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SigningKey {
        SigningKey::of_random(&[byte; 32]).unwrap()
    }

    #[test]
    fn a_key_survives_its_text_and_signs_the_same_each_time() {
        let one = key(7);
        let read = SigningKey::from_pem(&one.to_pem(), None).unwrap();
        assert_eq!(read.sign(b"message"), one.sign(b"message"));
        let public = PublicKey::from_pem(&one.public().to_pem()).unwrap();
        assert!(public.verify(b"message", &read.sign(b"message")));
        assert!(!public.verify(b"Message", &read.sign(b"message")));
        assert!(!public.verify(b"message", &key(8).sign(b"message")));
        assert!(!public.verify(b"message", b"no signature"));
    }

    #[test]
    fn what_is_no_key_is_said_to_be_none() {
        for text in ["", "a key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            assert_eq!(SigningKey::from_pem(&Secret::new(text), None).unwrap_err(), KeyError::Unreadable, "{text}");
            assert_eq!(PublicKey::from_pem(text).unwrap_err(), KeyError::Unreadable, "{text}");
        }
    }

    #[test]
    fn a_key_that_cosign_sealed_is_opened_by_its_password_alone() {
        let (sealed, public) = (include_str!("key/testdata/cosign.key"), include_str!("key/testdata/cosign.pub"));
        let open =
            |password: Option<&str>| SigningKey::from_pem(&Secret::new(sealed), password.map(Secret::new).as_ref());
        assert_eq!(open(Some("secret")).unwrap().public(), &PublicKey::from_pem(public).unwrap());
        assert_eq!(open(Some("Secret")).unwrap_err(), KeyError::WrongPassword);
        assert_eq!(open(None).unwrap_err(), KeyError::NoPassword);
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", key(7)), format!("SigningKey({})", key(7).public()));
    }
}
