//! Private keys as `cosign generate-key-pair` writes them: sealed with a password, by scrypt and the secret box of `NaCl`.

use super::KeyError;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use plimsoll_core::Secret;
use poly1305::{Poly1305, universal_hash::KeyInit as _};
use salsa20::{
    XSalsa20,
    cipher::{KeyIvInit as _, StreamCipher as _},
};
use scrypt::Params;
use serde::{Deserialize, Deserializer, de::Error as _};

/// What stands in the PEM's first line; the second one is older.
const LABELS: [&str; 2] = ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"];
/// The most work a file may ask of this machine: 2 to the 20th costs a gigabyte of memory, `cosign` asks for a sixteenth.
const MOST_WORK: u64 = 1 << 20;
/// The tag before the sealed bytes.
const TAG: usize = 16;

#[derive(Deserialize)]
struct Sealed {
    kdf: Kdf,
    cipher: Cipher,
    #[serde(deserialize_with = "base64")]
    ciphertext: Vec<u8>,
}

#[derive(Deserialize)]
struct Kdf {
    name: String,
    params: Work,
    #[serde(deserialize_with = "base64")]
    salt: Vec<u8>,
}

#[derive(Deserialize)]
struct Work {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Deserialize)]
struct Cipher {
    name: String,
    #[serde(deserialize_with = "base64")]
    nonce: Vec<u8>,
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// Whether the text is a sealed key.
pub(super) fn is_sealed(pem: &str) -> bool {
    LABELS.iter().any(|label| pem.contains(&format!("-----BEGIN {label}-----")))
}

/// The key in it, as PKCS #8 in DER.
pub(super) fn open(pem: &str, password: &Secret) -> Result<Vec<u8>, KeyError> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    let json = STANDARD.decode(body).map_err(|_| KeyError::Unreadable)?;
    let Sealed { kdf, cipher, ciphertext } = serde_json::from_slice(&json).map_err(|_| KeyError::Unreadable)?;
    if (kdf.name.as_str(), cipher.name.as_str()) != ("scrypt", "nacl/secretbox") {
        return Err(KeyError::Sealed { way: format!("{} and {}", kdf.name, cipher.name) });
    }
    let Work { n, r, p } = kdf.params;
    let work = n.saturating_mul(u64::from(r)).saturating_mul(u64::from(p)) / 8;
    let params = n
        .checked_ilog2()
        .and_then(|log_n| u8::try_from(log_n).ok())
        .filter(|_| n.is_power_of_two() && work <= MOST_WORK);
    let params = params.and_then(|log_n| Params::new(log_n, r, p).ok()).ok_or(KeyError::Unreadable)?;
    let mut key = [0; 32];
    scrypt::scrypt(password.expose().as_bytes(), &kdf.salt, &params, &mut key).map_err(|_| KeyError::Unreadable)?;
    let nonce: [u8; 24] = cipher.nonce.try_into().map_err(|_| KeyError::Unreadable)?;
    let (tag, sealed) = ciphertext.split_at_checked(TAG).ok_or(KeyError::Unreadable)?;
    // The first 32 bytes of the stream are the key of the tag, what follows is added to the text.
    let mut stream = XSalsa20::new(&key.into(), &nonce.into());
    let mut tag_key = [0; 32];
    stream.apply_keystream(&mut tag_key);
    if Poly1305::new(&tag_key.into()).compute_unpadded(sealed).as_slice() != tag {
        return Err(KeyError::WrongPassword);
    }
    let mut opened = sealed.to_vec();
    stream.apply_keystream(&mut opened);
    Ok(opened)
}
