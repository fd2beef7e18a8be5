//! Giving an environment to an exclusive slot and taking it away: never do two slots have it at the same time.
//!
//! Taken away means acknowledged by every replica, or the replica is dead. Where neither can be had, because the engine that
//! holds a container does not answer, nothing is given to anybody else.

use crate::supervisor::{
    core::Supervisor,
    place::SlotKey,
    probe::{self, HANDOVER_TIMEOUT, Order},
};
use plimsoll_core::Generation;
use plimsoll_deploy::TargetError;
use tokio::time::timeout;

/// Takes the environment away from a slot. When this returns without an error, no replica of it works.
pub(crate) async fn take_away(
    supervisor: &Supervisor,
    key: &SlotKey,
    generation: Generation,
) -> Result<(), TargetError> {
    let gate = supervisor.gate(key);
    // From here on no keeper of this slot activates anything; one that was about to is waited for.
    let mut holds = gate.lock().await;
    *holds = None;
    let statuses = supervisor.statuses(key);
    let each = statuses.iter().enumerate().filter(|(_, s)| s.pid.is_some() || s.unsure).map(|(n, status)| async move {
        match probe::order(status.address, Order::Deactivate, generation).await {
            Ok(true) => true,
            outcome => {
                tracing::warn!(?outcome, service = %key.service, slot = %key.slot, n, "a replica did not give up and is killed");
                supervisor.kill_replica(key, n).await
            }
        }
    });
    if futures_util::future::join_all(each).await.contains(&false) {
        return Err(TargetError::Slot {
            service: key.service.clone(),
            slot: key.slot,
            reason: "it did not give up the environment and could not be killed: nothing was handed over".to_owned(),
            log_tail: Vec::new(),
        });
    }
    supervisor.none_active(key);
    Ok(())
}

/// Gives the environment to a slot: opens its gate, and waits until every replica that is ready has taken it.
pub(crate) async fn give(supervisor: &Supervisor, key: &SlotKey, generation: Generation) -> Result<(), TargetError> {
    let gate = supervisor.gate(key);
    {
        let mut holds = gate.lock().await;
        *holds = Some(generation);
        let statuses = supervisor.statuses(key);
        let each = statuses.iter().enumerate().filter(|(_, s)| s.ready && s.active != Some(generation)).map(
            |(n, status)| async move {
                if matches!(probe::order(status.address, Order::Activate, generation).await, Ok(true)) {
                    supervisor.is_active(key, n, status.pid, generation);
                }
            },
        );
        futures_util::future::join_all(each).await;
    }
    // What is not active yet is activated by its keeper at its next question.
    let all = async {
        for mut watch in supervisor.watches(key) {
            let _ = watch.wait_for(|s| s.active.is_some()).await;
        }
    };
    timeout(HANDOVER_TIMEOUT, all).await.map_err(|_| TargetError::Slot {
        service: key.service.clone(),
        slot: key.slot,
        reason: format!("it serves, but did not accept generation {generation} within {HANDOVER_TIMEOUT:?}"),
        log_tail: Vec::new(),
    })
}
