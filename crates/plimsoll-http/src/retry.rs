//! The one retry loop. Dropping the future cancels it.

use crate::{Client, HttpError};
use plimsoll_core::{RetryDecision, RetryPolicy};
use reqwest::{Method, Request, Response, StatusCode, header::RETRY_AFTER};
use std::{
    hash::{BuildHasher, Hasher},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Whether a request may be sent more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// When its method says that twice is as once (RFC 9110, section 9.2.2).
    IfIdempotent,
    /// Always: the caller knows that twice is as once.
    Always,
}

/// What an outcome says about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is final.
    Final,
    /// It may be another one the next time, after the wait that was asked for, if any.
    Transient(Option<Duration>),
}

/// Does `operation` until `judge` calls its outcome final or `policy` gives up, and gives the last outcome.
pub async fn retry<T, E, F: Future<Output = Result<T, E>>>(
    policy: &RetryPolicy,
    judge: impl Fn(&Result<T, E>) -> Verdict,
    mut operation: impl FnMut() -> F,
) -> Result<T, E> {
    let start = Instant::now();
    // Ends by the policy's own bound on attempts.
    let mut attempt = 1;
    loop {
        let outcome = operation().await;
        let Verdict::Transient(asked) = judge(&outcome) else { return outcome };
        match policy.decide(attempt, start.elapsed(), random_unit(), asked) {
            RetryDecision::GiveUp => return outcome,
            RetryDecision::After(wait) => {
                tracing::debug!(attempt, ?wait, "trying again");
                drop(outcome);
                tokio::time::sleep(wait).await;
                attempt += 1;
            }
        }
    }
}

impl Client {
    /// Sends what `build` makes, and again while the answer is 429, 502, 503 or 504 or there is none, as far as
    /// `policy` and `repeat` allow. The last answer is returned whatever its status; `build` is called once per attempt.
    ///
    /// When a server asks for a wait (`Retry-After`), all requests of this client to it wait, at most as long as `policy`
    /// lets a wait be.
    pub async fn send_with_retry(
        &self,
        policy: &RetryPolicy,
        repeat: Repeat,
        mut build: impl FnMut() -> Result<Request, HttpError>,
    ) -> Result<Response, HttpError> {
        let repeatable = AtomicBool::new(false);
        let judge = |outcome: &Result<Response, HttpError>| {
            if !repeatable.load(Ordering::Relaxed) || !is_transient(outcome) {
                return Verdict::Final;
            }
            let asked = outcome.as_ref().ok().and_then(asked_wait);
            if let (Some(wait), Ok(response)) = (asked, outcome) {
                self.pauses.asked(response.url(), wait.min(policy.cap), Instant::now());
            }
            Verdict::Transient(asked)
        };
        retry(policy, judge, || {
            let request = build();
            let may = request.as_ref().is_ok_and(|r| may_repeat(repeat, r.method()));
            repeatable.store(may, Ordering::Relaxed);
            async {
                let request = request?;
                self.pauses.wait(request.url(), policy.cap).await;
                self.send(request).await
            }
        })
        .await
    }
}

fn is_transient(outcome: &Result<Response, HttpError>) -> bool {
    match outcome {
        Ok(response) => matches!(
            response.status(),
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        ),
        Err(error) => error.is_transient(),
    }
}

fn may_repeat(repeat: Repeat, method: &Method) -> bool {
    repeat == Repeat::Always || method.is_idempotent()
}

/// The wait that an answer asks for by its `Retry-After`.
pub fn asked_wait(response: &Response) -> Option<Duration> {
    let header = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    parse_retry_after(header, jiff::Timestamp::now())
}

/// The wait a `Retry-After` header asks for (RFC 9110, section 10.2.3): seconds, or a date after `now`.
fn parse_retry_after(text: &str, now: jiff::Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
}

/// A number in 0..1 from the system's randomness; good enough to spread retries, for nothing secret.
pub fn random_unit() -> f64 {
    let bits = std::hash::RandomState::new().build_hasher().finish();
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    let unit = (bits >> 11) as f64 / (1_u64 << 53) as f64;
    unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        let now: jiff::Timestamp = "1994-11-06T08:49:37Z".parse().expect("a time");
        for (text, expected) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
        ] {
            assert_eq!(parse_retry_after(text, now), expected.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn a_post_is_repeated_only_when_told() {
        assert!(may_repeat(Repeat::IfIdempotent, &Method::PUT));
        assert!(!may_repeat(Repeat::IfIdempotent, &Method::POST));
        assert!(may_repeat(Repeat::Always, &Method::POST));
    }

    #[test]
    fn random_units_lie_in_range_and_differ() {
        let (a, b) = (random_unit(), random_unit());
        assert!((0.0..1.0).contains(&a) && (0.0..1.0).contains(&b));
        assert!((a - b).abs() > 0.0);
    }
}
