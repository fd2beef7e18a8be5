//! Draining a slot that serves no longer: a Service's selector does not move connections that are open.
//!
//! Its pods are told to be lame ducks: each answer from then on closes its connection, and the client connects anew, to
//! the new slot. Idle connections stay, and are told at their next request; the slot is up for that. Pods that do not
//! know how to be lame ducks are left as they are.

use crate::{cut_over::Site, pods};
use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use plimsoll_core::{ServiceName, Slot};
use plimsoll_deploy::{DrainReport, TargetError};
use std::time::{Duration, Instant};

/// When nothing was under way for so long, what is still connected is idle.
const QUIET: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) async fn drain(
    site: &Site<'_>,
    service: &ServiceName,
    slot: Slot,
    deadline: Duration,
) -> Result<DrainReport, TargetError> {
    let world = site.look().await?;
    Ok(leave(site, &world.pods_of(service, slot), deadline).await)
}

/// Has the clients of pods leave, which must not be endpoints any more, and waits for what is under way.
pub(crate) async fn leave(site: &Site<'_>, pods: &[&Pod], deadline: Duration) -> DrainReport {
    let begun = Instant::now();
    let first = join_all(pods.iter().map(|pod| pods::lame_duck(site.cluster, pod, true))).await;
    let before: u64 = first.iter().flatten().map(|u| u.connections).sum();
    let mut report = DrainReport::default();
    let mut quiet: Option<Instant> = None;
    // Ends by the deadline.
    loop {
        let now = join_all(pods.iter().map(|pod| pods::under_way(site.cluster, pod))).await;
        let in_flight: u64 = now.iter().flatten().map(|u| u.in_flight).sum();
        report.still_connected = now.iter().flatten().map(|u| u.connections).sum();
        report.timed_out = in_flight;
        if in_flight > 0 {
            quiet = None;
        }
        let since = *quiet.get_or_insert_with(Instant::now);
        let idle = in_flight == 0 && (report.still_connected == 0 || since.elapsed() >= QUIET);
        if idle || begun.elapsed() >= deadline {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    report.finished = before.saturating_sub(report.still_connected);
    report.millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    report
}
