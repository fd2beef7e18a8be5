//! What the proxy counts, and the histogram it counts latency in. Numbers only grow, since the start of the process;
//! whoever wants a rate takes the difference of two snapshots.

use super::table::ListenerKey;
use plimsoll_core::Slot;
use serde::{Deserialize, Serialize};
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Buckets for each power of two of microseconds: a percentile is told to 6 %, which is what two releases are compared by.
const STEPS: u64 = 16;

/// Buckets of a histogram, up to 2^32 µs (71 minutes). Below 16 µs there is one for each.
pub const BUCKETS: usize = 464;

/// Latencies in buckets with fixed bounds, so that histograms of several processes can be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// How many values fell into each bucket; always [`BUCKETS`] of them.
    pub counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS] }
    }
}

impl Histogram {
    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// How many values it holds.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The upper bound, in microseconds, of the bucket that holds the given quantile (0.0 to 1.0). `None` when empty.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank that is off by one in 2^52 requests is in the same bucket"
    )]
    pub fn quantile_us(&self, quantile: f64) -> Option<u64> {
        let total = self.count();
        let rank = ((total as f64 * quantile.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        self.counts
            .iter()
            .position(|n| {
                seen += n;
                seen >= rank
            })
            .filter(|_| total > 0)
            .map(upper_bound_us)
    }
}

/// The first value, in microseconds, above the bucket `index`: 1, 2, 3 … 16, 17 … 32, 34, 36 … 64, 68 …
pub fn upper_bound_us(index: usize) -> u64 {
    let (octave, step) = (index as u64 / STEPS, index as u64 % STEPS);
    match octave.checked_sub(1) {
        None => step + 1,
        Some(octave) => (STEPS + step + 1) << octave,
    }
}

fn bucket(us: u64) -> usize {
    let index = match us.checked_ilog2() {
        Some(exponent) if us >= STEPS => {
            let octave = u64::from(exponent) - u64::from(STEPS.ilog2());
            (octave + 1) * STEPS + ((us >> octave) - STEPS)
        }
        _ => us,
    };
    usize::try_from(index).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

/// What was counted for one slot of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStats {
    /// The environment and the service.
    pub key: ListenerKey,
    /// The slot.
    pub slot: Slot,
    /// Requests and upgraded connections in flight now.
    pub in_flight: u64,
    /// The upgraded connections among them.
    pub upgraded: u64,
    /// Requests that ended: with a response, or because the client went away.
    pub requests: u64,
    /// Those of them marked as probes.
    pub probe_requests: u64,
    /// Ended requests by class of status: 1xx, 2xx, 3xx, 4xx, 5xx.
    pub classes: [u64; 5],
    /// The 5xx among real (not probe) requests.
    pub real_errors: u64,
    /// Connections to a replica that could not be made.
    pub connect_failures: u64,
    /// Requests sent to a replica once more.
    pub retries: u64,
    /// Requests that may have reached a replica, got no answer and could not be sent again (502).
    pub lost: u64,
    /// Responses broken off after their head was sent.
    pub aborted: u64,
    /// Requests whose client went away first (499), counted with 4xx too.
    pub client_gone: u64,
    /// Time to the response head of real requests.
    pub real: Histogram,
    /// Time to the response head of probe requests.
    pub probe: Histogram,
}

/// The live form of [`SlotStats`].
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) in_flight: AtomicU64,
    pub(crate) upgraded: AtomicU64,
    pub(crate) connect_failures: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) aborted: AtomicU64,
    client_gone: AtomicU64,
    probe_requests: AtomicU64,
    real_errors: AtomicU64,
    classes: [AtomicU64; 5],
    real: [AtomicU64; BUCKETS],
    probe: [AtomicU64; BUCKETS],
}

impl Default for Counters {
    fn default() -> Self {
        let zero = |_| AtomicU64::new(0);
        Self {
            in_flight: AtomicU64::new(0),
            upgraded: AtomicU64::new(0),
            connect_failures: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            aborted: AtomicU64::new(0),
            client_gone: AtomicU64::new(0),
            probe_requests: AtomicU64::new(0),
            real_errors: AtomicU64::new(0),
            classes: std::array::from_fn(zero),
            real: std::array::from_fn(zero),
            probe: std::array::from_fn(zero),
        }
    }
}

impl Counters {
    /// Counts a request that ended with `status`, whose head took `latency`.
    pub(crate) fn ended(&self, status: u16, probe: bool, latency: Duration) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.classes[class].fetch_add(1, Relaxed);
        if probe {
            self.probe_requests.fetch_add(1, Relaxed);
        } else if class == 4 {
            self.real_errors.fetch_add(1, Relaxed);
        }
        if status == 499 {
            self.client_gone.fetch_add(1, Relaxed);
            return;
        }
        let index = bucket(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        let histogram = if probe { &self.probe } else { &self.real };
        histogram[index].fetch_add(1, Relaxed);
    }

    pub(crate) fn snapshot(&self, key: ListenerKey, slot: Slot) -> SlotStats {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        let histogram = |counts: &[AtomicU64; BUCKETS]| Histogram { counts: counts.iter().map(read).collect() };
        let classes: [u64; 5] = std::array::from_fn(|i| read(&self.classes[i]));
        SlotStats {
            key,
            slot,
            in_flight: read(&self.in_flight),
            upgraded: read(&self.upgraded),
            requests: classes.iter().sum(),
            probe_requests: read(&self.probe_requests),
            classes,
            real_errors: read(&self.real_errors),
            connect_failures: read(&self.connect_failures),
            retries: read(&self.retries),
            lost: read(&self.lost),
            aborted: read(&self.aborted),
            client_gone: read(&self.client_gone),
            real: histogram(&self.real),
            probe: histogram(&self.probe),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_below_the_bound_of_its_bucket_and_not_below_the_one_before() {
        for us in (0..5000).chain([65_535, 65_536, 69_631, 69_632, 1 << 31, (1 << 32) - 1]) {
            let index = bucket(us);
            assert!(us < upper_bound_us(index), "{us} in {index}");
            assert!(index == 0 || us >= upper_bound_us(index - 1), "{us} in {index}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn merged_histograms_give_the_quantile_of_both() {
        let counters = Counters::default();
        (0..90).for_each(|_| counters.ended(200, false, Duration::from_micros(100)));
        (0..10).for_each(|_| counters.ended(500, true, Duration::from_millis(9)));
        let stats = counters.snapshot("production/api".parse().unwrap(), Slot::Blue);
        assert_eq!((stats.requests, stats.probe_requests, stats.real_errors), (100, 10, 0));
        assert_eq!(stats.classes, [0, 90, 0, 0, 10]);
        let mut both = stats.real.clone();
        both.merge(&stats.probe);
        assert_eq!(both.quantile_us(0.5), Some(100 + 4));
        assert_eq!(both.quantile_us(0.99), Some(9216));
        assert_eq!(Histogram::default().quantile_us(0.5), None);
    }

    #[test]
    fn a_client_that_went_away_is_counted_but_not_timed() {
        let counters = Counters::default();
        counters.ended(499, false, Duration::from_secs(1));
        let stats = counters.snapshot("production/api".parse().unwrap(), Slot::Green);
        assert_eq!((stats.client_gone, stats.classes[3], stats.real.count()), (1, 1, 0));
    }
}
