//! The verdict on a slot that has a share, against the one that serves.

use super::{Canary, bounds};
use crate::traffic::{Histogram, SlotTraffic, Traffic};
use plimsoll_core::ServiceName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Of a hundred requests, this many may be slower than the 99th percentile.
const SLOW: f64 = 0.01;
/// Confidence sequences per service: failures of either slot, and slow requests of the new one.
const TESTS: f64 = 3.0;

/// What both slots of a service answered while they shared the requests.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Compared {
    /// The slot with the share.
    pub canary: Answers,
    /// The one that serves.
    pub stable: Answers,
}

/// What a slot answered.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Answers {
    /// Requests that count.
    pub requests: u64,
    /// Of those, failed.
    pub failed: u64,
    /// Probes among them, where they count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub probes: u64,
    /// Time to the answer's head.
    #[serde(skip)]
    pub latency: Histogram,
    /// Its 99th percentile in milliseconds, when there is one.
    pub p99_ms: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Answers {
    /// Adds what was counted since the last look.
    pub(crate) fn add(&mut self, counted: &Traffic, count_probes: bool) {
        let total = counted.total();
        let mut all = total.real;
        if count_probes {
            self.probes += total.probe.requests;
            all.add(&total.probe);
        }
        let SlotTraffic { requests, failed, latency, .. } = all;
        self.requests += requests;
        self.failed += failed;
        self.latency.add(&latency);
        self.p99_ms = self.latency.quantile_us(99).map(|us| us.div_ceil(1000));
    }
}

/// What is to become of a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", content = "reason", rename_all = "kebab-case")]
pub enum Judgement {
    /// It is as good as what serves.
    Promote,
    /// It is worse, and how.
    Abort(String),
    /// Nobody knows yet, and what is missing.
    Hold(String),
}

/// Judges one of `services` services.
pub fn judge(canary: &Canary, services: usize, seen: &Compared) -> Judgement {
    #[expect(clippy::cast_precision_loss, reason = "a handful of services")]
    let alpha = canary.error_rate / (TESTS * services.max(1) as f64);
    let (new, old) = (&seen.canary, &seen.stable);
    let failing = bounds(new.failed, new.requests, alpha);
    let before = bounds(old.failed, old.requests, alpha);
    let allowed = canary.max_error_diff_pp / 100.0;
    if failing.0 > canary.abort_error_pct / 100.0 {
        let most = canary.abort_error_pct;
        return Judgement::Abort(format!("{} of {} requests failed, more than {most} %", new.failed, new.requests));
    }
    if failing.0 > before.1 * canary.abort_error_ratio && failing.0 > before.1 + allowed {
        return Judgement::Abort(format!(
            "{} of {} requests failed, more than {} times as many as {} of {} where it serves",
            new.failed, new.requests, canary.abort_error_ratio, old.failed, old.requests
        ));
    }
    let few =
        [("the new slot", new), ("the live slot", old)].into_iter().find(|(_, a)| a.requests < canary.min_requests);
    if let Some((whose, answers)) = few {
        return Judgement::Hold(format!(
            "{whose} had {} of at least {} requests",
            answers.requests, canary.min_requests
        ));
    }
    let slow = match slow(canary, seen, alpha) {
        Ok(share) => share,
        Err(reason) => return Judgement::Hold(reason),
    };
    if slow.0 > SLOW {
        return Judgement::Abort(format!(
            "99 % of requests took up to {} ms, more than {} ms longer than {} ms where it serves",
            new.p99_ms.unwrap_or(0),
            canary.max_p99_diff_ms,
            old.p99_ms.unwrap_or(0)
        ));
    }
    if failing.1 - before.0 >= allowed {
        let most = (failing.1 - before.0) * 100.0;
        return Judgement::Hold(format!(
            "after {} requests up to {most:.2} points more may fail, and {} are allowed",
            new.requests, canary.max_error_diff_pp
        ));
    }
    if slow.1 >= SLOW {
        let most = slow.1 * 100.0;
        return Judgement::Hold(format!("after {} requests up to {most:.2} % may be too slow", new.requests));
    }
    Judgement::Promote
}

/// The possible shares of the new slot's requests that are slower than the live slot's 99th percentile may be.
fn slow(canary: &Canary, seen: &Compared, alpha: f64) -> Result<(f64, f64), String> {
    let least = canary.min_requests.max(1);
    for (whose, answers) in [("the new slot", &seen.canary), ("the live slot", &seen.stable)] {
        if answers.latency.count() < least {
            return Err(format!("no latencies of {whose}"));
        }
    }
    let p99 = seen.stable.latency.quantile_us(99).ok_or("no latencies of the live slot")?;
    // Only what lies in a bucket without a bound is above this.
    let (beyond, of) = seen.stable.latency.above(u64::MAX - 1);
    if beyond * 100 >= of {
        return Err("the live slot's 99th percentile is beyond the last bucket of its histogram".to_owned());
    }
    let (above, all) = seen.canary.latency.above(p99.saturating_add(canary.max_p99_diff_ms.saturating_mul(1000)));
    Ok(bounds(above, all, alpha))
}

/// What is known of one service's share, for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Which service.
    pub service: ServiceName,
    /// The share it has, in percent.
    pub share: u8,
    /// What both slots answered.
    pub seen: Compared,
    /// What follows.
    pub judgement: Judgement,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, share, seen, judgement } = self;
        write!(f, "{service} with {share} %: {}; where it serves {}", seen.canary, seen.stable)?;
        match judgement {
            Judgement::Promote => write!(f, ": as good"),
            Judgement::Abort(reason) | Judgement::Hold(reason) => write!(f, ": {reason}"),
        }
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} requests failed", self.failed, self.requests)?;
        if self.probes > 0 {
            write!(f, " ({} were probes)", self.probes)?;
        }
        self.p99_ms.map_or(Ok(()), |p99| write!(f, ", p99 {p99} ms"))
    }
}

/// One step of a canary, when it was over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CanaryStep {
    /// The share that was asked for, in percent.
    pub share: u8,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// What was known of each service, since the first share was given.
    pub trials: Vec<Trial>,
}

#[cfg(test)]
mod tests;
