//! The machine: from a goal and a look at the world to the next thing to do. Pure: no I/O, no clock, no randomness.
//!
//! It keeps no state that can be seen. What cannot be seen ([`Progress`]) may be lost at any moment, by a crash: then
//! probes and the watch are done again, and nothing else. It is not the driver: waiting, deadlines and locks are there.

use crate::{
    compat::{self, Unreadable},
    goal::Goal,
    observation::{Drift, Observation, ReleaseRecord, SlotView},
    policy::Policy,
    spec::{Activation, Release, ServiceSpec},
    target::{Change, CutOver, Move},
};
use plimsoll_core::{EnvironmentName, Generation, RunId, ServiceName, Slot};
use std::collections::{BTreeMap, BTreeSet};

/// A slot of a service.
pub type SlotOf = (ServiceName, Slot);

/// What the driver knows and nobody can see at the target.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Progress {
    /// The generation at the first look.
    pub started: Option<Generation>,
    /// Slots that this driver stood up.
    pub stood_up: BTreeSet<SlotOf>,
    /// Slots whose smoke requests were answered well.
    pub probed: BTreeSet<SlotOf>,
    /// Live slots that answered theirs before anything was done to their state.
    pub asked: BTreeSet<SlotOf>,
    /// Live slots that did not.
    pub unfit: BTreeSet<SlotOf>,
    /// Slots that got a share of the requests from this driver.
    pub tried: BTreeSet<SlotOf>,
    /// The largest share, in percent, with which the new slots did well enough.
    pub passed: u8,
    /// Why there will be no cut-over.
    pub failed: Option<Failure>,
    /// What was found out after the cut-over: by the watch, or by a slot that did not accept its activation.
    pub watch: Option<Verdict>,
    /// Why the former release cannot be put back, or why it does not work again.
    pub cannot_return: Option<String>,
    /// Slots from which nothing under way is left.
    pub drained: BTreeSet<SlotOf>,
}

/// Something that ends a deployment before its cut-over.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Failure {
    /// The slot that is to blame, if one is.
    pub slot: Option<SlotOf>,
    /// What was wrong with it.
    pub reason: String,
}

/// What is to be said of the new slots after the cut-over.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The new slots did as the policy asks.
    Kept,
    /// They did not, and why.
    Breached(String),
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// The goal is reached.
    Done {
        /// Whether this run changed what serves.
        changed: bool,
    },
    /// The goal will not be reached by this run.
    Refuse(Refusal),
    /// Start the replicas of a service in a slot that is not live.
    StandUp {
        /// The service.
        service: ServiceName,
        /// The slot.
        slot: Slot,
        /// The release it belongs to, with the service's spec.
        release: Box<Release>,
    },
    /// Wait until all these are ready.
    AwaitReady {
        /// Not all of whose replicas are ready, each with the milliseconds it may take from its start.
        slots: Vec<(SlotOf, u64)>,
    },
    /// Send the service's smoke requests to each endpoint of the slot.
    Probe {
        /// The service, with its requests.
        spec: Box<ServiceSpec>,
        /// The slot.
        slot: Slot,
    },
    /// Send its smoke requests to the service that serves, before a new slot may migrate the state they share, and after.
    ProbeFormer {
        /// Whether the new slot stands already.
        migrated: bool,
        /// The service that serves, with its requests.
        spec: Box<ServiceSpec>,
        /// The slot that serves.
        slot: Slot,
    },
    /// Give slots that are not live this share of the requests, or take it away.
    Weigh {
        /// The generation it is made for.
        from: Generation,
        /// The share of each service, in percent.
        shares: BTreeMap<ServiceName, u8>,
    },
    /// Give these slots a share of the requests, and compare them with the live ones until that says something.
    Try {
        /// The share, in percent.
        share: u8,
        /// The slots.
        slots: Vec<SlotOf>,
    },
    /// Change what serves.
    CutOver(Box<CutOver>),
    /// Look at the new slots for as long as the policy says.
    Watch {
        /// The slots that took traffic.
        slots: Vec<SlotOf>,
    },
    /// Wait until these work: they are live, belong to exclusive services, and hold no generation.
    AwaitActive {
        /// The slots.
        slots: Vec<SlotOf>,
    },
    /// Wait until nothing is under way on any of these former slots.
    Drain {
        /// The slots, each with the milliseconds that may take.
        slots: Vec<(SlotOf, u64)>,
    },
    /// Put the former release back without asking anybody.
    PutBack {
        /// Why.
        reason: String,
        /// The change that does it.
        cut_over: Box<CutOver>,
    },
    /// End what stands in a slot that never became, or no longer is, fit to serve.
    RetireFailed {
        /// The service.
        service: ServiceName,
        /// The slot.
        slot: Slot,
    },
}

