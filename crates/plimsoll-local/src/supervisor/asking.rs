//! Asking one replica whether it is ready, again and again, and telling it that its slot is the active one.

use crate::supervisor::{
    core::Supervisor,
    logs,
    place::{ReplicaKey, SlotKey},
    probe::{self, Order},
    replica::Status,
    runtime::Running,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

/// How often a replica that has been ready for long is asked, unless its service wants it asked less often. That its process
/// ended is seen at once anyway, and asking eight replicas ten times a second is a tenth of a core.
const STEADY: Duration = Duration::from_secs(1);

/// How long a process is asked as often as its service says: it gets ready, takes the traffic and is watched meanwhile.
const YOUNG: Duration = Duration::from_mins(2);

/// How often a log's size is looked at: a replica that writes 100 MB/s overshoots by half a gigabyte at most.
const ROTATION: Duration = Duration::from_secs(5);

/// Asks the replica for ever whether it is ready, and activates it when its slot is the active one.
pub(crate) async fn ask(
    supervisor: &Arc<Supervisor>,
    key: &ReplicaKey,
    status: &watch::Sender<Status>,
    running: &dyn Running,
    health: plimsoll_deploy::Health,
) {
    let address = running.address();
    let begun = Instant::now();
    let deadline = begun + Duration::from_millis(health.deadline_ms);
    // Asking more often than every 10 ms would be load, not health.
    let eager = Duration::from_millis(health.interval_ms.max(10));
    let slot = &key.slot;
    let log = supervisor.paths.replica_log(&slot.environment, &slot.service, slot.slot, key.n);
    let mut rotated = Instant::now();
    loop {
        let answer = probe::status(address, &health.path).await;
        let mut ready = matches!(answer, Ok(200));
        let mut reason = answer.map_or_else(|e| e.to_string(), |status| format!("{} answered {status}", health.path));
        if ready && !status.borrow().verified {
            ready = running.answers().await;
            reason = format!("{address} is answered by another process");
        }
        let changed = status.send_if_modified(|s| {
            let late = !ready && Instant::now() >= deadline && s.pid.is_some();
            let before = s.clone();
            s.ready = ready;
            s.verified |= ready;
            if ready {
                s.failing = None;
            } else if late {
                s.failing = Some(format!("not ready after {} ms: {reason}", health.deadline_ms));
            }
            before != *s
        });
        if changed {
            supervisor.router.kick();
        }
        let settled = ready && activate(supervisor, slot, status, address).await;
        if rotated.elapsed() >= ROTATION {
            rotated = Instant::now();
            if let Err(error) = logs::rotate(&log, logs::MAX_BYTES) {
                tracing::error!(%error, path = %log.display(), "cannot rotate a log");
            }
        }
        sleep(if settled && begun.elapsed() > YOUNG { eager.max(STEADY) } else { eager }).await;
    }
}

/// Hands the environment's generation to a ready replica of the active slot that has none yet. Whether nothing of that is left
/// to be done.
async fn activate(
    supervisor: &Supervisor,
    slot: &SlotKey,
    status: &watch::Sender<Status>,
    address: SocketAddr,
) -> bool {
    let gate = supervisor.gate(slot);
    // Held over the request: a hand-over away from this slot waits for it, and so comes after it.
    let holds = gate.lock().await;
    let Some(generation) = *holds else { return true };
    if status.borrow().active.is_some() {
        return true;
    }
    let accepted = matches!(probe::order(address, Order::Activate, generation).await, Ok(true));
    if accepted {
        status.send_modify(|s| s.active = Some(generation));
    }
    accepted
}
