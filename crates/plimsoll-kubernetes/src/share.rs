//! Shares of the requests. Where a route leads to a service, they are weights ([`crate::gateway`]); else they are given by
//! replicas: some ready pods of the slot that is not live get the label that the live slot's Service selects
//! (docs/adr/0016).
//!
//! Readiness and EndpointSlices are Kubernetes' own, and a cut-over stays one write per Service. What can be given is a
//! number of pods. A pod that replaces one comes without the label, so a share only ever shrinks by itself.

use crate::{
    cluster::refused,
    cut_over::Site,
    drain, endpoints,
    gateway::{self, Wish},
    names, pods,
    world::World,
};
use futures_util::future::{join_all, try_join_all};
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, TestOperation, jsonptr::PointerBuf};
use k8s_openapi::api::core::v1::Pod;
use plimsoll_core::{RunId, ServiceName, Slot, chain};
use plimsoll_deploy::{Beside, TargetError, Weights, admit_shares};
use std::time::Duration;

/// The kubelet writes to a pod at the same time; so often it is read again.
const TRIES: u32 = 10;
/// How long clients may take to leave pods that lost their share. Who is still there then is asked to with each answer.
const LEAVE: Duration = Duration::from_secs(5);

/// The share, in percent, that the slot which is not live gets: at least 1 where it gets some, or a pod of it will as soon as
/// it is ready.
pub(crate) fn percent(world: &World, service: &ServiceName, live: Slot) -> u8 {
    let label = names::traffic_of(Some(live));
    let labelled: Vec<_> = world.all_pods_of(service, live.other()).filter(|p| has(p, label)).collect();
    let sharing = labelled.iter().filter(|p| pods::is_ready(p)).count();
    let serving = world.all_pods_of(service, live).filter(|p| pods::is_ready(p)).count();
    let by_replicas = rounded(sharing, serving).max(u8::from(!labelled.is_empty()));
    by_replicas.max(gateway::percent(world, service, live.other()))
}

fn rounded(sharing: usize, serving: usize) -> u8 {
    let all = (sharing + serving).max(1);
    let percent = (200 * sharing + all) / (2 * all);
    u8::try_from(percent.max(sharing.min(1))).unwrap_or(100)
}

/// The number of pods, of `ready`, that comes nearest to a share beside `serving` others: at least one, if there is one.
fn nearest(share: u8, serving: usize, ready: usize) -> usize {
    let off = |pods: &usize| {
        let all = pods + serving;
        (100 * pods).abs_diff(usize::from(share) * all) * 1_000_000 / all
    };
    if share == 0 { 0 } else { (1..=ready).min_by_key(off).unwrap_or(0) }
}

fn has(pod: &Pod, label: &str) -> bool {
    pod.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(label))
}

/// Gives and takes shares.
pub(crate) async fn weigh(site: &Site<'_>, weights: &Weights) -> Result<(), TargetError> {
    let world = site.look().await?;
    let holder = world.lock.as_ref().map(|lock| &lock.run);
    admit_shares(site.environment, world.stored.record.generation, holder, weights, |of| beside(&world, of))?;
    for (service, share) in &weights.shares {
        set(site, &world, service, *share, &weights.run).await?;
    }
    Ok(())
}

/// By weights where routes lead to the service, else by replicas; what was given in the other way is taken away.
async fn set(site: &Site<'_>, world: &World, service: &ServiceName, share: u8, run: &RunId) -> Result<(), TargetError> {
    let Some(slot) = world.live_slot(service).map(Slot::other) else { return Ok(()) };
    if share > 0 && gateway::leads(site, world, service) && !endpoints::ready(world, service, slot).is_empty() {
        if is_labelled(world, service, slot.other()) {
            relead(site, world, service, 0).await?;
        }
        return gateway::give(site, world, &Wish { service, slot, percent: share, run }).await;
    }
    unweigh(site, world, service, slot).await?;
    relead(site, world, service, share).await
}

/// Takes weights away. Clients of the slot `slot` leave before its Service does.
async fn unweigh(site: &Site<'_>, world: &World, service: &ServiceName, slot: Slot) -> Result<(), TargetError> {
    if gateway::withdraw(site, world, service).await? {
        leave_clients(site, &world.pods_of(service, slot)).await;
    }
    gateway::sweep(site, world, service).await
}

