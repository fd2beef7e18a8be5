//! The cut-over: claim, switch, commit. A crash at any point leaves a state that the next one finishes or takes back.
//!
//! 1. *Claim*: the environment's record says who begins what. It is written with the resource version it was read with,
//!    so of two promoters one goes on.
//! 2. *Switch*: one JSON patch per moved service, in dependency order, with tests on the selector, the generation and the
//!    resource version. Exclusive services give up the environment before.
//!    Before it, no pod of the other slot may have a share of the slot's traffic: one from a former canary would get it.
//!    Routes lead to the Service alone by then, as they did before a canary.
//! 3. *Commit*: the release's record, then the environment's, which advances the generation and drops the claim.
//! 4. What follows can be made up for: EndpointSlices follow the selectors, exclusive services take the environment.
//!
//! What becomes of the claim of a run that does not go on: [`crate::claim`].

use crate::{
    adopt, autoscalers, claim,
    cluster::{Cluster, refused},
    endpoints, hand_over,
    names::{self, Selected},
    observe::{annotation, generation, selector},
    pods,
    record::{self, ReleaseName, Stored},
    share,
    world::{Releases, World},
};
use futures_util::future::join_all;
use json_patch::{Patch, PatchOperation, jsonptr::PointerBuf};
use k8s_openapi::api::core::v1::Service;
use plimsoll_core::{EnvironmentName, Generation, ServiceName, Slot, chain, config::CanaryBy};
use plimsoll_deploy::{CutOver, CutOverDone, Fut, ReleaseRecord, TargetError, admit};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Others may write to a Service at the same time, such as a controller its status; so often it is read again.
const TRIES: u32 = 10;

/// Where a cut-over takes place.
pub(crate) struct Site<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) environment: &'a EnvironmentName,
    pub(crate) releases: &'a Releases,
    pub(crate) canary_by: CanaryBy,
}

/// Does a cut-over.
pub(crate) async fn cut_over(site: &Site<'_>, wish: &CutOver) -> Result<CutOverDone, TargetError> {
    let world = site.look().await?;
    let seen = world.observation();
    let record = admit(&seen, wish, crate::now())?;
    for moved in &wish.moves {
        ready(site, &world, &moved.service, moved.to).await?;
    }
    join_all(wish.moves.iter().map(|moved| keep_clients(site, &world, &moved.service, moved.to))).await;
    let stored = claim::claim(site, &world, wish).await?;
    let decided = Instant::now();
    let before = world.live.as_ref();
    let (out, into) = hand_over::exclusive(before, &record);
    let targets = targets(before, &record, wish);
    let mut handed = BTreeMap::new();
    let moving = async {
        // Under the generation it works by: with it the slot can be given the environment back.
        let generation = before.map_or(wish.from, |before| before.generation);
        let left = out.iter().map(|(service, slot)| async move {
            hand_over::take_away(site, service, *slot, generation).await.map(|()| (service.clone(), Instant::now()))
        });
        // None is broken off because another one failed: it may be told to give up just now.
        for left in join_all(left).await {
            handed.extend([left?]);
        }
        share::take_back(site, &targets).await?;
        for (service, slot) in &targets {
            switch(site, service, *slot, &record).await?;
        }
        commit(site, stored, &record).await
    };
    if let Err(error) = moving.await {
        give_back(site, before, &out).await;
        return Err(error);
    }
    // The record is what allows the new workers to begin; how far the endpoints are does not matter to them.
    let given = join_all(into.iter().map(|(service, slot)| async {
        hand_over::give(site, service, *slot, &record).await.map(|()| (service.clone(), Instant::now()))
    }));
    let following = async { followed(site, wish).await.map(|()| micros(decided)) };
    let (given, switched) = tokio::join!(given, following);
    // What the slot had of the one it took over from, or was given meanwhile. Without effect by now, and looked for again
    // before it could have one.
    if let Err(error) = share::clean(site, &targets).await {
        tracing::warn!(error = chain(&error), "something of a share is left");
    }
    if let Ok(world) = site.look().await {
        autoscalers::settle(site, &world).await;
    }
    let mut handover_micros = Vec::new();
    for given in given {
        let (service, at) = given?;
        let gap = handed.get(&service).map_or(Duration::ZERO, |since| at.duration_since(*since));
        handover_micros.push((service, u64::try_from(gap.as_micros()).unwrap_or(u64::MAX)));
    }
    Ok(CutOverDone { live: record, switch_micros: switched?, handover_micros })
}