/// Why the machine goes no further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Somebody else changed the environment.
    #[error("{environment} is at generation {seen}; this run began at {started} and did not make the last change")]
    Stale {
        /// The environment.
        environment: EnvironmentName,
        /// Its generation now.
        seen: Generation,
        /// Its generation when this run first looked.
        started: Generation,
        /// The run whose release serves now.
        live: Option<RunId>,
    },
    /// It was stopped on purpose.
    #[error("{environment} was stopped; `cargo xtask start {environment}` ends that")]
    Stopped {
        /// The environment.
        environment: EnvironmentName,
    },
    /// Somebody changed the target behind the record's back.
    #[error("{environment} is not as it was left: {}; `cargo xtask rollback {environment}` puts it right", listed(.drift))]
    Drifted {
        /// The environment.
        environment: EnvironmentName,
        /// What differs.
        drift: Vec<Drift>,
    },
    /// What is to serve cannot read the state.
    #[error("{unreadable}")]
    Unreadable {
        /// Which, and whose.
        unreadable: Box<Unreadable>,
    },
    /// What serves could not read the state any more.
    #[error(
        "{unreadable}: there would be no way back; first release a version that reads both and writes what the old one reads"
    )]
    NoWayBack {
        /// Which, and whose.
        unreadable: Box<Unreadable>,
    },
    /// Something was wrong before the cut-over; what served still serves.
    #[error("{reason}")]
    Failed {
        /// What.
        reason: String,
    },
    /// The run had put its release live and put the former one back.
    #[error("{version} was live and the former release was put back: {reason}")]
    Returned {
        /// The version that did not stay.
        version: String,
        /// Why.
        reason: String,
    },
    /// The new release is not fit, and the former one is not there.
    #[error("{breach}; the former release could not be put back: {reason}")]
    Stuck {
        /// Why it should have been put back.
        breach: String,
        /// Why it was not.
        reason: String,
    },
}

fn listed(drift: &[Drift]) -> String {
    drift.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What to do next.
///
/// Called again and again with a fresh look at the world, it comes to `Done` or `Refuse`, if slots end as ready or
/// failed at last. It never names a live slot to be stood up, drained or retired.
pub fn next(goal: &Goal, seen: &Observation, progress: &Progress, policy: &Policy) -> Action {
    if seen.stopped {
        return Action::Refuse(Refusal::Stopped { environment: seen.environment.clone() });
    }
    if let Some(stale) = stale(goal, seen, progress) {
        return Action::Refuse(stale);
    }
    // A person who puts a release back wants the drift gone; everybody else must not fight over it, nor leave a share behind.
    if !seen.drift.is_empty() && goal.change() != Change::Rollback {
        let drifted = Refusal::Drifted { environment: seen.environment.clone(), drift: seen.drift.clone() };
        return strays(seen, &[]).unwrap_or(Action::Refuse(drifted));
    }
    match stage(goal, seen) {
        Stage::Before => before(goal, seen, progress, policy),
        Stage::Ours => after(goal, seen, progress, policy),
        Stage::Returned => returned(goal, seen, progress, policy),
    }
}

/// Which part of a deployment the world shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The goal does not serve, or serves since another run put it there.
    Before,
    /// This run's cut-over took place.
    Ours,
    /// This run's cut-over took place, and was taken back.
    Returned,
}

