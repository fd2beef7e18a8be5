//! The listed encodings in which a secret is looked for. Pure.
//!
//! Raw; base64 (standard and URL-safe alphabet, three alignments, with and without padding); percent-encoding (of all but
//! RFC 3986 unreserved bytes, as `encodeURIComponent` and HTML forms do it, and of every byte; both cases); hex (both
//! cases); escaped as in JSON (also with `\/`, and ASCII only) and as in Rust's `Debug`; each line of a secret of several.
//! Encodings of encodings, compression and splitting over several variables are not found.

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// A line of a multi-line secret must be this long to be looked for alone: shorter ones (`-----`, `}`) are in every text.
const MIN_LINE: usize = 8;

/// All byte strings that stand for `secret`, none shorter than `shortest`.
pub(crate) fn needles(secret: &[u8], shortest: usize) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    encode_all(secret, &mut found);
    // A secret read from a file ends with a newline that its users cut off.
    encode_all(secret.trim_ascii_end(), &mut found);
    if secret.contains(&b'\n') {
        for line in secret.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| line.len() >= MIN_LINE) {
            encode_all(line, &mut found);
        }
    }
    found.retain(|needle| needle.len() >= shortest);
    found
}

fn encode_all(secret: &[u8], found: &mut BTreeSet<Vec<u8>>) {
    found.insert(secret.to_vec());
    found.insert(hex(secret, false));
    found.insert(hex(secret, true));
    for alignment in 0..3 {
        for alphabet in [STANDARD, URL_SAFE] {
            found.extend(base64(secret, alignment, alphabet));
        }
    }
    for uppercase in [false, true] {
        found.insert(percent(secret, b"-_.~", false, uppercase));
        found.insert(percent(secret, b"-_.~!*'()", false, uppercase));
        found.insert(percent(secret, b"-_.*", true, uppercase));
        found.insert(secret.iter().flat_map(|byte| percent_byte(*byte, uppercase)).collect());
    }
    if let Ok(text) = std::str::from_utf8(secret) {
        found.insert(json(text, false, false));
        found.insert(json(text, true, false));
        found.insert(json(text, false, true));
        found.insert(text.escape_debug().to_string().into_bytes());
    }
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The secret's base64 when `alignment` (0, 1 or 2) unknown bytes stand before it in its group of three: only the
/// characters that the secret alone decides, then with the last character as it is when the text ends there, then padded.
fn base64(secret: &[u8], alignment: usize, alphabet: &[u8; 64]) -> Vec<Vec<u8>> {
    let mut bytes = vec![0; alignment];
    bytes.extend_from_slice(secret);
    let bits = bytes.len() * 8;
    let bit = |at: usize| bytes.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1);
    let characters: Vec<u8> = (0..bits.div_ceil(6))
        .map(|index| alphabet[(0..6).fold(0, |value, offset| value << 1 | usize::from(bit(index * 6 + offset)))])
        .collect();
    let first = (alignment * 8).div_ceil(6);
    let decided = bits / 6;
    if decided <= first {
        return Vec::new();
    }
    let mut padded = characters[first..].to_vec();
    padded.resize(padded.len() + (4 - characters.len() % 4) % 4, b'=');
    vec![characters[first..decided].to_vec(), characters[first..].to_vec(), padded]
}

fn hex(secret: &[u8], uppercase: bool) -> Vec<u8> {
    secret.iter().flat_map(|byte| hex_byte(*byte, uppercase)).collect()
}

fn hex_byte(byte: u8, uppercase: bool) -> [u8; 2] {
    let digits = if uppercase { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
    [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]
}

fn percent_byte(byte: u8, uppercase: bool) -> [u8; 3] {
    let [high, low] = hex_byte(byte, uppercase);
    [b'%', high, low]
}

fn percent(secret: &[u8], unescaped: &[u8], plus_for_space: bool, uppercase: bool) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(secret.len() * 3);
    for byte in secret {
        match byte {
            b' ' if plus_for_space => encoded.push(b'+'),
            byte if byte.is_ascii_alphanumeric() || unescaped.contains(byte) => encoded.push(*byte),
            byte => encoded.extend(percent_byte(*byte, uppercase)),
        }
    }
    encoded
}

fn json(text: &str, escape_slash: bool, ascii_only: bool) -> Vec<u8> {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            '\u{8}' => escaped.push_str("\\b"),
            '\u{c}' => escaped.push_str("\\f"),
            '/' if escape_slash => escaped.push_str("\\/"),
            character if character < ' ' || ascii_only && !character.is_ascii() => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(escaped, "\\u{unit:04x}").expect("writing to a string cannot fail");
                }
            }
            character => escaped.push(character),
        }
    }
    escaped.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(secret: &str, expected: &[&str]) {
        let found = needles(secret.as_bytes(), 3);
        for needle in expected {
            assert!(found.contains(needle.as_bytes()), "{needle} is not among the needles of {secret}");
        }
    }

    #[test]
    fn every_listed_encoding_is_made() {
        check("s3cr?t", &["s3cr?t", "733363723f74", "733363723F74", "s3cr%3Ft", "s3cr%3ft", "%73%33%63%72%3F%74"]);
        check("s3cr?t", &["czNjcj90"]);
        check("a b/ü\"\n9", &["a+b%2F%C3%BC%22%0A9", "a b\\/ü\\\"\\n9", "a b/\\u00fc\\\"\\n9", "a b/ü\\\"\\n9"]);
        check("-----BEGIN KEY-----\nMIIEvQIBADAN\n}\n", &["MIIEvQIBADAN", "-----BEGIN KEY-----"]);
    }

    #[test]
    fn json_is_what_serde_json_writes() {
        for text in ["plain", "q\"b\\s/\n\r\t\u{8}\u{c}\u{1}", "ünïcode \u{1f600}"] {
            let written = serde_json::to_string(text).unwrap();
            assert_eq!(String::from_utf8(json(text, false, false)).unwrap(), written.trim_matches('"').to_owned());
        }
    }

    #[test]
    fn the_base64_of_any_text_around_the_secret_has_a_needle() {
        let secret = b"hunter2?>~\xff";
        for before in 0..7 {
            for after in 0..4 {
                let mut text = vec![b'<'; before];
                text.extend_from_slice(secret);
                text.extend(std::iter::repeat_n(b'>', after));
                for alphabet in [STANDARD, URL_SAFE] {
                    let whole = base64(&text, 0, alphabet).pop().unwrap();
                    let found = needles(secret, 3);
                    let hit = found.iter().any(|needle| whole.windows(needle.len()).any(|part| part == needle));
                    assert!(hit, "{before} before, {after} after");
                }
            }
        }
    }

    #[test]
    fn short_lines_are_not_needles() {
        assert!(!needles(b"first long line\n}\nlast long line", 3).contains(&b"}"[..]));
    }
}
