//! A live slot whose workload somebody deleted: nothing serves, so it is stood up where it was.
//!
//! There is nothing to compare it with and nothing to cut over from; traffic reaches it as soon as it is ready.

use crate::{cluster::refused, cut_over::Site, logs};
use plimsoll_core::{ServiceName, Slot};
use plimsoll_deploy::{ServiceSpec, SlotView, TargetError};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(200);

/// Waits until the slot serves again, at most as long as its health may take.
pub(crate) async fn serves(site: &Site<'_>, spec: &ServiceSpec, slot: Slot) -> Result<SlotView, TargetError> {
    let begun = Instant::now();
    let deadline = Duration::from_millis(spec.health.deadline_ms);
    // Ends by the deadline.
    loop {
        let world = site.look().await?;
        let view = world.observation().services.remove(&spec.name).and_then(|view| view.live);
        let Some(view) = view.filter(|view| view.slot == slot) else {
            return Err(refused(&what(&spec.name, slot), "it was made, and is not there: something deletes it"));
        };
        if view.ready >= view.replicas && view.ready > 0 {
            return Ok(view);
        }
        if view.stuck || begun.elapsed() > deadline {
            let failing = view.failing.unwrap_or_default();
            let reason = format!("{} of {} replicas are ready; {failing}", view.ready, view.replicas);
            let log_tail = logs::tail(site.cluster, &world.pods_of(&spec.name, slot), 20).await;
            return Err(TargetError::Slot { service: spec.name.clone(), slot, reason, log_tail });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn what(service: &ServiceName, slot: Slot) -> String {
    format!("stand {service} up again in {slot}")
}
