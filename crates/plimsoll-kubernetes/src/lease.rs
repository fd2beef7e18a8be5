//! The environment's lock: a Lease of `coordination.k8s.io/v1`, held by a run.
//!
//! It keeps two people from doing the same work at the same time, and says who is at it. It does not fence: clocks
//! differ, processes sleep. The generation does that.

use crate::{cluster::Cluster, names};
use jiff::Timestamp as Instant;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::api::ObjectMeta;
use plimsoll_core::{EnvironmentName, Timestamp};
use plimsoll_deploy::{LockOutcome, LockOwner, LockView, TargetError};
use std::{collections::BTreeMap, time::Duration};

/// Annotation: who started the run that holds the lock.
const ACTOR: &str = "plimsoll.dev/actor";
/// Annotation: for how long it holds, in milliseconds; the Lease's own field has whole seconds.
const LEASE_MS: &str = "plimsoll.dev/lease-ms";
/// Two writers alternate at most so often before one of them is told that the other holds the lock.
const TRIES: u32 = 8;

/// Takes or renews the lock.
pub(crate) async fn take(
    cluster: &Cluster,
    environment: &EnvironmentName,
    owner: &LockOwner,
    lease: Duration,
) -> Result<LockOutcome, TargetError> {
    let name = names::environment(environment);
    let mut seen = None;
    for _ in 0..TRIES {
        let now = crate::now();
        let found = cluster.get::<Lease>(&name).await?;
        let held = found.as_ref().and_then(view).filter(|view| view.expires > now);
        if let Some(view) = held.as_ref().filter(|view| view.run != owner.run) {
            return Ok(LockOutcome::Busy(view.clone()));
        }
        let since = held.map_or(now, |view| view.since);
        let wanted = wanted(&name, environment, owner, since, now, lease, found);
        match cluster.compare_and_set(&name, &wanted).await? {
            Some(done) => return Ok(LockOutcome::Held(view(&done).expect("it was written with a holder"))),
            None => seen = Some(name.clone()),
        }
    }
    let reason = format!("others write it all the time ({seen:?})");
    Err(crate::cluster::refused(&format!("take the lock of {environment}"), reason))
}

/// Gives it back, if `owner` has it.
pub(crate) async fn give(
    cluster: &Cluster,
    environment: &EnvironmentName,
    owner: &LockOwner,
) -> Result<(), TargetError> {
    let name = names::environment(environment);
    let Some(mut lease) = cluster.get::<Lease>(&name).await? else { return Ok(()) };
    if view(&lease).is_none_or(|view| view.run != owner.run) {
        return Ok(());
    }
    if let Some(spec) = &mut lease.spec {
        spec.holder_identity = None;
    }
    // Whoever took it meanwhile keeps it.
    cluster.compare_and_set(&name, &lease).await.map(drop)
}

/// Who holds the lock, where anybody does.
pub(crate) fn view(lease: &Lease) -> Option<LockView> {
    let spec = lease.spec.as_ref()?;
    let run = spec.holder_identity.as_deref()?.parse().ok()?;
    let annotation = |key: &str| lease.metadata.annotations.as_ref()?.get(key).cloned();
    let seconds = i64::from(spec.lease_duration_seconds.unwrap_or(0)) * 1000;
    let millis = annotation(LEASE_MS).and_then(|ms| ms.parse().ok()).unwrap_or(seconds);
    let at = |time: &Option<MicroTime>| Some(Timestamp::from_millis(time.as_ref()?.0.as_millisecond()));
    let renewed = at(&spec.renew_time)?;
    Some(LockView {
        run,
        actor: annotation(ACTOR).unwrap_or_default(),
        since: at(&spec.acquire_time)?,
        expires: Timestamp::from_millis(renewed.as_millis().saturating_add(millis)),
    })
}

fn wanted(
    name: &str,
    environment: &EnvironmentName,
    owner: &LockOwner,
    since: Timestamp,
    now: Timestamp,
    lease: Duration,
    found: Option<Lease>,
) -> Lease {
    let millis = lease.as_millis();
    let micro = |at: Timestamp| Instant::from_millisecond(at.as_millis()).ok().map(MicroTime);
    Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            resource_version: found.and_then(|lease| lease.metadata.resource_version),
            labels: Some(BTreeMap::from([(names::ENVIRONMENT.to_owned(), environment.to_string())])),
            annotations: Some(BTreeMap::from([
                (ACTOR.to_owned(), owner.actor.clone()),
                (LEASE_MS.to_owned(), millis.to_string()),
            ])),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(owner.run.to_string()),
            acquire_time: micro(since),
            renew_time: micro(now),
            lease_duration_seconds: Some(i32::try_from(millis.div_ceil(1000).max(1)).unwrap_or(i32::MAX)),
            ..LeaseSpec::default()
        }),
    }
}