fn stage(goal: &Goal, seen: &Observation) -> Stage {
    let run = goal.owner().run;
    let by_us = |record: &&ReleaseRecord| record.run == run;
    let Some(live) = seen.live.as_ref().filter(by_us) else { return Stage::Before };
    let former = seen.history.first().filter(by_us);
    if goal.is_served_by(live) {
        Stage::Ours
    } else if matches!(goal, Goal::Deploy(_)) && former.is_some_and(|r| goal.is_served_by(r)) {
        Stage::Returned
    } else {
        Stage::Before
    }
}

/// Whether the goal serves because this run put it there.
pub(crate) fn is_live_by(goal: &Goal, seen: &Observation) -> bool {
    stage(goal, seen) == Stage::Ours
}

/// The generation may be the one of the first look, or one that this run's own live record names. A run that was resumed
/// and finds its own release replaced by another run's does not fight: it had its turn.
fn stale(goal: &Goal, seen: &Observation, progress: &Progress) -> Option<Refusal> {
    let run = goal.owner().run;
    let live = seen.live.as_ref();
    if live.is_some_and(|live| live.run == run && live.generation == seen.generation) {
        return None;
    }
    let stopped_since = live.is_some_and(|live| live.run == run);
    let served = seen.history.iter().find(|r| r.run == run && goal.is_served_by(r)).filter(|_| !stopped_since);
    let began = progress.started.filter(|started| *started != seen.generation);
    let started = began.or(served.map(|r| r.generation))?;
    Some(Refusal::Stale {
        environment: seen.environment.clone(),
        seen: seen.generation,
        started,
        live: live.map(|live| live.run.clone()),
    })
}

/// One service that has to change its slot.
struct Wanted<'a> {
    spec: &'a ServiceSpec,
    from: Option<Slot>,
    to: Slot,
    /// What stands in `to`, if it is what is wanted.
    stands: Option<&'a SlotView>,
}

impl Wanted<'_> {
    fn slot(&self) -> SlotOf {
        (self.spec.name.clone(), self.to)
    }
}

/// Whether every live slot runs what the goal wants.
pub(crate) fn all_serve(goal: &Goal, seen: &Observation) -> bool {
    wanted(goal, seen).is_empty()
}

/// The services whose live slot is not what the goal wants, in dependency order.
fn wanted<'a>(goal: &'a Goal, seen: &'a Observation) -> Vec<Wanted<'a>> {
    goal.services().into_iter().filter_map(|spec| one_wanted(spec, seen)).collect()
}

fn one_wanted<'a>(spec: &'a ServiceSpec, seen: &'a Observation) -> Option<Wanted<'a>> {
    let view = seen.services.get(&spec.name);
    let live = view.and_then(|v| v.live.as_ref());
    if live.is_some_and(|l| l.runs(spec)) {
        return None;
    }
    let standby = view.and_then(|v| v.standby.as_ref());
    let to = match (live, standby) {
        (Some(live), _) => live.slot.other(),
        (None, Some(standby)) => standby.slot,
        (None, None) => Slot::Blue,
    };
    // A slot that was scaled to nothing stands up again first.
    let stands = standby.filter(|s| s.slot == to && s.runs(spec) && s.replicas > 0);
    Some(Wanted { spec, from: live.map(|l| l.slot), to, stands })
}

/// Whether every replica of a slot is ready, and there is one.
pub(crate) fn is_ready(slot: &SlotView) -> bool {
    slot.ready >= slot.replicas && slot.ready > 0
}

/// Whoever gets a share and is not on trial, here and now, gets it no longer.
fn strays(seen: &Observation, trial: &[SlotOf]) -> Option<Action> {
    let strays = seen.shared().filter(|name| !trial.iter().any(|of| of.0 == **name));
    let shares: BTreeMap<_, _> = strays.map(|name| (name.clone(), 0)).collect();
    (!shares.is_empty()).then_some(Action::Weigh { from: seen.generation, shares })
}

