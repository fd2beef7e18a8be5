//! What was answered to real traffic and to probes, counted by whoever saw it. Pure.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Counters of a slot, of each source apart: one that starts anew or goes away must not hide what others counted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// The sources by name, such as `proxy` or the name of a pod. Their counters only grow while they live.
    pub sources: BTreeMap<String, Probed>,
}

/// Traffic of a slot, probe requests counted apart from real ones.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Probed {
    /// Real requests.
    pub real: SlotTraffic,
    /// Requests that carried the probe header.
    pub probe: SlotTraffic,
}

/// Requests and how they were answered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SlotTraffic {
    /// Requests answered.
    pub requests: u64,
    /// Of those, with a status of 500 or above, or with no answer at all.
    pub failed: u64,
    /// Time to the answer's head.
    pub latency: Histogram,
    /// Requests under way now.
    pub in_flight: u64,
}

/// A latency histogram that can be added up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Histogram {
    /// How many values each bucket holds, by its upper bound in microseconds; `u64::MAX` stands for no bound. A bucket
    /// begins where the one before ends, so an empty one before a filled one is named too.
    pub counts: BTreeMap<u64, u64>,
}

impl Traffic {
    /// What one source counted.
    pub fn of(source: impl Into<String>, counted: Probed) -> Self {
        Self { sources: BTreeMap::from([(source.into(), counted)]) }
    }

    /// What all sources counted together.
    pub fn total(&self) -> Probed {
        let mut total = Probed::default();
        for counted in self.sources.values() {
            total.real.add(&counted.real);
            total.probe.add(&counted.probe);
        }
        total
    }

    /// What was counted after `before`, of the sources that were there and still count. What a source says that is new, or
    /// counts less than it did, may be older than `before`: it counts from the next time on.
    pub fn since(&self, before: &Self) -> Self {
        let one = |(name, now): (&String, &Probed)| {
            let base = before.sources.get(name).filter(|base| now.follows(base))?;
            Some((name.clone(), now.since(base)))
        };
        Self { sources: self.sources.iter().filter_map(one).collect() }
    }
}

impl Probed {
    /// Whether these counters may have grown from `before`.
    fn follows(&self, before: &Self) -> bool {
        let grew = |now: &SlotTraffic, then: &SlotTraffic| now.requests >= then.requests && now.failed >= then.failed;
        grew(&self.real, &before.real) && grew(&self.probe, &before.probe)
    }

    fn since(&self, before: &Self) -> Self {
        Self { real: self.real.since(&before.real), probe: self.probe.since(&before.probe) }
    }
}

impl SlotTraffic {
    /// Adds what another source counted.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.in_flight += other.in_flight;
        self.latency.add(&other.latency);
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            failed: self.failed.saturating_sub(before.failed),
            latency: self.latency.since(&before.latency),
            in_flight: self.in_flight,
        }
    }
}

impl Histogram {
    /// From buckets that each hold all values up to their bounds, in microseconds; the last one has the bound `u64::MAX`.
    pub fn from_cumulative(buckets: impl IntoIterator<Item = (u64, u64)>) -> Result<Self, String> {
        let sorted: BTreeMap<u64, u64> = buckets.into_iter().collect();
        if !sorted.contains_key(&u64::MAX) {
            return Err("no bucket le=\"+Inf\"".to_owned());
        }
        let (mut counts, mut below) = (BTreeMap::new(), 0);
        for (bound, count) in sorted {
            let own = count.checked_sub(below).ok_or("a bucket that holds less than the one in it")?;
            counts.insert(bound, own);
            below = count;
        }
        Ok(Self { counts })
    }

    /// Adds the counts of `other`; exact where both have the same bounds.
    pub fn add(&mut self, other: &Self) {
        for (bound, count) in &other.counts {
            *self.counts.entry(*bound).or_default() += count;
        }
    }

    /// What was counted after `base`.
    pub fn since(&self, base: &Self) -> Self {
        let before = |bound: &u64| base.counts.get(bound).copied().unwrap_or(0);
        Self { counts: self.counts.iter().map(|(bound, n)| (*bound, n.saturating_sub(before(bound)))).collect() }
    }

