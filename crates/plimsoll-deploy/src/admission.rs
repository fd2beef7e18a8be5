//! Whether a cut-over may take place as the world stands, and the record it makes; whether shares may be given. Pure: every
//! target asks it first.

use crate::{
    observation::{Observation, ReleaseRecord, ServiceRecord},
    target::{CutOver, TargetError, Weights},
};
use plimsoll_core::{EnvironmentName, Generation, RunId, ServiceName, Timestamp};
use std::collections::BTreeMap;

/// The record that `wish` makes at `now`, or why it is refused: a stale generation, a stopped environment, a slot that
/// does not stand, runs something else, or is not the one that serves.
pub fn admit(seen: &Observation, wish: &CutOver, now: Timestamp) -> Result<ReleaseRecord, TargetError> {
    let refused = |reason: String| TargetError::Refused {
        what: format!("cut {} over to {}", seen.environment, wish.release.version),
        reason,
    };
    if wish.from != seen.generation {
        let (expected, current) = (wish.from, seen.generation);
        return Err(TargetError::Stale { environment: seen.environment.clone(), expected, current });
    }
    if seen.stopped {
        return Err(refused("the environment is stopped; start it first".to_owned()));
    }
    let mut services = BTreeMap::new();
    for spec in &wish.release.services {
        let view = seen.services.get(&spec.name);
        let live = view.and_then(|v| v.live.as_ref());
        let moved = wish.moves.iter().find(|m| m.service == spec.name);
        if let Some(moved) = moved.filter(|m| m.from != live.map(|l| l.slot)) {
            let live = live.map_or("nothing", |l| l.slot.as_str());
            let from = moved.from.map_or("nothing", |slot| slot.as_str());
            return Err(refused(format!("{} is to move from {from}, but {live} is live", spec.name)));
        }
        let slot = moved.map(|m| m.to).or(live.map(|l| l.slot));
        let stands = view.into_iter().flat_map(|v| [v.live.as_ref(), v.standby.as_ref()]).flatten();
        let Some(stands) = stands.into_iter().find(|s| Some(s.slot) == slot) else {
            return Err(refused(format!("{} does not stand in the slot that is to serve", spec.name)));
        };
        if !stands.runs(spec) {
            return Err(refused(format!("{} ({}) runs something else than the release names", spec.name, stands.slot)));
        }
        services.insert(spec.name.clone(), ServiceRecord { slot: stands.slot, spec: spec.clone() });
    }
    if let Some(stray) = wish.moves.iter().find(|m| !services.contains_key(&m.service)) {
        return Err(refused(format!("{} moves but is not in the release", stray.service)));
    }
    Ok(ReleaseRecord {
        version: wish.release.version.clone(),
        revision: wish.release.revision.clone(),
        run: wish.release.run.clone(),
        actor: wish.release.actor.clone(),
        since: now,
        generation: wish.from.next(),
        approval: wish.release.approval.clone(),
        services,
    })
}

/// What stands beside a service's live slot, and could get a share of its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// Nothing is live that it could stand beside.
    NothingLive,
    /// Nothing.
    Nothing,
    /// A slot of a service of which only one slot may work.
    Exclusive,
    /// A slot that may get a share.
    Slot,
}

/// Why shares may not be given in an environment at generation `current`, whose lock `holder` holds: a stale generation, a
/// run without the lock, more than everything, or a service of which no slot can have a share. Shares may always be taken away.
pub fn admit_shares(
    environment: &EnvironmentName,
    current: Generation,
    holder: Option<&RunId>,
    weights: &Weights,
    beside: impl Fn(&ServiceName) -> Beside,
) -> Result<(), TargetError> {
    if weights.from != current {
        return Err(TargetError::Stale { environment: environment.clone(), expected: weights.from, current });
    }
    if holder != Some(&weights.run) {
        let what = format!("share the requests of {environment}");
        return Err(TargetError::Refused { what, reason: format!("run {} does not hold the lock", weights.run) });
    }
    for (service, share) in weights.shares.iter().filter(|(_, share)| **share > 0) {
        let reason = match beside(service) {
            _ if *share > 100 => "there are not more than 100",
            Beside::NothingLive => "nothing is live beside it",
            Beside::Nothing => "nothing stands there",
            Beside::Exclusive => "only one slot of it may work",
            Beside::Slot => continue,
        };
        let what = format!("give {share} % of the requests to the standby slot of {service}");
        return Err(TargetError::Refused { what, reason: reason.to_owned() });
    }
    Ok(())
}