fn before(goal: &Goal, seen: &Observation, progress: &Progress, policy: &Policy) -> Action {
    let wanted = wanted(goal, seen);
    let trial = trial(goal, &wanted, progress, policy);
    // Before anything else is done to it.
    if let Some(action) = strays(seen, &trial) {
        return action;
    }
    if let Some(failure) = &progress.failed {
        return leave(&wanted, progress, policy).unwrap_or_else(|| reap(goal, seen, &wanted, progress, failure));
    }
    let as_left = wanted.is_empty() && seen.drift.is_empty();
    if as_left && seen.live.as_ref().is_some_and(|live| goal.is_served_by(live)) {
        // It serves, but a cut-over that was interrupted may have left its workers without work.
        let idle = idle(goal.services(), seen);
        if idle.is_empty() || progress.cannot_return.is_some() {
            return Action::Done { changed: false };
        }
        return Action::AwaitActive { slots: idle };
    }
    if let Some(conflict) = wanted.iter().find_map(|w| compat::conflict(w.spec, goal, seen)) {
        return Action::Refuse(conflict);
    }
    if let Some((spec, slot)) = wanted.iter().find_map(|w| former_to_try(goal, seen, progress, w, false)) {
        return Action::ProbeFormer { migrated: false, spec: Box::new(spec.clone()), slot };
    }
    if let Some(missing) = wanted.iter().find(|w| w.stands.is_none()) {
        let release = Box::new(goal.release(&seen.environment));
        return Action::StandUp { service: missing.spec.name.clone(), slot: missing.to, release };
    }
    let unready = wanted.iter().filter(|w| !w.stands.is_some_and(is_ready));
    let unready: Vec<_> = unready.map(|w| (w.slot(), w.spec.health.deadline_ms)).collect();
    if !unready.is_empty() {
        return Action::AwaitReady { slots: unready };
    }
    if let Some(one) = wanted.iter().find(|w| must_probe(goal, progress, &w.slot())) {
        return Action::Probe { spec: Box::new(one.spec.clone()), slot: one.to };
    }
    if let Some((spec, slot)) = wanted.iter().find_map(|w| former_to_try(goal, seen, progress, w, true)) {
        return Action::ProbeFormer { migrated: true, spec: Box::new(spec.clone()), slot };
    }
    let canary = policy.canary.as_ref().filter(|_| !trial.is_empty());
    if let Some(share) = canary.and_then(|canary| canary.next_step(progress.passed)) {
        return Action::Try { share, slots: trial };
    }
    let moves = wanted.iter().map(|w| Move { service: w.spec.name.clone(), from: w.from, to: w.to }).collect();
    Action::CutOver(Box::new(CutOver {
        from: seen.generation,
        moves,
        release: goal.release(&seen.environment),
        change: goal.change(),
    }))
}

/// The slots that may get a share of the requests: of a release that may still go live, of services that serve by traffic
/// and that something serves for already.
fn trial(goal: &Goal, wanted: &[Wanted<'_>], progress: &Progress, policy: &Policy) -> Vec<SlotOf> {
    let Some(canary) = policy.canary.as_ref().filter(|_| matches!(goal, Goal::Deploy(_)) && progress.failed.is_none())
    else {
        return Vec::new();
    };
    let named = |name: &ServiceName| canary.services.is_empty() || canary.services.contains(name);
    let takes = |w: &&Wanted<'_>| {
        w.spec.activation != Activation::Exclusive && w.from.is_some() && w.stands.is_some() && named(&w.spec.name)
    };
    wanted.iter().filter(takes).map(Wanted::slot).collect()
}

/// What got a share of the requests may finish those under way before it is ended.
fn leave(wanted: &[Wanted<'_>], progress: &Progress, policy: &Policy) -> Option<Action> {
    let busy = |w: &&Wanted<'_>| {
        let slot = w.slot();
        w.stands.is_some() && progress.tried.contains(&slot) && !progress.drained.contains(&slot)
    };
    let limit_ms = |w: &Wanted<'_>| if policy.drain { w.spec.drain_ms } else { 0 };
    let slots: Vec<_> = wanted.iter().filter(busy).map(|w| (w.slot(), limit_ms(w))).collect();
    (!slots.is_empty()).then_some(Action::Drain { slots })
}

