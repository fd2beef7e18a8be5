//! Trying the new slots on a share of the requests: gives it, compares, and says whether it may grow.

use super::{
    DriveError, DriveEvent,
    doing::{Aim, Driver, unfit},
};
use crate::{
    canary::{Answers, Canary, CanaryStep, Compared, Judgement, Trial, judge},
    observation::Observation,
    plan::SlotOf,
    target::{TargetError, Weights},
    traffic::Traffic,
};
use plimsoll_core::{Generation, ServiceName, Slot};
use std::collections::BTreeMap;
use tokio::time::Instant;

/// Why numbers could not be read, by service.
type Unread = BTreeMap<ServiceName, String>;

/// What is known since the first share was given.
#[derive(Default)]
pub(super) struct Trying {
    /// When it was given.
    begun: Option<Instant>,
    compared: BTreeMap<ServiceName, Compared>,
    /// The last reading of each slot.
    last: BTreeMap<SlotOf, Traffic>,
    /// When a request to each slot was counted last.
    grew: BTreeMap<SlotOf, Instant>,
    /// The steps that were passed.
    pub(super) steps: Vec<CanaryStep>,
}

/// One step: what it began with.
struct Step<'s> {
    share: u8,
    slots: &'s [SlotOf],
    begun: Instant,
    /// Requests of each service's new slot before it.
    before: BTreeMap<ServiceName, u64>,
}