/// A slot without a ready pod counts as one: it gets a share when it has some, or the drive finds it unfit.
fn beside(world: &World, service: &ServiceName) -> Beside {
    let Some(live) = world.live_slot(service) else { return Beside::NothingLive };
    match world.workload(service, live.other()) {
        None => Beside::Nothing,
        Some(stands) if stands.exclusive => Beside::Exclusive,
        Some(_) => Beside::Slot,
    }
}

/// Has as many pods as are nearest to `share` take part in the live slot's traffic, and waits until they do.
async fn relead(site: &Site<'_>, world: &World, service: &ServiceName, share: u8) -> Result<(), TargetError> {
    let Some(live) = world.live_slot(service) else { return Ok(()) };
    let label = names::traffic_of(Some(live));
    let mut ready: Vec<&Pod> = world.pods_of(service, live.other());
    ready.retain(|pod| pods::is_ready(pod));
    // Who has a share keeps it, so that clients stay where they are.
    ready.sort_by_key(|pod| (!has(pod, label), pods::name(pod).to_owned()));
    let chosen = &ready[..nearest(share, endpoints::ready(world, service, live).len(), ready.len())];
    let is_chosen = |pod: &Pod| chosen.iter().any(|c| c.metadata.uid == pod.metadata.uid);
    let others = world.all_pods_of(service, live.other()).filter(|pod| !is_chosen(pod));
    let (leave, rest): (Vec<&Pod>, Vec<&Pod>) = others.partition(|pod| has(pod, label));
    let join: Vec<&Pod> = chosen.iter().copied().filter(|pod| !has(pod, label)).collect();
    // One that had a share before was asked to send its clients away.
    join_all(join.iter().map(|pod| pods::lame_duck(site.cluster, pod, false))).await;
    try_join_all(join.iter().map(|pod| relabel(site, pod, label, true))).await?;
    try_join_all(leave.iter().map(|pod| relabel(site, pod, label, false))).await?;
    // The address of one that has ended may be another one's by now.
    let running = |of: &[&Pod]| of.iter().copied().filter(|pod| pods::is_running(pod)).cloned().collect::<Vec<Pod>>();
    let addresses = |of: &[&Pod]| running(of).iter().filter_map(pods::address).map(str::to_owned).collect::<Vec<_>>();
    let (inside, mut outside) = (addresses(&join), addresses(&leave));
    outside.extend(addresses(&rest));
    endpoints::follow(site, [service], |world, _, found| {
        let ready = endpoints::ready(world, service, live.other());
        let is_in = |address: &String| found.contains(address.as_str());
        // One that is not ready meanwhile, or gone, is no endpoint.
        inside.iter().all(|a| is_in(a) || !ready.contains(a.as_str())) && !outside.iter().any(is_in)
    })
    .await?;
    // What is connected stays connected: the selector says where the next one goes.
    leave_clients(site, &leave).await;
    Ok(())
}

async fn leave_clients(site: &Site<'_>, left: &[&Pod]) {
    let running: Vec<&Pod> = left.iter().copied().filter(|pod| pods::is_running(pod)).collect();
    if !running.is_empty() {
        let report = drain::leave(site, &running, LEAVE).await;
        tracing::debug!(?report, "pods lost their share of the requests");
    }
}

/// Ends the share of a service whose other slot is changed or ended.
pub(crate) async fn end(site: &Site<'_>, world: &World, service: &ServiceName) -> Result<(), TargetError> {
    let Some(live) = world.live_slot(service) else { return Ok(()) };
    unweigh(site, world, service, live.other()).await?;
    if is_labelled(world, service, live) { relead(site, world, service, 0).await } else { Ok(()) }
}

/// Whether a pod of the other slot has the label of the slot `live`.
fn is_labelled(world: &World, service: &ServiceName, live: Slot) -> bool {
    world.all_pods_of(service, live.other()).any(|pod| has(pod, names::traffic_of(Some(live))))
}

/// What is left of weights that nobody has: of a run that ended between two writes, or where somebody put a route right.
pub(crate) async fn settle(site: &Site<'_>, world: &World) {
    for service in world.observation().services.keys() {
        let slots = [Slot::Blue, Slot::Green];
        if slots.iter().any(|slot| gateway::percent(world, service, *slot) > 0) {
            continue;
        }
        let done = async {
            gateway::withdraw(site, world, service).await?;
            gateway::sweep(site, world, service).await
        };
        if let Err(error) = done.await {
            tracing::warn!(error = chain(&error), %service, "something of a share is left");
        }
    }
}