/// What serves and must work on the state as the new slot made it, before the new one takes the traffic: the way back leads
/// there. It is asked before the new slot stands too; one that does not work then is no way back anyhow, and no reason to
/// refuse what may mend it.
fn former_to_try<'a>(
    goal: &Goal,
    seen: &'a Observation,
    progress: &Progress,
    wanted: &Wanted<'_>,
    migrated: bool,
) -> Option<(&'a ServiceSpec, Slot)> {
    let slot = wanted.from.filter(|_| matches!(goal, Goal::Deploy(_)))?;
    let live = &seen.live.as_ref()?.services.get(&wanted.spec.name)?.spec;
    let of = (live.name.clone(), slot);
    let tried = if migrated { &progress.probed } else { &progress.asked };
    let due = wanted.stands.is_some() == migrated && !tried.contains(&of) && !progress.unfit.contains(&of);
    (due && compat::migrates(live, wanted.spec)).then_some((live, slot))
}

/// A warm slot that goes back served real traffic before: analysing it again would only cost time.
fn must_probe(goal: &Goal, progress: &Progress, slot: &SlotOf) -> bool {
    let new = matches!(goal, Goal::Deploy(_)) || progress.stood_up.contains(slot);
    new && !progress.probed.contains(slot)
}

/// Takes away what this run made, last first, then refuses. A warm slot of a recorded release stays, unless it is the
/// very one that failed: so a rollback stays possible without a start.
fn reap(goal: &Goal, seen: &Observation, wanted: &[Wanted<'_>], progress: &Progress, failure: &Failure) -> Action {
    for one in wanted.iter().rev().filter(|w| w.stands.is_some()) {
        let slot = one.slot();
        let blamed = failure.slot.as_ref() == Some(&slot) && goal.change() != Change::AutomaticReturn;
        if blamed || progress.stood_up.contains(&slot) || !is_recorded(seen, &slot, one.spec) {
            return Action::RetireFailed { service: slot.0, slot: slot.1 };
        }
    }
    Action::Refuse(Refusal::Failed { reason: failure.reason.clone() })
}

fn is_recorded(seen: &Observation, (service, slot): &SlotOf, spec: &ServiceSpec) -> bool {
    seen.history.iter().filter_map(|r| r.services.get(service)).any(|r| r.slot == *slot && r.spec.is_same_as(spec))
}

/// The slots between the former release and the live one: left, and taken.
fn moved(seen: &Observation) -> (Vec<SlotOf>, Vec<SlotOf>) {
    let Some(live) = &seen.live else { return (Vec::new(), Vec::new()) };
    let slots = |record: &ReleaseRecord| -> BTreeSet<SlotOf> {
        record.services.iter().map(|(name, service)| (name.clone(), service.slot)).collect()
    };
    let (now, then) = (slots(live), seen.history.first().map(slots).unwrap_or_default());
    (then.difference(&now).cloned().collect(), now.difference(&then).cloned().collect())
}

/// What moved between the former release and the live one.
pub(crate) fn moves_made(seen: &Observation) -> Vec<Move> {
    let former = |service: &ServiceName| Some(seen.history.first()?.services.get(service)?.slot);
    let (_, taken) = moved(seen);
    taken.into_iter().map(|(service, to)| Move { from: former(&service), service, to }).collect()
}

fn after(goal: &Goal, seen: &Observation, progress: &Progress, policy: &Policy) -> Action {
    let (left, taken) = moved(seen);
    if let Some(Verdict::Breached(reason)) = &progress.watch {
        return put_back(goal, seen, progress, policy, reason);
    }
    let watched = matches!(goal, Goal::Deploy(_)) && !taken.is_empty() && !policy.watch.is_zero();
    if watched && progress.watch.is_none() {
        return Action::Watch { slots: taken };
    }
    let idle = idle(goal.services(), seen);
    if !idle.is_empty() {
        return Action::AwaitActive { slots: idle };
    }
    match drain(policy, seen, progress, &left) {
        none if none.is_empty() => Action::Done { changed: true },
        slots => Action::Drain { slots },
    }
}

/// The live slots of exclusive services that were given no generation, or did not accept it: nobody does their work.
pub(crate) fn idle<'a>(services: impl IntoIterator<Item = &'a ServiceSpec>, seen: &Observation) -> Vec<SlotOf> {
    let exclusive = services.into_iter().filter(|spec| spec.activation == Activation::Exclusive);
    let live = exclusive.filter_map(|spec| Some((spec, seen.services.get(&spec.name)?.live.as_ref()?)));
    live.filter(|(_, slot)| slot.active.is_none()).map(|(spec, slot)| (spec.name.clone(), slot.slot)).collect()
}

