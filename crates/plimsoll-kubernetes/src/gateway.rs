//! Shares of the requests by weights: routes of the Gateway API that lead to a service get a second reference, to a Service of
//! the standby slot (docs/adr/0018).
//!
//! ```text
//! announced in the routes ──> the slot's Service, until it has endpoints ──> the weights
//! ```
//!
//! and back in the other order. Whatever a killed run left is found by what it announced; whoever takes that away has
//! changed the route, so that a late write of that run fails.

use crate::{
    cluster::{refused, unwritable},
    cut_over::Site,
    endpoints, names,
    object::Object,
    observe::selector,
    pods,
    route::{Route, RouteError, Share},
    world::World,
};
use futures_util::future::join_all;
use json_patch::Patch;
use k8s_openapi::api::core::v1::Service;
use plimsoll_core::{RunId, ServiceName, Slot, chain, config::CanaryBy};
use plimsoll_deploy::TargetError;
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// Controllers write to a route at the same time, its status; so often it is read again.
const TRIES: u32 = 10;
/// The pause between two looks at what controllers say of a route.
const PAUSE: Duration = Duration::from_millis(100);

/// What a slot is to have of the requests to a service.
pub(crate) struct Wish<'a> {
    pub(crate) service: &'a ServiceName,
    pub(crate) slot: Slot,
    pub(crate) percent: u8,
    /// Who wishes it.
    pub(crate) run: &'a RunId,
}

/// Whether a service gets requests by weights: routes lead to it, and the configuration leaves them to us.
pub(crate) fn leads(site: &Site<'_>, world: &World, service: &ServiceName) -> bool {
    let object = world.service(service).and_then(|s| s.metadata.name.as_deref());
    site.canary_by == CanaryBy::Auto && object.is_some_and(|object| world.routes.iter().any(|r| r.leads_to(object)))
}

/// The share, in percent, that routes give a slot: at least 1 where one is announced.
pub(crate) fn percent(world: &World, service: &ServiceName, slot: Slot) -> u8 {
    let Some(object) = world.service(service).and_then(|s| s.metadata.name.as_deref()) else { return 0 };
    let twin = names::slotted(object, slot);
    let is_ours = twins(world, service).contains(&twin);
    let of_route = |route: &Route| {
        let given = if is_ours || route.remembers(service) { route.percent(object, &twin) } else { 0 };
        given.max(u8::from(route.announces(service, slot)))
    };
    world.routes.iter().map(of_route).max().unwrap_or(0)
}

/// Whether there is anything of a share by weights.
pub(crate) fn is_any(world: &World, service: &ServiceName) -> bool {
    !twins(world, service).is_empty() || world.routes.iter().any(|route| route.remembers(service))
}

/// Has routes give a slot its share. Refused where a route cannot, or its slot has no endpoints; what was given until
/// then is taken away by whoever takes shares away.
pub(crate) async fn give(site: &Site<'_>, world: &World, wish: &Wish<'_>) -> Result<(), TargetError> {
    let Wish { service, slot, percent, run } = *wish;
    let Some(live) = world.service(service) else { return Ok(()) };
    let object = live.metadata.name.clone().unwrap_or_default();
    let routes: Vec<&Route> = world.routes.iter().filter(|route| route.leads_to(&object)).collect();
    let share = |percent| Share { service: object.clone(), slot, percent };
    let twins = twins(world, service);
    for route in routes.iter().filter(|route| !route.is_of(service, slot, run)) {
        change(site, &route.name, service, |now| now.give(service, &share(0), run, &twins)).await?;
    }
    let twin = names::slotted(&object, slot);
    stand_up(site, live, service, slot).await?;
    // One that had a share before was asked to send its clients away.
    join_all(world.pods_of(service, slot).iter().map(|pod| pods::lame_duck(site.cluster, pod, false))).await;
    if !endpoints::lead_to(site, &twin, service, slot).await? {
        let reason = format!("Service {twin} has not all ready pods after {} s", endpoints::FOLLOW.as_secs());
        return Err(refused(&format!("give {percent} % of the requests to {service} ({slot})"), reason));
    }
    for route in &routes {
        change(site, &route.name, service, |now| now.give(service, &share(percent), run, &twins)).await?;
    }
    heard(site, &routes).await
}

/// Has all routes say again what they said before; whether one said something else.
pub(crate) async fn withdraw(site: &Site<'_>, world: &World, service: &ServiceName) -> Result<bool, TargetError> {
    if !is_any(world, service) {
        return Ok(false);
    }
    let twins = &twins(world, service);
    let done = join_all(world.routes.iter().map(|route| async move {
        let changed = change(site, &route.name, service, |now| now.take(service, twins)).await?;
        Ok(changed.then_some(route))
    }));
    // None is left as it is because another one cannot be changed.
    let done: Result<Vec<Option<&Route>>, TargetError> = done.await.into_iter().collect();
    let changed: Vec<&Route> = done?.into_iter().flatten().collect();
    heard(site, &changed).await?;
    join_all(changed.iter().map(|route| disown(site, &route.name))).await;
    Ok(!changed.is_empty())
}