/// Ends what would be there still when a stopped environment starts: the pods with a share have gone, its weights have not.
pub(crate) async fn end_all(site: &Site<'_>) -> Result<(), TargetError> {
    let world = site.look().await?;
    for service in world.observation().services.keys() {
        gateway::withdraw(site, &world, service).await?;
        gateway::sweep(site, &world, service).await?;
    }
    Ok(())
}

/// Before Services are pointed at slots: takes the shares that pods of the other slots have of these, and all weights.
pub(crate) async fn take_back(site: &Site<'_>, targets: &[(ServiceName, Option<Slot>)]) -> Result<(), TargetError> {
    let world = site.look().await?;
    for (service, slot) in targets {
        gateway::withdraw(site, &world, service).await?;
        let Some(slot) = slot else { continue };
        strip(site, &world, service, slot.other(), *slot).await?;
    }
    Ok(())
}

/// After it: nobody has a share of any slot.
pub(crate) async fn clean(site: &Site<'_>, targets: &[(ServiceName, Option<Slot>)]) -> Result<(), TargetError> {
    let world = site.look().await?;
    for (service, slot) in targets {
        gateway::withdraw(site, &world, service).await?;
        gateway::sweep(site, &world, service).await?;
        let Some(slot) = slot else { continue };
        strip(site, &world, service, slot.other(), *slot).await?;
        strip(site, &world, service, *slot, slot.other()).await?;
    }
    Ok(())
}

/// Takes from pods of the slot `at` the traffic of the slot `of`.
async fn strip(site: &Site<'_>, world: &World, service: &ServiceName, at: Slot, of: Slot) -> Result<(), TargetError> {
    let label = names::traffic_of(Some(of));
    let sharing = world.all_pods_of(service, at).filter(|pod| has(pod, label));
    try_join_all(sharing.map(|pod| relabel(site, pod, label, false))).await.map(drop)
}

/// Gives a pod the label, or takes it away. One that is gone has none.
async fn relabel(site: &Site<'_>, pod: &Pod, label: &str, on: bool) -> Result<(), TargetError> {
    let name = pods::name(pod);
    let mut now = pod.clone();
    for _ in 0..TRIES {
        if has(&now, label) == on {
            return Ok(());
        }
        let failed = match site.cluster.patch_if::<Pod>(name, names::MANAGER, patch(&now, label, on)).await {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        match site.cluster.get::<Pod>(name).await?.filter(|found| found.metadata.uid == pod.metadata.uid) {
            Some(found) => now = found,
            None => return Ok(()),
        }
        match failed {
            // Whether it took effect, the next turn sees.
            None | Some(TargetError::Unreachable { .. }) => {}
            Some(error) => return Err(error),
        }
    }
    Err(refused(&format!("set the label {label} of pod {name}"), format!("it changed {TRIES} times meanwhile")))
}

fn patch(pod: &Pod, label: &str, on: bool) -> Patch {
    let path = |tokens: &[&str]| PointerBuf::from_tokens(tokens.iter().copied());
    let version = pod.metadata.resource_version.clone().unwrap_or_default();
    let label = path(&["metadata", "labels", label]);
    let test = TestOperation { path: path(&["metadata", "resourceVersion"]), value: version.into() };
    let change = if on {
        PatchOperation::Add(AddOperation { path: label, value: names::YES.into() })
    } else {
        PatchOperation::Remove(RemoveOperation { path: label })
    };
    Patch(vec![PatchOperation::Test(test), change])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_the_nearest_number_of_pods_and_at_least_one() {
        let check = |share, serving, ready, expected| {
            assert_eq!(nearest(share, serving, ready), expected, "{share} % beside {serving}, of {ready}");
        };
        check(0, 4, 4, 0);
        check(1, 4, 4, 1);
        check(5, 4, 4, 1);
        check(25, 3, 4, 1);
        check(30, 4, 4, 2);
        check(50, 4, 4, 4);
        check(50, 10, 4, 4);
        check(100, 4, 4, 4);
        check(50, 4, 0, 0);
        check(50, 0, 3, 1);
    }

    #[test]
    fn what_a_share_came_to_is_rounded_and_never_hidden() {
        let check = |sharing, serving, expected| {
            assert_eq!(rounded(sharing, serving), expected, "{sharing} beside {serving}");
        };
        check(0, 0, 0);
        check(0, 4, 0);
        check(1, 4, 20);
        check(1, 2, 33);
        check(2, 1, 67);
        check(1, 1000, 1);
        check(3, 0, 100);
    }
}
