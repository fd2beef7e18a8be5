//! A slot's counters since it was stood up: what the proxy counts, less what it had counted before.

use crate::{
    proxy::{self, SlotStats},
    supervisor::{
        core::{Supervisor, unpoisoned},
        place::SlotKey,
        protocol::broken,
    },
};
use plimsoll_deploy::{Histogram, Probed, SlotTraffic, TargetError, Traffic};
use std::collections::BTreeMap;

/// Where a slot's counters stood in one proxy as it was stood up.
#[derive(Debug, Clone)]
pub(crate) struct Baseline {
    proxy: u32,
    stats: SlotStats,
}

/// Notes where a slot's counters stand as it is stood up.
pub(crate) async fn begin(supervisor: &Supervisor, key: &SlotKey) {
    let before = counters(supervisor, key).await.ok();
    let mut baselines = unpoisoned(&supervisor.baselines);
    match before {
        Some((proxy, Some(stats))) => baselines.insert(key.clone(), Baseline { proxy, stats }),
        _ => baselines.remove(key),
    };
}

/// The traffic of a slot, as this proxy counted it. Another one counts anew, under its own name.
pub(crate) async fn of(supervisor: &Supervisor, key: &SlotKey) -> Result<Traffic, TargetError> {
    let (proxy, current) = counters(supervisor, key).await?;
    let before = unpoisoned(&supervisor.baselines).get(key).filter(|b| b.proxy == proxy).map(|b| b.stats.clone());
    let counted = current.map(|current| since(&current, before.as_ref())).unwrap_or_default();
    Ok(Traffic::of(format!("proxy {proxy}"), counted))
}

/// The proxy's process id, and what it counted of a slot; `None` when it never sent it anything.
async fn counters(supervisor: &Supervisor, key: &SlotKey) -> Result<(u32, Option<SlotStats>), TargetError> {
    let what = "ask the proxy for its counters";
    let proxy = supervisor.state().await.proxy.map(|p| p.pid);
    let (Some(proxy), Some(client)) = (proxy, supervisor.router.client().await) else {
        return Err(broken(what, "it is being started again"));
    };
    let all = client.stats().await.map_err(|e| broken(what, e))?;
    let this =
        |s: &SlotStats| s.key.environment == key.environment && s.key.service == key.service && s.slot == key.slot;
    Ok((proxy, all.into_iter().find(this)))
}

/// The difference of two readings.
fn since(current: &SlotStats, before: Option<&SlotStats>) -> Probed {
    let less = |of: fn(&SlotStats) -> u64| of(current).saturating_sub(before.map_or(0, of));
    let histogram = |of: fn(&SlotStats) -> &proxy::Histogram| bounded(of(current), before.map(of));
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

/// The proxy's buckets by their bounds, without the empty ones but for those that say where a filled one begins.
fn bounded(current: &proxy::Histogram, before: Option<&proxy::Histogram>) -> Histogram {
    let at = |i: usize| {
        let now = current.counts.get(i).copied().unwrap_or(0);
        now.saturating_sub(before.and_then(|b| b.counts.get(i)).copied().unwrap_or(0))
    };
    let mut counts = BTreeMap::new();
    for (i, count) in (0..current.counts.len()).map(|i| (i, at(i))).filter(|(_, count)| *count > 0) {
        if i > 0 {
            counts.entry(proxy::upper_bound_us(i - 1)).or_insert(0);
        }
        counts.insert(proxy::upper_bound_us(i), count);
    }
    Histogram { counts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_told_by_their_bounds_and_the_reading_before_is_taken_off() {
        let histogram = |filled: &[(usize, u64)]| {
            let mut histogram = proxy::Histogram::default();
            for (i, n) in filled {
                histogram.counts[*i] = *n;
            }
            histogram
        };
        let bound = proxy::upper_bound_us;
        let told = bounded(&histogram(&[(0, 1), (40, 5), (41, 2)]), Some(&histogram(&[(40, 4)])));
        assert_eq!(told.counts, BTreeMap::from([(bound(0), 1), (bound(39), 0), (bound(40), 1), (bound(41), 2)]));
        assert_eq!(bounded(&histogram(&[]), None), Histogram::default());
    }
}