/// A field belongs to who changed it last, and whoever applies it on the server would be told of a conflict. What hinders
/// it costs that, and no more.
async fn disown(site: &Site<'_>, name: &str) {
    let done = async {
        let patch = site.cluster.route(name).await?.and_then(|route| route.disown());
        match patch {
            Some(patch) => site.cluster.patch_route(name, patch).await,
            None => Ok(None),
        }
    };
    match done.await {
        Ok(None) => {}
        Ok(Some(reason)) => tracing::debug!(route = name, reason, "its fields are still ours"),
        Err(error) => tracing::debug!(route = name, error = chain(&error), "its fields are still ours"),
    }
}

/// Removes the slots' own Services, which no route refers to any more.
pub(crate) async fn sweep(site: &Site<'_>, world: &World, service: &ServiceName) -> Result<(), TargetError> {
    for twin in twins(world, service) {
        site.cluster.delete::<Service>(&twin).await?;
    }
    Ok(())
}

/// The Services of slots of a service.
fn twins(world: &World, service: &ServiceName) -> BTreeSet<String> {
    let of = |s: &&Service| is_of(s, service);
    world.aside.iter().filter(of).filter_map(|s| s.metadata.name.clone()).collect()
}

fn is_of(object: &Service, service: &ServiceName) -> bool {
    object.metadata.labels.as_ref().and_then(|l| l.get(names::SHARE_OF)).is_some_and(|of| of == service.as_str())
}

/// Changes a route as `decide` finds; whether it was changed. One that is gone leads nobody.
async fn change(
    site: &Site<'_>,
    name: &str,
    service: &ServiceName,
    decide: impl Fn(&Route) -> Result<Option<Patch>, RouteError>,
) -> Result<bool, TargetError> {
    let what = format!("share the requests of {service} by HTTPRoute {name}");
    let (mut seen, mut changed) = (site.cluster.route(name).await?, false);
    for _ in 0..TRIES {
        let Some(route) = seen else { return Ok(changed) };
        let Some(patch) = decide(&route).map_err(|e| refused(&what, chain(&e)))? else { return Ok(changed) };
        let failed = match site.cluster.patch_route(name, patch).await {
            Ok(None) => return Ok(true),
            Ok(Some(reason)) => Some(reason),
            // Whether it took effect, the next turn sees.
            Err(TargetError::Unreachable { what, source }) => {
                tracing::warn!(what, %source, "looking again");
                changed = true;
                None
            }
            Err(error) => return Err(error),
        };
        seen = site.cluster.route(name).await?;
        if let (Some(reason), Some(now)) = (failed, &seen)
            && now.version == route.version
        {
            return Err(refused(&what, reason));
        }
    }
    Err(refused(&what, format!("it changed {TRIES} times meanwhile")))
}

/// Waits until controllers that speak of these routes know what they say now, at most [`endpoints::FOLLOW`].
async fn heard(site: &Site<'_>, routes: &[&Route]) -> Result<(), TargetError> {
    let begun = Instant::now();
    for route in routes {
        // Ends by the bound on following.
        while site.cluster.route(&route.name).await?.is_some_and(|now| !now.is_heard) {
            if begun.elapsed() > endpoints::FOLLOW {
                tracing::warn!(route = route.name, "its controller has not followed yet");
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Makes the Service of a slot.
async fn stand_up(site: &Site<'_>, live: &Service, service: &ServiceName, slot: Slot) -> Result<(), TargetError> {
    let what = format!("make the Service of {service} ({slot})");
    let object = Object::try_from(twin(site, live, service, slot)).map_err(|e| unwritable(&what, e))?;
    let there = site.cluster.get::<Service>(object.name()).await?;
    if there.is_some_and(|there| !is_of(&there, service)) {
        return Err(refused(&what, format!("{} is there, and is somebody else's", object.title())));
    }
    site.cluster.apply(&object).await.map(drop)
}

/// The Service of a slot beside the live one: the same ports, and pods of this slot only.
fn twin(site: &Site<'_>, live: &Service, service: &ServiceName, slot: Slot) -> Value {
    let name = names::slotted(live.metadata.name.as_deref().unwrap_or_default(), slot);
    let mut selects = crate::slot::rest_of_selector(&selector(live));
    selects.insert(names::SLOT.to_owned(), slot.to_string());
    let ports = live.spec.as_ref().and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
    let ports: Vec<Value> = ports
        .map(|port| {
            let mut known = Map::from_iter([("port".to_owned(), port.port.into())]);
            known.extend(port.name.clone().map(|name| ("name".to_owned(), name.into())));
            known.extend(port.protocol.clone().map(|protocol| ("protocol".to_owned(), protocol.into())));
            known.extend(port.app_protocol.clone().map(|protocol| ("appProtocol".to_owned(), protocol.into())));
            known.extend(port.target_port.clone().map(|target| ("targetPort".to_owned(), json!(target))));
            known.into()
        })
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            // Without the label of a service: what reads that would take it for the service's own.
            "labels": {
                (names::ENVIRONMENT): site.environment,
                (names::SHARE_OF): service,
                (names::SLOT): slot,
                "app.kubernetes.io/managed-by": names::MANAGER,
            },
        },
        "spec": {"type": "ClusterIP", "selector": selects, "ports": ports},
    })
}
