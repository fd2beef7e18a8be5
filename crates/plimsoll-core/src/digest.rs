//! Content digests as OCI writes them, and BLAKE3 fingerprints for the engine's own cache keys.

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::{fmt, str::FromStr};

/// A content digest as OCI writes them (OCI image specification, "Digests"): `sha256:` and 64 lower-case hexadecimal digits,
/// which is what everything here is made with, or `sha512:` and 128.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no digest: expected `sha256:` and 64 lower-case hexadecimal digits, or `sha512:` and 128")]
pub struct DigestError {
    /// The refused text, cut to 150 characters.
    pub text: String,
}

/// The algorithms that the OCI image specification registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// SHA-256, which every registry knows.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// Its name in front of the colon.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// How many hexadecimal digits it has.
    const fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl Digest {
    /// The SHA-256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::by(Algorithm::Sha256, bytes)
    }

    /// The digest of `bytes` by an algorithm.
    pub fn by(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::by(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Whether it is the digest of `bytes`, by its own algorithm.
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        Self::by(self.algorithm(), bytes) == *self
    }

    /// The digest with these hexadecimal digits; their number tells the algorithm.
    pub fn from_hex(hex: &str) -> Option<Self> {
        let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.digits() == hex.len())?;
        format!("{}:{hex}", algorithm.name()).parse().ok()
    }

    /// The whole text, such as `sha256:…`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it was made by.
    pub fn algorithm(&self) -> Algorithm {
        if self.0.starts_with("sha256") { Algorithm::Sha256 } else { Algorithm::Sha512 }
    }

    /// The hexadecimal digits alone: safe as a file name.
    pub fn hex(&self) -> &str {
        &self.0[self.algorithm().name().len() + 1..]
    }

    /// The first twelve digits, for people.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let valid = Algorithm::ALL.into_iter().any(|algorithm| {
            let hex = text.strip_prefix(algorithm.name()).and_then(|rest| rest.strip_prefix(':'));
            hex.is_some_and(|hex| {
                hex.len() == algorithm.digits() && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            })
        });
        if valid { Ok(Self(text.to_owned())) } else { Err(DigestError { text: text.chars().take(150).collect() }) }
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A hash over data that arrives in pieces.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// A hasher by SHA-256 that has seen nothing.
    pub fn new() -> Self {
        Self::by(Algorithm::Sha256)
    }

    /// A hasher by an algorithm.
    pub fn by(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        match &mut self.0 {
            State::Sha256(hash) => hash.update(piece),
            State::Sha512(hash) => hash.update(piece),
        }
    }

    /// The digest of all pieces.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(hash) => written(Algorithm::Sha256, &hash.finalize()),
            State::Sha512(hash) => written(Algorithm::Sha512, &hash.finalize()),
        }
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

fn written(algorithm: Algorithm, hash: &[u8]) -> Digest {
    let mut text = String::with_capacity(algorithm.name().len() + 1 + algorithm.digits());
    text.push_str(algorithm.name());
    text.push(':');
    for byte in hash {
        text.push(char::from(HEX[usize::from(byte >> 4)]));
        text.push(char::from(HEX[usize::from(byte & 15)]));
    }
    Digest(text)
}

const HEX: &[u8; 16] = b"0123456789abcdef";

impl std::io::Write for Hasher {
    fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        self.update(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A BLAKE3 hash of all that something depends on: the engine's cache keys and journal links. 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The fingerprint of a list of parts; no two different lists give the same input to the hash,
    /// because every part goes in behind its length.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The raw 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first twelve digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        blake3::Hash::from_hex(&text)
            .map(|h| Self(*h.as_bytes()))
            .map_err(|e| format!("`{text}` is no fingerprint: {e}"))
    }
}

impl From<Fingerprint> for String {
    fn from(print: Fingerprint) -> Self {
        print.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_nothing_is_the_published_one() {
        assert_eq!(Digest::of(b"").hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn both_algorithms_are_read_and_verified() {
        let digest = Digest::by(Algorithm::Sha512, b"");
        assert!(
            digest
                .hex()
                .starts_with("cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0")
        );
        assert_eq!((digest.algorithm(), digest.hex().len()), (Algorithm::Sha512, 128));
        for digest in Algorithm::ALL.map(|algorithm| Digest::by(algorithm, b"x")) {
            assert_eq!(digest.as_str().parse(), Ok(digest.clone()));
            assert_eq!(Digest::from_hex(digest.hex()).as_ref(), Some(&digest));
            assert!(digest.is_of(b"x") && !digest.is_of(b"y"));
        }
        assert_eq!(Digest::from_hex("00"), None);
    }

    #[test]
    fn a_text_that_could_leave_its_directory_is_no_digest() {
        for text in ["", "sha256:", "sha256:../../etc/passwd", "sha512:00", &format!("sha256:{}", "A".repeat(64))] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        let digest = Digest::of(b"x");
        assert_eq!(digest.as_str().parse::<Digest>(), Ok(digest));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let print = |parts: &[&[u8]]| Fingerprint::of_parts(parts.iter().copied());
        assert_ne!(print(&[b"ab", b"c"]), print(&[b"a", b"bc"]));
        assert_ne!(print(&[b"ab"]), print(&[b"ab", b""]));
    }
}
