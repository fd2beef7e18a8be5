//! New slots on a share of the requests.

use super::*;
use crate::{
    canary::{Canary, Judgement},
    observation::Drift,
    plan::{Action, Progress, next},
    target::{TargetError, Weights},
};
use plimsoll_core::ServiceName;
use std::collections::BTreeMap;

fn policy(canary: Canary) -> Policy {
    Policy { canary: Some(canary), ..Policy::default() }
}

fn gateway() -> ServiceName {
    "gateway".parse().unwrap()
}

/// Drives version 2 into the environment with a canary of the standard steps.
async fn try_two(target: &FakeTarget, canary: Canary) -> Result<Outcome, DriveError> {
    let (goal, policy) = (deploy(2, 2), policy(canary));
    drive(&with(target, &goal, &policy), pending()).await
}

/// Version 1 serves 200 requests a second.
async fn loaded() -> FakeTarget {
    let target = first().await;
    target.load(200);
    target
}

/// A driver with a canary of version 2 that dies so many seconds after it began.
async fn died(target: &FakeTarget, seconds: u64) {
    let (goal, policy) = (deploy(2, 2), policy(Canary::default()));
    let driving = with(target, &goal, &policy);
    let died = tokio::time::timeout(Duration::from_secs(seconds), drive(&driving, pending())).await;
    assert!(died.is_err(), "{died:?}");
}

/// What comes of a drive, in which something happens after so many seconds.
async fn in_which<T>(driving: impl Future<Output = T>, seconds: u64, happens: impl FnOnce()) -> T {
    let happening = async {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        happens();
        pending::<()>().await;
    };
    tokio::select! {
        result = driving => result,
        () = happening => unreachable!("it waits for ever"),
    }
}

async fn shares(target: &FakeTarget) -> Vec<u8> {
    target.observe().await.unwrap().services.values().map(|view| view.share).collect()
}

/// What nobody may find after a canary that did not succeed.
async fn nothing_is_left(target: &FakeTarget) {
    assert_eq!(version(target).await.as_deref(), Some("1"));
    let seen = target.observe().await.unwrap();
    assert!(seen.services.values().all(|s| s.standby.is_none() && s.share == 0), "{seen:?}");
    assert_eq!(seen.generation, Generation(1));
}

