//! A circuit breaker: a pure state machine with the time passed in, and the tower layer around one replica.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use futures_util::future::BoxFuture;
use serde::Serialize;
use tower::{BoxError, Layer, Service};

use crate::client::{Answer, Call};
use crate::metrics::Metrics;

/// Failures in a row that open a circuit.
const FAILURES: u32 = 5;
/// How long it is open at first; doubled by each trial that fails.
const SHORTEST: Duration = Duration::from_millis(500);
/// And at most.
const LONGEST: Duration = Duration::from_secs(10);

/// Whether calls go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// All do.
    Closed,
    /// One does, and decides.
    HalfOpen,
    /// None does.
    Open,
}

impl State {
    /// As a metric.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

/// The state of one circuit.
#[derive(Debug)]
struct Circuit {
    state: State,
    failures: u32,
    /// Since when it is open.
    opened: Instant,
    wait: Duration,
    /// Whether the one call of a half-open circuit is under way.
    trying: bool,
}

impl Circuit {
    fn new(now: Instant) -> Self {
        Self { state: State::Closed, failures: 0, opened: now, wait: SHORTEST, trying: false }
    }

    /// Whether a call would go through.
    fn allows(&self, now: Instant) -> bool {
        match self.state {
            State::Closed => true,
            State::HalfOpen => !self.trying,
            State::Open => now >= self.opened + self.wait,
        }
    }

    /// Lets a call through, or not.
    fn begin(&mut self, now: Instant) -> bool {
        let allowed = self.allows(now);
        if allowed && self.state != State::Closed {
            (self.state, self.trying) = (State::HalfOpen, true);
        }
        allowed
    }

    /// Takes the end of a call into account; whether the circuit has opened by it.
    fn end(&mut self, outcome: Outcome, now: Instant) -> bool {
        let trial = self.state == State::HalfOpen && self.trying;
        match outcome {
            Outcome::Good => *self = Self::new(now),
            // Nobody waited for it: the next call is the trial.
            Outcome::Abandoned => self.trying = false,
            Outcome::Bad if trial => {
                let wait = (self.wait * 2).min(LONGEST);
                *self = Self { state: State::Open, wait, ..Self::new(now) };
                return true;
            }
            Outcome::Bad => {
                self.failures += 1;
                if self.state == State::Closed && self.failures >= FAILURES {
                    (self.state, self.opened) = (State::Open, now);
                    return true;
                }
            }
        }
        false
    }

    /// The replica has been heard: the next call decides, without further waiting.
    fn heard(&mut self) {
        if self.state == State::Open {
            (self.state, self.trying, self.wait) = (State::HalfOpen, false, SHORTEST);
        }
    }
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Good,
    Bad,
    Abandoned,
}

/// The circuit of one replica; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Breaker {
    circuit: Arc<Mutex<Circuit>>,
    metrics: Metrics,
}

/// The circuit is open. Whoever has the URL says so.
#[derive(Debug, thiserror::Error)]
#[error("the circuit is open")]
pub(super) struct OpenCircuit;

impl Breaker {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self { circuit: Arc::new(Mutex::new(Circuit::new(Instant::now()))), metrics: metrics.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Circuit> {
        // Every change is complete before the next call that could panic.
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> State {
        self.lock().state
    }

    /// Whether a call would go through now.
    pub(super) fn allows(&self) -> bool {
        self.lock().allows(Instant::now())
    }

    /// The replica answers again.
    pub(super) fn heard(&self) {
        self.lock().heard();
    }

    fn end(&self, outcome: Outcome) {
        if self.lock().end(outcome, Instant::now()) {
            self.metrics.add("kairos_circuit_opened_total", 1);
        }
    }
}

impl<S> Layer<S> for Breaker {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { breaker: self.clone(), inner }
    }
}

/// A service behind a circuit breaker.
#[derive(Debug, Clone)]
pub(super) struct Guarded<S> {
    breaker: Breaker,
    inner: S,
}

impl<S> Service<Call> for Guarded<S>
where
    S: Service<Call, Response = Answer, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Answer;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answer, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        if !self.breaker.lock().begin(Instant::now()) {
            return Box::pin(std::future::ready(Err(OpenCircuit.into())));
        }
        let under_way = UnderWay { breaker: self.breaker.clone(), outcome: Outcome::Abandoned };
        let answer = self.inner.call(call);
        Box::pin(async move {
            let answer = answer.await;
            let good = answer.as_ref().is_ok_and(|answer| !is_gone(answer.status));
            under_way.ended(if good { Outcome::Good } else { Outcome::Bad });
            answer
        })
    }
}

/// Whether a status is of a proxy whose service is gone. A service that is busy, or refuses, is there.
fn is_gone(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT)
}

/// A call that ends in some way, also when nobody waits for it any longer.
struct UnderWay {
    breaker: Breaker,
    outcome: Outcome,
}

impl UnderWay {
    /// The whole value goes into the future with this call, so that it ends with the future and not before.
    fn ended(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.breaker.end(self.outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Circuit {
        let mut circuit = Circuit::new(now);
        for failure in 1..=FAILURES {
            assert!(circuit.begin(now));
            assert_eq!(circuit.end(Outcome::Bad, now), failure == FAILURES);
        }
        assert_eq!(circuit.state, State::Open);
        circuit
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let now = Instant::now();
        let mut circuit = Circuit::new(now);
        for _ in 1..FAILURES {
            circuit.end(Outcome::Bad, now);
        }
        circuit.end(Outcome::Good, now);
        assert!(!circuit.end(Outcome::Bad, now));
        assert_eq!(circuit.state, State::Closed);
        opened(now);
    }

    #[test]
    fn after_its_wait_one_trial_goes_through_and_decides() {
        let now = Instant::now();
        let mut circuit = opened(now);
        assert!(!circuit.begin(now + SHORTEST / 2));
        let later = now + SHORTEST;
        assert!(circuit.begin(later) && !circuit.begin(later), "one at a time");
        assert_eq!(circuit.state, State::HalfOpen);
        assert!(circuit.end(Outcome::Bad, later));
        assert!(!circuit.begin(later + SHORTEST) && circuit.begin(later + SHORTEST * 2), "twice as long");
        circuit.end(Outcome::Abandoned, later);
        assert!(circuit.begin(later), "an abandoned trial is no answer");
        circuit.end(Outcome::Good, later);
        assert_eq!((circuit.state, circuit.wait), (State::Closed, SHORTEST));
    }

    #[test]
    fn the_wait_has_an_end_and_a_heartbeat_shortens_it() {
        let mut now = Instant::now();
        let mut circuit = opened(now);
        for _ in 0..10 {
            now += LONGEST;
            assert!(circuit.begin(now) && circuit.end(Outcome::Bad, now));
        }
        assert_eq!(circuit.wait, LONGEST);
        circuit.heard();
        assert!(circuit.begin(now));
        circuit.end(Outcome::Good, now);
        assert_eq!(circuit.state, State::Closed);
    }
}
