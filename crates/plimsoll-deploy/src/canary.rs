//! A canary: a release gets a growing share of the requests, is compared with what serves, and takes over, or gives its
//! share back. Pure.
//!
//! The comparison is a sequential test: it may be looked at after every request, and as often as one likes, and is wrong
//! no more often than the policy allows. It goes by confidence sequences ([`bounds`]) for the share of failed requests of
//! either slot, and for the share of the new slot's requests that are slower than the 99th percentile of the live one, as
//! measured, with the allowance on top. All of them hold together, for all services, at all times, with the stated
//! confidence, if requests fail independently of each other.
//!
//! Nothing is not success: without enough requests, or without numbers, the verdict is to hold.

mod judging;
mod sequence;

pub use judging::{Answers, CanaryStep, Compared, Judgement, Trial, judge};
pub use sequence::bounds;

use plimsoll_core::ServiceName;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How a release is tried before it takes over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    /// The shares of the requests, in percent, one after the other.
    pub steps: Vec<u8>,
    /// Which services get a share; empty: each that changes and takes traffic. Workers of which one works never do.
    pub services: Vec<ServiceName>,
    /// How long each step takes at least.
    pub step: Duration,
    /// How long all of them may take together, waiting for requests included; then the share is given back.
    pub hold: Duration,
    /// By how many percentage points more of the requests may fail than at the live slot.
    pub max_error_diff_pp: f64,
    /// By how many milliseconds the 99th percentile may be longer than the live slot's.
    pub max_p99_diff_ms: u64,
    /// How many times the live slot's share of failed requests is too much, if it is more than the difference that may be.
    pub abort_error_ratio: f64,
    /// Which share of failed requests is too much, in percent, whatever the live slot does.
    pub abort_error_pct: f64,
    /// How often the verdict may be wrong, from 0 to 1.
    pub error_rate: f64,
    /// Real requests that each step needs at the new slot, and the comparison at both.
    pub min_requests: u64,
    /// Whether probes count as real requests. The report says so.
    pub count_probes: bool,
    /// Between two looks at the numbers.
    pub interval: Duration,
}

impl Default for Canary {
    fn default() -> Self {
        Self {
            steps: vec![5, 25, 50],
            services: Vec::new(),
            step: Duration::from_mins(1),
            hold: Duration::from_hours(1),
            max_error_diff_pp: 0.5,
            max_p99_diff_ms: 10,
            abort_error_ratio: 2.0,
            abort_error_pct: 5.0,
            error_rate: 0.05,
            min_requests: 100,
            count_probes: false,
            interval: Duration::from_millis(500),
        }
    }
}

impl Canary {
    /// The share after `passed`, if there is one more step.
    pub fn next_step(&self, passed: u8) -> Option<u8> {
        self.steps.iter().copied().find(|share| *share > passed)
    }

    /// Whether no step comes after this one.
    pub fn is_last(&self, share: u8) -> bool {
        self.next_step(share).is_none()
    }
}
