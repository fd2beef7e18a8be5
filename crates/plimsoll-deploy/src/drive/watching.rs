//! The watch after a cut-over: looks at the new slots until the policy is satisfied or broken, and at those of
//! exclusive services until they work.

use super::{
    DriveError, DriveEvent,
    doing::{Driver, PAUSE},
};
use crate::{
    observation::{Observation, ReleaseRecord},
    plan::{SlotOf, Verdict, idle, is_live_by},
    policy::{Sample, breach, is_judged},
};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The pause between two looks: a crash 50 ms after the switch is answered within a fifth of a second.
const LOOK: Duration = Duration::from_millis(100);
/// A look that takes longer was one at a target that was away.
const BLIND: Duration = Duration::from_secs(2);
/// How long the counters of a slot are waited for.
const COUNT: Duration = Duration::from_millis(500);
/// A live slot may be without a generation for so long. Targets wait a few seconds for a slot to accept one; the answer
/// to a cut-over may be lost before those are over.
const ACTIVE: Duration = Duration::from_secs(10);

impl Driver<'_> {
    pub(super) async fn watch(&mut self, seen: &Observation, slots: &[SlotOf]) -> Result<(), DriveError> {
        self.aim_at_new().await?;
        let base = match self.base.take() {
            Some(base) => base,
            None => self.sample(seen, slots, &Sample::default()).await,
        };
        let (policy, mut begun) = (self.with.policy, Instant::now());
        let mut last = base.clone();
        // Ends after twice the time of the watch, and that in which nothing could be seen.
        loop {
            tokio::time::sleep(LOOK.min(PAUSE)).await;
            let looking = Instant::now();
            let seen = self.look().await?;
            let blind = looking.elapsed();
            if blind > BLIND {
                begun += blind;
            }
            let changed = !is_live_by(self.with.goal, &seen) || seen.stopped;
            if changed || self.lost.borrow().is_some() || *self.cancelled.borrow() {
                self.base = Some(base);
                return Ok(());
            }
            let now = self.sample(&seen, slots, &last).await;
            let elapsed = begun.elapsed();
            let (sent, failed) = (now.probes.sent, now.probes.failed);
            let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
            self.tell(&DriveEvent::Watching { millis: millis(elapsed), of_millis: millis(policy.watch), sent, failed });
            let verdict = match breach(policy, &base, &last, &now) {
                Some(reason) => Some(Verdict::Breached(reason)),
                None if elapsed < policy.watch => None,
                None if is_judged(policy, &base, &now) => Some(Verdict::Kept),
                None if elapsed < policy.watch * 2 => None,
                None => Some(Verdict::Breached(format!("fewer than {} requests to judge by", policy.min_requests))),
            };
            if matches!(verdict, Some(Verdict::Breached(_))) {
                self.tail = self.tail_to_blame(&base, &now, slots).await;
            }
            if verdict.is_some() {
                self.progress.watch = verdict;
                return Ok(());
            }
            last = now;
        }
    }

    /// Waits until every live slot that should work does. One that does not is as bad as one that crashed.
    pub(super) async fn await_active(&mut self, slots: &[SlotOf]) -> Result<(), DriveError> {
        let begun = Instant::now();
        // Ends after the time a slot may take.
        loop {
            let seen = self.look().await?;
            let specs = seen.live.iter().flat_map(ReleaseRecord::specs);
            let Some(of) = idle(specs, &seen).into_iter().find(|of| slots.contains(of)) else { return Ok(()) };
            let ours = is_live_by(self.with.goal, &seen);
            if seen.stopped || self.lost.borrow().is_some() || (ours && *self.cancelled.borrow()) {
                return Ok(());
            }
            if begun.elapsed() >= ACTIVE {
                let (service, slot) = &of;
                let reason = format!("{service} ({slot}) serves, but was not active within {} s", ACTIVE.as_secs());
                if ours {
                    self.tail = self.log_tail(&of).await;
                    self.progress.watch = Some(Verdict::Breached(reason));
                } else {
                    self.progress.cannot_return = Some(reason);
                }
                return Ok(());
            }
            // Where nobody sees to it all the time, an interrupted cut-over left it undone: then this is who does it.
            if let Err(error) = self.with.target.activate(&of.0, of.1).await {
                tracing::debug!(error = plimsoll_core::chain(&error), service = %of.0, "not activated yet");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The log of the first slot that crashed or is not ready, else of the first.
    async fn tail_to_blame(&self, base: &Sample, now: &Sample, slots: &[SlotOf]) -> Vec<String> {
        let unfit = |of: &&SlotOf| {
            let crashes = |sample: &Sample| sample.slots.get(*of).map_or(0, |s| s.0);
            crashes(now) > crashes(base) || !now.slots.get(*of).is_some_and(|s| s.1)
        };
        match slots.iter().find(unfit).or(slots.first()) {
            Some(of) => self.log_tail(of).await,
            None => Vec::new(),
        }
    }

    /// What is known now. Counters that cannot be read say nothing, until they can be again; where there were none at the
    /// beginning, the first ones are it.
    pub(super) async fn sample(&self, seen: &Observation, slots: &[SlotOf], last: &Sample) -> Sample {
        let (mut counted, mut real) = (last.counted.clone(), last.real.clone());
        for of in slots {
            // Of the target, which is quick: a crash is not to wait for a monitoring system.
            match timeout(COUNT, self.with.target.traffic(&of.0, of.1)).await {
                Ok(Ok(now)) => {
                    if let Some(before) = counted.get(of) {
                        real.real.add(&now.since(before).total().real);
                    }
                    counted.entry(of.clone()).or_default().sources.extend(now.sources);
                }
                Ok(Err(error)) => tracing::debug!(%error, service = %of.0, "no counters of real traffic"),
                Err(_late) => tracing::debug!(service = %of.0, "no counters of real traffic in time"),
            }
        }
        Sample { slots: Sample::look(seen, slots), counted, real, probes: self.load.report() }
    }
}
