//! The state, by itself and shared, its import, and its backups, whole and damaged.

use serde_json::{Value, json};

use super::*;
use crate::risk::Side;

const LIMITS: Limits = Limits { max_position: 1000, max_loss: 1e6 };

fn order(id: &str) -> Order {
    Order {
        id: id.to_owned(),
        instrument: "AAPL".to_owned(),
        side: Side::Buy,
        quantity: 1,
        price: 10.25,
        generation: Some(3),
        placed_by: Some("blue".to_owned()),
        placer: None,
    }
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("temporary directory")
}

fn open(directory: &tempfile::TempDir) -> Ledger {
    Ledger::open(Some(directory.path()), Schema::NEWEST).expect("opened")
}

fn place(ledger: &Ledger, id: &str) -> Verdict {
    ledger.decide(&order(id), LIMITS, Some("blue"), false).expect("decided")
}

fn position(ledger: &Ledger) -> i32 {
    ledger.holdings().expect("readable").get("AAPL").map_or(0, |held| held.position)
}

#[test]
fn two_ledgers_over_one_directory_see_each_other_and_lose_nothing() {
    let directory = directory();
    std::thread::scope(|scope| {
        for name in ["a", "b"] {
            let ledger = open(&directory);
            scope.spawn(move || {
                for number in 0..20 {
                    assert!(matches!(place(&ledger, &format!("{name}-{number}")), Verdict::Decided(_)));
                }
            });
        }
    });
    let mut third = open(&directory);
    assert_eq!(position(&third), 40);
    let all = third.orders(0, 100).expect("readable");
    assert_eq!((all.total, all.next, all.records.len()), (40, 40, 40));
    for (record, position) in all.records.iter().zip(1..) {
        assert_eq!(record.position, position, "each decision saw all before it");
    }
    check_state(&mut third).expect("whole");
}

#[test]
fn an_id_decided_by_one_process_is_known_to_the_other() {
    let directory = directory();
    let (one, two) = (open(&directory), open(&directory));
    assert!(matches!(place(&one, "x"), Verdict::Decided(_)));
    let verdict = two.decide(&order("x"), LIMITS, Some("green"), false).expect("decided");
    assert!(matches!(verdict, Verdict::Known(record) if record.handled_by.as_deref() == Some("blue")));
    let stale = two.decide(&Order { generation: Some(2), ..order("y") }, LIMITS, Some("green"), false);
    assert!(matches!(stale, Ok(Verdict::Stale { highest: 3 })), "{stale:?}");
}

#[test]
fn a_read_only_ledger_decides_nothing_new_and_tells_what_was_decided() {
    let ledger = Ledger::open(None, Schema::NEWEST).expect("opened");
    place(&ledger, "1");
    let read_only = |id: &str| ledger.decide(&order(id), LIMITS, None, true).expect("answered");
    assert_eq!(read_only("2"), Verdict::ReadOnly);
    assert!(matches!(read_only("1"), Verdict::Known(_)));
    assert_eq!(ledger.orders(0, 10).expect("readable").total, 1);
}

#[test]
fn pages_of_orders_begin_after_the_one_that_is_known_and_end_at_the_limit() {
    let ledger = Ledger::open(None, Schema::NEWEST).expect("opened");
    for id in ["1", "2", "3"] {
        place(&ledger, id);
    }
    for (since, limit, ids, next) in [
        (0, 2, vec!["1", "2"], 2),
        (2, 2, vec!["3"], 3),
        (3, 2, vec![], 3),
        (9, 1, vec![], 3),
        (u64::MAX, 1, vec![], 3),
    ] {
        let page = ledger.orders(since, limit).expect("readable");
        assert_eq!(page.records.iter().map(|record| record.order.id.as_str()).collect::<Vec<_>>(), ids);
        assert_eq!((page.next, page.total), (next, 3), "after {since}");
    }
}

/// A line as the order log had it.
fn line(id: &str, position: i32) -> String {
    format!(
        "{{\"id\":\"{id}\",\"instrument\":\"AAPL\",\"side\":\"buy\",\"quantity\":1,\"price\":2.5,\"accepted\":true,\
         \"position\":{position}}}\n"
    )
}

#[test]
fn an_earlier_order_log_is_taken_over_and_what_comes_later_at_the_next_start() {
    let directory = directory();
    let path = directory.path().join("orders.jsonl");
    std::fs::write(&path, format!("{}{}", line("1", 1), "{\"id\":\"2\",\"instr")).expect("written");
    let ledger = open(&directory);
    assert_eq!((position(&ledger), ledger.orders(0, 10).expect("readable").total), (1, 1), "a torn line is no order");
    assert!(matches!(place(&ledger, "1"), Verdict::Known(_)));
    place(&ledger, "meanwhile");
    std::fs::write(&path, format!("{}{}", line("1", 1), line("2", 2))).expect("written");
    drop(ledger);
    assert_eq!(position(&open(&directory)), 3);
    assert_eq!(position(&open(&directory)), 3, "once");
    check_state(&mut open(&directory)).expect("each follows from those before it");

    std::fs::write(&path, format!("{}{}nonsense\n", line("1", 1), line("2", 2))).expect("written");
    let refused = Ledger::open(Some(directory.path()), Schema::NEWEST);
    assert!(matches!(refused, Err(LedgerError::DamagedLine { .. })), "{refused:?}");
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let directory = directory();
    std::fs::write(directory.path().join(FILE), "nonsense".repeat(1000)).expect("written");
    assert!(matches!(Ledger::open(Some(directory.path()), Schema::NEWEST), Err(LedgerError::Open { .. })));
}

