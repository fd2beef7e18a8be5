//! The driver against a target that is broken on purpose. Time is paused: nothing here waits.

mod canary;
mod migration;

use super::{Drive, DriveError, DriveEvent, DriveObserver, Outcome, drive};
use crate::{
    fake::{FakeTarget, Fault},
    goal::{Goal, Reached, reconcile},
    plan::Refusal,
    policy::Policy,
    spec::{Activation, ServiceSpec},
    target::{Change, LockOwner, Target as _},
    testing::{environment, release, run, spec},
};
use plimsoll_core::{Generation, Slot};
use std::{future::pending, sync::Mutex, time::Duration};

fn deploy(number: u16, version: u32) -> Goal {
    let services = vec![spec("gateway", version), spec("risk", version)];
    Goal::Deploy(release(number, &version.to_string(), services))
}

async fn reach(target: &FakeTarget, goal: &Goal) -> Result<Outcome, DriveError> {
    let policy = Policy::default();
    drive(&with(target, goal, &policy), pending()).await
}

fn with<'a>(target: &'a FakeTarget, goal: &'a Goal, policy: &'a Policy) -> Drive<'a> {
    Drive { target, goal, policy, prober: target, meter: None, gate: &|_, _| Ok(()), observer: &() }
}

async fn version(target: &FakeTarget) -> Option<String> {
    let seen = target.observe().await.unwrap();
    assert_eq!(seen.lock, None, "the lock is given back");
    seen.live.map(|live| live.version)
}

/// Version 1 is live in blue.
async fn first() -> FakeTarget {
    let target = FakeTarget::new(environment());
    let outcome = reach(&target, &deploy(1, 1)).await.unwrap();
    assert!(outcome.changed && outcome.previous.is_none());
    assert!(outcome.moved.iter().all(|m| m.from.is_none() && m.to == Slot::Blue));
    target
}

#[tokio::test(start_paused = true)]
async fn a_release_moves_all_that_changed_without_a_lost_probe_and_keeps_the_old_slots_warm() {
    let target = first().await;
    let outcome = reach(&target, &deploy(2, 2)).await.unwrap();
    assert_eq!((outcome.moved.len(), outcome.probes.failed), (2, 0));
    assert!(outcome.probes.sent > 100, "{:?}", outcome.probes);
    assert_eq!(outcome.previous.unwrap().version, "1");
    assert_eq!(outcome.drain.len(), 2);
    assert_eq!(outcome.live.generation, Generation(2));
    let seen = target.observe().await.unwrap();
    assert!(seen.services.values().all(|s| s.standby.as_ref().unwrap().ready == 2));
    assert!(!target.calls().iter().any(|c| c.starts_with("retire")));
}

