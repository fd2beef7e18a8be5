//! Replacing secrets by `***`, in whole texts and in streams cut anywhere.
//!
//! Every occurrence of every listed encoding is covered, overlapping ones together as one mask. It does not find secrets it was
//! not told, nor encodings that are not listed.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};

use crate::encodings;

/// What stands in the place of a secret.
pub const MASK: &str = "***";

/// The shortest secret that can be redacted, in bytes: anything shorter is in every text, and masking it tells where.
pub const MIN_SECRET: usize = 3;

/// Why a redactor cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedactError {
    /// A secret is too short to be masked without masking half of every text.
    #[error("secret number {index} has {length} bytes: fewer than {MIN_SECRET} cannot be redacted")]
    TooShort {
        /// Its position in the list, from 0. (Never the secret.)
        index: usize,
        /// Its length in bytes.
        length: usize,
    },
    /// The secrets are too many or too long for one automaton.
    #[error("the secrets are too large to be searched for")]
    TooLarge(#[source] aho_corasick::BuildError),
}

/// Finds secrets in a listed set of encodings and masks them. Made once, shared by reference count.
pub struct Redactor {
    /// Finds all occurrences, also overlapping ones; nothing when there are no secrets.
    automaton: Option<AhoCorasick>,
    /// The same needles, sorted: a suffix of the text is the beginning of a needle iff the first one not less begins with it.
    needles: Vec<Vec<u8>>,
    longest: usize,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").field("needles", &self.needles.len()).finish_non_exhaustive()
    }
}

impl Redactor {
    /// A redactor of these secrets. Each must have at least [`MIN_SECRET`] bytes, white space at its end not counted.
    pub fn new(secrets: &[&[u8]]) -> Result<Self, RedactError> {
        let mut needles = BTreeSet::new();
        for (index, secret) in secrets.iter().enumerate() {
            let length = secret.trim_ascii_end().len();
            if length < MIN_SECRET {
                return Err(RedactError::TooShort { index, length });
            }
            needles.append(&mut encodings::needles(secret, MIN_SECRET));
        }
        let needles: Vec<Vec<u8>> = needles.into_iter().collect();
        let automaton = if needles.is_empty() {
            None
        } else {
            // Overlapping search needs the standard match kind. Longest-match would leave the rest of a long secret in the
            // open wherever a short one overlaps its beginning.
            let built = AhoCorasick::builder().match_kind(MatchKind::Standard).build(&needles);
            Some(built.map_err(RedactError::TooLarge)?)
        };
        let longest = needles.iter().map(Vec::len).max().unwrap_or(0);
        Ok(Self { automaton, needles, longest })
    }

    /// The text with every occurrence masked; the very same text when there is none.
    pub fn redact_str<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let masks = self.masks(text.as_bytes(), 0);
        if masks.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut clean = Vec::with_capacity(text.len());
        copy_masked(text.as_bytes(), &masks, text.len(), 0, &mut clean);
        // A secret that is not UTF-8 can begin inside a character; what is left of that is replaced.
        Cow::Owned(String::from_utf8_lossy(&clean).into_owned())
    }

    /// Where masks go, as ranges that do not overlap; the first `covered` bytes count as an occurrence.
    fn masks(&self, text: &[u8], covered: usize) -> Vec<Range<usize>> {
        let mut occurrences = Vec::new();
        if let Some(automaton) = &self.automaton {
            occurrences.extend(automaton.find_overlapping_iter(text).map(|found| found.range()));
        }
        if covered > 0 {
            occurrences.push(0..covered);
        }
        occurrences.sort_unstable_by_key(|range| (range.start, range.end));
        let mut masks: Vec<Range<usize>> = Vec::with_capacity(occurrences.len());
        for found in occurrences {
            match masks.last_mut() {
                Some(last) if found.start < last.end => last.end = last.end.max(found.end),
                _ => masks.push(found),
            }
        }
        masks
    }

    /// The first position from which on the text may be the beginning of a needle whose rest has not come yet.
    fn undecided(&self, text: &[u8]) -> usize {
        let earliest = text.len().saturating_sub(self.longest.saturating_sub(1));
        (earliest..text.len()).find(|at| self.begins_needle(&text[*at..])).unwrap_or(text.len())
    }

    /// Whether some needle is longer than `part` and begins with it.
    fn begins_needle(&self, part: &[u8]) -> bool {
        let after = self.needles.partition_point(|needle| needle.as_slice() <= part);
        self.needles.get(after).is_some_and(|needle| needle.starts_with(part))
    }
}

