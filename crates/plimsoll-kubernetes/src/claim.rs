//! The claim: who began a cut-over that is not recorded as done, and what becomes of it when its run does not go on.
//!
//! A claim explains why Services select something else than what is recorded. It must not outlive its run: a write that a
//! dead run sent may still arrive. Whoever takes the lock takes the claim over, and writes to every Service, so that what
//! was prepared for its former resource version fails. Whoever gives the lock back ends a claim of its own when all
//! Services select what is recorded.

use crate::{
    cluster::{Cluster, refused},
    cut_over::Site,
    names::{self, Selected},
    observe,
    record::{self, Pending, Stored},
    world::World,
};
use k8s_openapi::api::core::v1::Service;
use plimsoll_core::{RunId, ServiceName, Slot, Timestamp};
use plimsoll_deploy::{CutOver, LockOwner, TargetError};
use serde_json::json;

/// A claim whose run does not hold the lock and is older than this belongs to nobody: twice the lock's lease.
const CLAIM_MS: i64 = 60_000;
/// Others may write the record at the same time; so often it is read again.
const TRIES: u32 = 5;

/// Says in the record who begins what. Of two that do so at the same time one is refused.
pub(crate) async fn claim(site: &Site<'_>, world: &World, wish: &CutOver) -> Result<Stored, TargetError> {
    let (run, now) = (&wish.release.run, crate::now());
    let mut stored = world.stored.clone();
    let other = stored.record.pending.clone().filter(|pending| pending.run != *run);
    if let Some(other) = &other
        && !is_dead(other, world, run, now)
    {
        let reason =
            format!("run {} of {} began one to {} and has not finished", other.run, other.actor, other.version);
        return Err(refused(&format!("cut {} over", site.environment), reason));
    }
    stored.record.pending = Some(Pending {
        run: run.clone(),
        actor: wish.release.actor.clone(),
        version: wish.release.version.clone(),
        since: now,
    });
    let Some(stored) = record::write(site.cluster, site.environment, stored).await? else {
        let current = record::read(site.cluster, site.environment).await?.record.generation;
        return Err(site.stale(wish.from, current));
    };
    if other.is_some() {
        stamp(site, run).await?;
    }
    Ok(stored)
}

fn is_dead(pending: &Pending, world: &World, run: &RunId, now: Timestamp) -> bool {
    let ours = world.lock.as_ref().is_some_and(|lock| lock.run == *run);
    ours || now.as_millis() - pending.since.as_millis() > CLAIM_MS
}

/// Makes the claim of a run that lost the lock that of `owner`, who has it.
pub(crate) async fn take_over(site: &Site<'_>, owner: &LockOwner) -> Result<(), TargetError> {
    for _ in 0..TRIES {
        let mut stored = record::read(site.cluster, site.environment).await?;
        let Some(other) = stored.record.pending.take().filter(|pending| pending.run != owner.run) else {
            return Ok(());
        };
        let (run, actor) = (owner.run.clone(), owner.actor.clone());
        stored.record.pending = Some(Pending { run, actor, version: other.version, since: crate::now() });
        if record::write(site.cluster, site.environment, stored).await?.is_some() {
            tracing::info!(run = %other.run, by = %owner.run, "a cut-over that was left half made is taken over");
            return stamp(site, &owner.run).await;
        }
    }
    Err(refused(&format!("take over the cut-over of {}", site.environment), "others write the record all the time"))
}

/// Whether a run other than `run` took a claim over when it last wrote to this Service.
pub(crate) fn is_of_another(service: &Service, run: &RunId) -> bool {
    let by = observe::annotation(service, names::CLAIM).and_then(|by| by.split(' ').next());
    by.is_some_and(|by| by != run.to_string())
}

/// Ends a claim of `run` that changed nothing, or whose changes were taken back. One that was left half made stays, and
/// explains what the Services select.
pub(crate) async fn settle(site: &Site<'_>, run: &RunId) -> Result<(), TargetError> {
    let is_ours = |stored: &Stored| stored.record.pending.as_ref().is_some_and(|pending| pending.run == *run);
    if !is_ours(&record::read(site.cluster, site.environment).await?) {
        return Ok(());
    }
    stamp(site, run).await?;
    let world = site.look().await?;
    let mut stored = world.stored.clone();
    if is_ours(&stored) && as_recorded(&world) {
        stored.record.pending = None;
        // Whoever wrote it meanwhile has the claim now.
        record::write(site.cluster, site.environment, stored).await?;
    }
    Ok(())
}

/// Whether every Service selects the slot that is recorded, and none where nothing is.
fn as_recorded(world: &World) -> bool {
    let recorded = |service: &Service| -> Option<Slot> {
        let name: ServiceName = service.metadata.labels.as_ref()?.get(names::SERVICE)?.parse().ok()?;
        Some(world.live.as_ref()?.services.get(&name)?.slot)
    };
    ours(&world.services).all(|service| Selected::by(&observe::selector(service)) == recorded(service).into())
}

/// The Services that cut-overs change, apart from others that belong to a service.
fn ours(all: &[Service]) -> impl Iterator<Item = &Service> {
    all.iter().filter(|service| observe::annotation(service, names::GENERATION).is_some())
}

/// Writes to all Services, so that whatever was prepared for their former resource versions fails.
async fn stamp(site: &Site<'_>, run: &RunId) -> Result<(), TargetError> {
    let all = site.cluster.list::<Service>(&names::of_environment(site.environment)).await?;
    for service in ours(&all) {
        one(site.cluster, service, run).await?;
    }
    Ok(())
}

async fn one(cluster: &Cluster, service: &Service, run: &RunId) -> Result<(), TargetError> {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    // A merge that changes nothing leaves the resource version as it is: the moment makes it a change.
    let by = format!("{run} {}", crate::now().as_millis());
    cluster.merge::<Service>(name, &json!({"metadata": {"annotations": {(names::CLAIM): by}}})).await
}
