//! What a deployment is to reach: a new release, or a recorded one put back.

use crate::{
    observation::{Observation, ReleaseRecord},
    plan::{all_serve, idle},
    spec::{Release, ServiceSpec},
    target::{Change, LockOwner},
};
use plimsoll_core::EnvironmentName;

/// What is to serve when the deployment is done.
#[derive(Debug, Clone, PartialEq)]
pub enum Goal {
    /// A release that may be new to the environment.
    Deploy(Release),
    /// A release that served before. Where its slots are still warm, nothing is fetched, built or started.
    PutBack {
        /// What served, as the target recorded it.
        record: ReleaseRecord,
        /// A person's rollback, or the engine's own return.
        change: Change,
        /// Who does it now; the record's own run and actor are those of its first time.
        by: LockOwner,
    },
}

impl Goal {
    /// Who takes the lock and answers for the change.
    pub fn owner(&self) -> LockOwner {
        match self {
            Self::Deploy(release) => LockOwner { run: release.run.clone(), actor: release.actor.clone() },
            Self::PutBack { by, .. } => by.clone(),
        }
    }

    /// Why what serves is changed.
    pub const fn change(&self) -> Change {
        match self {
            Self::Deploy(_) => Change::Promote,
            Self::PutBack { change, .. } => *change,
        }
    }

    /// The version that is to serve.
    pub fn version(&self) -> &str {
        match self {
            Self::Deploy(release) => &release.version,
            Self::PutBack { record, .. } => &record.version,
        }
    }

    /// The commit of that version.
    pub fn revision(&self) -> &str {
        match self {
            Self::Deploy(release) => &release.revision,
            Self::PutBack { record, .. } => &record.revision,
        }
    }

    /// The services, in dependency order: what others depend on comes first.
    pub fn services(&self) -> Vec<&ServiceSpec> {
        match self {
            Self::Deploy(release) => dependency_order(release.services.iter().collect()),
            Self::PutBack { record, .. } => record.specs(),
        }
    }

    /// The release in the form a target takes it.
    pub fn release(&self, environment: &EnvironmentName) -> Release {
        match self {
            Self::Deploy(release) => Release {
                environment: environment.clone(),
                services: self.services().into_iter().cloned().collect(),
                ..release.clone()
            },
            Self::PutBack { record, by, .. } => Release {
                environment: environment.clone(),
                version: record.version.clone(),
                revision: record.revision.clone(),
                run: by.run.clone(),
                actor: by.actor.clone(),
                services: record.specs().into_iter().cloned().collect(),
                approval: record.approval.clone(),
            },
        }
    }

    /// Whether `record` says that exactly this serves: version, revision, and each service's digest and configuration.
    pub fn is_served_by(&self, record: &ReleaseRecord) -> bool {
        let services = self.services();
        record.version == self.version()
            && record.revision == self.revision()
            && record.services.len() == services.len()
            && services.iter().all(|spec| record.services.get(&spec.name).is_some_and(|r| spec.is_same_as(&r.spec)))
    }
}

impl ReleaseRecord {
    /// The record's services in dependency order.
    pub fn specs(&self) -> Vec<&ServiceSpec> {
        dependency_order(self.services.values().map(|s| &s.spec).collect())
    }
}

impl ServiceSpec {
    /// Whether the two behave alike: same digest, same configuration.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.digest == other.digest && self.config_hash == other.config_hash
    }
}

/// How far a goal has come, as the world shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// It does not serve. What stands ready on standby changes nothing for anybody.
    NotDone,
    /// It serves under the goal's own run, and nothing is left standing that waits for a drain verdict.
    Done,
    /// It serves, but the deployment did not come to its end: driving it again finishes it.
    Half,
}

/// How far `goal` has come in `seen`. Reads only what the target said; for an engine that asks before it acts.
///
/// A live release counts as half until the driver said so otherwise, because the watch after a cut-over cannot be seen:
/// only a change of nothing but version and revision is done once it is recorded.
pub fn reconcile(goal: &Goal, seen: &Observation) -> Reached {
    let run = goal.owner().run;
    if let Some(live) = &seen.live
        && goal.is_served_by(live)
        && all_serve(goal, seen)
        && seen.drift.is_empty()
        && seen.shared().next().is_none()
        && idle(goal.services(), seen).is_empty()
    {
        let before = seen.history.first();
        let moved = live
            .services
            .iter()
            .any(|(name, now)| before.and_then(|b| b.services.get(name)).is_none_or(|then| then.slot != now.slot));
        return if live.run != run || !moved { Reached::Done } else { Reached::Half };
    }
    Reached::NotDone
}

/// Sorts so that no service comes before one it depends on; services of a cycle stay in their order.
fn dependency_order(mut left: Vec<&ServiceSpec>) -> Vec<&ServiceSpec> {
    let mut sorted = Vec::with_capacity(left.len());
    // Each turn takes one out, so there are as many turns as services.
    while !left.is_empty() {
        let waits = |s: &&ServiceSpec| left.iter().any(|o| o.name != s.name && s.depends_on.contains(&o.name));
        let at = left.iter().position(|s| !waits(s)).unwrap_or(0);
        sorted.push(left.remove(at));
    }
    sorted
}
