//! What an observer is shown: the durable state with what the keepers know now.

use crate::supervisor::{
    core::{Supervisor, url},
    place::{ReplicaKey, SlotKey},
    replica::Status,
    state::{EnvironmentState, ServiceState, SlotState},
};
use plimsoll_core::{EnvironmentName, ServiceName, Slot};
use plimsoll_deploy::{Activation, Observation, ServiceView, SlotView};

/// One look at an environment.
pub(crate) async fn observe(supervisor: &Supervisor, name: &EnvironmentName) -> Observation {
    show(name, supervisor.environment(name).await, &|key| supervisor.statuses(key))
}

/// The durable state of an environment, with what is known of its replicas.
pub(crate) fn show(
    name: &EnvironmentName,
    environment: EnvironmentState,
    statuses: &dyn Fn(&SlotKey) -> Vec<Status>,
) -> Observation {
    let EnvironmentState { generation, live, history, stopped, switched, lock, services } = environment;
    let service = |(service, of): (&ServiceName, &ServiceState)| {
        let view = |slot: Slot| {
            let key = SlotKey { environment: name.clone(), service: service.clone(), slot };
            of.slots.get(&slot).map(|stands| slot_view(slot, stands, &statuses(&key)))
        };
        let standby = match of.live {
            Some(live) => view(live.other()),
            None => view(Slot::Blue).or_else(|| view(Slot::Green)),
        };
        let (live, url) = (of.live.and_then(view), of.public_port.map(url));
        (service.clone(), ServiceView { live, standby, share: of.share, url })
    };
    let services = services.iter().map(service).collect();
    Observation {
        environment: name.clone(),
        generation,
        live,
        history,
        services,
        stopped,
        switched,
        lock,
        drift: Vec::new(),
    }
}

/// What stands in one slot.
pub(crate) fn slot_view(slot: Slot, stands: &SlotState, statuses: &[Status]) -> SlotView {
    let ready = statuses.iter().filter(|s| s.ready).count();
    let exclusive = stands.spec.activation == Activation::Exclusive;
    let crashes: u32 = statuses.iter().map(|s| s.crashes).sum();
    SlotView {
        slot,
        digest: stands.spec.digest.clone(),
        config_hash: stands.spec.config_hash,
        version: stands.stamp.version.clone(),
        replicas: stands.spec.replicas,
        ready: u16::try_from(ready).unwrap_or(u16::MAX),
        active: if exclusive { statuses.iter().filter_map(|s| s.active).max() } else { None },
        failing: statuses.iter().find_map(|s| s.failing.clone()),
        stuck: false,
        crashes,
    }
}

/// The last lines of a slot's replicas, one replica after the other.
pub(crate) async fn log_tail(supervisor: &Supervisor, key: &SlotKey, replicas: usize, lines: usize) -> Vec<String> {
    // More is a download, not a tail.
    const MOST: usize = 10_000;
    let lines = lines.min(MOST);
    let each = lines.div_ceil(replicas.max(1));
    let mut all = Vec::new();
    for n in (0..).take(replicas) {
        all.append(&mut supervisor.tail_replica(&ReplicaKey { slot: key.clone(), n }, each).await);
    }
    all.split_off(all.len().saturating_sub(lines))
}
