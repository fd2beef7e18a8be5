//! One step's attempts: timeout, retry, cancellation.

use crate::{
    context::Cx,
    error::StepError,
    journal::Ledger,
    node::{Bound, Landed, UNKNOWN_HINT},
    step::Repeat,
};
use plimsoll_core::{ErrorClass, Event, RetryDecision, RetryPolicy};
use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a step that was told to stop may take to end its processes before it is abandoned.
const STOP_GRACE: Duration = Duration::from_secs(30);

/// Attempts until one lands, the policy gives up, or the run is cancelled.
pub(crate) async fn attempts(
    bound: Arc<dyn Bound>,
    cx: Cx,
    ledger: Ledger,
    timeout: Duration,
    policy: RetryPolicy,
    repeat: Option<Repeat>,
) -> Result<Landed, StepError> {
    let begun = Instant::now();
    let mut attempt = 1;
    loop {
        let error = match one(Arc::clone(&bound), &cx, ledger.clone(), timeout).await {
            Ok(landed) => return Ok(landed),
            Err(error) => cx.redact_error(error),
        };
        if repeat == Some(Repeat::AtMostOnce) && ledger.intended() {
            return Err(if error.hint.is_none() { error.with_hint(UNKNOWN_HINT) } else { error });
        }
        if ledger.is_stopped() {
            return Err(error);
        }
        let worth_it = error.class == ErrorClass::External && !cx.cancel().is_cancelled();
        let RetryDecision::After(pause) = policy.decide(attempt, begun.elapsed(), random(), None) else {
            return Err(error);
        };
        if !worth_it {
            return Err(error);
        }
        cx.observer().event(&Event::StepRetried {
            step: Arc::clone(cx.step()),
            attempt,
            error: error.one_line(),
            pause_millis: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
        });
        tokio::select! {
            () = tokio::time::sleep(pause) => attempt += 1,
            () = cx.cancel().cancelled() => return Err(error),
        }
    }
}

async fn one(bound: Arc<dyn Bound>, cx: &Cx, ledger: Ledger, timeout: Duration) -> Result<Landed, StepError> {
    let cancel = cx.cancel().child();
    let mut work = bound.attempt(cx.with_cancel(cancel.clone()), ledger);
    let timed_out = tokio::select! {
        landed = &mut work => return landed,
        () = tokio::time::sleep(timeout) => true,
        () = cancel.cancelled() => false,
    };
    cancel.cancel();
    // The step ends its own processes when it sees the token; one that does not look is dropped with its futures.
    let landed = tokio::time::timeout(STOP_GRACE, work).await;
    match (timed_out, landed) {
        (_, Ok(Ok(landed))) => Ok(landed),
        (true, _) => Err(StepError::external(format!("it took longer than its {} s", timeout.as_secs_f32()))
            .with_detail(cx.log_tail())),
        (false, Ok(Err(error))) => Err(error),
        (false, Err(_)) => Err(StepError::external("it was told to stop and did not")),
    }
}

/// A number in `0.0..1.0` to spread retries; nothing depends on its quality.
fn random() -> f64 {
    let bits = RandomState::new().hash_one(0_u8) >> 32;
    f64::from(u32::try_from(bits).expect("the upper half of 64 bits is 32 bits")) / (f64::from(u32::MAX) + 1.0)
}
