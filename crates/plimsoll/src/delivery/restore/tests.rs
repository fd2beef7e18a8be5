//! Putting a backup back into a target that is broken on purpose.

use super::{fits, put_back, takes};
use crate::delivery::{
    backup::set::{self, Manifest},
    testing::{record, release, seen},
};
use plimsoll_core::{Generation, RunId, StateSchema, Timestamp};
use plimsoll_deploy::{
    Change, CutOver, FakeTarget, LockView, Move, Observation, ReleaseRecord, Switched, Target as _, TargetError,
};
use std::path::Path;

fn manifest(schema: Option<(u32, u32)>) -> Manifest {
    let mut manifest = Manifest::new("shop", &seen(), record(schema), Timestamp::from_millis(0));
    let copied = set::Copied {
        bytes: 0,
        digest: plimsoll_core::Digest::of(b""),
        schema: schema.map(|(version, readable_from)| StateSchema { version, readable_from }),
    };
    manifest.services.insert("risk".parse().unwrap(), copied);
    manifest
}

/// Something serves, and the copy holds `word`.
async fn served(directory: &Path, word: &str) -> (FakeTarget, Observation) {
    let target = FakeTarget::new("production".parse().unwrap());
    let release = release(None);
    let spec = &release.services[0];
    target.stand_up(spec, plimsoll_core::Slot::Blue, &release).await.unwrap();
    let moves = vec![Move { service: spec.name.clone(), from: None, to: plimsoll_core::Slot::Blue }];
    let wish = CutOver { from: Generation(0), moves, release: release.clone(), change: Change::Promote };
    target.cut_over(&wish).await.unwrap();
    std::fs::write(set::file(directory, &spec.name), word).unwrap();
    let seen = target.observe().await.unwrap();
    (target, seen)
}

#[tokio::test]
async fn a_backup_is_put_back_into_a_stopped_environment_whose_record_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let (target, before) = served(directory.path(), "early").await;
    put_back(&target, &before, directory.path(), &manifest(None), "ann").await.unwrap();
    let seen = target.observe().await.unwrap();
    assert!(seen.stopped && seen.is_being_restored());
    target.start(seen.generation, "ann").await.unwrap();
    assert!(!target.observe().await.unwrap().is_being_restored());
}

#[tokio::test]
async fn where_nothing_was_replaced_what_served_serves_on() {
    let directory = tempfile::tempdir().unwrap();
    let (target, before) = served(directory.path(), "damaged").await;
    let error = put_back(&target, &before, directory.path(), &manifest(None), "ann").await.unwrap_err();
    let told = format!("{error:?}");
    assert!(told.contains("this copy is damaged") && told.contains("was started again"), "{told}");
    assert!(!target.observe().await.unwrap().stopped);
}

#[tokio::test]
async fn where_it_is_not_known_whether_a_state_was_replaced_nothing_is_started() {
    let directory = tempfile::tempdir().unwrap();
    let (target, before) = served(directory.path(), "early").await;
    // The fake cannot be reached for a copy that is not there.
    std::fs::remove_file(set::file(directory.path(), &"risk".parse().unwrap())).unwrap();
    let error = put_back(&target, &before, directory.path(), &manifest(None), "ann").await.unwrap_err();
    assert!(format!("{error:?}").contains("is not known"), "{error:?}");
    let seen = target.observe().await.unwrap();
    assert!(seen.stopped && seen.is_being_restored());
}

fn refused(seen: &Observation, manifest: &Manifest, partial: bool) -> Option<String> {
    let now = Timestamp::from_millis(60_000);
    fits(seen, manifest, partial, now).err().map(|error| error.to_string())
}

#[test]
fn a_backup_that_what_is_live_cannot_take_or_read_is_refused() {
    let taken = |live: ReleaseRecord, manifest: &Manifest| takes(&live, manifest, false).map_err(|e| e.to_string());
    assert_eq!(taken(record(None), &manifest(None)), Ok(()));
    assert_eq!(taken(record(Some((3, 2))), &manifest(Some((3, 2)))), Ok(()));
    let told = taken(record(Some((2, 1))), &manifest(Some((3, 3)))).unwrap_err();
    assert_eq!(told, "1.2.3 cannot read this state of risk: it reads up to schema 2, and 3 is needed");
    let mut other = record(None);
    other.services.values_mut().for_each(|service| service.spec.backup = None);
    assert!(taken(other, &manifest(None)).unwrap_err().contains("does not take one"));
    let mut empty = manifest(None);
    empty.services.clear();
    assert!(taken(record(None), &empty).unwrap_err().contains("the state of no service"));
}

#[test]
fn a_backup_that_lacks_a_state_is_put_back_only_where_that_is_meant() {
    let mut both = seen();
    let live = both.live.as_mut().unwrap();
    let risk = live.services.values().next().unwrap().clone();
    live.services.insert("ledger".parse().unwrap(), risk);
    assert!(refused(&both, &manifest(None), false).unwrap().contains("no state of ledger"));
    assert_eq!(refused(&both, &manifest(None), true), None);
}

#[test]
fn who_is_at_work_is_named_until_the_lock_has_lapsed() {
    let mut locked = seen();
    let lock = |expires| LockView {
        run: RunId::new(Timestamp::from_millis(0), 7),
        actor: "ben".to_owned(),
        since: Timestamp::from_millis(0),
        expires: Timestamp::from_millis(expires),
    };
    locked.lock = Some(lock(90_000));
    assert!(refused(&locked, &manifest(None), false).unwrap().contains("of ben is at work"));
    locked.lock = Some(lock(30_000));
    assert_eq!(refused(&locked, &manifest(None), false), None);
    let nothing = Observation { live: None, ..seen() };
    assert!(refused(&nothing, &manifest(None), false).unwrap().contains("nothing is live"));
}

#[test]
fn only_a_restore_s_own_stop_says_that_one_is_under_way() {
    let stopped = |reason: &str, stopped| {
        let at = Timestamp::from_millis(0);
        let switched = Switched { stopped, actor: "ann".to_owned(), reason: Some(reason.to_owned()), at };
        Observation { stopped, switched: Some(switched), ..seen() }.is_being_restored()
    };
    assert!(stopped("restore of the backup of 2026-11-22 06:00:00", true));
    assert!(!stopped("an exercise", true) && !stopped("restore of the backup of yesterday", false));
}

#[test]
fn a_target_error_of_a_command_says_what_the_command_said() {
    let error = TargetError::Slot {
        service: "risk".parse().unwrap(),
        slot: plimsoll_core::Slot::Blue,
        reason: "`/bin/risk load`: it exited with code 9".to_owned(),
        log_tail: vec!["orders.jsonl is damaged".to_owned()],
    };
    assert!(format!("{:?}", super::told(&error)).contains("orders.jsonl is damaged"));
}
