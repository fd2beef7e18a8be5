//! What the target says is there. Recorded at the target itself, so that it survives the loss of every laptop.

use crate::spec::{ApprovalRecord, ServiceSpec};
use plimsoll_core::{Digest, EnvironmentName, Fingerprint, Generation, RunId, ServiceName, Slot, Timestamp};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// What the reason of a stop begins with that a restore makes.
pub const RESTORING: &str = "restore of the backup of ";

/// One look at an environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Which environment.
    pub environment: EnvironmentName,
    /// The counter of its changes; 0 before the first.
    pub generation: Generation,
    /// The release that serves, if one does.
    pub live: Option<ReleaseRecord>,
    /// The releases before it, newest first; what `rollback` chooses from. Bounded by the target (at least 10).
    pub history: Vec<ReleaseRecord>,
    /// Each known service.
    pub services: BTreeMap<ServiceName, ServiceView>,
    /// Whether the environment was stopped on purpose.
    pub stopped: bool,
    /// Who stopped it last, or started it again since.
    pub switched: Option<Switched>,
    /// Who holds the environment's lock.
    pub lock: Option<LockView>,
    /// Where the world is not as the record says, and no cut-over under way explains it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<Drift>,
}

impl Observation {
    /// Whether anything was ever done in the environment.
    pub fn has_record(&self) -> bool {
        self.generation > Generation::default() || !self.services.is_empty() || self.lock.is_some()
    }

    /// Whether it was stopped by a restore that has not come to its end: its states may be half old and half new.
    pub fn is_being_restored(&self) -> bool {
        let reason = self.switched.as_ref().filter(|s| s.stopped).and_then(|s| s.reason.as_deref());
        self.stopped && reason.is_some_and(|reason| reason.starts_with(RESTORING))
    }

    /// Services of which a slot that is not live gets a share of the requests.
    pub fn shared(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.iter().filter(|(_, view)| view.share > 0).map(|(name, _)| name)
    }

    /// Whether what serves is not what the live record names: a cut-over of several services was left half made.
    pub fn is_half_made(&self) -> bool {
        let differs = |name: &ServiceName, record: &ServiceRecord| {
            let live = self.services.get(name).and_then(|view| view.live.as_ref());
            live.is_some_and(|slot| !slot.runs(&record.spec))
        };
        self.live.iter().flat_map(|live| &live.services).any(|(name, record)| differs(name, record))
    }
}

/// One thing that somebody else changed at the target.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Drift {
    /// What, such as `selector of Service gateway`.
    pub what: String,
    /// What was recorded.
    pub recorded: String,
    /// What is there.
    pub found: String,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: recorded {}, found {}", self.what, self.recorded, self.found)
    }
}

/// One service of an environment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ServiceView {
    /// The slot that takes the traffic.
    pub live: Option<SlotView>,
    /// The other slot, when something stands in it.
    pub standby: Option<SlotView>,
    /// The share of the requests, in percent, that the standby slot gets: of a canary, else 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub share: u8,
    /// Where clients reach the service, without a trailing slash.
    pub url: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(share: &u8) -> bool {
    *share == 0
}

/// What stands in a slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlotView {
    /// Blue or green.
    pub slot: Slot,
    /// The digest it runs.
    pub digest: Digest,
    /// The hash of the configuration it was started with.
    pub config_hash: Fingerprint,
    /// The version of the release that stood it up.
    pub version: String,
    /// Replicas wanted.
    pub replicas: u16,
    /// Replicas that answer their health path with 200 now.
    pub ready: u16,
    /// For an exclusive service: the generation it was activated with, if it is active.
    pub active: Option<Generation>,
    /// Why it is not ready, in words, with the process's last lines where there are any.
    pub failing: Option<String>,
    /// Whether waiting will not help: what `failing` says does not pass by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stuck: bool,
    /// How often its processes ended without being asked to since it was stood up.
    pub crashes: u32,
}

impl SlotView {
    /// Whether it runs exactly this: the same digest with the same configuration.
    pub fn runs(&self, spec: &ServiceSpec) -> bool {
        self.digest == spec.digest && self.config_hash == spec.config_hash
    }
}

/// What stands in the place of a commit where a release was not made by Plimsoll but adopted.
pub const ADOPTED: &str = "adopted";

/// A release as recorded at the target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseRecord {
    /// The release's version.
    pub version: String,
    /// The commit it was made from.
    pub revision: String,
    /// The run that put it there.
    pub run: RunId,
    /// Who started that run.
    pub actor: String,
    /// When it took the traffic.
    pub since: Timestamp,
    /// The generation its cut-over made.
    pub generation: Generation,
    /// The approval it serves under.
    pub approval: Option<ApprovalRecord>,
    /// Its services with everything needed to stand them up again.
    pub services: BTreeMap<ServiceName, ServiceRecord>,
}

impl ReleaseRecord {
    /// Whether it is what Plimsoll found when it came: nobody approved it, and it served before anybody could.
    pub fn is_adopted(&self) -> bool {
        self.revision == ADOPTED
    }
}

/// A service within a recorded release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// The slot it took.
    pub slot: Slot,
    /// What it ran.
    pub spec: ServiceSpec,
}

/// An environment's last stop, or the start after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switched {
    /// Whether it was a stop.
    pub stopped: bool,
    /// Who asked for it.
    pub actor: String,
    /// Why, where that was said.
    pub reason: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// The holder of an environment's lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockView {
    /// The run that holds it.
    pub run: RunId,
    /// Who started that run.
    pub actor: String,
    /// Since when.
    pub since: Timestamp,
    /// When it lapses unless renewed.
    pub expires: Timestamp,
}
