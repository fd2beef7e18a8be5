//! A slot's counters since it was stood up: what the proxy counts, less what it had counted before.

use crate::{
    proxy::{self, SlotStats},
    supervisor::{
        core::{Supervisor, unpoisoned},
        place::SlotKey,
        protocol::broken,
    },
};
use plimsoll_deploy::{Histogram, Probed, SlotTraffic, TargetError};

/// Notes where a slot's counters stand as it is stood up.
pub(crate) async fn begin(supervisor: &Supervisor, key: &SlotKey) {
    let before = counters(supervisor, key).await.ok().flatten();
    let mut baselines = unpoisoned(&supervisor.baselines);
    match before {
        Some(before) => baselines.insert(key.clone(), before),
        None => baselines.remove(key),
    };
}

/// The traffic of a slot.
pub(crate) async fn of(supervisor: &Supervisor, key: &SlotKey) -> Result<Probed, TargetError> {
    let Some(current) = counters(supervisor, key).await? else { return Ok(Probed::default()) };
    let before = unpoisoned(&supervisor.baselines).get(key).cloned();
    Ok(since(&current, before.as_ref()))
}

async fn counters(supervisor: &Supervisor, key: &SlotKey) -> Result<Option<SlotStats>, TargetError> {
    let Some(client) = supervisor.router.client().await else { return Ok(None) };
    let all = client.stats().await.map_err(|e| broken("ask the proxy for its counters", e))?;
    let this =
        |s: &SlotStats| s.key.environment == key.environment && s.key.service == key.service && s.slot == key.slot;
    Ok(all.into_iter().find(this))
}

/// The difference of two readings. A proxy that was started in between counts from 0, and then the reading before
/// says nothing.
fn since(current: &SlotStats, before: Option<&SlotStats>) -> Probed {
    let before = before.filter(|b| b.requests <= current.requests);
    let less = |of: fn(&SlotStats) -> u64| of(current).saturating_sub(before.map_or(0, of));
    let histogram = |of: fn(&SlotStats) -> &proxy::Histogram| halves(of(current), before.map(of));
    let probes = less(|s| s.probe_requests);
    let (errors, real_errors) = (less(|s| s.classes[4]), less(|s| s.real_errors));
    Probed {
        real: SlotTraffic {
            requests: less(|s| s.requests).saturating_sub(probes),
            failed: real_errors,
            latency: histogram(|s| &s.real),
            in_flight: current.in_flight,
        },
        probe: SlotTraffic {
            requests: probes,
            failed: errors.saturating_sub(real_errors),
            latency: histogram(|s| &s.probe),
            in_flight: 0,
        },
    }
}

/// The proxy's buckets, two per power of two, as one per power of two, without the empty ones at the end.
fn halves(current: &proxy::Histogram, before: Option<&proxy::Histogram>) -> Histogram {
    let at = |i: usize| {
        let now = current.counts.get(i).copied().unwrap_or(0);
        now.saturating_sub(before.and_then(|b| b.counts.get(i)).copied().unwrap_or(0))
    };
    let mut buckets: Vec<u64> = (0..current.counts.len().div_ceil(2)).map(|i| at(2 * i) + at(2 * i + 1)).collect();
    buckets.truncate(buckets.iter().rposition(|n| *n > 0).map_or(0, |last| last + 1));
    Histogram { buckets }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_buckets_become_one_and_the_reading_before_is_taken_off() {
        let histogram = |counts: &[u64]| proxy::Histogram { counts: counts.to_vec() };
        assert_eq!(halves(&histogram(&[1, 2, 3, 4, 0, 5, 0, 0]), None).buckets, [3, 7, 5]);
        assert_eq!(halves(&histogram(&[1, 2, 3, 4]), Some(&histogram(&[1, 2, 3, 3]))).buckets, [0, 1]);
        assert_eq!(halves(&histogram(&[]), None).buckets, [0_u64; 0]);
    }
}
