//! What is to serve: services with their images and configuration, and the release that names them all.

use crate::{
    capacity::{Autoscale, Resources, Storage},
    metrics::Metrics,
};
use plimsoll_core::{
    BackupCommands, Digest, EnvironmentName, Fingerprint, ImageRef, RunId, ServiceName, StateSchema, Timestamp,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything a target needs to run one service of one environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// The service's name.
    pub name: ServiceName,
    /// The image, by digest: a multi-platform index or a manifest.
    pub image: ImageRef,
    /// The digest again, on its own: what observation compares.
    pub digest: Digest,
    /// How many processes serve it.
    pub replicas: u16,
    /// The port that clients use; `None` lets the target choose one and keep it.
    pub public_port: Option<u16>,
    /// Plain environment variables.
    pub env: BTreeMap<String, String>,
    /// Environment variables whose values are secret: variable name to the *name* of the secret's source, resolved
    /// by the target when a process starts, never recorded.
    pub secret_env: BTreeMap<String, String>,
    /// Names of the services this one calls; their addresses are handed to it as `<NAME>_URL`.
    pub depends_on: Vec<ServiceName>,
    /// When the service counts as ready.
    pub health: Health,
    /// Idempotent requests that show the service works.
    pub smoke: Vec<SmokeRequest>,
    /// Whether it may work while standby.
    pub activation: Activation,
    /// Who shares its state directory.
    pub state: StatePolicy,
    /// How long in-flight requests may take to finish when the slot is drained, in milliseconds.
    pub drain_ms: u64,
    /// How long a process may take to end after SIGTERM before it is killed, in milliseconds.
    pub stop_grace_ms: u64,
    /// What one replica is promised of a cluster, and what it may take.
    #[serde(default)]
    pub resources: Resources,
    /// How many replicas a cluster gives it, by load; `replicas` is how many it starts with.
    #[serde(default)]
    pub autoscale: Option<Autoscale>,
    /// The volume a cluster gives it, where its state is not external.
    #[serde(default)]
    pub storage: Option<Storage>,
    /// Where its replicas tell what they answered, where that is not as usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// Which versions can read its state, where that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<StateSchema>,
    /// How its state is copied and put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupCommands>,
    /// The Kubernetes objects that a chart or an overlay made for it; none where the target makes them itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<serde_json::Value>,
    /// Hash over all of the above but the image: two specs with equal digest and config hash behave alike.
    pub config_hash: Fingerprint,
}

/// When a replica counts as ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Path answering 200 when the replica can take traffic; anything else, redirects included, means not ready.
    pub path: String,
    /// How long a replica may take to become ready after its start, in milliseconds.
    pub deadline_ms: u64,
    /// Time between two questions, in milliseconds; a replica that is ready and not new may be asked less often.
    pub interval_ms: u64,
}

/// One idempotent request with what its answer must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmokeRequest {
    /// `GET` or `HEAD`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The expected status.
    pub status: u16,
    /// Text the body must contain.
    pub contains: Option<String>,
    /// JSON pointers (RFC 6901) into the body and the values they must have.
    pub json: BTreeMap<String, serde_json::Value>,
    /// Response headers that must be present with these values (names compared without case).
    pub headers: BTreeMap<String, String>,
    /// The longest acceptable time to the whole answer, in milliseconds.
    pub max_ms: Option<u64>,
}

/// Whether a service may work while its slot is standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// It works when requests reach it, and requests reach the live slot only.
    #[default]
    Traffic,
    /// A worker: passive until it is told the environment's generation, passive again before its successor is told.
    Exclusive,
}

/// Who shares a service's state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StatePolicy {
    /// Both slots use one directory, at the same time.
    Shared,
    /// Each slot has a directory of its own.
    PerSlot,
    /// The state lies elsewhere: no directory is given.
    #[default]
    External,
}

/// What kind of yes stands behind an approval, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// A git name: what `--yes` is.
    None,
    /// Somebody answered on a terminal.
    Terminal,
    /// An SSH signature over the subject.
    SshSignature,
    /// A signed Slack callback.
    SlackSigned,
    /// A review of a GitHub environment, read back.
    GithubReview,
}

/// The approval a release serves under, as it is recorded at the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRecord {
    /// Who said yes.
    pub approver: String,
    /// What kind of yes it was.
    pub evidence: Evidence,
    /// When it was given.
    pub at: Timestamp,
    /// After this moment it opens no cut-over.
    pub expires: Timestamp,
    /// Hash of the subject: digests, configuration, environment, plan, replaced generation, nonce.
    pub subject: Fingerprint,
}

/// A named set of services for one environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// Where it is to serve.
    pub environment: EnvironmentName,
    /// The release's version, the same for all services.
    pub version: String,
    /// The commit it was made from, with `-dirty` behind it when the tree was.
    pub revision: String,
    /// The run that deploys it.
    pub run: RunId,
    /// Who started that run.
    pub actor: String,
    /// The services, in dependency order: what others depend on comes first.
    pub services: Vec<ServiceSpec>,
    /// The approval, where the environment is gated.
    pub approval: Option<ApprovalRecord>,
}
