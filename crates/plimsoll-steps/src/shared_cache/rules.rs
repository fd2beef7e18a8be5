//! What is worth sharing, and what is not believed. Pure.

use super::CREATED;
use crate::scan::REPORTS;
use plimsoll_core::{ByteSize, Timestamp, config::SharedCache as Rules};
use plimsoll_engine::StepError;
use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

/// The largest recorded output.
pub(super) const MAX_RECORD: u64 = 4 * 1024 * 1024;
/// How far clocks may be apart, in milliseconds.
const AHEAD: i64 = 3_600_000;
/// What the requests for one entry take besides its bytes, in milliseconds.
const REQUESTS: u64 = 500;

/// Whether an entry is older than the rules allow; one that says nothing of its age, or is of tomorrow, is.
pub(super) fn is_too_old(annotations: &BTreeMap<String, String>, rules: &Rules, now: Timestamp) -> bool {
    let made = annotations.get(CREATED).and_then(|at| Timestamp::try_from(at.clone()).ok());
    let age = made.map(|made| now.as_millis().saturating_sub(made.as_millis()));
    let most = i64::try_from(rules.max_age.millis()).unwrap_or(i64::MAX);
    !age.is_some_and(|age| (-AHEAD..=most).contains(&age))
}

/// How an entry is larger than it may be: the statement, and all beside it.
pub(super) fn too_large(record: u64, leaves: u64, most: ByteSize) -> Option<String> {
    let record =
        (record > MAX_RECORD).then(|| format!("has an output of {record} bytes, and {MAX_RECORD} is the most"));
    record.or_else(|| (leaves > most.get()).then(|| format!("has {leaves} bytes, more than the {most} of one entry")))
}

/// Why so many bytes are not worth giving away that took so long to make, at a pace in bytes a second.
pub(super) fn not_worth(size: u64, millis: u64, pace: u64) -> Option<String> {
    let expected = REQUESTS + size.saturating_mul(1_000) / pace.max(1);
    let longer =
        format!("{size} bytes would take {expected} ms to send, at {pace} bytes/s, and took {millis} ms to make");
    (expected > millis).then_some(longer)
}

/// A file that an output stands for: a report, whatever the output says.
pub(super) fn own(root: &Path, path: &Path) -> Result<PathBuf, StepError> {
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    if plain && path.starts_with(REPORTS) {
        return Ok(root.join(path));
    }
    Err(StepError::external(format!("{} does not lie in {REPORTS}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_longer_to_send_than_to_make_is_not_given_away() {
        // Its requests take half a second, and each 100,000 bytes one.
        assert_eq!(not_worth(100_000, 1_500, 100_000), None);
        let why = not_worth(200_000, 1_500, 100_000).unwrap();
        assert!(why.contains("200000 bytes would take 2500 ms to send, at 100000 bytes/s, and took 1500 ms"), "{why}");
        assert!(not_worth(0, 200, 100_000).is_some(), "a verdict that is had in a moment");
    }

    #[test]
    fn an_entry_has_a_size_an_age_and_nothing_but_reports() {
        let most = ByteSize::new(1_000);
        assert_eq!(too_large(MAX_RECORD, 1_000, most), None);
        assert!(too_large(MAX_RECORD + 1, 0, most).is_some() && too_large(0, 1_001, most).is_some());

        let (rules, now) = (Rules::default(), Timestamp::from_millis(1_782_864_000_000));
        let made = |hours: i64| {
            let at = Timestamp::from_millis(now.as_millis() - hours * 3_600_000).to_string();
            BTreeMap::from([(CREATED.to_owned(), at)])
        };
        assert!(!is_too_old(&made(0), &rules, now) && !is_too_old(&made(14 * 24), &rules, now));
        assert!(is_too_old(&made(14 * 24 + 1), &rules, now) && is_too_old(&made(-2), &rules, now));
        assert!(is_too_old(&BTreeMap::new(), &rules, now));

        let root = Path::new("/w");
        assert_eq!(own(root, Path::new(".plimsoll/reports/a.xml")).unwrap(), Path::new("/w/.plimsoll/reports/a.xml"));
        for path in [".plimsoll/steps.jsonl", ".plimsoll/reports/../steps.jsonl", "/etc/passwd", "../x", ""] {
            assert!(own(root, Path::new(path)).is_err(), "{path}");
        }
    }
}
