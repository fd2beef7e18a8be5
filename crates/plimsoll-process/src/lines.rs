//! From bytes to lines: splitting, the bound on a line, and what receives them.

use std::borrow::Cow;

/// Which of a command's two outputs a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Receives a command's lines as they come.
///
/// It is called from the task that reads the pipes: while it runs, nothing is read, and a full pipe makes the command
/// wait. That is the back-pressure, so it may be slow but must not block for ever.
pub trait LineSink: Send + Sync {
    /// One line, without its line ending, redacted.
    fn line(&self, stream: Stream, line: &str);
}

impl<F: Fn(Stream, &str) + Send + Sync> LineSink for F {
    fn line(&self, stream: Stream, line: &str) {
        self(stream, line);
    }
}

/// The longest line that is handed on in one piece, in bytes; longer ones come in several.
///
/// It bounds the memory that a command which never prints a newline can make us hold.
pub const MAX_LINE: usize = 64 * 1024;

/// Splits a stream of bytes into lines.
#[derive(Debug, Default)]
pub(crate) struct LineSplitter {
    partial: Vec<u8>,
}

impl LineSplitter {
    /// Takes the next bytes and hands on the lines they complete.
    pub(crate) fn push(&mut self, mut bytes: &[u8], emit: &mut dyn FnMut(&str)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            if self.partial.is_empty() && end <= MAX_LINE {
                emit(&text(&bytes[..end]));
            } else {
                self.partial.extend_from_slice(&bytes[..end]);
                self.split_long(emit);
                emit(&text(&self.partial));
                self.partial.clear();
            }
            bytes = &bytes[end + 1..];
        }
        self.partial.extend_from_slice(bytes);
        self.split_long(emit);
    }

    /// Hands on the last line when it had no line ending.
    pub(crate) fn finish(&mut self, emit: &mut dyn FnMut(&str)) {
        if !self.partial.is_empty() {
            emit(&text(&self.partial));
            self.partial.clear();
        }
    }

    fn split_long(&mut self, emit: &mut dyn FnMut(&str)) {
        let mut start = 0;
        while self.partial.len() - start > MAX_LINE {
            let cut = start + char_boundary(&self.partial[start..], MAX_LINE);
            emit(&text(&self.partial[start..cut]));
            start = cut;
        }
        self.partial.drain(..start);
    }
}

/// The last position up to `limit` that does not cut a UTF-8 character in two.
fn char_boundary(bytes: &[u8], limit: usize) -> usize {
    // A character has at most three continuation bytes; with more of them it is not UTF-8 and may be cut anywhere.
    (limit - 3..=limit).rev().find(|at| bytes[*at] & 0b1100_0000 != 0b1000_0000).unwrap_or(limit)
}

fn text(line: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(chunks: &[&[u8]], expected: &[&str]) {
        let mut lines = Vec::new();
        let mut splitter = LineSplitter::default();
        for chunk in chunks {
            splitter.push(chunk, &mut |line| lines.push(line.to_owned()));
        }
        splitter.finish(&mut |line| lines.push(line.to_owned()));
        assert_eq!(lines, expected);
    }

    #[test]
    fn lines_are_split_wherever_the_chunks_end() {
        check(&[b"one\ntwo\n"], &["one", "two"]);
        check(&[b"o", b"ne", b"\n", b"two"], &["one", "two"]);
        check(&[b"one\r\n\r\n\n"], &["one", "", ""]);
        check(&[], &[]);
        check(&[b"", b"\n"], &[""]);
    }

    #[test]
    fn what_is_not_utf8_is_replaced_and_a_split_character_is_not() {
        check(&[b"a\xffb\n"], &["a\u{fffd}b"]);
        check(&[b"\xc3", b"\xa4\n"], &["ä"]);
    }

    #[test]
    fn a_line_without_end_comes_in_bounded_pieces_on_character_boundaries() {
        let long = "ä".repeat(MAX_LINE) + "x";
        for chunk in [1000, 4096, long.len()] {
            let mut pieces: Vec<String> = Vec::new();
            let mut splitter = LineSplitter::default();
            for bytes in long.as_bytes().chunks(chunk) {
                splitter.push(bytes, &mut |line| pieces.push(line.to_owned()));
                assert!(splitter.partial.len() <= MAX_LINE);
            }
            splitter.push(b"\n", &mut |line| pieces.push(line.to_owned()));
            assert_eq!(pieces.concat(), long);
            assert!(pieces.iter().all(|piece| piece.len() <= MAX_LINE));
        }
    }

    #[test]
    fn a_long_line_that_ends_in_the_same_chunk_is_split_too() {
        let mut text = "x".repeat(MAX_LINE + 5);
        text.push('\n');
        check(&[text.as_bytes()], &[&"x".repeat(MAX_LINE), "xxxxx"]);
    }
}
