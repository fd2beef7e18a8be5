//! Whole deployments, driven as a release does.

use plimsoll_core::{RunId, ServiceName, Slot, Timestamp};
use plimsoll_deploy::{
    Change, Drive, DriveError, Goal, LockOwner, Observation, Outcome, Policy, Release, ReleaseRecord, ServiceSpec,
    Target as _, drive,
};
use plimsoll_kubernetes::KubernetesTarget;
use std::{future::pending, time::Duration};

pub(crate) fn run(number: u16) -> RunId {
    RunId::new(Timestamp::from_millis(1_700_000_000_000), number)
}

/// The wish of run `number` to have `services` serve as `version`.
pub(crate) fn deploy(number: u16, version: &str, services: Vec<ServiceSpec>) -> Goal {
    Goal::Deploy(Release {
        environment: "staging".parse().expect("a name"),
        version: version.to_owned(),
        revision: format!("c{version}"),
        run: run(number),
        actor: "ann".to_owned(),
        services,
        approval: None,
    })
}

/// A person's wish to have `record` serve again.
pub(crate) fn rollback(number: u16, record: ReleaseRecord) -> Goal {
    Goal::PutBack { record, change: Change::Rollback, by: LockOwner { run: run(number), actor: "ben".to_owned() } }
}

/// Neither probes nor a watch: what these tests look at is the cut-over itself.
pub(crate) fn quick() -> Policy {
    Policy { watch: Duration::ZERO, probes_per_second: 0, ..Policy::default() }
}

pub(crate) fn with<'a>(target: &'a KubernetesTarget, goal: &'a Goal, policy: &'a Policy) -> Drive<'a> {
    let prober = target.prober().expect("a cluster is asked through its API server");
    Drive { target, goal, policy, prober, meter: None, gate: &|_, _| Ok(()), observer: &() }
}

pub(crate) async fn reach(target: &KubernetesTarget, goal: &Goal) -> Result<Outcome, DriveError> {
    drive(&with(target, goal, &quick()), pending()).await
}

pub(crate) async fn look(target: &KubernetesTarget) -> Observation {
    target.observe().await.expect("a look")
}

pub(crate) fn live_slot(seen: &Observation, service: &ServiceName) -> Slot {
    seen.live.as_ref().expect("something is live").services[service].slot
}
