//! What `deploy`, `promote` and `rollback` share: driving a target to a goal, its progress told to the run.

use crate::targets::Targets;
use plimsoll_core::EnvironmentName;
use plimsoll_deploy::{
    Drive, DriveError, DriveEvent, DriveObserver, Goal, Observation, Outcome, Policy, ProbeReport, Reached, Release,
    drive, reconcile,
};
use plimsoll_engine::{Cx, StepError, World};
use std::collections::BTreeMap;

/// Tells the run what the driver does.
struct Telling<'a>(&'a Cx);

impl DriveObserver for Telling<'_> {
    fn on(&self, event: &DriveEvent) {
        let cx = self.0;
        match event {
            DriveEvent::StandingUp { service, slot } => cx.log(&format!("{service}: standing up {slot}")),
            DriveEvent::Waiting { slots, .. } => {
                let one = |w: &plimsoll_deploy::WaitingFor| {
                    let why = w.failing.as_ref().map(|f| format!(" ({f})")).unwrap_or_default();
                    format!("{} {} to be ready: {} of {}{why}", w.service, w.slot, w.ready, w.replicas)
                };
                cx.waiting(slots.iter().map(one).collect::<Vec<_>>().join(", "));
            }
            DriveEvent::Probing { service, slot, endpoints, requests } => {
                cx.log(&format!("{service}: {requests} smoke requests to each of {endpoints} replicas of {slot}"));
            }
            DriveEvent::Trying { share, millis, trials } => {
                let known: Vec<String> = trials.iter().map(ToString::to_string).collect();
                cx.waiting(format!("the canary, {share} % for {} s: {}", millis / 1000, known.join("; ")));
            }
            DriveEvent::Tried { step } => {
                for trial in &step.trials {
                    cx.log(&format!("canary of {} %: {trial}", step.share));
                }
            }
            DriveEvent::CuttingOver { moves } => cx.log(&format!("cutting over {} services", moves.len())),
            DriveEvent::Live { generation, switch_micros } => {
                cx.log(&format!("live as generation {generation}, {:.1} ms", thousandth(*switch_micros)));
            }
            DriveEvent::Watching { millis, of_millis, sent, failed } => {
                cx.waiting(format!("the watch to end: {millis} of {of_millis} ms, {sent} probes, {failed} failed"));
            }
            DriveEvent::Returning { reason } => cx.note(format!("the former release is put back: {reason}")),
            DriveEvent::Draining { service, slot } => cx.waiting(format!("{service} {slot} to finish its requests")),
            DriveEvent::Drained { service, slot, report } => cx.log(&format!(
                "{service}: {slot} drained in {} ms, {} finished, {} timed out, {} aborted, {} WebSockets closed",
                report.millis, report.finished, report.timed_out, report.aborted, report.websockets_closed
            )),
            DriveEvent::Retiring { service, slot } => cx.log(&format!("{service}: retiring {slot}")),
            DriveEvent::TryingAgain { reason } => cx.log(&format!("trying again: {reason}")),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people, to a tenth of a millisecond")]
fn thousandth(number: u64) -> f64 {
    number as f64 / 1000.0
}

/// A drive's error as a step's, with the log of what failed.
pub fn drive_failed(error: &DriveError) -> StepError {
    StepError::of(error).with_detail(error.log_tail().iter().cloned())
}

/// Looks whether the goal is reached. An outcome found done says that nothing was changed by this run.
pub(crate) async fn look(cx: &Cx, environment: &EnvironmentName, goal: &Goal) -> Result<World<Outcome>, StepError> {
    let target = cx.resource::<Targets>()?.get(environment)?;
    let seen = target.observe().await.map_err(|e| StepError::of(&e))?;
    match (reconcile(goal, &seen), seen.live) {
        (Reached::Done, Some(live)) => Ok(World::Done(Outcome {
            changed: false,
            moved: Vec::new(),
            live,
            previous: None,
            switch_micros: None,
            handover: Vec::new(),
            probes: ProbeReport::default(),
            canary: Vec::new(),
            drain: BTreeMap::new(),
            millis: 0,
        })),
        (Reached::NotDone, _) => Ok(World::NotDone),
        _ => Ok(World::Half),
    }
}

/// Drives the environment to the goal.
pub(crate) async fn reach(
    cx: &Cx,
    environment: &EnvironmentName,
    goal: &Goal,
    policy: &Policy,
    gate: &(dyn Fn(&Observation, &Release) -> Result<(), String> + Send + Sync),
) -> Result<Outcome, StepError> {
    let targets = cx.resource::<Targets>()?;
    let target = targets.get(environment)?;
    let prober = target.prober().unwrap_or(&**targets.prober());
    let telling = Telling(cx);
    let with =
        Drive { target: &*target, goal, policy, prober, meter: targets.meter(environment), gate, observer: &telling };
    let outcome = drive(&with, cx.cancel().cancelled()).await.map_err(|e| drive_failed(&e))?;
    let seen = &outcome.probes;
    cx.log(&format!("{} probes around the cut-over, {} failed, p99 {} ms", seen.sent, seen.failed, seen.p99_ms));
    Ok(outcome)
}