fn why(error: DriveError) -> (u8, String) {
    match error {
        DriveError::Canary { share, reason, .. } => (share, reason),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_equal_release_takes_growing_shares_and_then_everything() {
    let target = loaded().await;
    let outcome = try_two(&target, Canary::default()).await.unwrap();
    assert_eq!((outcome.live.version.as_str(), outcome.live.generation), ("2", Generation(2)));
    let steps: Vec<u8> = outcome.canary.iter().map(|step| step.share).collect();
    assert_eq!(steps, [5, 25, 50]);
    let last = outcome.canary.last().unwrap();
    assert!(last.trials.iter().all(|t| t.judgement == Judgement::Promote && t.seen.canary.failed == 0));
    assert!(outcome.canary.iter().all(|step| step.millis >= 60_000));
    assert_eq!(shares(&target).await, [0, 0]);
    let calls = target.calls();
    let weighed: Vec<&str> = calls.iter().filter(|c| c.starts_with("weigh gateway")).map(String::as_str).collect();
    assert_eq!(weighed, ["weigh gateway 5", "weigh gateway 25", "weigh gateway 50"]);
}

#[tokio::test(start_paused = true)]
async fn a_release_of_which_three_in_a_hundred_requests_fail_gives_its_share_back_by_itself() {
    let target = loaded().await;
    target.break_it(Fault::FailsOneIn("2".into(), 33));
    let begun = tokio::time::Instant::now();
    let (share, reason) = why(try_two(&target, Canary::default()).await.unwrap_err());
    assert!(share == 5 && reason.contains("times as many as"), "{share} {reason}");
    assert!(begun.elapsed() < Duration::from_mins(2), "{:?}", begun.elapsed());
    nothing_is_left(&target).await;
    let calls = target.calls();
    let tail: Vec<&str> = calls.iter().map(String::as_str).skip_while(|c| *c != "weigh gateway 0").collect();
    let done = ["drain gateway green", "drain risk green", "retire risk green", "retire gateway green"];
    assert_eq!(
        tail,
        [&["weigh gateway 0", "weigh risk 0"][..], &done].concat(),
        "its share goes first, then what was under way ends"
    );
}

#[tokio::test(start_paused = true)]
async fn one_request_a_minute_holds_and_is_never_a_success() {
    let target = first().await;
    let ticking = async {
        loop {
            tokio::time::sleep(Duration::from_mins(1)).await;
            target.load(1);
            tokio::time::sleep(Duration::from_secs(1)).await;
            target.load(0);
        }
    };
    let begun = tokio::time::Instant::now();
    let error = tokio::select! {
        result = try_two(&target, Canary::default()) => result.unwrap_err(),
        () = ticking => unreachable!("it goes on for ever"),
    };
    let (share, reason) = why(error);
    assert!(share == 5 && reason.contains("after 3600 s nobody knows yet: the new slot had"), "{share} {reason}");
    assert!(begun.elapsed() >= Duration::from_hours(1));
    nothing_is_left(&target).await;
}

#[tokio::test(start_paused = true)]
async fn numbers_that_are_missing_or_stand_still_are_never_a_success() {
    for fault in [Fault::NoNumbers, Fault::OldNumbers] {
        let target = loaded().await;
        target.break_it(fault.clone());
        let canary = Canary { hold: Duration::from_mins(5), ..Canary::default() };
        let (_, reason) = why(try_two(&target, canary).await.unwrap_err());
        assert!(reason.contains("nobody knows yet"), "{fault:?}: {reason}");
        nothing_is_left(&target).await;
    }
}

#[tokio::test(start_paused = true)]
async fn numbers_that_cease_in_the_middle_of_a_step_are_no_success() {
    let target = first().await;
    target.load(2000);
    let canary = Canary { steps: vec![50, 60], hold: Duration::from_mins(10), ..Canary::default() };
    let outcome = in_which(try_two(&target, canary), 90, || target.break_it(Fault::OldNumbers)).await;
    let (share, reason) = why(outcome.unwrap_err());
    assert!(share == 60 && reason.contains("its numbers stand still"), "{share} {reason}");
    nothing_is_left(&target).await;
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_is_lost_with_a_share_of_the_requests_gives_it_back_at_once() {
    let target = loaded().await;
    let begun = tokio::time::Instant::now();
    let lose = || target.end_slot(&gateway(), Slot::Green);
    let (_, reason) = why(in_which(try_two(&target, Canary::default()), 30, lose).await.unwrap_err());
    assert!(reason.contains("it crashed with a share of the requests"), "{reason}");
    assert!(begun.elapsed() < Duration::from_secs(32));
    nothing_is_left(&target).await;
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_died_in_a_canary_is_followed_by_one_that_begins_it_anew() {
    let target = loaded().await;
    died(&target, 90).await;
    assert_eq!(shares(&target).await, [25, 25]);
    let outcome = try_two(&target, Canary::default()).await.unwrap();
    let steps: Vec<u8> = outcome.canary.iter().map(|step| step.share).collect();
    assert_eq!((steps, outcome.live.version.as_str()), (vec![5, 25, 50], "2"));
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_after_a_dead_canary_takes_its_share_away_first() {
    let target = loaded().await;
    died(&target, 30).await;
    tokio::time::advance(Duration::from_secs(31)).await;
    let before = target.calls().len();
    // Another release, without a canary.
    reach(&target, &deploy(3, 3)).await.unwrap();
    assert_eq!(target.calls()[before..][..2], ["weigh gateway 0", "weigh risk 0"]);
    assert_eq!((shares(&target).await, version(&target).await.as_deref()), (vec![0, 0], Some("3")));
}

#[tokio::test(start_paused = true)]
async fn a_person_who_puts_back_what_serves_ends_a_dead_canary() {
    let target = loaded().await;
    died(&target, 30).await;
    tokio::time::advance(Duration::from_secs(31)).await;
    let record = target.observe().await.unwrap().live.unwrap();
    let by = LockOwner { run: run(3), actor: "eve".to_owned() };
    let goal = Goal::PutBack { record, change: Change::Rollback, by };
    assert_eq!(reconcile(&goal, &target.observe().await.unwrap()), Reached::NotDone);
    assert!(!reach(&target, &goal).await.unwrap().changed);
    assert_eq!(reconcile(&goal, &target.observe().await.unwrap()), Reached::Done);
    assert_eq!((shares(&target).await, version(&target).await.as_deref()), (vec![0, 0], Some("1")));
}

#[tokio::test(start_paused = true)]
async fn cancelled_in_a_canary_the_share_is_given_back_and_nothing_is_left() {
    let target = loaded().await;
    let (goal, policy) = (deploy(2, 2), policy(Canary::default()));
    let error = drive(&with(&target, &goal, &policy), tokio::time::sleep(Duration::from_secs(30))).await.unwrap_err();
    assert!(matches!(error, DriveError::Cancelled { live: false }), "{error:?}");
    nothing_is_left(&target).await;
}

#[tokio::test(start_paused = true)]
async fn only_named_services_get_a_share_and_workers_never_do() {
    let target = FakeTarget::new(environment());
    let specs = |version| {
        let worker = ServiceSpec { activation: Activation::Exclusive, ..spec("ingestor", version) };
        vec![spec("gateway", version), spec("risk", version), worker]
    };
    let goal = Goal::Deploy(release(1, "1", specs(1)));
    // What serves for the first time has nothing to be compared with.
    let policy = policy(Canary { services: vec![gateway(), "ingestor".parse().unwrap()], ..Canary::default() });
    drive(&with(&target, &goal, &policy), pending()).await.unwrap();
    target.load(200);
    let goal = Goal::Deploy(release(2, "2", specs(2)));
    let outcome = drive(&with(&target, &goal, &policy), pending()).await.unwrap();
    assert_eq!(outcome.moved.len(), 3);
    let calls = target.calls();
    let weighed: Vec<&String> = calls.iter().filter(|c| c.starts_with("weigh")).collect();
    assert!(weighed.iter().all(|c| c.starts_with("weigh gateway")) && weighed.len() == 3, "{weighed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_share_is_refused_to_a_stale_generation_and_to_a_run_without_the_lock() {
    let target = first().await;
    let wish =
        |from, number| Weights { from: Generation(from), run: run(number), shares: BTreeMap::from([(gateway(), 5)]) };
    let error = target.weigh(&wish(1, 9)).await.unwrap_err();
    assert!(matches!(error, TargetError::Refused { .. }), "{error:?}");
    target.lock(&LockOwner { run: run(9), actor: "ann".to_owned() }, Duration::from_mins(1)).await.unwrap();
    let error = target.weigh(&wish(0, 9)).await.unwrap_err();
    assert!(matches!(error, TargetError::Stale { .. }), "{error:?}");
    let error = target.weigh(&wish(1, 9)).await.unwrap_err();
    assert!(error.to_string().contains("nothing stands there"), "{error}");
    assert_eq!(shares(&target).await, [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_changed_ends_a_canary_and_leaves_no_share_behind() {
    let target = loaded().await;
    died(&target, 30).await;
    let (goal, policy) = (deploy(2, 2), policy(Canary::default()));
    let mut seen = target.observe().await.unwrap();
    let text = |text: &str| text.to_owned();
    seen.drift.push(Drift { what: text("selector"), recorded: text("blue"), found: text("green") });
    let action = next(&goal, &seen, &Progress::default(), &policy);
    let Action::Weigh { shares, .. } = &action else { panic!("{action:?}") };
    assert_eq!(shares.values().collect::<Vec<_>>(), [&0, &0]);
    seen.services.values_mut().for_each(|view| view.share = 0);
    let action = next(&goal, &seen, &Progress::default(), &policy);
    assert!(matches!(action, Action::Refuse(Refusal::Drifted { .. })), "{action:?}");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_away_for_a_minute_holds_a_canary_and_does_not_end_it() {
    let target = loaded().await;
    let away = || target.break_it(Fault::UnreachableLooks(120));
    let outcome = in_which(try_two(&target, Canary::default()), 30, away).await.unwrap();
    assert_eq!(outcome.live.version, "2");
    // One that stays away ends it when its time is over.
    let goal = deploy(3, 3);
    let short = policy(Canary { hold: Duration::from_mins(4), ..Canary::default() });
    let away = || {
        target.mend();
        target.break_it(Fault::UnreachableLooks(700));
    };
    let error = in_which(drive(&with(&target, &goal, &short), pending()), 30, away).await.unwrap_err();
    assert!(matches!(error, DriveError::Target(TargetError::Unreachable { .. })), "{error:?}");
}
