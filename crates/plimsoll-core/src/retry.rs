//! When to try again: one policy for every effect and every request. Pure: clock and randomness are passed in.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Exponential backoff with full jitter, bounded in attempts, in the length of one wait and in total time.
///
/// ```
/// # use plimsoll_core::{RetryDecision, RetryPolicy};
/// # use std::time::Duration;
/// let policy = RetryPolicy::default();
/// assert_eq!(policy.decide(policy.attempts, Duration::ZERO, 0.5, None), RetryDecision::GiveUp);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// How often something is tried at most, the first time included.
    pub attempts: u32,
    /// The upper bound of the first wait.
    pub base: Duration,
    /// What that bound is multiplied with for each further wait; at least 1.
    pub factor: f64,
    /// The upper bound of every wait, also of one the other side asked for.
    pub cap: Duration,
    /// The time that all attempts and waits together may take.
    pub budget: Duration,
}

/// What to do after an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// Try again after this wait.
    After(Duration),
    /// The attempts or the time are used up.
    GiveUp,
}

impl Default for RetryPolicy {
    /// Five attempts within a minute: long enough for a registry's restart, short enough for a person who waits.
    fn default() -> Self {
        Self {
            attempts: 5,
            base: Duration::from_millis(200),
            factor: 2.0,
            cap: Duration::from_secs(10),
            budget: Duration::from_mins(1),
        }
    }
}

impl RetryPolicy {
    /// A policy that tries once.
    pub const fn once() -> Self {
        Self { attempts: 1, base: Duration::ZERO, factor: 1.0, cap: Duration::ZERO, budget: Duration::MAX }
    }

    /// Decides after attempt number `attempt` (the first is 1) failed `elapsed` after the first one began.
    ///
    /// `jitter` lies in 0..1 and spreads the wait over its whole range ("full jitter"). `retry_after` is what the
    /// other side asked for; it is waited for in full, up to [`cap`](Self::cap).
    pub fn decide(&self, attempt: u32, elapsed: Duration, jitter: f64, retry_after: Option<Duration>) -> RetryDecision {
        if attempt >= self.attempts {
            return RetryDecision::GiveUp;
        }
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let bound = (self.base.as_secs_f64() * self.factor.max(1.0).powi(exponent)).min(self.cap.as_secs_f64());
        let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 1.0 };
        let own = Duration::try_from_secs_f64(bound * jitter).unwrap_or(self.cap);
        let wait = own.max(retry_after.unwrap_or_default()).min(self.cap);
        if elapsed.saturating_add(wait) > self.budget { RetryDecision::GiveUp } else { RetryDecision::After(wait) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        attempts: 4,
        base: Duration::from_millis(100),
        factor: 3.0,
        cap: Duration::from_millis(500),
        budget: Duration::from_secs(10),
    };

    fn check(attempt: u32, elapsed: u64, jitter: f64, retry_after: Option<u64>, expected: Option<u64>) {
        let decision =
            POLICY.decide(attempt, Duration::from_millis(elapsed), jitter, retry_after.map(Duration::from_millis));
        let expected = expected.map_or(RetryDecision::GiveUp, |ms| RetryDecision::After(Duration::from_millis(ms)));
        assert_eq!(decision, expected, "attempt {attempt}, {elapsed} ms, jitter {jitter}, asked {retry_after:?}");
    }

    #[test]
    fn waits_grow_up_to_the_cap() {
        check(1, 0, 1.0, None, Some(100));
        check(2, 0, 1.0, None, Some(300));
        check(3, 0, 1.0, None, Some(500));
    }

    #[test]
    fn jitter_spreads_a_wait_over_its_whole_range() {
        check(2, 0, 0.0, None, Some(0));
        check(2, 0, 0.5, None, Some(150));
        check(2, 0, f64::NAN, None, Some(300));
    }

    #[test]
    fn what_the_other_side_asks_for_is_honoured_up_to_the_cap() {
        check(1, 0, 0.0, Some(250), Some(250));
        check(1, 0, 0.0, Some(60_000), Some(500));
    }

    #[test]
    fn attempts_and_time_are_bounded() {
        check(4, 0, 1.0, None, None);
        check(u32::MAX, 0, 1.0, Some(1), None);
        check(1, 9_950, 1.0, None, None);
        check(1, 9_900, 1.0, None, Some(100));
    }

    #[test]
    fn extreme_values_do_not_overflow() {
        let wild = RetryPolicy { attempts: u32::MAX, base: Duration::MAX, factor: f64::MAX, ..POLICY };
        assert_eq!(wild.decide(u32::MAX - 1, Duration::ZERO, 1.0, None), RetryDecision::After(POLICY.cap));
        assert_eq!(RetryPolicy::once().decide(1, Duration::ZERO, 1.0, None), RetryDecision::GiveUp);
    }
}
