//! What a driver says while it works, and at its end.

use crate::{
    canary::{CanaryStep, Trial},
    load::ProbeReport,
    observation::{LockView, ReleaseRecord},
    plan::Refusal,
    probe::SmokeFailure,
    target::{DrainReport, Move, TargetError},
};
use plimsoll_core::{Classify, EnvironmentName, ErrorClass, Generation, ServiceName, Slot, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a deployment did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether what serves was changed by this run.
    pub changed: bool,
    /// The services that moved.
    pub moved: Vec<Move>,
    /// What serves now.
    pub live: ReleaseRecord,
    /// What served before, if this run changed it and there was something.
    pub previous: Option<ReleaseRecord>,
    /// From the decision until every new request went to the new slots, in microseconds; `None` when nothing moved or
    /// the target's answer was lost.
    pub switch_micros: Option<u64>,
    /// For each exclusive service that moved, how long no slot of it was active, in microseconds.
    pub handover: Vec<(ServiceName, u64)>,
    /// What the probes saw of the cut-over.
    pub probes: ProbeReport,
    /// The steps in which the new slots got a share of the requests before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canary: Vec<CanaryStep>,
    /// What was found on each former slot.
    pub drain: BTreeMap<ServiceName, DrainReport>,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// Something a person who waits wants to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum DriveEvent {
    /// A slot is being stood up.
    StandingUp {
        /// The service.
        service: ServiceName,
        /// The slot.
        slot: Slot,
    },
    /// Replicas are not ready yet.
    Waiting {
        /// For which.
        slots: Vec<WaitingFor>,
        /// Since when, in milliseconds.
        millis: u64,
    },
    /// Smoke requests go to a slot that is not live yet.
    Probing {
        /// The service.
        service: ServiceName,
        /// The slot.
        slot: Slot,
        /// How many replicas are asked.
        endpoints: usize,
        /// How many requests each gets.
        requests: usize,
    },
    /// New slots have a share of the requests.
    Trying {
        /// The share that was asked for, in percent.
        share: u8,
        /// For how long, in milliseconds.
        millis: u64,
        /// What is known of each service.
        trials: Vec<Trial>,
    },
    /// New slots did well enough with a share of the requests.
    Tried {
        /// How.
        step: CanaryStep,
    },
    /// Traffic is about to move.
    CuttingOver {
        /// What moves.
        moves: Vec<Move>,
    },
    /// Traffic moved.
    Live {
        /// The generation it made.
        generation: Generation,
        /// How long it took, in microseconds.
        switch_micros: u64,
    },
    /// The new slots are watched.
    Watching {
        /// For how long already, in milliseconds.
        millis: u64,
        /// For how long at least, in milliseconds.
        of_millis: u64,
        /// Probe requests sent.
        sent: u64,
        /// Of those, failed.
        failed: u64,
    },
    /// The former release is being put back.
    Returning {
        /// Why.
        reason: String,
    },
    /// Requests on a former slot get time to finish.
    Draining {
        /// The service.
        service: ServiceName,
        /// The slot.
        slot: Slot,
    },
    /// Nothing is under way on a former slot any more.
    Drained {
        /// The service.
        service: ServiceName,
        /// The slot.
        slot: Slot,
        /// What was found.
        report: DrainReport,
    },
    /// A slot that is not fit to serve is being ended.
    Retiring {
        /// The service.
        service: ServiceName,
        /// The slot.
        slot: Slot,
    },
    /// The target could not be reached; it is asked again.
    TryingAgain {
        /// What went wrong.
        reason: String,
    },
}

/// A slot that is not ready yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingFor {
    /// The service.
    pub service: ServiceName,
    /// The slot.
    pub slot: Slot,
    /// Replicas that are ready.
    pub ready: u16,
    /// Replicas wanted.
    pub replicas: u16,
    /// Why it is not ready, as far as the target knows.
    pub failing: Option<String>,
}

/// Gets told what a driver does. Must not block.
pub trait DriveObserver: Send + Sync {
    /// Something happened.
    fn on(&self, event: &DriveEvent);
}

/// Nobody listens.
impl DriveObserver for () {
    fn on(&self, _: &DriveEvent) {}
}

