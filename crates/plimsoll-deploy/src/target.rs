//! The one trait every target implements: local processes, Docker Engine, Kubernetes.
//!
//! Every verb may be repeated: it looks first and does only what is missing. Verbs that change what serves carry the
//! generation they start from, and a target refuses a stale one ([`TargetError::Stale`]).

use crate::{
    observation::{LockView, Observation, ReleaseRecord, SlotView},
    probe::Prober,
    spec::{Release, ServiceSpec},
    traffic::Traffic,
};
use plimsoll_core::{Classify, EnvironmentName, ErrorClass, Generation, RunId, Secret, ServiceName, Slot};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, future::Future, path::Path, pin::Pin, sync::Arc, time::Duration};

/// What the trait's verbs return: a future that may be sent between threads.
pub type Fut<'a, T> = Pin<Box<dyn Future<Output = Result<T, TargetError>> + Send + 'a>>;

/// Resolves the name of a secret's source to its value, at the moment something is started with it.
pub type SecretSource = Arc<dyn Fn(&str) -> Result<Secret, String> + Send + Sync>;

/// What an environment runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    /// Processes of this machine behind the embedded proxy.
    Local,
    /// Containers of a Docker Engine.
    Docker,
    /// A Kubernetes namespace.
    Kubernetes,
}

impl TargetKind {
    /// Whether a service that did not move tells the version of the release that serves now. Where it cannot, it tells that
    /// of the release which stood it up.
    pub const fn tells_every_release(self) -> bool {
        matches!(self, Self::Local | Self::Docker)
    }
}

/// Why a target did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Somebody changed the environment since it was looked at.
    #[error("{environment} is at generation {current}, this change was made for {expected}")]
    Stale {
        /// Which environment.
        environment: EnvironmentName,
        /// The generation the change started from.
        expected: Generation,
        /// The generation it has now.
        current: Generation,
    },
    /// What was asked for makes no sense here, such as an image this target cannot run.
    #[error("{what}: {reason}")]
    Refused {
        /// What was asked.
        what: String,
        /// Why it is refused, with the way out where there is one.
        reason: String,
    },
    /// A slot did not become what it should.
    #[error("{service} ({slot}): {reason}")]
    Slot {
        /// Which service.
        service: ServiceName,
        /// Which of its slots.
        slot: Slot,
        /// What went wrong.
        reason: String,
        /// The last lines its processes wrote, oldest first.
        log_tail: Vec<String>,
    },
    /// The target could not be reached or broke off.
    #[error("{what}")]
    Unreachable {
        /// What was attempted, with which value.
        what: String,
        /// What came in between.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl TargetError {
    /// The last lines of the process to blame, oldest first; empty when there is none.
    pub fn log_tail(&self) -> &[String] {
        match self {
            Self::Slot { log_tail, .. } => log_tail,
            Self::Stale { .. } | Self::Refused { .. } | Self::Unreachable { .. } => &[],
        }
    }
}

impl Classify for TargetError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Refused { .. } => ErrorClass::User,
            Self::Stale { .. } | Self::Slot { .. } | Self::Unreachable { .. } => ErrorClass::External,
        }
    }
}

/// Who wants the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockOwner {
    /// The run.
    pub run: RunId,
    /// Who started it.
    pub actor: String,
}

/// The answer to a wish for the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockOutcome {
    /// It is the owner's, until the time named in the view.
    Held(LockView),
    /// Another run has it.
    Busy(LockView),
}

/// One service's part of a cut-over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Which service.
    pub service: ServiceName,
    /// The slot that takes the traffic now, if any.
    pub from: Option<Slot>,
    /// The slot that is to take it.
    pub to: Slot,
}

/// A cut-over: one change of what serves, from one generation to the next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CutOver {
    /// The generation it starts from.
    pub from: Generation,
    /// The services that move; the others stay where they are.
    pub moves: Vec<Move>,
    /// What serves afterwards: all services of the environment, moved or not. The target gives the record its
    /// generation and time.
    pub release: Release,
    /// Why.
    pub change: Change,
}

/// Why what serves is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// A release goes live.
    Promote,
    /// A person puts a former release back.
    Rollback,
    /// The engine puts the former release back by itself.
    AutomaticReturn,
}

/// What a cut-over did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CutOverDone {
    /// The record now live at the target.
    pub live: ReleaseRecord,
    /// From the decision until every new request went to the new slots, in microseconds.
    pub switch_micros: u64,
    /// For each exclusive service, how long no slot of it was active, in microseconds.
    pub handover_micros: Vec<(ServiceName, u64)>,
}

/// What a drain found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DrainReport {
    /// Requests that finished on the old slot.
    pub finished: u64,
    /// Requests that had no answer by the deadline and got a 504.
    pub timed_out: u64,
    /// Answers cut off in the middle by the deadline.
    pub aborted: u64,
    /// Web sockets closed with code 1001.
    pub websockets_closed: u64,
    /// Connections without a request that stayed open: their next request is answered there, and closes them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub still_connected: u64,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A wish for shares of the requests, in percent, that slots which are not live are to get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    /// The generation it is made for.
    pub from: Generation,
    /// The run that makes it, which holds the lock.
    pub run: RunId,
    /// The share of each service's standby slot, from 0 to 100; services that are not named keep theirs.
    pub shares: BTreeMap<ServiceName, u8>,
}

