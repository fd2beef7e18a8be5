//! The endpoints of a Service, as its EndpointSlices name them: where new connections go.

use crate::{cut_over::Site, pods, world::World};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use plimsoll_core::{ServiceName, Slot};
use plimsoll_deploy::TargetError;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// How long endpoints may take to follow before what was done is reported all the same.
const FOLLOW: Duration = Duration::from_secs(10);
/// The pause between two looks at endpoints, which follow within milliseconds.
const PAUSE: Duration = Duration::from_millis(25);

/// The addresses of the ready pods of a slot.
pub(crate) fn ready<'a>(world: &'a World, service: &ServiceName, slot: Slot) -> BTreeSet<&'a str> {
    world.pods_of(service, slot).into_iter().filter(|p| pods::is_ready(p)).filter_map(pods::address).collect()
}

/// Waits until `fits` finds the addresses that are ready as they should be; at most [`FOLLOW`].
pub(crate) async fn follow(
    site: &Site<'_>,
    service: &ServiceName,
    fits: impl Fn(&World, &BTreeSet<&str>) -> bool + Send,
) -> Result<(), TargetError> {
    let begun = Instant::now();
    // A chart may call the Service otherwise.
    let object = site.look().await?.service(service).and_then(|s| s.metadata.name.clone());
    let labels = format!("kubernetes.io/service-name={}", object.as_deref().unwrap_or(service.as_str()));
    // Ends by the bound on following.
    loop {
        let (slices, world) = (site.cluster.list::<EndpointSlice>(&labels).await?, site.look().await?);
        let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
        let serving = endpoints.filter(|e| e.conditions.as_ref().and_then(|c| c.ready) != Some(false));
        let found: BTreeSet<&str> = serving.flat_map(|e| &e.addresses).map(String::as_str).collect();
        if fits(&world, &found) {
            return Ok(());
        }
        if begun.elapsed() > FOLLOW {
            tracing::warn!(%service, ?found, "the endpoints have not followed yet");
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