/// Copies `text[..end]` with masks in place of the ranges. A mask that begins in the first `covered` bytes is already out.
fn copy_masked(text: &[u8], masks: &[Range<usize>], end: usize, covered: usize, clean: &mut Vec<u8>) {
    let mut from = 0;
    for mask in masks.iter().take_while(|mask| mask.start < end) {
        clean.extend_from_slice(&text[from..mask.start]);
        if covered == 0 || mask.start > 0 {
            clean.extend_from_slice(MASK.as_bytes());
        }
        from = mask.end;
    }
    if from < end {
        clean.extend_from_slice(&text[from..end]);
    }
}

/// Redacts a stream that comes in chunks. The chunks' boundaries make no difference to what comes out.
///
/// It holds back the end of what it was given only while that may be the beginning of a secret: always less than the
/// longest needle (three times the longest secret, and a little).
#[derive(Debug)]
pub struct RedactingStream {
    redactor: Arc<Redactor>,
    held: Vec<u8>,
    /// How many of the held bytes lie under a mask that is already out.
    covered: usize,
}

impl RedactingStream {
    /// A stream at its beginning.
    pub fn new(redactor: Arc<Redactor>) -> Self {
        Self { redactor, held: Vec::new(), covered: 0 }
    }

    /// Takes the next bytes and appends to `clean` all that is decided.
    pub fn push(&mut self, chunk: &[u8], clean: &mut Vec<u8>) {
        self.held.extend_from_slice(chunk);
        let end = self.redactor.undecided(&self.held);
        self.emit(end, clean);
    }

    /// Appends what was held back: no more bytes come.
    pub fn finish(&mut self, clean: &mut Vec<u8>) {
        self.emit(self.held.len(), clean);
    }

    fn emit(&mut self, end: usize, clean: &mut Vec<u8>) {
        if end == 0 {
            // Nothing is decided, and what is covered stays covered.
            return;
        }
        let masks = self.redactor.masks(&self.held, self.covered);
        copy_masked(&self.held, &masks, end, self.covered, clean);
        self.covered = masks.iter().find(|mask| mask.start < end && end < mask.end).map_or(0, |mask| mask.end - end);
        self.held.drain(..end);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn redactor(secrets: &[&str]) -> Arc<Redactor> {
        let secrets: Vec<&[u8]> = secrets.iter().map(|secret| secret.as_bytes()).collect();
        Arc::new(Redactor::new(&secrets).unwrap())
    }

    fn check(secrets: &[&str], text: &str, expected: &str) {
        let redactor = redactor(secrets);
        assert_eq!(redactor.redact_str(text), expected);
        // Split at each byte.
        for at in 0..=text.len() {
            let (first, second) = text.as_bytes().split_at(at);
            assert_eq!(stream(&redactor, [first, second]), expected.as_bytes(), "split at {at}");
        }
    }

    fn stream<'c>(redactor: &Arc<Redactor>, chunks: impl IntoIterator<Item = &'c [u8]>) -> Vec<u8> {
        let (mut stream, mut clean) = (RedactingStream::new(Arc::clone(redactor)), Vec::new());
        for chunk in chunks {
            stream.push(chunk, &mut clean);
            assert!(stream.held.len() < redactor.longest.max(1), "holds back no more than a needle less one byte");
        }
        stream.finish(&mut clean);
        clean
    }