/// The longest time that copying a state, or putting a copy back, may take.
pub const STATE_COMMAND: Duration = Duration::from_hours(1);

/// The verbs of a target, for one environment.
pub trait Target: Send + Sync {
    /// What kind of target this is.
    fn kind(&self) -> TargetKind;

    /// Which environment it is for.
    fn environment(&self) -> &EnvironmentName;

    /// Looks at the environment; changes nothing.
    fn observe(&self) -> Fut<'_, Observation>;

    /// Looks as [`Target::observe`] does, but starts nothing for it. `None` when nothing was ever done here.
    fn peek(&self) -> Fut<'_, Option<Observation>> {
        Box::pin(async move { Ok(Some(self.observe().await?).filter(Observation::has_record)) })
    }

    /// Takes or renews the environment's lock for `lease`.
    fn lock<'a>(&'a self, owner: &'a LockOwner, lease: Duration) -> Fut<'a, LockOutcome>;

    /// Gives the lock back; nothing happens if another run holds it.
    fn unlock<'a>(&'a self, owner: &'a LockOwner) -> Fut<'a, ()>;

    /// Makes `spec` stand in `slot`, which must not be live: fetches the image by digest, starts the replicas.
    /// Returns when they have been started, ready or not. What stood there before and differs is retired first.
    fn stand_up<'a>(&'a self, spec: &'a ServiceSpec, slot: Slot, release: &'a Release) -> Fut<'a, SlotView>;

    /// Base URLs that reach the replicas of a slot directly, live or not, without a trailing slash.
    fn endpoints<'a>(&'a self, service: &'a ServiceName, slot: Slot) -> Fut<'a, Vec<String>>;

    /// Moves traffic. All moves take effect or none does; the record is durable before it is acknowledged.
    /// An exclusive service is deactivated in the old slot before it is activated in the new one.
    fn cut_over<'a>(&'a self, cut_over: &'a CutOver) -> Fut<'a, CutOverDone>;

    /// Waits until nothing is under way on a slot that is no longer live, at most `deadline`.
    fn drain<'a>(&'a self, service: &'a ServiceName, slot: Slot, deadline: Duration) -> Fut<'a, DrainReport>;

    /// Ends what stands in a slot that is not live.
    fn retire<'a>(&'a self, service: &'a ServiceName, slot: Slot) -> Fut<'a, ()>;

    /// Ends every process of the environment but keeps its record: the emergency stop.
    fn stop<'a>(&'a self, from: Generation, actor: &'a str, reason: Option<&'a str>) -> Fut<'a, Generation>;

    /// Starts a stopped environment again, as it was.
    fn start<'a>(&'a self, from: Generation, actor: &'a str) -> Fut<'a, Generation>;

    /// Writes a copy of a service's state, as it is at one moment, into the file `to`: by the `save` command of what serves,
    /// which goes on working. What the file holds after an error is worth nothing.
    fn backup<'a>(&'a self, service: &'a ServiceName, to: &'a Path) -> Fut<'a, ()>;

    /// Puts a copy in the place of a service's state, whole or not at all: by the `load` command of what served last. Refused
    /// for a stale generation, and unless the environment is stopped.
    fn restore<'a>(&'a self, from: Generation, service: &'a ServiceName, copy: &'a Path) -> Fut<'a, ()>;

    /// Gives standby slots a share of the requests, or takes it from them. Refused for a stale generation, and for a run
    /// that does not hold the lock. A target that can only share by replicas gives what is nearest, and not less than one
    /// replica; [`crate::ServiceView::share`] tells what it came to. A cut-over takes all shares away.
    fn weigh<'a>(&'a self, weights: &'a Weights) -> Fut<'a, ()>;

    /// What each source counted of a slot. An error where that cannot be known: no numbers are not zero.
    fn traffic<'a>(&'a self, service: &'a ServiceName, slot: Slot) -> Fut<'a, Traffic>;

    /// Tells a live slot of an exclusive service to work, after a cut-over that was interrupted before it did so. A target
    /// with somebody who sees to that all the time has nothing to do.
    fn activate<'a>(&'a self, service: &'a ServiceName, slot: Slot) -> Fut<'a, ()> {
        let _ = (service, slot);
        Box::pin(async { Ok(()) })
    }

    /// Returns when something may have changed: after `pause`, or when the target heard of a change. Never later than
    /// ten times `pause`.
    fn changed(&self, pause: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep(pause))
    }

    /// Who asks at the URLs that this target names, where they cannot be reached by plain HTTP from here.
    fn prober(&self) -> Option<&dyn Prober> {
        None
    }

    /// The last `lines` lines the processes of a slot wrote, oldest first.
    fn logs<'a>(&'a self, service: &'a ServiceName, slot: Slot, lines: usize) -> Fut<'a, Vec<String>>;
}