/// Why a deployment did not come to its goal.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// Another run is at work.
    #[error("{environment} is locked by run {} of {} since {}", holder.run, holder.actor, holder.since.readable())]
    Locked {
        /// The environment.
        environment: EnvironmentName,
        /// Who holds it, and since when.
        holder: LockView,
    },
    /// Another run took the lock while this one worked: it must have lapsed.
    #[error("the lock of {environment} went to run {run} of {actor} at {since}; this run stopped where it was")]
    LockLost {
        /// The environment.
        environment: EnvironmentName,
        /// Who holds it now.
        run: plimsoll_core::RunId,
        /// Who started that.
        actor: String,
        /// Since when.
        since: Timestamp,
    },
    /// The machine saw no way on.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The approval or another gate did not hold at the moment of the cut-over.
    #[error("the gate of {environment} is closed: {reason}")]
    Gate {
        /// The environment.
        environment: EnvironmentName,
        /// Why.
        reason: String,
    },
    /// A new slot did not get ready; what served still serves.
    #[error("{service} ({slot}) did not get ready: {reason}")]
    NotReady {
        /// The service.
        service: ServiceName,
        /// The slot, ended meanwhile.
        slot: Slot,
        /// What was wrong.
        reason: String,
        /// The last lines its processes wrote, oldest first.
        log_tail: Vec<String>,
    },
    /// A new slot did not answer as declared; what served still serves.
    #[error("{service} ({slot}) does not answer as declared")]
    Smoke {
        /// The service.
        service: ServiceName,
        /// The slot, ended meanwhile.
        slot: Slot,
        /// The answer.
        #[source]
        failure: Box<SmokeFailure>,
        /// The last lines its processes wrote, oldest first.
        log_tail: Vec<String>,
    },
    /// What serves does not work on the state that the new slot migrated, so there would be no way back; it still serves.
    #[error(
        "{service} {version} ({slot}), which serves, does not work any more: the new release has migrated the state, and it stays so"
    )]
    Former {
        /// The service.
        service: ServiceName,
        /// The slot that serves.
        slot: Slot,
        /// The version that serves.
        version: String,
        /// Its answer.
        #[source]
        failure: Box<SmokeFailure>,
        /// The last lines its processes wrote, oldest first.
        log_tail: Vec<String>,
    },
    /// A new slot did not do well enough with a share of the requests; what served still serves, all of them.
    #[error("{service} ({slot}) had {share} % of the requests and gave them back: {reason}")]
    Canary {
        /// The service.
        service: ServiceName,
        /// The slot, ended meanwhile.
        slot: Slot,
        /// The share, in percent.
        share: u8,
        /// What was wrong, or what was missing.
        reason: String,
        /// What was seen, step by step.
        steps: Vec<CanaryStep>,
        /// The last lines of the slot, oldest first.
        log_tail: Vec<String>,
    },
    /// The release was live for a moment, and the former one was put back.
    #[error("{version} was live and the former release was put back: {reason}")]
    Returned {
        /// The version that did not stay.
        version: String,
        /// Why.
        reason: String,
        /// The last lines of the slot to blame, oldest first.
        log_tail: Vec<String>,
        /// What the probes saw.
        probes: Box<ProbeReport>,
    },
    /// Somebody asked to stop.
    #[error("cancelled {}", if *.live { "after the cut-over: the new release serves" } else { "before the cut-over: what served still serves" })]
    Cancelled {
        /// Whether the cut-over had taken place.
        live: bool,
    },
    /// The target did not do what it was asked.
    #[error("the target failed")]
    Target(#[source] TargetError),
    /// The world did not come to rest: somebody else must be working on it.
    #[error("{environment} did not come to rest after {actions} actions")]
    Unsettled {
        /// The environment.
        environment: EnvironmentName,
        /// How many actions were taken.
        actions: usize,
    },
}

impl DriveError {
    /// The last lines of the process to blame, oldest first; empty when there is none.
    pub fn log_tail(&self) -> &[String] {
        match self {
            Self::NotReady { log_tail, .. }
            | Self::Smoke { log_tail, .. }
            | Self::Former { log_tail, .. }
            | Self::Canary { log_tail, .. }
            | Self::Returned { log_tail, .. } => log_tail,
            Self::Target(error) => error.log_tail(),
            _ => &[],
        }
    }
}

impl Classify for DriveError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Refused(Refusal::Stopped { .. } | Refusal::Unreadable { .. } | Refusal::NoWayBack { .. }) => {
                ErrorClass::User
            }
            Self::Gate { .. }
            | Self::NotReady { .. }
            | Self::Smoke { .. }
            | Self::Former { .. }
            | Self::Canary { .. }
            | Self::Returned { .. } => ErrorClass::CheckFailed,
            Self::Target(error) => error.class(),
            Self::Locked { .. }
            | Self::LockLost { .. }
            | Self::Refused(_)
            | Self::Cancelled { .. }
            | Self::Unsettled { .. } => ErrorClass::External,
        }
    }
}