/// Keeps when each slot begins to be drained, and when it is done.
#[derive(Default)]
struct Drains(Mutex<Vec<&'static str>>);

impl DriveObserver for Drains {
    fn on(&self, event: &DriveEvent) {
        let word = match event {
            DriveEvent::Draining { .. } => "begins",
            DriveEvent::Drained { .. } => "ends",
            _ => return,
        };
        self.0.lock().unwrap().push(word);
    }
}

#[tokio::test(start_paused = true)]
async fn all_slots_that_were_left_are_drained_at_the_same_time() {
    let target = first().await;
    let (goal, policy, drains) = (deploy(2, 2), Policy::default(), Drains::default());
    drive(&Drive { observer: &drains, ..with(&target, &goal, &policy) }, pending()).await.unwrap();
    assert_eq!(*drains.0.lock().unwrap(), ["begins", "begins", "ends", "ends"]);
}

#[tokio::test(start_paused = true)]
async fn a_release_that_changes_nothing_does_nothing() {
    let target = first().await;
    let calls = target.calls();
    let again = Goal::Deploy(release(9, "1", vec![spec("gateway", 1), spec("risk", 1)]));
    let outcome = reach(&target, &again).await.unwrap();
    assert!(!outcome.changed);
    assert_eq!(target.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_new_version_of_the_same_services_changes_the_record_alone() {
    let target = first().await;
    let goal = Goal::Deploy(release(2, "1.0.1", vec![spec("gateway", 1), spec("risk", 1)]));
    let outcome = reach(&target, &goal).await.unwrap();
    assert!(outcome.changed && outcome.moved.is_empty());
    assert_eq!((outcome.live.generation, outcome.switch_micros), (Generation(2), None));
    assert_eq!(reconcile(&goal, &target.observe().await.unwrap()), Reached::Done);
}

#[tokio::test(start_paused = true)]
async fn only_the_service_that_changed_moves() {
    let target = first().await;
    let goal = Goal::Deploy(release(2, "2", vec![spec("gateway", 2), spec("risk", 1)]));
    let outcome = reach(&target, &goal).await.unwrap();
    assert_eq!(outcome.moved.iter().map(|m| m.service.as_str()).collect::<Vec<_>>(), ["gateway"]);
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_never_gets_ready_is_ended_and_what_served_still_serves() {
    for fault in [Fault::NeverReady("2".into()), Fault::CrashLoop("2".into())] {
        let target = first().await;
        target.break_it(fault);
        let error = reach(&target, &deploy(2, 2)).await.unwrap_err();
        let DriveError::NotReady { log_tail, .. } = &error else { panic!("{error:?}") };
        assert_eq!(log_tail, &["gateway green: last words"]);
        assert_eq!(version(&target).await.as_deref(), Some("1"));
        let seen = target.observe().await.unwrap();
        assert!(seen.services.values().all(|s| s.standby.is_none()));
        assert_eq!(seen.generation, Generation(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_start_within_the_deadline_is_waited_for() {
    let target = first().await;
    target.break_it(Fault::SlowReady("2".into(), Duration::from_secs(4)));
    assert!(reach(&target, &deploy(2, 2)).await.unwrap().millis > 4000);
}

#[tokio::test(start_paused = true)]
async fn wrong_answers_before_the_cut_over_stop_it() {
    let target = first().await;
    target.break_it(Fault::Answers500("2".into()));
    let error = reach(&target, &deploy(2, 2)).await.unwrap_err();
    let DriveError::Smoke { failure, .. } = &error else { panic!("{error:?}") };
    assert!(failure.to_string().contains("expected status 200, got 500"));
    assert_eq!(version(&target).await.as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_crash_just_after_the_cut_over_puts_the_former_release_back_without_a_start() {
    let target = first().await;
    target.break_it(Fault::CrashAfterCutOver("2".into(), Duration::from_millis(50)));
    let stood = target.calls().iter().filter(|c| c.starts_with("stand_up")).count();
    let error = reach(&target, &deploy(2, 2)).await.unwrap_err();
    let DriveError::Returned { reason, log_tail, probes, .. } = &error else { panic!("{error:?}") };
    assert!(reason.contains("crashed after it took the traffic"), "{reason}");
    assert!(!log_tail.is_empty() && probes.sent > 0);
    assert_eq!(version(&target).await.as_deref(), Some("1"));
    let calls = target.calls();
    assert_eq!(calls.iter().filter(|c| c.starts_with("stand_up")).count(), stood + 2);
    assert!(target.observe().await.unwrap().services.values().all(|s| s.standby.is_none()), "{calls:?}");
    // Driving it again neither flaps nor succeeds.
    let error = reach(&target, &deploy(2, 2)).await.unwrap_err();
    assert!(matches!(error, DriveError::Returned { .. }), "{error:?}");
    assert_eq!(target.observe().await.unwrap().generation, Generation(3));
}

#[tokio::test(start_paused = true)]
async fn a_slot_of_which_half_the_replicas_find_no_room_never_gets_the_traffic() {
    let target = first().await;
    target.break_it(Fault::HalfReady("2".into()));
    let error = reach(&target, &deploy(2, 2)).await.unwrap_err();
    let DriveError::NotReady { reason, .. } = &error else { panic!("{error:?}") };
    assert!(reason.contains("1 of 2 replicas are ready") && reason.contains("no node for all"), "{reason}");
    assert_eq!(version(&target).await.as_deref(), Some("1"));
    assert!(!target.calls().contains(&"cut_over 2".to_owned()), "{:?}", target.calls());
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_loses_half_its_replicas_with_a_node_gives_way_to_the_former_release() {
    let target = first().await;
    target.break_it(Fault::LosesHalfAfterCutOver("2".into(), Duration::from_secs(1)));
    let error = reach(&target, &deploy(2, 2)).await.unwrap_err();
    let DriveError::Returned { reason, probes, .. } = &error else { panic!("{error:?}") };
    assert!(reason.contains("is no longer ready") && reason.contains("no node for all"), "{reason}");
    assert_eq!(probes.failed, 0, "half of it answered");
    assert_eq!(version(&target).await.as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn where_a_node_hears_of_a_cut_over_half_a_minute_later_the_slot_that_was_left_is_still_there() {
    for seconds in [1, 10, 30] {
        let target = first().await;
        target.break_it(Fault::SlowNode(Duration::from_secs(seconds)));
        let begun = tokio::time::Instant::now();
        let policy = Policy { watch: Duration::from_mins(1), ..Policy::default() };
        let goal = deploy(2, 2);
        let outcome = drive(&with(&target, &goal, &policy), pending()).await.unwrap();
        assert!(begun.elapsed() > Duration::from_secs(seconds), "it is asked as long as that takes");
        let of = target.traffic(&"gateway".parse().unwrap(), Slot::Blue).await.unwrap();
        let by_the_slow_node: u64 = of.sources.values().map(|source| source.probe.requests).sum();
        assert!(by_the_slow_node >= 5 * seconds, "{by_the_slow_node} probes went to the slot that was left");
        assert_eq!((outcome.probes.failed, outcome.live.version.as_str()), (0, "2"), "{:?}", outcome.probes);
        assert!(!target.calls().iter().any(|call| call.starts_with("retire")), "{:?}", target.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_release_that_crashes_has_nothing_to_return_to_and_says_so() {
    let target = FakeTarget::new(environment());
    target.break_it(Fault::CrashAfterCutOver("1".into(), Duration::from_millis(50)));
    let error = reach(&target, &deploy(1, 1)).await.unwrap_err();
    assert!(matches!(error, DriveError::Refused(Refusal::Stuck { .. })), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_change_by_somebody_else_fences_the_cut_over() {
    let target = first().await;
    target.break_it(Fault::OvertakenOnce);
    let error = reach(&target, &deploy(2, 2)).await.unwrap_err();
    assert!(error.to_string().contains("generation 2; this run began at 1"), "{error}");
    assert_eq!(version(&target).await.as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_the_cut_over_is_looked_up_and_not_repeated() {
    let target = first().await;
    target.break_it(Fault::ReplyLostOnce);
    target.break_it(Fault::UnreachableLooks(2));
    let outcome = reach(&target, &deploy(2, 2)).await.unwrap();
    assert!(outcome.changed && outcome.live.version == "2");
    assert_eq!(target.calls().iter().filter(|c| *c == "cut_over 2").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lock_held_by_another_run_is_named_with_its_owner() {
    let target = first().await;
    let other = LockOwner { run: run(77), actor: "bob".to_owned() };
    target.lock(&other, Duration::from_secs(30)).await.unwrap();
    let error = reach(&target, &deploy(2, 2)).await.unwrap_err();
    assert!(error.to_string().contains("of bob since"), "{error}");
    // A dead owner blocks nobody for longer than its lease.
    tokio::time::advance(Duration::from_secs(31)).await;
    reach(&target, &deploy(2, 2)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_closed_gate_stops_the_cut_over_and_leaves_nothing_behind() {
    let target = first().await;
    let (goal, policy) = (deploy(2, 2), Policy::default());
    let gated = Drive { gate: &|_, _| Err("the approval expired".to_owned()), ..with(&target, &goal, &policy) };
    let error = drive(&gated, pending()).await.unwrap_err();
    assert!(error.to_string().contains("the approval expired"));
    assert_eq!(version(&target).await.as_deref(), Some("1"));
    assert!(target.observe().await.unwrap().services.values().all(|s| s.standby.is_none()));
}

#[tokio::test(start_paused = true)]
async fn cancelled_before_the_cut_over_nothing_is_left_and_after_it_the_next_drive_finishes() {
    let target = first().await;
    target.break_it(Fault::SlowReady("2".into(), Duration::from_secs(3)));
    let (goal, policy) = (deploy(2, 2), Policy::default());
    let error = drive(&with(&target, &goal, &policy), tokio::time::sleep(Duration::from_secs(1))).await.unwrap_err();
    assert!(matches!(error, DriveError::Cancelled { live: false }), "{error:?}");
    assert!(target.observe().await.unwrap().services.values().all(|s| s.standby.is_none()));
    let error = drive(&with(&target, &goal, &policy), tokio::time::sleep(Duration::from_secs(4))).await.unwrap_err();
    assert!(matches!(error, DriveError::Cancelled { live: true }), "{error:?}");
    assert_eq!(reconcile(&goal, &target.observe().await.unwrap()), Reached::Half);
    let outcome = reach(&target, &goal).await.unwrap();
    assert!(outcome.changed && outcome.moved.len() == 2 && outcome.drain.len() == 2);
}

async fn roll_back(target: &FakeTarget, number: u16) -> Outcome {
    let record = target.observe().await.unwrap().history[0].clone();
    let by = LockOwner { run: run(number), actor: "eve".to_owned() };
    reach(target, &Goal::PutBack { record, change: Change::Rollback, by }).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_rollback_to_warm_slots_starts_nothing_and_takes_less_than_a_second() {
    let target = first().await;
    reach(&target, &deploy(2, 2)).await.unwrap();
    let before = target.calls().len();
    let outcome = roll_back(&target, 3).await;
    assert_eq!((outcome.live.version.as_str(), outcome.live.actor.as_str()), ("1", "eve"));
    assert!(outcome.millis < 1000 && outcome.probes.failed == 0, "{} ms", outcome.millis);
    assert_eq!(target.calls()[before], "cut_over 1");
}

#[tokio::test(start_paused = true)]
async fn a_rollback_to_an_ended_slot_waits_until_it_is_ready_before_it_switches() {
    let target = first().await;
    reach(&target, &deploy(2, 2)).await.unwrap();
    for service in ["gateway", "risk"] {
        target.retire(&service.parse().unwrap(), Slot::Blue).await.unwrap();
    }
    target.break_it(Fault::SlowReady("1".into(), Duration::from_secs(2)));
    let before = target.calls().len();
    let outcome = roll_back(&target, 3).await;
    assert!(outcome.millis >= 2000 && outcome.probes.failed == 0);
    assert_eq!(target.calls()[before..][..3], ["stand_up gateway blue", "stand_up risk blue", "cut_over 1"]);
}

#[tokio::test(start_paused = true)]
async fn services_are_stood_up_after_what_they_depend_on() {
    let target = FakeTarget::new(environment());
    let gateway = ServiceSpec { depends_on: vec!["risk".parse().unwrap()], ..spec("gateway", 1) };
    let goal = Goal::Deploy(release(1, "1", vec![gateway, spec("risk", 1)]));
    reach(&target, &goal).await.unwrap();
    assert_eq!(target.calls()[..2], ["stand_up risk blue", "stand_up gateway blue"]);
}

#[tokio::test(start_paused = true)]
async fn too_few_requests_to_judge_by_is_no_pass() {
    let target = first().await;
    let (goal, policy) = (deploy(2, 2), Policy { probes_per_second: 0, ..Policy::default() });
    let error = drive(&with(&target, &goal, &policy), pending()).await.unwrap_err();
    assert!(error.to_string().contains("fewer than 10 requests"), "{error}");
    assert_eq!(version(&target).await.as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_died_after_the_cut_over_is_finished_by_the_next_one() {
    let target = first().await;
    let (goal, policy) = (deploy(2, 2), Policy::default());
    // Dropped in the middle of the watch: no farewell, the lock stays behind, but its run may take it again.
    let died = tokio::time::timeout(Duration::from_secs(1), drive(&with(&target, &goal, &policy), pending())).await;
    assert!(died.is_err());
    let seen = target.observe().await.unwrap();
    assert!(seen.lock.is_some() && seen.live.as_ref().is_some_and(|live| live.version == "2"));
    let outcome = reach(&target, &goal).await.unwrap();
    assert_eq!((outcome.live.generation, outcome.moved.len()), (Generation(2), 2));
    assert_eq!(target.calls().iter().filter(|c| *c == "cut_over 2").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_driver_whose_lock_went_to_another_run_stops_before_its_next_action() {
    let target = first().await;
    target.break_it(Fault::SlowReady("2".into(), Duration::from_secs(15)));
    let mut slow = spec("gateway", 2);
    slow.health.deadline_ms = 30_000;
    let goal = Goal::Deploy(release(2, "2", vec![slow, spec("risk", 1)]));
    let thief = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        target.unlock(&goal.owner()).await.unwrap();
        let other = LockOwner { run: run(77), actor: "bob".to_owned() };
        target.lock(&other, Duration::from_mins(2)).await.unwrap();
    };
    let (result, ()) = tokio::join!(reach(&target, &goal), thief);
    assert!(matches!(result, Err(DriveError::LockLost { .. })), "{result:?}");
    assert!(!target.calls().contains(&"cut_over 2".to_owned()));
    assert_eq!(target.observe().await.unwrap().lock.unwrap().actor, "bob");
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_release_was_replaced_by_another_run_does_not_put_it_back_when_resumed() {
    let target = first().await;
    reach(&target, &deploy(2, 2)).await.unwrap();
    roll_back(&target, 3).await;
    let error = reach(&target, &deploy(2, 2)).await.unwrap_err();
    assert!(matches!(error, DriveError::Refused(Refusal::Stale { .. })), "{error:?}");
    assert_eq!(version(&target).await.as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_environment_is_not_deployed_to() {
    let target = first().await;
    target.stop(Generation(1), "ann", Some("an exercise")).await.unwrap();
    let error = reach(&target, &deploy(2, 2)).await.unwrap_err();
    assert!(matches!(error, DriveError::Refused(Refusal::Stopped { .. })), "{error:?}");
}

fn workers(number: u16, version: u32) -> Goal {
    let worker = ServiceSpec { activation: Activation::Exclusive, ..spec("worker", version) };
    Goal::Deploy(release(number, &version.to_string(), vec![spec("gateway", version), worker]))
}

async fn is_active(target: &FakeTarget) -> bool {
    let worker = "worker".parse().unwrap();
    target.observe().await.unwrap().services[&worker].live.as_ref().unwrap().active.is_some()
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_refuses_its_activation_after_the_switch_puts_the_former_release_back() {
    // Whether the refusal is heard, is lost with the answer, or no watch would have looked for it.
    for (lost, watch) in [(false, 3), (true, 3), (false, 0), (true, 0)] {
        let target = FakeTarget::new(environment());
        reach(&target, &workers(1, 1)).await.unwrap();
        target.break_it(Fault::RefusesActivation("2".into()));
        if lost {
            target.break_it(Fault::ReplyLostOnce);
        }
        let policy = Policy { watch: Duration::from_secs(watch), ..Policy::default() };
        let error = drive(&with(&target, &workers(2, 2), &policy), pending()).await.unwrap_err();
        let DriveError::Returned { reason, log_tail, .. } = &error else { panic!("{error:?}") };
        assert!(reason.contains("worker (green)") && reason.contains("it serves, but") != lost, "{reason}");
        assert_eq!(log_tail, &["worker green: last words"]);
        assert_eq!(version(&target).await.as_deref(), Some("1"));
        assert!(is_active(&target).await);
        assert_eq!(target.calls().iter().filter(|c| c.starts_with("cut_over")).count(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_activation_with_nothing_to_return_to_is_said_and_is_no_success() {
    for lost in [false, true] {
        let target = FakeTarget::new(environment());
        target.break_it(Fault::RefusesActivation("1".into()));
        if lost {
            target.break_it(Fault::ReplyLostOnce);
        }
        let error = reach(&target, &workers(1, 1)).await.unwrap_err();
        assert!(matches!(error, DriveError::Refused(Refusal::Stuck { .. })), "{error:?}");
        // Nor does it become one when the run is resumed.
        let error = reach(&target, &workers(1, 1)).await.unwrap_err();
        assert!(matches!(error, DriveError::Refused(Refusal::Stuck { .. })), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_to_a_worker_that_refuses_its_activation_is_no_success() {
    for lost in [false, true] {
        let target = FakeTarget::new(environment());
        reach(&target, &workers(1, 1)).await.unwrap();
        reach(&target, &workers(2, 2)).await.unwrap();
        target.break_it(Fault::RefusesActivation("1".into()));
        if lost {
            target.break_it(Fault::ReplyLostOnce);
        }
        let record = target.observe().await.unwrap().history[0].clone();
        let by = LockOwner { run: run(3), actor: "eve".to_owned() };
        let goal = Goal::PutBack { record, change: Change::Rollback, by };
        let error = reach(&target, &goal).await.unwrap_err();
        let DriveError::Refused(Refusal::Stuck { breach, .. }) = &error else { panic!("{error:?}") };
        assert!(breach.contains("worker (blue)"), "{breach}");
        assert_eq!(target.calls().iter().filter(|c| *c == "cut_over 1").count(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_return_to_a_worker_that_refuses_its_activation_is_not_called_a_return() {
    let target = FakeTarget::new(environment());
    reach(&target, &workers(1, 1)).await.unwrap();
    target.break_it(Fault::RefusesActivation("1".into()));
    target.break_it(Fault::CrashAfterCutOver("2".into(), Duration::from_millis(50)));
    for _ in 0..2 {
        let error = reach(&target, &workers(2, 2)).await.unwrap_err();
        assert!(matches!(error, DriveError::Refused(Refusal::Stuck { .. })), "{error:?}");
    }
}

#[test]
fn a_drive_may_be_moved_between_threads() {
    fn is_send(_: &impl Send) {}
    let target = FakeTargetOf::new();
    let (goal, policy) = (deploy(1, 1), Policy::default());
    let with = with(&target.0, &goal, &policy);
    is_send(&drive(&with, pending()));
}

/// A target made inside a runtime, as its clock asks.
struct FakeTargetOf(FakeTarget);

impl FakeTargetOf {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Self(runtime.block_on(async { FakeTarget::new(environment()) }))
    }
}
