//! Whether a backup can be put back: what is live must take it and read it, and nobody else may be at work. Pure.

use crate::delivery::backup::set::Manifest;
use plimsoll_core::Timestamp;
use plimsoll_deploy::{Observation, ReleaseRecord};
use plimsoll_engine::StepError;

/// What is live, if it can work on the backup. `partial` allows that services which keep a state are not in it.
pub(in crate::delivery) fn fits<'a>(
    seen: &'a Observation,
    manifest: &Manifest,
    partial: bool,
    now: Timestamp,
) -> Result<&'a ReleaseRecord, StepError> {
    let environment = &seen.environment;
    if let Some(holder) = seen.lock.as_ref().filter(|lock| lock.expires > now) {
        let what = format!("run {} of {} is at work in {environment}", holder.run, holder.actor);
        return Err(StepError::user(what).with_hint("wait until it has ended, or its lock has lapsed"));
    }
    let live = seen.live.as_ref();
    let live = live.ok_or_else(|| StepError::user(format!("nothing is live in {environment}: release first")))?;
    takes(live, manifest, partial)?;
    Ok(live)
}

/// Whether a release can work on the backup.
pub(in crate::delivery) fn takes(live: &ReleaseRecord, manifest: &Manifest, partial: bool) -> Result<(), StepError> {
    if manifest.services.is_empty() {
        return Err(StepError::check("the backup has the state of no service"));
    }
    for (service, copied) in &manifest.services {
        let record = live.services.get(service).filter(|record| record.spec.backup.is_some());
        let Some(record) = record else {
            let what = format!("the backup has a state of {service}, and {} does not take one", live.version);
            return Err(StepError::user(what));
        };
        if let (Some(wrote), Some(reads)) = (copied.schema, record.spec.schema)
            && wrote.readable_from > reads.version
        {
            return Err(StepError::user(format!(
                "{} cannot read this state of {service}: it reads up to schema {}, and {} is needed",
                live.version, reads.version, wrote.readable_from
            )));
        }
    }
    let keeps = live.services.iter().filter(|(_, record)| record.spec.backup.is_some()).map(|(name, _)| name);
    match keeps.into_iter().find(|name| !manifest.services.contains_key(*name)).filter(|_| !partial) {
        Some(other) => {
            Err(StepError::user(format!("the backup has no state of {other}, which would keep what it has"))
                .with_hint("--partial says that this is meant"))
        }
        None => Ok(()),
    }
}
