//! Dated backups, as a nightly job makes them: whole whenever the job is killed, and not more of them than wanted.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use crate::durability::{printed, refused, run};
use crate::support::{RISK, command, start, text, wait};

/// Enough that a backup of them takes much longer than it takes to see that it has begun.
const ORDERS: u32 = 5000;
/// Kills, each at another moment of a backup.
const ROUNDS: usize = 6;

/// A log of an earlier version, which the state takes over when it is opened first.
fn many_orders(state: &Path) {
    let mut log = String::new();
    for number in 1..=ORDERS {
        writeln!(
            log,
            "{{\"id\":\"{number}\",\"instrument\":\"AAPL\",\"side\":\"buy\",\"quantity\":1,\"price\":2.5,\
             \"accepted\":true,\"position\":{number}}}"
        )
        .expect("a string takes all");
    }
    std::fs::create_dir(state).expect("made");
    std::fs::write(state.join("orders.jsonl"), log).expect("written");
    drop(start(RISK, &[("STATE_DIR", text(state))]));
}

/// The names in a directory, finished backups apart from the rest.
fn names(directory: &Path) -> (Vec<String>, Vec<String>) {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("read").file_name().into_string().expect("UTF-8")).collect();
    names.sort_unstable();
    names.into_iter().partition(|name| name.ends_with('Z'))
}

#[test]
fn a_backup_killed_at_any_moment_leaves_no_dated_name_that_is_not_whole() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (state, backups) = (directory.path().join("state"), directory.path().join("backups"));
    many_orders(&state);
    for round in 0..ROUNDS {
        let mut backup = command(RISK, &[("STATE_DIR", text(&state))]);
        let mut backup = backup.args(["backup", "--keep-days", "1", text(&backups)]).spawn().expect("started");
        let own = format!(".{}.", backup.id());
        let mut unfinished = None;
        wait("the backup to begin", || {
            unfinished = names(&backups).1.into_iter().find(|name| name.contains(&own));
            unfinished.is_some()
        });
        let unfinished = backups.join(unfinished.expect("begun"));
        // From nothing written up to the manifest, which stands before the name does. It may be too quick for us.
        let file = unfinished.join(if round % 2 == 0 { "manifest.json" } else { "orders.jsonl" });
        wait("a file of it", || file.exists() || !unfinished.exists());
        backup.kill().expect("killed");
        backup.wait().expect("waited for");
        for name in names(&backups).0 {
            printed(&run(&state, &["verify", text(&backups.join(name))]));
        }
    }
    let (_, leftovers) = names(&backups);
    assert!(!leftovers.is_empty(), "no kill met a backup under way");
    let mut done = None;
    // One that was not killed in time has the name of its second.
    wait("a second that has no backup yet", || {
        done = Some(run(&state, &["backup", "--keep-days", "1", text(&backups)]));
        done.as_ref().is_some_and(|done| !String::from_utf8_lossy(&done.stderr).contains("is not empty"))
    });
    let done = printed(&done.expect("ran"));
    assert_eq!((&done["manifest"]["orders"], &done["removed"]), (&json!(ORDERS), &json!([])));
    assert_eq!(names(&backups).1, leftovers, "another backup may be at them still");
    assert_eq!(printed(&run(&state, &["verify", done["made"].as_str().expect("a path")])), done["manifest"]);
}

#[test]
fn a_dated_backup_tells_what_it_made_and_removed_and_removes_nothing_when_it_fails() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (state, backups) = (directory.path().join("state"), directory.path().join("backups"));
    drop(start(RISK, &[("STATE_DIR", text(&state))]));
    let (old, leftover) = ("orders-20200101T000000Z", "orders-20200102T000000Z.1.tmp");
    for name in ["kept by hand", old, leftover] {
        std::fs::create_dir_all(backups.join(name)).expect("made");
    }
    let nothing = directory.path().join("nothing");
    let message = refused(&run(&nothing, &["backup", "--keep-days", "30", text(&backups)]), 1);
    assert!(message.contains("there is no order database"), "{message}");
    for days in ["0", "3651", "thirty"] {
        assert!(refused(&run(&state, &["backup", "--keep-days", days, text(&backups)]), 2).contains(days));
    }
    assert_eq!(names(&backups).0, [old]);

    let done = printed(&run(&state, &["backup", "--keep-days", "30", text(&backups)]));
    assert_eq!(done["removed"], json!([leftover, old]));
    let (finished, rest) = names(&backups);
    assert_eq!((finished.len(), rest), (1, vec!["kept by hand".to_owned()]));
    assert_eq!(done["made"], text(&backups.join(&finished[0])));
}