/// A state of three orders, and a backup of it.
fn backed_up() -> (tempfile::TempDir, PathBuf, Ledger) {
    let directory = directory();
    let ledger = open(&directory);
    for id in ["1", "2", "3"] {
        place(&ledger, id);
    }
    let backup = directory.path().join("backup");
    super::backup(&ledger, &backup).expect("backed up");
    (directory, backup, ledger)
}

fn refusal(backup: &Path) -> String {
    let refused = verify(backup).expect_err("damaged");
    let empty = Ledger::open(None, Schema::NEWEST).expect("opened");
    assert_eq!(restore(&empty, backup).expect_err("damaged").to_string(), refused.to_string());
    assert_eq!(empty.orders(0, 1).expect("readable").total, 0, "nothing was restored");
    crate::server::chain(&refused)
}

#[test]
fn a_restored_backup_is_the_same_state_and_goes_on_from_it() {
    let (_directory, backup, ledger) = backed_up();
    place(&ledger, "after the backup");
    let manifest = json!(verify(&backup).expect("whole"));
    assert_eq!(
        (&manifest["orders"], &manifest["last_sequence"], &manifest["positions"]),
        (&json!(3), &json!(3), &json!(1))
    );

    let elsewhere = self::directory();
    let mut restored = open(&elsewhere);
    restore(&restored, &backup).expect("restored");
    let all = |ledger: &Ledger| ledger.orders(0, 3).expect("readable").records;
    assert_eq!(all(&restored), all(&ledger));
    check_state(&mut restored).expect("whole");
    assert!(matches!(place(&restored, "3"), Verdict::Known(_)));
    assert!(matches!(place(&restored, "4"), Verdict::Decided(record) if record.position == 4));
    let stale = restored.decide(&Order { generation: Some(2), ..order("5") }, LIMITS, None, false);
    assert!(matches!(stale, Ok(Verdict::Stale { highest: 3 })), "fences are restored too: {stale:?}");
    assert!(matches!(restore(&restored, &backup), Err(BackupError::NotEmpty { orders: 4 })));
}

#[test]
fn every_changed_byte_of_a_backup_is_found_and_its_digests_are_told() {
    let (_directory, backup, _ledger) = backed_up();
    let path = backup.join("orders.jsonl");
    let whole = std::fs::read(&path).expect("read");
    for at in (0..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, &damaged).expect("written");
        let told = refusal(&backup);
        assert!(told.contains("orders.jsonl is damaged: expected") && told.matches("sha256 ").count() == 2, "{told}");
    }
    std::fs::write(&path, &whole[..whole.len() - 1]).expect("written");
    assert!(refusal(&backup).contains(&format!("found {} bytes", whole.len() - 1)));
    std::fs::write(&path, &whole).expect("written");
    verify(&backup).expect("whole again");
    std::fs::remove_file(backup.join("manifest.json")).expect("removed");
    assert!(refusal(&backup).contains("was not finished"));
}

/// Changes a text of the backup, and its manifest so that the digest is right.
fn forge(directory: &Path, change: impl FnOnce(String) -> String) {
    let path = directory.join("orders.jsonl");
    let text = change(std::fs::read_to_string(&path).expect("read"));
    std::fs::write(&path, &text).expect("written");
    let path = directory.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).expect("read")).expect("JSON");
    let sha256 = super::backup::hex(&<sha2::Sha256 as sha2::Digest>::digest(&text));
    manifest["orders.jsonl"] = json!({"bytes": text.len(), "sha256": sha256});
    std::fs::write(&path, manifest.to_string()).expect("written");
}

#[test]
fn a_record_that_does_not_follow_is_named_also_when_the_digest_is_right() {
    let cases: [(&str, &str, &str); 4] = [
        ("\"position\":2", "\"position\":7", "record 2 of"),
        ("\"number\":3", "\"number\":4", "record 3 of"),
        ("\"side\":\"buy\"", "\"side\":\"hold\"", "record 1 of"),
        ("\"accepted\":true,\"position\":3", "\"accepted\":false,\"position\":2", "tells 3 accepted"),
    ];
    for (before, after, told) in cases {
        let (_directory, backup, _ledger) = backed_up();
        forge(&backup, |text| text.replacen(before, after, 1));
        let refused = refusal(&backup);
        assert!(refused.contains(told), "{refused}");
    }
}

#[test]
fn a_backup_is_never_written_over_another() {
    let (_directory, backup, ledger) = backed_up();
    assert!(matches!(super::backup(&ledger, &backup), Err(BackupError::Exists { .. })));
    verify(&backup).expect("still whole");
}

#[test]
fn a_state_that_contradicts_itself_is_found() {
    let mut ledger = Ledger::open(None, Schema::NEWEST).expect("opened");
    place(&ledger, "1");
    let Ok(Verdict::Known(record)) = ledger.decide(&order("1"), LIMITS, None, false) else { panic!("known") };
    let skipped = Record { position: 3, order: order("2"), ..record };
    ledger.write(|state| state.add(&skipped)).expect("written");
    let told = check_state(&mut ledger).expect_err("not a sum").to_string();
    assert!(told.contains("record 2: its position is 3, and 2 follows"), "{told}");
}
