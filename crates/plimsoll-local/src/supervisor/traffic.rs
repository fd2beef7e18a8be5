//! A slot's counters, as the proxy keeps them.

use crate::{
    proxy::{self, SlotStats},
    supervisor::{core::Supervisor, place::SlotKey, protocol::broken},
};
use plimsoll_deploy::{Histogram, Probed, SlotTraffic, TargetError, Traffic};
use std::collections::BTreeMap;

/// The traffic of a slot, as this proxy counted it since it began. Another one counts anew, under its own name.
pub(crate) async fn of(supervisor: &Supervisor, key: &SlotKey) -> Result<Traffic, TargetError> {
    let (proxy, current) = counters(supervisor, key).await?;
    Ok(Traffic::of(format!("proxy {proxy}"), current.as_ref().map(probed).unwrap_or_default()))
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

fn probed(stats: &SlotStats) -> Probed {
    let probe = SlotTraffic {
        requests: stats.probe_requests,
        failed: stats.classes[4].saturating_sub(stats.real_errors),
        latency: bounded(&stats.probe),
        in_flight: 0,
    };
    let real = SlotTraffic {
        requests: stats.requests.saturating_sub(stats.probe_requests),
        failed: stats.real_errors,
        latency: bounded(&stats.real),
        in_flight: stats.in_flight,
    };
    Probed { real, probe }
}

/// The proxy's buckets by their bounds, without the empty ones but for those that say where a filled one begins.
fn bounded(counted: &proxy::Histogram) -> Histogram {
    let mut counts = BTreeMap::new();
    for (i, count) in counted.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        if i > 0 {
            counts.entry(proxy::upper_bound_us(i - 1)).or_insert(0);
        }
        counts.insert(proxy::upper_bound_us(i), *count);
    }
    Histogram { counts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_told_by_their_bounds() {
        let mut histogram = proxy::Histogram::default();
        for (i, n) in [(0, 1), (40, 5), (41, 2)] {
            histogram.counts[i] = n;
        }
        let bound = proxy::upper_bound_us;
        let told = bounded(&histogram);
        assert_eq!(told.counts, BTreeMap::from([(bound(0), 1), (bound(39), 0), (bound(40), 5), (bound(41), 2)]));
        assert_eq!(bounded(&proxy::Histogram::default()), Histogram::default());
    }
}
