//! Real requests to the target in memory: as many as there must have been since somebody last looked.

use super::{Fault, State};
use crate::traffic::{Histogram, Probed};
use plimsoll_core::{ServiceName, Slot};
use std::collections::BTreeMap;
use tokio::time::Instant;

pub(super) struct Load {
    per_second: u64,
    since: Instant,
    /// Requests to each service so far, and probes of all.
    came: u64,
    asked: u64,
    counted: BTreeMap<(ServiceName, Slot), Probed>,
}

impl Load {
    pub(super) fn new() -> Self {
        Self { per_second: 0, since: Instant::now(), came: 0, asked: 0, counted: BTreeMap::new() }
    }

    /// So many requests a second to each service, from now on.
    pub(super) fn set(&mut self, per_second: u64) {
        (self.per_second, self.since) = (per_second, Instant::now());
    }

    pub(super) fn of(&self, service: &ServiceName, slot: Slot) -> Probed {
        self.counted.get(&(service.clone(), slot)).cloned().unwrap_or_default()
    }
}

/// Whether the `n`th request goes to the slot with the share: as the proxy does it, each hundred are shared exactly.
fn is_shared(n: u64, share: u8) -> bool {
    (n * 37) % 100 < u64::from(share)
}

impl State {
    /// The slot that answers a probe at the public URL, which is counted.
    pub(super) fn answering(&mut self, name: &ServiceName) -> Option<Slot> {
        self.load.asked += 1;
        let service = self.services.get(name)?;
        let live = service.live?;
        // Every other probe of a service comes by the node that may be slow.
        let of = |slot| self.load.counted.get(&(name.clone(), slot)).map_or(0, |counted| counted.probe.requests);
        let nth = of(Slot::Blue) + of(Slot::Green);
        let late = |fault: &Fault| match (fault, service.left) {
            (Fault::SlowNode(by), Some((left, at))) if at.elapsed() < *by && nth.is_multiple_of(2) => Some(left),
            _ => None,
        };
        let selected = self.faults.iter().find_map(late).unwrap_or(live);
        let slot = if is_shared(self.load.asked, service.share) { live.other() } else { selected };
        self.load.counted.entry((name.clone(), slot)).or_default().probe.requests += 1;
        Some(slot)
    }

    /// Answers the requests that came since the last time, by the shares that are in effect.
    pub(super) fn count(&mut self) {
        let millis = u64::try_from(self.load.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let new = millis.saturating_mul(self.load.per_second) / 1000;
        // What is left of a request waits for the next time.
        if new == 0 && self.load.per_second > 0 {
            return;
        }
        let numbers = self.load.came..self.load.came + new;
        (self.load.since, self.load.came) = (Instant::now(), numbers.end);
        for (name, service) in &self.services {
            let Some(live) = service.live else { continue };
            let shared = numbers.clone().filter(|n| is_shared(*n, service.share)).count() as u64;
            for (slot, requests) in [(live, new - shared), (live.other(), shared)] {
                let Some(stands) = service.slots.get(&slot) else { continue };
                let one_in = self.faults.iter().find_map(|fault| match fault {
                    Fault::FailsOneIn(version, n) if *version == stands.version => Some(*n),
                    _ => None,
                });
                let counted = &mut self.load.counted.entry((name.clone(), slot)).or_default().real;
                let before = counted.requests;
                counted.requests += requests;
                counted.failed += one_in.map_or(0, |n| counted.requests / n - before / n);
                counted.latency.add(&Histogram { counts: BTreeMap::from([(1000, 0), (2000, requests)]) });
            }
        }
    }
}
