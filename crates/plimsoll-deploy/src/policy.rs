//! What a release must keep to after its cut-over, and whether it did. Pure.

use crate::{
    canary::Canary,
    load::ProbeReport,
    observation::Observation,
    plan::{SlotOf, is_ready},
    traffic::{Probed, Traffic},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// How a deployment is judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// How long the new slots are watched after the cut-over; zero: not at all.
    pub watch: Duration,
    /// The share of requests, in percent, that may fail; probes and real requests are judged apart.
    pub max_error_pct: f64,
    /// The longest acceptable 99th percentile of the time to an answer, in milliseconds.
    pub max_p99_ms: Option<u64>,
    /// Fewer requests than this are no basis for a judgement: the watch goes on, at most as long again.
    pub min_requests: u64,
    /// How often the processes of a new slot may end by themselves before it is ready.
    pub max_start_crashes: u32,
    /// Probe requests per second around the cut-over; at most 200, 0 switches them off.
    pub probes_per_second: u32,
    /// Whether what is in flight at the old slots may finish, within each service's limit. `false` cuts it off, which shows
    /// what draining is for.
    pub drain: bool,
    /// How the new slots are tried on a share of the requests before the cut-over, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            watch: Duration::from_secs(3),
            max_error_pct: 1.0,
            max_p99_ms: None,
            min_requests: 10,
            max_start_crashes: 3,
            probes_per_second: 50,
            drain: true,
            canary: None,
        }
    }
}

impl Policy {
    /// For a release that is put back: whoever does that is in a hurry, and it served well before.
    pub fn without_watch(&self) -> Self {
        Self { watch: Duration::ZERO, ..self.clone() }
    }
}

/// What is known about the new slots at one moment of the watch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// For each watched slot: crashes since it was stood up, and whether all its replicas are ready.
    pub(crate) slots: BTreeMap<SlotOf, (u32, bool, Option<String>)>,
    /// The last reading of each watched slot.
    pub(crate) counted: BTreeMap<SlotOf, Traffic>,
    /// What was answered since the first readings, by all of them together.
    pub(crate) real: Probed,
    /// Probes so far.
    pub(crate) probes: ProbeReport,
}

impl Sample {
    pub(crate) fn look(seen: &Observation, slots: &[SlotOf]) -> BTreeMap<SlotOf, (u32, bool, Option<String>)> {
        let one = |of: &SlotOf| {
            let view = seen.services.get(&of.0);
            let slots = view.into_iter().flat_map(|v| [v.live.as_ref(), v.standby.as_ref()]).flatten();
            let one = slots.into_iter().find(|s| s.slot == of.1);
            (of.clone(), one.map_or((0, false, None), |s| (s.crashes, is_ready(s), s.failing.clone())))
        };
        slots.iter().map(one).collect()
    }
}

/// What is wrong between the beginning of the watch and now, if anything is.
/// A slot that is not ready counts once it was not ready in `last` either: one late health answer is no outage.
pub(crate) fn breach(policy: &Policy, base: &Sample, last: &Sample, now: &Sample) -> Option<String> {
    for (of, (crashes, ready, failing)) in &now.slots {
        let (service, slot) = of;
        let why = failing.as_deref().map(|f| format!(": {f}")).unwrap_or_default();
        if *crashes > base.slots.get(of).map_or(0, |b| b.0) {
            return Some(format!("{service} ({slot}) crashed after it took the traffic{why}"));
        }
        if !ready && last.slots.get(of).is_some_and(|l| !l.1) {
            return Some(format!("{service} ({slot}) is no longer ready{why}"));
        }
    }
    let sent = now.probes.sent - base.probes.sent;
    let failed = now.probes.failed - base.probes.failed;
    if too_many(policy, sent, failed) {
        let first = now.probes.first_failures.last().cloned().unwrap_or_default();
        return Some(format!("{failed} of {sent} probe requests failed: {first}"));
    }
    let requests = now.real.real.requests.saturating_sub(base.real.real.requests);
    let failed = now.real.real.failed.saturating_sub(base.real.real.failed);
    if too_many(policy, requests, failed) {
        return Some(format!("{failed} of {requests} requests failed"));
    }
    let latency = now.real.real.latency.since(&base.real.real.latency);
    let slow = policy.max_p99_ms.filter(|_| requests >= policy.min_requests);
    let p99 = latency.quantile_ms(99);
    slow.filter(|max| p99 > *max).map(|max| format!("99 % of requests took up to {p99} ms, more than {max} ms"))
}

/// Whether there were enough requests to judge by.
pub(crate) fn is_judged(policy: &Policy, base: &Sample, now: &Sample) -> bool {
    let probes = now.probes.sent - base.probes.sent;
    probes + now.real.real.requests.saturating_sub(base.real.real.requests) >= policy.min_requests
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
fn too_many(policy: &Policy, sent: u64, failed: u64) -> bool {
    sent >= policy.min_requests.max(1) && failed as f64 * 100.0 > sent as f64 * policy.max_error_pct
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_core::Slot;

    fn of() -> SlotOf {
        ("gateway".parse().unwrap(), Slot::Green)
    }

    fn sample(crashes: u32, ready: bool, probes: (u64, u64), real: (u64, u64)) -> Sample {
        let mut sample = Sample { slots: BTreeMap::from([(of(), (crashes, ready, None))]), ..Sample::default() };
        (sample.probes.sent, sample.probes.failed) = probes;
        (sample.real.real.requests, sample.real.real.failed) = real;
        sample
    }

    fn says(last: &Sample, now: &Sample, expected: Option<&str>) {
        let found = breach(&Policy::default(), &sample(0, true, (0, 0), (0, 0)), last, now);
        match (found, expected) {
            (None, None) => {}
            (Some(found), Some(text)) => assert!(found.contains(text), "{found}"),
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_crash_lost_readiness_and_too_many_failures_are_breaches() {
        let fine = sample(0, true, (200, 0), (1000, 0));
        says(&fine, &fine, None);
        says(&fine, &sample(1, true, (0, 0), (0, 0)), Some("crashed"));
        let unready = sample(0, false, (0, 0), (0, 0));
        says(&fine, &unready, None);
        says(&unready, &unready, Some("no longer ready"));
        says(&fine, &sample(0, true, (200, 2), (0, 0)), None);
        says(&fine, &sample(0, true, (200, 3), (0, 0)), Some("3 of 200 probe requests failed"));
        says(&fine, &sample(0, true, (200, 0), (1000, 11)), Some("11 of 1000 requests failed"));
        says(&fine, &sample(0, true, (3, 3), (0, 0)), None);
    }
}