    /// How many values it holds.
    pub fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The `percent`-th percentile in microseconds, the values of a bucket thought to lie evenly in it; `None` when empty.
    /// Of a bucket without an upper bound it is the lower one.
    pub fn quantile_us(&self, percent: u64) -> Option<u64> {
        let rank = (self.count() * percent).div_ceil(100).max(1);
        let (mut seen, mut low) = (0, 0);
        for (bound, count) in &self.counts {
            if seen + count >= rank {
                let width = if *bound == u64::MAX { 0 } else { bound - low };
                return Some(low + portion(width, rank - seen, *count));
            }
            (seen, low) = (seen + count, *bound);
        }
        None
    }

    /// The same in milliseconds, rounded up; 0 when empty.
    pub fn quantile_ms(&self, percent: u64) -> u64 {
        self.quantile_us(percent).unwrap_or(0).div_ceil(1000)
    }

    /// How many values may lie above `us`, and how many there are.
    pub fn above(&self, us: u64) -> (u64, u64) {
        let (mut above, mut low) = (0, 0);
        for (bound, count) in &self.counts {
            if low >= us || *bound == u64::MAX {
                above += count;
            } else if *bound > us {
                above += portion(*count, bound - us, bound - low);
            }
            low = *bound;
        }
        (above, self.count())
    }
}

/// `of * part / whole`, rounded up.
fn portion(of: u64, part: u64, whole: u64) -> u64 {
    let product = u128::from(of) * u128::from(part);
    u64::try_from(product.div_ceil(u128::from(whole.max(1)))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: &[(u64, u64)]) -> Histogram {
        Histogram { counts: counts.iter().copied().collect() }
    }

    fn counted(requests: u64, failed: u64) -> Probed {
        Probed { real: SlotTraffic { requests, failed, ..SlotTraffic::default() }, ..Probed::default() }
    }

    #[test]
    fn a_percentile_lies_within_its_bucket_and_counts_only_what_came_after() {
        let before = histogram(&[(1000, 5), (2000, 0), (4000, 0)]);
        let now = histogram(&[(1000, 5), (2000, 50), (4000, 50)]);
        let since = now.since(&before);
        assert_eq!((since.count(), since.quantile_us(50), since.quantile_us(99)), (100, Some(2000), Some(3960)));
        assert_eq!((Histogram::default().quantile_us(99), Histogram::default().quantile_ms(99)), (None, 0));
        assert_eq!(histogram(&[(1000, 0), (u64::MAX, 3)]).quantile_us(99), Some(1000));
    }

    #[test]
    fn what_lies_above_a_bound_is_never_told_too_low() {
        let all = histogram(&[(1000, 10), (2000, 10), (u64::MAX, 1)]);
        assert_eq!(all.above(0), (21, 21));
        assert_eq!(all.above(1500), (6, 21));
        assert_eq!(all.above(1999), (2, 21));
        // Nothing is known of how far a bucket without a bound reaches.
        assert_eq!(all.above(5_000_000), (1, 21));
    }

    #[test]
    fn a_source_that_is_new_or_started_anew_hides_nothing_and_counts_from_the_next_time_on() {
        let traffic = |of: &[(&str, u64, u64)]| {
            let sources = of.iter().map(|(name, requests, failed)| ((*name).to_owned(), counted(*requests, *failed)));
            Traffic { sources: sources.collect() }
        };
        let before = traffic(&[("a", 100, 1), ("b", 50, 0), ("c", 10, 0)]);
        let now = traffic(&[("a", 150, 3), ("b", 7, 1), ("d", 3000, 300)]);
        let since = now.since(&before).total().real;
        assert_eq!((since.requests, since.failed), (50, 2));
    }

    #[test]
    fn buckets_that_hold_all_below_them_become_buckets_of_their_own() {
        let told = Histogram::from_cumulative([(5000, 10), (10_000, 10), (u64::MAX, 12)]).unwrap();
        assert_eq!(told.counts, BTreeMap::from([(5000, 10), (10_000, 0), (u64::MAX, 2)]));
        assert!(Histogram::from_cumulative([(5000, 10), (u64::MAX, 9)]).unwrap_err().contains("holds less"));
        assert!(Histogram::from_cumulative([(5000, 10)]).unwrap_err().contains("no bucket"));
    }
}
