//! When a call is sent again: a failure that may be another replica's success, of a call that is safe to repeat, within
//! a budget that keeps retries a small share of all calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::Sleep;
use tower::retry::budget::{Budget, TpsBudget};

use crate::client::{Answer, Call, ClientError};
use crate::metrics::Metrics;

/// How often a call is sent at most. With the timeout of each it bounds the whole call.
const ATTEMPTS: u32 = 3;
/// Before the first retry; doubled before the next. Another replica is usually ready at once.
const PAUSE: Duration = Duration::from_millis(10);

/// A call, and where it has failed.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) call: Call,
    /// A bit per replica; shared by the attempts of one call.
    tried: Arc<AtomicU64>,
}

impl Attempt {
    pub(super) fn first(call: Call) -> Self {
        Self { call, tried: Arc::default() }
    }

    pub(super) fn has_tried(&self, index: usize) -> bool {
        self.tried.load(Ordering::Relaxed) & (1 << index) != 0
    }

    pub(super) fn try_on(&self, index: usize) {
        self.tried.fetch_or(1 << index, Ordering::Relaxed);
    }
}

/// The decision about one call.
#[derive(Clone)]
pub(super) struct Policy {
    budget: Arc<TpsBudget>,
    metrics: Metrics,
    /// Whether there is another replica to ask.
    others: bool,
    sent: u32,
}

impl Policy {
    pub(super) fn new(budget: Arc<TpsBudget>, metrics: Metrics, others: bool) -> Self {
        Self { budget, metrics, others, sent: 1 }
    }

    /// Whether another attempt may do better. A refusal stands, and so does that of the only replica, which knows why.
    fn failed(&self, result: &Result<Answer, ClientError>) -> bool {
        match result {
            Ok(answer) => match answer.status {
                StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => true,
                StatusCode::SERVICE_UNAVAILABLE => self.others,
                _ => false,
            },
            Err(ClientError::Url { .. }) => false,
            Err(ClientError::Open { .. }) => self.others,
            Err(ClientError::Timeout { .. } | ClientError::Call { .. }) => true,
        }
    }
}

impl tower::retry::Policy<Attempt, Answer, ClientError> for Policy {
    type Future = Sleep;

    fn retry(&mut self, attempt: &mut Attempt, result: &mut Result<Answer, ClientError>) -> Option<Sleep> {
        if !self.failed(result) {
            self.budget.deposit();
            return None;
        }
        if !attempt.call.repeatable || self.sent >= ATTEMPTS {
            return None;
        }
        if !self.budget.withdraw() {
            self.metrics.add("kairos_retries_refused_total", 1);
            return None;
        }
        self.metrics.add("kairos_retries_total", 1);
        let pause = PAUSE * (1 << (self.sent - 1));
        self.sent += 1;
        Some(tokio::time::sleep(pause))
    }

    fn clone_request(&mut self, attempt: &Attempt) -> Option<Attempt> {
        attempt.call.repeatable.then(|| attempt.clone())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tower::retry::Policy as _;

    use super::*;

    fn answered(status: u16) -> Answer {
        let status = StatusCode::from_u16(status).expect("a status");
        Answer { status, content_type: None, body: bytes::Bytes::new() }
    }

    fn policy(share: f32, others: bool) -> Policy {
        Policy::new(Arc::new(TpsBudget::new(Duration::from_secs(10), 0, share)), Metrics::default(), others)
    }

    fn rich(others: bool) -> Policy {
        let policy = policy(10.0, others);
        for _ in 0..100 {
            policy.budget.deposit();
        }
        policy
    }

    #[tokio::test]
    async fn only_calls_that_are_safe_to_repeat_are_repeated_and_not_without_end() {
        let gone = || Err(ClientError::Timeout { url: "u".to_owned() });
        let mut read = Attempt::first(Call::get("/"));
        let mut policy = rich(false);
        let retries = (0..10).filter(|_| policy.retry(&mut read, &mut gone()).is_some()).count();
        assert_eq!(retries, 2);
        let mut order = Attempt::first(Call::order(&json!({"id": "1"}), true));
        assert!(rich(false).retry(&mut order, &mut gone()).is_some());
        let mut nameless = Attempt::first(Call::order(&json!({}), false));
        assert!(rich(false).retry(&mut nameless, &mut gone()).is_none());
        assert!(rich(false).clone_request(&nameless).is_none());
    }

    #[tokio::test]
    async fn what_another_replica_may_answer_better_is_retried_and_a_refusal_is_not() {
        let mut read = Attempt::first(Call::get("/"));
        for (status, alone, with_others) in
            [(200, false, false), (422, false, false), (500, false, false), (502, true, true), (503, false, true)]
        {
            let retried =
                [false, true].map(|others| rich(others).retry(&mut read, &mut Ok(answered(status))).is_some());
            assert_eq!(retried, [alone, with_others], "{status}");
        }
    }

    #[tokio::test]
    async fn retries_are_a_share_of_the_calls_that_succeed() {
        let policy = policy(0.2, false);
        let mut read = Attempt::first(Call::get("/"));
        let mut retried = 0;
        for _ in 0..100 {
            assert!(policy.clone().retry(&mut read, &mut Ok(answered(200))).is_none());
        }
        for _ in 0..100 {
            retried += u32::from(policy.clone().retry(&mut read, &mut Ok(answered(502))).is_some());
        }
        assert!((15..=20).contains(&retried), "{retried} of 100");
        assert!(policy.metrics.render().contains(&format!("kairos_retries_refused_total {}", 100 - retried)));
    }
}
