//! What the target in memory holds: environments, slots, records. It knows nothing of the trait.

use super::{Fault, HISTORY, load::Load, refused};
use crate::{
    observation::{LockView, ReleaseRecord, ServiceRecord, SlotView, Switched},
    spec::{Activation, ServiceSpec},
    target::{CutOver, TargetError},
};
use plimsoll_core::{Generation, ServiceName, Slot, Timestamp};
use std::collections::BTreeMap;
use tokio::time::Instant;

pub(super) struct State {
    pub(super) born: Instant,
    pub(super) generation: Generation,
    pub(super) live: Option<ReleaseRecord>,
    pub(super) history: Vec<ReleaseRecord>,
    pub(super) services: BTreeMap<ServiceName, Service>,
    pub(super) stopped: bool,
    pub(super) switched: Option<Switched>,
    pub(super) lock: Option<(LockView, Instant)>,
    pub(super) faults: Vec<Fault>,
    pub(super) calls: Vec<String>,
    pub(super) load: Load,
    /// The states of services, each a word.
    pub(super) kept: BTreeMap<ServiceName, String>,
}

#[derive(Default)]
pub(super) struct Service {
    pub(super) live: Option<Slot>,
    /// The slot that was live before, and until when.
    pub(super) left: Option<(Slot, Instant)>,
    pub(super) slots: BTreeMap<Slot, Stands>,
    /// The share of the requests that the standby slot gets, in percent.
    pub(super) share: u8,
}

pub(super) struct Stands {
    pub(super) spec: ServiceSpec,
    pub(super) version: String,
    pub(super) ready_at: Option<Instant>,
    pub(super) ends_at: Option<Instant>,
    /// From when on it has only half its replicas.
    pub(super) half_at: Option<Instant>,
    pub(super) crashes: u32,
    pub(super) active: Option<Generation>,
}

impl Stands {
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        self.ready_at.is_some_and(|at| at <= now) && !self.has_ended(now)
    }

    pub(super) fn has_ended(&self, now: Instant) -> bool {
        self.ends_at.is_some_and(|at| at <= now)
    }

    pub(super) fn view(&self, slot: Slot, stopped: bool) -> SlotView {
        let now = Instant::now();
        let ready = !stopped && self.is_ready(now);
        let (ended, half) = (self.has_ended(now), self.half_at.is_some_and(|at| at <= now));
        let all = if half { self.spec.replicas / 2 } else { self.spec.replicas };
        let failing = match (ended, half) {
            (true, _) => "it ended with status 101",
            (_, true) => "there is no node for all of its replicas",
            _ => "its health path does not answer 200",
        };
        SlotView {
            slot,
            digest: self.spec.digest.clone(),
            config_hash: self.spec.config_hash,
            version: self.version.clone(),
            replicas: self.spec.replicas,
            ready: if ready { all } else { 0 },
            active: self.active,
            failing: (!ready || half).then(|| failing.to_owned()),
            stuck: false,
            crashes: self.crashes + u32::from(ended),
        }
    }
}

impl State {
    pub(super) fn fault(&mut self, is: impl Fn(&Fault) -> bool) -> Option<&mut Fault> {
        self.faults.iter_mut().find(|f| is(f))
    }

    pub(super) fn take(&mut self, fault: &Fault) -> bool {
        let at = self.faults.iter().position(|f| f == fault);
        at.map(|at| self.faults.remove(at)).is_some()
    }

    pub(super) fn now(&self) -> Timestamp {
        let millis = i64::try_from(self.born.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(1_700_000_000_000_i64.saturating_add(millis))
    }

    /// The slot of each service after the cut-over, if it is allowed.
    pub(super) fn allowed(&self, wish: &CutOver) -> Result<BTreeMap<ServiceName, Slot>, TargetError> {
        let what = || format!("cut over to {}", wish.release.version);
        if self.stopped {
            return Err(refused(what(), "the environment is stopped"));
        }
        let mut slots = BTreeMap::new();
        for spec in &wish.release.services {
            let service = self.services.get(&spec.name);
            let live = service.and_then(|s| s.live);
            let moved = wish.moves.iter().find(|m| m.service == spec.name);
            if moved.is_some_and(|m| m.from != live) {
                return Err(refused(what(), "a service is to move from a slot that is not live"));
            }
            let slot = moved.map(|m| m.to).or(live);
            let stands = slot.and_then(|slot| Some((slot, service?.slots.get(&slot)?)));
            let (slot, stands) = stands.ok_or_else(|| refused(what(), "a service does not stand"))?;
            if !stands.spec.is_same_as(spec) {
                return Err(refused(what(), "a slot runs something else"));
            }
            let view = stands.view(slot, false);
            if moved.is_some() && view.ready < view.replicas {
                let (service, reason) = (spec.name.clone(), "it is not ready".to_owned());
                return Err(TargetError::Slot { service, slot, reason, log_tail: Vec::new() });
            }
            slots.insert(spec.name.clone(), slot);
        }
        Ok(slots)
    }

    pub(super) fn record(&self, wish: &CutOver, slots: BTreeMap<ServiceName, Slot>) -> ReleaseRecord {
        let spec = |name: &ServiceName| wish.release.services.iter().find(|s| s.name == *name).cloned();
        ReleaseRecord {
            version: wish.release.version.clone(),
            revision: wish.release.revision.clone(),
            run: wish.release.run.clone(),
            actor: wish.release.actor.clone(),
            since: self.now(),
            generation: self.generation.next(),
            approval: wish.release.approval.clone(),
            services: slots
                .into_iter()
                .filter_map(|(name, slot)| Some((name.clone(), ServiceRecord { slot, spec: spec(&name)? })))
                .collect(),
        }
    }

    /// What moves ends at `crash`, and has half its replicas from `half` on.
    pub(super) fn commit(
        &mut self,
        record: &ReleaseRecord,
        crash: Option<Instant>,
        half: Option<Instant>,
    ) -> Vec<(ServiceName, u64)> {
        let mut handover = Vec::new();
        self.generation = record.generation;
        if let Some(before) = self.live.replace(record.clone()) {
            self.history.insert(0, before);
            self.history.truncate(HISTORY);
        }
        for (name, service) in &mut self.services {
            service.share = 0;
            let next = record.services.get(name).map(|r| r.slot);
            if next == service.live {
                continue;
            }
            for stands in service.slots.values_mut() {
                stands.active = None;
            }
            service.left = service.live.map(|slot| (slot, Instant::now()));
            service.live = next;
            let Some(stands) = next.and_then(|slot| service.slots.get_mut(&slot)) else { continue };
            (stands.ends_at, stands.half_at) = (crash, half);
            if stands.spec.activation == Activation::Exclusive {
                let refuses = self.faults.contains(&Fault::RefusesActivation(stands.version.clone()));
                stands.active = Some(record.generation).filter(|_| !refuses);
                handover.push((name.clone(), 100));
            }
        }
        handover
    }

    /// Whether each exclusive service works in the slot that is live.
    pub(super) fn all_active(&self) -> Result<(), TargetError> {
        for (name, service) in &self.services {
            let Some((slot, stands)) = service.live.and_then(|slot| Some((slot, service.slots.get(&slot)?))) else {
                continue;
            };
            if stands.spec.activation == Activation::Exclusive && stands.active.is_none() {
                let reason = "it serves, but did not accept its generation".to_owned();
                return Err(TargetError::Slot { service: name.clone(), slot, reason, log_tail: Vec::new() });
            }
        }
        Ok(())
    }
}
