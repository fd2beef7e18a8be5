//! A run's append-only, hash-chained log: the truth about the run.
//!
//! One JSON object per line: `seq`, `at`, `prev`, `record`, `hash`. `hash` covers the others as they are written, and `prev` is
//! the hash of the line before; the first line's `prev` is made from the run's id, so a line of another run fits nowhere. An
//! unterminated last line is a torn write and is cut; any other line that does not fit is tampering and is refused with its offset.

mod reader;
mod record;
mod writer;

pub use reader::{Entry, JournalError, ReadJournal, check_anchor, read};
pub use record::{Landing, Record};
pub use writer::{Journal, Ledger};

use plimsoll_core::{Fingerprint, RunId};

/// The version of the line format; raised when old readers would misread new lines.
pub const FORMAT: u32 = 1;

/// The link before the first line.
fn genesis(run: &RunId) -> Fingerprint {
    Fingerprint::of_parts([b"plimsoll journal".as_slice(), &FORMAT.to_le_bytes(), run.as_str().as_bytes()])
}

/// A line as it is written; a reader takes no other spelling of it.
fn render(seq: u64, at: &str, prev: &Fingerprint, record: &str, hash: &Fingerprint) -> String {
    format!(r#"{{"seq":{seq},"at":"{at}","prev":"{prev}","record":{record},"hash":"{hash}"}}"#)
}

/// The hash of a line: of what precedes it and of its own parts as written.
fn link(prev: &Fingerprint, seq: u64, at: &str, record: &str) -> Fingerprint {
    Fingerprint::of_parts([prev.as_bytes().as_slice(), &seq.to_le_bytes(), at.as_bytes(), record.as_bytes()])
}
