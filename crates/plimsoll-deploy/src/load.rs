//! A steady load of smoke requests at public URLs while traffic moves: what a client would have seen of the cut-over.

use crate::{
    probe::{Prober, ask},
    spec::{ServiceSpec, SmokeRequest},
};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use plimsoll_core::ServiceName;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::MissedTickBehavior};

/// More probes than this per second would be a load test.
pub const MAX_PER_SECOND: u32 = 200;
/// Requests under way at once: 200 a second, each of which may take the 5 seconds of a probe's timeout.
const MAX_IN_FLIGHT: usize = 1000;
/// Latencies kept: eight minutes at the highest rate; later ones are counted but not ranked.
const MAX_SAMPLES: usize = 100_000;
/// Failures told in words; the count tells the rest.
const TOLD: usize = 5;

/// What the load saw.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Requests that came to an end.
    pub sent: u64,
    /// Of those, without the declared answer.
    pub failed: u64,
    /// The first failures, at most five, in words.
    pub first_failures: Vec<String>,
    /// Requests that nobody could send, for a reason that does not lie with the services; not among those sent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unasked: u64,
    /// Median time to the whole answer, in milliseconds.
    pub p50_ms: u64,
    /// 99th percentile, in milliseconds.
    pub p99_ms: u64,
    /// The longest, in milliseconds.
    pub max_ms: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// One thing to ask, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeTarget {
    /// Whose.
    pub service: ServiceName,
    /// Its public URL, without a trailing slash.
    pub base: String,
    /// What.
    pub request: SmokeRequest,
}

/// A load that runs until it is told to stop; targets may change meanwhile.
pub struct ProbeLoad {
    per_second: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    targets: Vec<ProbeTarget>,
    next: usize,
    sent: u64,
    failed: u64,
    unasked: u64,
    told: Vec<String>,
    micros: Vec<u64>,
    max: u64,
}

impl ProbeLoad {
    /// A load of `per_second` requests, at most [`MAX_PER_SECOND`]; with 0 it sends none.
    pub fn new(per_second: u32) -> Self {
        Self { per_second: per_second.min(MAX_PER_SECOND), state: Mutex::default() }
    }

    /// What is asked from now on, one after the other, around and around.
    pub fn aim(&self, targets: Vec<ProbeTarget>) {
        self.state().targets = targets;
    }

    /// What was seen so far.
    pub fn report(&self) -> ProbeReport {
        let state = self.state();
        let mut sorted = state.micros.clone();
        sorted.sort_unstable();
        let rank = |percent: usize| {
            let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
            sorted.get(at).copied().unwrap_or(0).div_ceil(1000)
        };
        ProbeReport {
            sent: state.sent,
            failed: state.failed,
            first_failures: state.told.clone(),
            unasked: state.unasked,
            p50_ms: rank(50),
            p99_ms: rank(99),
            max_ms: state.max.div_ceil(1000),
        }
    }

    /// Sends until `stop` is true or its sender is gone, then waits for the answers that are under way.
    pub async fn run(&self, prober: &dyn Prober, mut stop: watch::Receiver<bool>) {
        if self.per_second == 0 {
            return;
        }
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / self.per_second);
        // After a pause of this process a burst would tell nothing about the service.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut under_way = FuturesUnordered::new();
        // Ends when told; each turn waits for a tick or an answer.
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                _ = ticks.tick(), if under_way.len() < MAX_IN_FLIGHT => {
                    if let Some(target) = self.draw() {
                        under_way.push(self.one(prober, target));
                    }
                }
                Some(()) = under_way.next() => {}
            }
        }
        while under_way.next().await.is_some() {}
    }

    fn draw(&self) -> Option<ProbeTarget> {
        let mut state = self.state();
        let at = state.next.checked_rem(state.targets.len())?;
        state.next = at + 1;
        Some(state.targets[at].clone())
    }

    async fn one(&self, prober: &dyn Prober, target: ProbeTarget) {
        let outcome = ask(prober, &target.base, &target.request).await;
        let mut state = self.state();
        if matches!(&outcome, Err(failure) if failure.away) {
            state.unasked += 1;
            return;
        }
        state.sent += 1;
        match outcome {
            Ok(took) => {
                let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                state.max = state.max.max(micros);
                if state.micros.len() < MAX_SAMPLES {
                    state.micros.push(micros);
                }
            }
            Err(failure) => {
                state.failed += 1;
                if state.told.len() < TOLD {
                    state.told.push(format!("{}: {failure}", target.service));
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What may be asked while either of two specs may answer: the requests both declare; without any, the health path.
pub(crate) fn common_requests(old: &ServiceSpec, new: &ServiceSpec) -> Vec<SmokeRequest> {
    let both: Vec<_> = old.smoke.iter().filter(|r| new.smoke.contains(r)).cloned().collect();
    if both.is_empty() && old.health.path == new.health.path { vec![health_request(new)] } else { both }
}

/// What is asked of a service: its smoke requests; without any, its health path.
pub(crate) fn requests(spec: &ServiceSpec) -> Vec<SmokeRequest> {
    if spec.smoke.is_empty() { vec![health_request(spec)] } else { spec.smoke.clone() }
}

fn health_request(spec: &ServiceSpec) -> SmokeRequest {
    SmokeRequest {
        method: "GET".to_owned(),
        path: spec.health.path.clone(),
        status: 200,
        contains: None,
        json: BTreeMap::new(),
        headers: BTreeMap::new(),
        max_ms: None,
    }
}