/// Those of these that stand, are not live and were not drained, with their time.
fn drain(policy: &Policy, seen: &Observation, progress: &Progress, left: &[SlotOf]) -> Vec<(SlotOf, u64)> {
    let Some(former) = seen.history.first() else { return Vec::new() };
    let leaving = left.iter().filter(|of| standby(seen, of).is_some() && !progress.drained.contains(*of));
    let timed = leaving.filter_map(|of| {
        let limit_ms = former.services.get(&of.0)?.spec.drain_ms;
        Some((of.clone(), if policy.drain { limit_ms } else { 0 }))
    });
    timed.collect()
}

fn standby<'a>(seen: &'a Observation, (service, slot): &SlotOf) -> Option<&'a SlotView> {
    seen.services.get(service)?.standby.as_ref().filter(|s| s.slot == *slot)
}

fn put_back(goal: &Goal, seen: &Observation, progress: &Progress, policy: &Policy, breach: &str) -> Action {
    let stuck = |reason: &str| Action::Refuse(Refusal::Stuck { breach: breach.to_owned(), reason: reason.to_owned() });
    if matches!(goal, Goal::PutBack { .. }) {
        return stuck("this run was putting a release back itself");
    }
    let Some(record) = seen.history.first() else { return stuck("nothing served before it") };
    if let Some(reason) = &progress.cannot_return {
        return stuck(reason);
    }
    let back = Goal::PutBack { record: record.clone(), change: Change::AutomaticReturn, by: goal.owner() };
    match before(&back, seen, &Progress { failed: None, ..progress.clone() }, policy) {
        Action::CutOver(cut_over) => Action::PutBack { reason: breach.to_owned(), cut_over },
        Action::Done { .. } => stuck("it is the same as what serves"),
        other => other,
    }
}

fn returned(goal: &Goal, seen: &Observation, progress: &Progress, policy: &Policy) -> Action {
    let (left, _) = moved(seen);
    let leaving = drain(policy, seen, progress, &left);
    if !leaving.is_empty() {
        return Action::Drain { slots: leaving };
    }
    let unfit = |of: &&SlotOf| {
        let spec = goal.services().into_iter().find(|spec| spec.name == of.0);
        standby(seen, of).zip(spec).is_some_and(|(slot, spec)| slot.runs(spec))
    };
    if let Some((service, slot)) = left.iter().find(unfit) {
        return Action::RetireFailed { service: service.clone(), slot: *slot };
    }
    let reason = match &progress.watch {
        Some(Verdict::Breached(reason)) => reason.clone(),
        _ => "decided before this run was interrupted".to_owned(),
    };
    // It serves again, but that is worth nothing while nobody does its work.
    if let Some(cause) = &progress.cannot_return {
        return Action::Refuse(Refusal::Stuck { breach: reason, reason: cause.clone() });
    }
    let idle = idle(seen.live.iter().flat_map(ReleaseRecord::specs), seen);
    if !idle.is_empty() {
        return Action::AwaitActive { slots: idle };
    }
    Action::Refuse(Refusal::Returned { version: goal.version().to_owned(), reason })
}
