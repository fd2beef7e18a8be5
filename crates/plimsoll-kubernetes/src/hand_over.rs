//! Giving the environment to the pods of an exclusive slot and taking it away (docs/adr/0009): never do two slots have it.
//!
//! A pod is told over HTTP, and its answer counts. Its identity file says the same, for the day it is started again.

use crate::{
    cluster::refused,
    cut_over::Site,
    identity::{self, Identity},
    pods,
    world::World,
};
use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use plimsoll_core::{Generation, ServiceName, Slot};
use plimsoll_deploy::{Activation, ReleaseRecord, ServiceRecord, TargetError};
use std::time::{Duration, Instant};

/// How long a pod that did not give up may take to be gone, once it was deleted.
const GONE: Duration = Duration::from_secs(30);
/// How long a slot may take to accept its activation.
const ACCEPT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

type SlotOf = (ServiceName, Slot);

/// The slots of exclusive services that `record` takes the environment from, and those it gives it to.
pub(crate) fn exclusive(before: Option<&ReleaseRecord>, record: &ReleaseRecord) -> (Vec<SlotOf>, Vec<SlotOf>) {
    let is = |r: &&ServiceRecord| r.spec.activation == Activation::Exclusive;
    let slot = |of: Option<&ReleaseRecord>, name: &ServiceName| of?.services.get(name).filter(is).map(|r| r.slot);
    let old = before.into_iter().flat_map(|b| b.services.keys());
    let out = old.filter_map(|name| Some((name.clone(), slot(before, name)?)));
    let out = out.filter(|(name, was)| slot(Some(record), name) != Some(*was)).collect();
    let into = record.services.keys().filter_map(|name| Some((name.clone(), slot(Some(record), name)?)));
    let into = into.filter(|(name, is)| slot(before, name) != Some(*is)).collect();
    (out, into)
}

/// Takes the environment away from a slot. When this returns, no pod of it works: each one that has not ended has said so,
/// also one that is ending or starting, or is gone.
pub(crate) async fn take_away(
    site: &Site<'_>,
    service: &ServiceName,
    slot: Slot,
    generation: Generation,
) -> Result<(), TargetError> {
    identity::change(site.cluster, service, slot, |identity| identity.active = None).await?;
    // Whoever looks before the file is changed misses a pod that starts with the old one.
    let world = site.look().await?;
    let pods: Vec<&Pod> = world.all_pods_of(service, slot).filter(|pod| !pods::has_ended(pod)).collect();
    let left = join_all(pods.iter().map(|pod| async move {
        let gave_up = pods::order(site.cluster, pod, false, generation).await;
        (!gave_up).then_some(*pod)
    }));
    for pod in left.await.into_iter().flatten() {
        tracing::warn!(pod = pods::name(pod), "it did not give up the environment and is ended");
        end(site, pod).await?;
    }
    Ok(())
}

/// Deletes a pod and waits until the kubelet has confirmed it: before that it may work on.
async fn end(site: &Site<'_>, pod: &Pod) -> Result<(), TargetError> {
    let name = pods::name(pod);
    site.cluster.delete::<Pod>(name).await?;
    let begun = Instant::now();
    // Ends by the bound on being gone.
    while let Some(now) = site.cluster.get::<Pod>(name).await? {
        if now.metadata.uid != pod.metadata.uid {
            break;
        }
        if begun.elapsed() > GONE {
            return Err(refused(&format!("take the environment from pod {name}"), "it neither gives up nor ends"));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Refuses to give anything in the name of a release that another one has replaced meanwhile.
fn still_live(site: &Site<'_>, world: &World, record: &ReleaseRecord) -> Result<(), TargetError> {
    let live = world.live.as_ref();
    if live.is_some_and(|live| live.generation == record.generation && live.run == record.run) {
        return Ok(());
    }
    Err(site.stale(record.generation, world.stored.record.generation))
}

/// Gives the environment to a slot: waits until every pod has taken it.
pub(crate) async fn give(
    site: &Site<'_>,
    service: &ServiceName,
    slot: Slot,
    record: &ReleaseRecord,
) -> Result<(), TargetError> {
    still_live(site, &site.look().await?, record)?;
    let told = Identity { active: Some(record.generation), ..Identity::of(record) };
    identity::change(site.cluster, service, slot, |identity| {
        *identity = Identity { version: identity.version.clone(), revision: identity.revision.clone(), ..told };
    })
    .await?;
    let begun = Instant::now();
    // Ends by the bound on acceptance.
    loop {
        let world = site.look().await?;
        still_live(site, &world, record)?;
        let pods = world.pods_of(service, slot);
        let accepted = join_all(pods.iter().map(|pod| pods::order(site.cluster, pod, true, record.generation))).await;
        if !accepted.is_empty() && accepted.iter().all(|yes| *yes) {
            return Ok(());
        }
        if begun.elapsed() > ACCEPT {
            let reason = format!("it serves, but did not accept generation {} within {ACCEPT:?}", record.generation);
            let log_tail = crate::logs::tail(site.cluster, &pods, 20).await;
            return Err(TargetError::Slot { service: service.clone(), slot, reason, log_tail });
        }
        tokio::time::sleep(PAUSE).await;
    }
}
