//! Reading a journal back, believing nothing that does not fit the chain.

use super::{FORMAT, genesis, link, record::Record, render};
use plimsoll_core::{Classify, ErrorClass, Fingerprint, RunId, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{
    io,
    path::{Path, PathBuf},
};

/// One verified line.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// When it was written.
    pub at: Timestamp,
    /// What it says.
    pub record: Record,
}

/// A journal as read.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadJournal {
    /// Its lines, in order.
    pub entries: Vec<Entry>,
    /// The hash of each of them.
    pub hashes: Vec<Fingerprint>,
    /// The hash of the last line.
    pub head: Fingerprint,
    /// How many bytes of the file are whole lines; what is behind them is a torn write.
    pub valid_bytes: u64,
}

/// Why a journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file could not be read or written.
    #[error("cannot use the journal {}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A complete line does not fit.
    #[error("the journal {} was tampered with at byte {offset} (record {seq}): {reason}", path.display())]
    Tampered {
        /// Which file.
        path: PathBuf,
        /// Where the line begins.
        offset: u64,
        /// Which line, from 0.
        seq: u64,
        /// What does not fit.
        reason: String,
    },
    /// It was written by a later Plimsoll.
    #[error("the journal {} has format {found}; this Plimsoll reads up to {FORMAT}", path.display())]
    Format {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

impl Classify for JournalError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Io { .. } | Self::Tampered { .. } => ErrorClass::External,
            Self::Format { .. } => ErrorClass::User,
        }
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    seq: u64,
    #[serde(borrow)]
    at: &'a str,
    prev: Fingerprint,
    #[serde(borrow)]
    record: &'a RawValue,
    hash: Fingerprint,
}

/// Reads and verifies the journal of `run`.
pub fn read(path: &Path, run: &RunId) -> Result<ReadJournal, JournalError> {
    let bytes = std::fs::read(path).map_err(|source| JournalError::Io { path: path.to_owned(), source })?;
    let mut read = ReadJournal { entries: Vec::new(), hashes: Vec::new(), head: genesis(run), valid_bytes: 0 };
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        let Some(text) = line.strip_suffix(b"\n") else { break };
        let seq = read.entries.len() as u64;
        let (entry, hash) = verify(text, seq, &read.head).map_err(|reason| JournalError::Tampered {
            path: path.to_owned(),
            offset: read.valid_bytes,
            seq,
            reason,
        })?;
        if let Record::Started { format, .. } = &entry.record
            && *format > FORMAT
        {
            return Err(JournalError::Format { path: path.to_owned(), found: *format });
        }
        read.entries.push(entry);
        read.hashes.push(hash);
        read.head = hash;
        read.valid_bytes += line.len() as u64;
    }
    Ok(read)
}

/// Refuses a journal that does not hold the record whose hash is `anchor`: a head that was made known elsewhere (in the next
/// run's journal, in a registry) and that whoever shortened the file could not take back.
pub fn check_anchor(path: &Path, read: &ReadJournal, anchor: &Fingerprint) -> Result<(), JournalError> {
    if read.hashes.contains(anchor) {
        return Ok(());
    }
    Err(JournalError::Tampered {
        path: path.to_owned(),
        offset: read.valid_bytes,
        seq: read.entries.len() as u64,
        reason: format!("it ends without the record {}, which was once its head", anchor.short()),
    })
}