    #[test]
    fn a_secret_is_masked_in_every_listed_encoding() {
        check(&["hunter2"], "password=hunter2!", "password=***!");
        check(&["hunter2"], "68756e74657232 68756E74657232", "*** ***");
        check(&["hunter2"], "aHVudGVyMg== aHVudGVyMg", "*** ***");
        check(&["p&ss w?rd"], "q=p%26ss%20w%3Frd&r=p%26ss+w%3frd", "q=***&r=***");
        check(&["a\"b\\c\nd"], r#"{"k":"a\"b\\c\nd"}"#, r#"{"k":"***"}"#);
    }

    #[test]
    fn each_long_line_of_a_secret_is_masked_alone() {
        let pem = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----\n";
        check(&[pem], "x MIIEvQIBADANBgkq y", "x *** y");
        check(&[pem], pem, "***");
        check(&[pem], "hkiG9w0BAQEFAASC\nother", "***\nother");
    }

    #[test]
    fn overlapping_secrets_are_covered_by_one_mask() {
        check(&["abc", "bcdefghijk"], "1abcdefghijk2", "1***2");
        check(&["aaa"], "aaaaaaaaaa-aa", "***-aa");
        check(&["abc", "abcdef"], "abcde abcdef", "***de ***");
        check(&["abcabc"], "abcabcabcabcx", "***x");
    }

    #[test]
    fn bytes_under_a_mask_that_is_out_stay_masked_while_nothing_is_decided() {
        let text = b"1abcdefghijk2";
        let clean = stream(&redactor(&["abc", "bcdefghijk", "cdefghijkzz"]), text.chunks(1));
        assert_eq!(clean, b"1***2");
    }

    #[test]
    fn a_text_without_secrets_is_returned_as_it_is() {
        assert!(matches!(redactor(&["hunter2"]).redact_str("nothing here"), Cow::Borrowed(_)));
        check(&[], "nothing to hide", "nothing to hide");
    }

    #[test]
    fn a_line_is_not_held_back_unless_it_may_begin_a_secret() {
        let (mut stream, mut clean) = (RedactingStream::new(redactor(&["hunter2"])), Vec::new());
        stream.push(b"building\n", &mut clean);
        assert_eq!(clean, b"building\n");
    }

    #[test]
    fn secrets_of_one_or_two_bytes_are_refused_without_being_shown() {
        for short in ["", "a", "ab", "ab\n"] {
            let error = Redactor::new(&[b"long enough", short.as_bytes()]).unwrap_err();
            assert!(matches!(error, RedactError::TooShort { index: 1, .. }), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", RedactingStream::new(redactor(&["hunter2"])));
        assert!(!shown.contains("hunter2") && !shown.contains("104, 117"), "{shown}");
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_and_no_needle_is_left(
            secrets in prop::collection::vec("[a-c/?\n]{3,9}[a-c]", 1..4),
            parts in prop::collection::vec(prop_oneof![
                "[a-c/?\n %2]{0,12}".prop_map(Ok), any::<prop::sample::Index>().prop_map(Err)
            ], 0..10),
            sizes in prop::collection::vec(1_usize..9, 1..20),
        ) {
            let borrowed: Vec<&[u8]> = secrets.iter().map(String::as_bytes).collect();
            let redactor = Arc::new(Redactor::new(&borrowed).unwrap());
            let mut text = Vec::new();
            for part in &parts {
                match part {
                    Ok(plain) => text.extend_from_slice(plain.as_bytes()),
                    Err(index) => text.extend_from_slice(index.get(redactor.needles.as_slice()).as_slice()),
                }
            }
            let whole = stream(&redactor, [text.as_slice()]);
            let mut chunks = Vec::new();
            let (mut rest, mut sizes) = (text.as_slice(), sizes.iter().cycle());
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
                chunks.push(chunk);
                rest = after;
            }
            prop_assert_eq!(&stream(&redactor, chunks), &whole);
            for needle in &redactor.needles {
                prop_assert!(!whole.windows(needle.len()).any(|part| part == needle));
            }
        }
    }
}