/// A cut-over that did not come to its end leaves the workers of what is recorded at their work.
async fn give_back(site: &Site<'_>, before: Option<&ReleaseRecord>, out: &[(ServiceName, Slot)]) {
    let Some(before) = before else { return };
    for (service, slot) in out {
        // Where it did commit, or another run did, this is refused as stale.
        if let Err(error) = hand_over::give(site, service, *slot, before).await {
            tracing::warn!(%error, %service, %slot, "nobody works there until the next cut-over");
        }
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

impl Site<'_> {
    /// Boxed: six requests at once are a large future, and everybody looks.
    pub(crate) fn look(&self) -> Fut<'_, World> {
        Box::pin(World::look(self.cluster, self.environment, self.releases))
    }

    pub(crate) fn stale(&self, expected: Generation, current: Generation) -> TargetError {
        TargetError::Stale { environment: self.environment.clone(), expected, current }
    }
}

/// What each Service is to select, in dependency order; last those that the release does not name any more.
fn targets(before: Option<&ReleaseRecord>, record: &ReleaseRecord, wish: &CutOver) -> Vec<(ServiceName, Option<Slot>)> {
    let named = wish.release.services.iter().map(|spec| spec.name.clone());
    let named = named.filter_map(|name| Some((name.clone(), Some(record.services.get(&name)?.slot))));
    let gone = before.into_iter().flat_map(|b| b.services.keys()).filter(|n| !record.services.contains_key(*n));
    named.chain(gone.map(|name| (name.clone(), None))).collect()
}

/// Looks at a slot once more, now.
async fn ready(site: &Site<'_>, world: &World, service: &ServiceName, slot: Slot) -> Result<(), TargetError> {
    let seen = world.observation();
    let view = seen.services.get(service);
    let view = view.into_iter().flat_map(|v| [v.live.as_ref(), v.standby.as_ref()]).flatten();
    let view = view.into_iter().find(|s| s.slot == slot);
    let Some(view) = view.filter(|v| v.ready < v.replicas || v.ready == 0) else { return Ok(()) };
    let failing = view.failing.clone().unwrap_or_default();
    let reason = format!("{} of {} replicas are ready; {failing}", view.ready, view.replicas);
    let log_tail = crate::logs::tail(site.cluster, &world.pods_of(service, slot), 20).await;
    Err(TargetError::Slot { service: service.clone(), slot, reason, log_tail })
}

/// A slot that was drained when it served last keeps its clients again.
async fn keep_clients(site: &Site<'_>, world: &World, service: &ServiceName, slot: Slot) {
    let pods = world.pods_of(service, slot);
    join_all(pods.iter().map(|pod| pods::lame_duck(site.cluster, pod, false))).await;
}

/// Points a Service at a slot, or at none.
async fn switch(
    site: &Site<'_>,
    name: &ServiceName,
    slot: Option<Slot>,
    record: &ReleaseRecord,
) -> Result<(), TargetError> {
    let wanted = slot.map_or("no slot", Slot::as_str);
    let labels = format!("{},{}={name}", names::of_environment(site.environment), names::SERVICE);
    for _ in 0..TRIES {
        // What the world says comes first: a patch whose answer was lost has been done.
        let all = site.cluster.list::<Service>(&labels).await?;
        let Some(service) = all.into_iter().find(|s| annotation(s, names::GENERATION).is_some()) else {
            let Some(slot) = slot else { return Ok(()) };
            if adopt::take(site, name, slot, record).await? {
                return Ok(());
            }
            continue;
        };
        let selector = selector(&service);
        let at = Selected::by(&selector);
        // Before there were shares a Service selected the slot itself.
        let is_now = selector.contains_key(names::traffic_of(slot));
        let expected: BTreeMap<String, String> =
            annotation(&service, names::SELECTOR).and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default();
        let whole = crate::slot::rest_of_selector(&selector) == expected || expected.is_empty();
        if at == slot.into() && is_now && whole {
            return Ok(());
        }
        // A run that left its cut-over half made went ahead of the record, or another took this one's claim over: the
        // record says whose turn it is.
        if generation(&service) >= record.generation || claim::is_of_another(&service, &record.run) {
            fenced(site, record).await?;
        }
        let patch = patch(&service, &selector, slot, &expected, record);
        let object = service.metadata.name.as_deref().unwrap_or_default();
        match site.cluster.patch_if::<Service>(object, CUT_OVER, patch).await {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => fenced(site, record).await?,
            // Whether it took effect, the next turn's look tells.
            Err(TargetError::Unreachable { what, source }) => tracing::warn!(what, %source, "looking again"),
            Err(error) => return Err(error),
        }
    }
    Err(refused(&format!("point {name} at {wanted}"), format!("its Service changed {TRIES} times meanwhile")))
}