fn verify(text: &[u8], seq: u64, head: &Fingerprint) -> Result<(Entry, Fingerprint), String> {
    let line: Line<'_> = serde_json::from_slice(text).map_err(|e| format!("it is no record: {e}"))?;
    if line.prev != *head {
        return Err("it does not follow the record before it".to_owned());
    }
    if line.seq != seq {
        return Err(format!("it says it is record {}", line.seq));
    }
    if link(head, seq, line.at, line.record.get()) != line.hash {
        return Err("its content does not match its hash".to_owned());
    }
    // The hash covers what the parts say; this covers how they are spelt, so that no byte can differ unseen.
    if render(seq, line.at, head, line.record.get(), &line.hash).as_bytes() != text {
        return Err("it is not spelt as a journal spells it".to_owned());
    }
    let at = Timestamp::try_from(line.at.to_owned())?;
    let record = serde_json::from_str(line.record.get()).map_err(|e| format!("its record is unknown: {e}"))?;
    Ok((Entry { at, record }, line.hash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal;
    use proptest::prelude::*;
    use std::{fs, sync::Arc};

    fn run() -> RunId {
        RunId::new(Timestamp::from_millis(0), 1)
    }

    fn clock() -> crate::Clock {
        Arc::new(|| Timestamp::from_millis(5))
    }

    fn written(records: usize) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut journal = Journal::create(&path, &run(), clock()).unwrap();
        for n in 0..records {
            journal.append_synced(&Record::Intent { step: format!("s{n}") }).unwrap();
        }
        (dir, path)
    }

    #[test]
    fn what_was_appended_reads_back_and_can_be_appended_to() {
        let (_dir, path) = written(3);
        let (mut journal, before) = Journal::open(&path, &run(), clock()).unwrap();
        assert_eq!(before.entries.len(), 3);
        journal.append_synced(&Record::Resumed { actor: "ann".into() }).unwrap();
        assert_eq!(read(&path, &run()).unwrap().entries.len(), 4);
        assert_eq!(read(&path, &run()).unwrap().head, journal.head());
    }

    #[test]
    fn a_torn_last_line_is_cut_wherever_it_was_torn() {
        let (_dir, path) = written(3);
        let whole = fs::read(&path).unwrap();
        let second = whole.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(1).unwrap().0 + 1;
        for cut in second..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (mut journal, read_back) = Journal::open(&path, &run(), clock()).unwrap();
            assert_eq!(read_back.entries.len(), 2, "cut at {cut}");
            journal.append_synced(&Record::Intent { step: "s2".into() }).unwrap();
            assert_eq!(fs::read(&path).unwrap(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_duplicate_a_missing_and_a_foreign_record_are_refused_with_their_offset() {
        let (_dir, path) = written(3);
        let whole = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = whole.split_inclusive('\n').collect();
        let first = lines[0].len() as u64;
        for (text, seq) in [
            ([lines[0], lines[0], lines[1]].concat(), 1),
            ([lines[0], lines[2]].concat(), 1),
            ([lines[1], lines[2]].concat(), 0),
        ] {
            fs::write(&path, text).unwrap();
            match read(&path, &run()) {
                Err(JournalError::Tampered { seq: at, offset, .. }) => assert_eq!((at, offset), (seq, seq * first)),
                other => panic!("{other:?}"),
            }
        }
        fs::write(&path, &whole).unwrap();
        let other = RunId::new(Timestamp::from_millis(0), 2);
        assert!(matches!(read(&path, &other), Err(JournalError::Tampered { seq: 0, .. })));
    }

    #[test]
    fn a_journal_cut_below_its_anchor_is_refused_and_one_that_grew_beyond_it_is_not() {
        let (_dir, path) = written(3);
        let whole = read(&path, &run()).unwrap();
        for anchor in &whole.hashes {
            check_anchor(&path, &whole, anchor).unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.split_inclusive('\n').take(2).collect::<String>()).unwrap();
        let cut = read(&path, &run()).unwrap();
        match check_anchor(&path, &cut, &whole.head) {
            Err(JournalError::Tampered { seq: 2, offset, .. }) => assert_eq!(offset, cut.valid_bytes),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn another_spelling_of_the_same_record_is_refused() {
        let (_dir, path) = written(2);
        let text = fs::read_to_string(&path).unwrap();
        let hash = read(&path, &run()).unwrap().head.to_string();
        for (from, to) in [
            ("\"seq\":1", "\"seq\": 1".to_owned()),
            (hash.as_str(), hash.to_uppercase()),
            ("\"at\":\"1970", "\"at\":\"\\u0031970".to_owned()),
            ("}\n", "} \n".to_owned()),
        ] {
            assert!(text.contains(from), "{from}");
            fs::write(&path, text.replace(from, &to)).unwrap();
            assert!(matches!(read(&path, &run()), Err(JournalError::Tampered { .. })), "{to}");
        }
    }

    proptest! {
        #[test]
        fn a_flipped_bit_in_a_complete_line_is_found(position in 0_usize..1000, bit in 0_u8..8) {
            let (_dir, path) = written(4);
            let mut bytes = fs::read(&path).unwrap();
            let position = position % (bytes.len() - 1);
            bytes[position] ^= 1 << bit;
            fs::write(&path, &bytes).unwrap();
            // A flip may make or break a line's end; whatever it does, it is never read as the whole, healthy journal.
            let found = read(&path, &run());
            prop_assert!(found.is_err() || found.is_ok_and(|r| r.entries.len() < 4));
        }
    }
}