impl Driver<'_> {
    /// Gives shares or takes them away.
    pub(super) async fn weigh(
        &mut self,
        from: Generation,
        shares: BTreeMap<ServiceName, u8>,
    ) -> Result<(), DriveError> {
        match self.give(from, shares).await {
            // Whether a stale generation is another's work, the next look tells.
            Ok(()) | Err(TargetError::Stale { .. }) => Ok(()),
            Err(error) => self.patience.again(self.with.observer, error).await,
        }
    }

    async fn give(&self, from: Generation, shares: BTreeMap<ServiceName, u8>) -> Result<(), TargetError> {
        self.with.target.weigh(&Weights { from, run: self.with.goal.owner().run, shares }).await
    }

    /// One step of the canary, until it is passed, failed or over, or something else is to be done.
    pub(super) async fn try_out(&mut self, seen: &Observation, share: u8, slots: &[SlotOf]) -> Result<(), DriveError> {
        let policy = self.with.policy;
        let canary = policy.canary.as_ref().expect("the machine tries only where the policy says so");
        if canary.count_probes && policy.probes_per_second > 0 {
            self.aim(Aim::Both, Some(seen));
        }
        // What was counted before the share was given is not to be judged by.
        self.read(canary, slots).await;
        let shares: BTreeMap<_, _> = slots.iter().map(|(service, _)| (service.clone(), share)).collect();
        self.progress.tried.extend(slots.iter().cloned());
        self.trying.begun.get_or_insert_with(Instant::now);
        self.weigh(seen.generation, shares.clone()).await?;
        let compared = &self.trying.compared;
        let before = compared.iter().map(|(name, seen)| (name.clone(), seen.canary.requests)).collect();
        let step = Step { share, slots, begun: Instant::now(), before };
        let mut last = seen.clone();
        // Ends by the time that all steps may take together.
        loop {
            tokio::time::sleep(canary.interval).await;
            let now = match self.with.target.observe().await {
                Ok(now) => now,
                // What cannot be looked at is not known: it is waited for like everything else.
                Err(error @ TargetError::Unreachable { .. }) => {
                    let reason = plimsoll_core::chain(&error);
                    self.tell(&DriveEvent::TryingAgain { reason: reason.clone() });
                    if self.is_over(canary) {
                        self.not_tried(&slots[0], share, reason).await;
                    }
                    if self.is_over(canary) || self.lost.borrow().is_some() || *self.cancelled.borrow() {
                        return Ok(());
                    }
                    continue;
                }
                Err(error) => return Err(DriveError::Target(error)),
            };
            let theirs = now.generation != seen.generation || now.stopped || !now.drift.is_empty();
            if theirs || self.lost.borrow().is_some() || *self.cancelled.borrow() {
                return Ok(());
            }
            if let Some((of, reason)) = unfit(slots, seen, &last, &now) {
                self.not_tried(&of, share, reason).await;
                return Ok(());
            }
            if slots.iter().any(|(service, _)| now.services.get(service).is_none_or(|view| view.share == 0)) {
                // A replica that had the share may have been replaced by one that has not.
                if let Err(error) = self.give(seen.generation, shares.clone()).await {
                    tracing::warn!(error = plimsoll_core::chain(&error), "no share was given again");
                }
            }
            let (trials, unread) = self.judged(&now, canary, &step).await;
            self.tell(&DriveEvent::Trying { share, millis: millis(step.begun), trials: trials.clone() });
            if self.decide(canary, &step, trials, &unread).await {
                return Ok(());
            }
            last = now;
        }
    }

    /// Adds what was counted since the last reading. The reasons of what could not be read.
    async fn read(&mut self, canary: &Canary, slots: &[SlotOf]) -> Unread {
        let mut unread = Unread::new();
        for (service, slot) in slots {
            let both = [(*slot, true), (slot.other(), false)];
            for (slot, is_new) in both {
                let of = (service.clone(), slot);
                let counted = match self.with.count(service, slot).await {
                    Ok(counted) => counted,
                    Err(error) => {
                        unread.insert(service.clone(), plimsoll_core::chain(&error));
                        continue;
                    }
                };
                let compared = self.trying.compared.entry(service.clone()).or_default();
                if let Some(last) = self.trying.last.get_mut(&of) {
                    let side: &mut Answers = if is_new { &mut compared.canary } else { &mut compared.stable };
                    let before = side.requests;
                    side.add(&counted.since(last), canary.count_probes);
                    if side.requests > before {
                        self.trying.grew.insert(of, Instant::now());
                    }
                    // A source that is away for a moment is not new when it comes back.
                    last.sources.extend(counted.sources);
                } else {
                    self.trying.last.insert(of, counted);
                }
            }
        }
        unread
    }

    async fn judged(&mut self, seen: &Observation, canary: &Canary, step: &Step<'_>) -> (Vec<Trial>, Unread) {
        let unread = self.read(canary, step.slots).await;
        let one = |(service, _): &SlotOf| {
            let known = self.trying.compared.get(service).cloned().unwrap_or_default();
            let share = seen.services.get(service).map_or(0, |view| view.share);
            let judgement = match (judge(canary, step.slots.len(), &known), unread.get(service)) {
                (abort @ Judgement::Abort(_), _) => abort,
                (_, Some(reason)) => Judgement::Hold(format!("its numbers cannot be read: {reason}")),
                (judgement, None) => judgement,
            };
            Trial { service: service.clone(), share, seen: known, judgement }
        };
        let trials = step.slots.iter().map(one).collect();
        (trials, unread)
    }

    /// Whether the step is over, one way or the other.
    async fn decide(&mut self, canary: &Canary, step: &Step<'_>, trials: Vec<Trial>, unread: &Unread) -> bool {
        let slot_of = |service: &ServiceName| step.slots.iter().find(|of| of.0 == *service).cloned();
        let bad = trials.iter().find_map(|trial| match &trial.judgement {
            Judgement::Abort(reason) => Some((slot_of(&trial.service)?, reason.clone())),
            _ => None,
        });
        let in_step = |trial: &Trial| {
            let before = step.before.get(&trial.service).copied().unwrap_or(0);
            trial.seen.canary.requests.saturating_sub(before)
        };
        let old = |trial: &Trial| {
            let both = [Slot::Blue, Slot::Green].map(|slot| (trial.service.clone(), slot));
            both.iter().any(|of| self.trying.grew.get(of).is_none_or(|at| at.elapsed() > canary.step / 4))
        };
        // Each step needs requests of its own, and now: numbers that stand still are no success.
        let waits = trials.iter().find_map(|trial| match &trial.judgement {
            Judgement::Hold(reason) if canary.is_last(step.share) || unread.contains_key(&trial.service) => {
                Some((slot_of(&trial.service)?, reason.clone()))
            }
            _ if in_step(trial) < canary.min_requests => {
                let reason = format!("{} of at least {} requests", in_step(trial), canary.min_requests);
                Some((slot_of(&trial.service)?, format!("the new slot had {reason} with this share")))
            }
            _ if trial.share == 0 => Some((slot_of(&trial.service)?, "the new slot has no share just now".to_owned())),
            _ if old(trial) => Some((slot_of(&trial.service)?, "its numbers stand still".to_owned())),
            _ => None,
        });
        if let Some((of, reason)) = bad {
            self.steps_so_far(step, trials);
            self.not_tried(&of, step.share, reason).await;
        } else if step.begun.elapsed() >= canary.step && waits.is_none() {
            self.steps_so_far(step, trials);
            self.progress.passed = step.share;
            let step = self.trying.steps.last().expect("it was just added").clone();
            self.tell(&DriveEvent::Tried { step });
        } else if self.is_over(canary) {
            let nobody = step.slots.first().cloned().map(|of| (of, "its step was not over".to_owned()));
            let Some((of, reason)) = waits.or(nobody) else { return true };
            let held = canary.hold.as_secs();
            self.steps_so_far(step, trials);
            self.not_tried(&of, step.share, format!("after {held} s nobody knows yet: {reason}")).await;
        } else {
            return false;
        }
        true
    }

    /// Whether the time of all steps is over.
    fn is_over(&self, canary: &Canary) -> bool {
        self.trying.begun.is_some_and(|begun| begun.elapsed() >= canary.hold)
    }

    fn steps_so_far(&mut self, step: &Step<'_>, trials: Vec<Trial>) {
        self.trying.steps.push(CanaryStep { share: step.share, millis: millis(step.begun), trials });
    }

    async fn not_tried(&mut self, of: &SlotOf, share: u8, reason: String) {
        let log_tail = self.log_tail(of).await;
        let (service, slot) = of.clone();
        let steps = std::mem::take(&mut self.trying.steps);
        let error = DriveError::Canary { service, slot, share, reason: reason.clone(), steps, log_tail };
        self.fail(Some(of.clone()), reason, error);
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