/// The field manager of selectors: who re-applies the rest does not own them.
pub(crate) const CUT_OVER: &str = "plimsoll-cut-over";

fn patch(
    service: &Service,
    selector: &BTreeMap<String, String>,
    slot: Option<Slot>,
    expected: &BTreeMap<String, String>,
    record: &ReleaseRecord,
) -> Patch {
    let version = service.metadata.resource_version.clone().unwrap_or_default();
    let mut whole: BTreeMap<&str, &str> = expected.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    if expected.is_empty() {
        whole = selector.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    }
    whole.retain(|key, _| !names::is_slot_key(key));
    whole.insert(names::traffic_of(slot), names::YES);
    let path = |tokens: &[&str]| PointerBuf::from_tokens(tokens.iter().copied());
    let test =
        |tokens: &[&str], value: Value| PatchOperation::Test(json_patch::TestOperation { path: path(tokens), value });
    let add =
        |tokens: &[&str], value: Value| PatchOperation::Add(json_patch::AddOperation { path: path(tokens), value });
    Patch(vec![
        test(&["metadata", "resourceVersion"], version.into()),
        test(&["metadata", "annotations", names::GENERATION], generation(service).to_string().into()),
        test(&["spec", "selector"], json!(selector)),
        add(&["spec", "selector"], json!(whole)),
        add(&["metadata", "annotations", names::GENERATION], record.generation.to_string().into()),
        add(&["metadata", "annotations", names::RUN], record.run.to_string().into()),
    ])
}

/// Refuses to go on when the record is claimed by somebody else.
async fn fenced(site: &Site<'_>, record: &ReleaseRecord) -> Result<(), TargetError> {
    let now = record::read(site.cluster, site.environment).await?.record;
    let ours = now.pending.as_ref().is_some_and(|pending| pending.run == record.run);
    if ours && now.generation.next() == record.generation {
        return Ok(());
    }
    Err(site.stale(Generation(record.generation.0 - 1), now.generation))
}

/// Makes `record` the live one.
async fn commit(site: &Site<'_>, mut stored: Stored, record: &ReleaseRecord) -> Result<(), TargetError> {
    record::write_release(site.cluster, site.environment, record).await?;
    let name = ReleaseName { generation: record.generation, run: record.run.clone() };
    for _ in 0..TRIES {
        let mut next = stored.clone();
        let forgotten = next.record.advance(name.clone());
        match record::write(site.cluster, site.environment, next).await {
            Ok(Some(_)) => {
                record::forget(site.cluster, site.environment, &forgotten).await;
                return Ok(());
            }
            Ok(None) => {}
            Err(TargetError::Unreachable { what, source }) => tracing::warn!(what, %source, "looking again"),
            Err(error) => return Err(error),
        }
        stored = record::read(site.cluster, site.environment).await?;
        if stored.record.live.as_ref() == Some(&name) {
            return Ok(());
        }
        fenced(site, record).await?;
    }
    Err(refused(&format!("record the release of {}", site.environment), "others write the record all the time"))
}

/// Waits until the endpoints of each moved service are pods of its new slot, and only those.
async fn followed(site: &Site<'_>, wish: &CutOver) -> Result<(), TargetError> {
    let to = |name: &ServiceName| wish.moves.iter().find(|moved| moved.service == *name).map(|moved| moved.to);
    endpoints::follow(site, wish.moves.iter().map(|moved| &moved.service), |world, name, found| {
        to(name).is_some_and(|slot| !found.is_empty() && found.is_subset(&endpoints::ready(world, name, slot)))
    })
    .await
}
