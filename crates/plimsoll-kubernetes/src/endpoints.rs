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
pub(crate) const FOLLOW: Duration = Duration::from_secs(10);
/// The pause between two looks at endpoints, which follow within milliseconds.
const PAUSE: Duration = Duration::from_millis(25);
/// Label of an EndpointSlice: the Service it belongs to.
const SLICE_OF: &str = "kubernetes.io/service-name";

/// The addresses of the ready pods of a slot.
pub(crate) fn ready<'a>(world: &'a World, service: &ServiceName, slot: Slot) -> BTreeSet<&'a str> {
    world.pods_of(service, slot).into_iter().filter(|p| pods::is_ready(p)).filter_map(pods::address).collect()
}

/// Waits until `fits` finds the addresses of each of these services that are ready as they should be; at most [`FOLLOW`].
pub(crate) async fn follow<'s>(
    site: &Site<'_>,
    services: impl IntoIterator<Item = &'s ServiceName> + Send,
    mut fits: impl FnMut(&World, &ServiceName, &BTreeSet<&str>) -> bool + Send,
) -> Result<(), TargetError> {
    let mut left: Vec<&ServiceName> = services.into_iter().collect();
    until(site, |world, slices| {
        left.retain(|service| !fits(world, service, &serving(world, slices, service)));
        left.is_empty()
    })
    .await?;
    for service in left {
        tracing::warn!(%service, "the endpoints have not followed yet");
    }
    Ok(())
}

/// Waits until new connections to the Service `object` go to all ready pods of a slot; whether they did within
/// [`FOLLOW`].
pub(crate) async fn lead_to(
    site: &Site<'_>,
    object: &str,
    service: &ServiceName,
    slot: Slot,
) -> Result<bool, TargetError> {
    until(site, |world, slices| {
        let ready = ready(world, service, slot);
        !ready.is_empty() && ready.is_subset(&of(slices, object))
    })
    .await
}

/// Looks until `is_so`, at most [`FOLLOW`]; whether it was.
async fn until(
    site: &Site<'_>,
    mut is_so: impl FnMut(&World, &[EndpointSlice]) -> bool + Send,
) -> Result<bool, TargetError> {
    let begun = Instant::now();
    // Ends by the bound on following.
    loop {
        // All slices of the namespace, which is the environment's own.
        let (slices, world) = (site.cluster.list::<EndpointSlice>("").await?, site.look().await?);
        if is_so(&world, &slices) {
            return Ok(true);
        }
        if begun.elapsed() > FOLLOW {
            return Ok(false);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The addresses that new connections to a service go to.
fn serving<'a>(world: &World, slices: &'a [EndpointSlice], service: &ServiceName) -> BTreeSet<&'a str> {
    // A chart may call the Service otherwise.
    of(slices, world.service(service).and_then(|s| s.metadata.name.as_deref()).unwrap_or(service.as_str()))
}

/// The addresses that new connections to the Service `object` go to.
fn of<'a>(slices: &'a [EndpointSlice], object: &str) -> BTreeSet<&'a str> {
    let of = |slice: &&EndpointSlice| {
        slice.metadata.labels.as_ref().and_then(|l| l.get(SLICE_OF)).is_some_and(|service| service == object)
    };
    let endpoints = slices.iter().filter(of).flat_map(|slice| &slice.endpoints);
    let serving = endpoints.filter(|e| e.conditions.as_ref().and_then(|c| c.ready) != Some(false));
    serving.flat_map(|e| &e.addresses).map(String::as_str).collect()
}
