//! Releases that change the schema of a state.

use super::{deploy, reach, version};
use crate::{
    drive::DriveError,
    fake::{FakeTarget, Fault},
    goal::Goal,
    plan::Refusal,
    target::{Change, LockOwner, Target as _},
    testing::{environment, release, run},
};
use plimsoll_core::{Slot, StateSchema};

/// A release of `version` whose services have this schema.
fn migrating(number: u16, version: u32, schema: (u32, u32)) -> Goal {
    let Goal::Deploy(mut of) = deploy(number, version) else { unreachable!("it deploys") };
    for service in &mut of.services {
        service.schema = Some(StateSchema { version: schema.0, readable_from: schema.1 });
    }
    Goal::Deploy(release(number, &version.to_string(), of.services))
}

/// Version 1 is live, and says that it has schema 1.
async fn schema_one() -> FakeTarget {
    let target = FakeTarget::new(environment());
    reach(&target, &migrating(1, 1, (1, 1))).await.unwrap();
    target
}

async fn back_to(target: &FakeTarget, number: u16, version: &str) -> Result<(), DriveError> {
    let seen = target.observe().await.unwrap();
    let record = seen.history.iter().find(|record| record.version == version).expect("it served").clone();
    let by = LockOwner { run: run(number), actor: "ann".to_owned() };
    reach(target, &Goal::PutBack { record, change: Change::Rollback, by }).await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn a_state_is_expanded_then_contracted_and_only_what_reads_it_is_put_back() {
    let target = schema_one().await;
    reach(&target, &migrating(2, 2, (2, 1))).await.unwrap();
    back_to(&target, 91, "1").await.expect("an expanded state is readable");
    reach(&target, &migrating(3, 3, (2, 1))).await.unwrap();
    reach(&target, &migrating(4, 4, (2, 2))).await.unwrap();
    let calls = target.calls().len();
    let error = back_to(&target, 92, "1").await.expect_err("it cannot read a contracted state");
    assert!(
        matches!(&error, DriveError::Refused(Refusal::Unreadable { unreadable }) if unreadable.needs == 2),
        "{error}"
    );
    assert!(!target.calls()[calls..].iter().any(|call| call.starts_with("stand_up")), "nothing was begun");
    back_to(&target, 93, "3").await.expect("it reads what it needs to");
    assert_eq!(version(&target).await.as_deref(), Some("3"));
}

#[tokio::test(start_paused = true)]
async fn a_release_that_leaves_no_way_back_is_refused_before_anything_stands_up() {
    let target = schema_one().await;
    let calls = target.calls().len();
    let error = reach(&target, &migrating(2, 2, (2, 2))).await.expect_err("version 1 could not read it");
    assert!(matches!(error, DriveError::Refused(Refusal::NoWayBack { .. })), "{error}");
    assert!(!target.calls()[calls..].iter().any(|call| call.starts_with("stand_up")));
    assert_eq!(version(&target).await.as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn what_serves_is_tried_on_the_migrated_state_before_the_cut_over() {
    let target = schema_one().await;
    target.break_it(Fault::SpoilsState("2".to_owned()));
    let error = reach(&target, &migrating(2, 2, (2, 1))).await.expect_err("version 1 does not work on it");
    assert!(error.to_string().contains("has migrated the state"), "{error}");
    let DriveError::Former { slot: Slot::Blue, version: tried, .. } = &error else { panic!("{error}") };
    assert_eq!(tried, "1");
    let seen = target.observe().await.unwrap();
    assert!(seen.services.values().all(|view| view.standby.is_none()), "what was stood up is taken away");
    assert_eq!(version(&target).await.as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn what_did_not_work_before_is_no_reason_to_refuse_a_migration() {
    let target = schema_one().await;
    target.break_it(Fault::Answers500("1".to_owned()));
    reach(&target, &migrating(2, 2, (2, 1))).await.expect("it may be what mends it");
    assert_eq!(version(&target).await.as_deref(), Some("2"));
}
