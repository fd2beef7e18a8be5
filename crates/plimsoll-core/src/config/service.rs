//! Services: what is built, how many of it run, when they count as ready, and how they are asked whether they work.

use super::{Autoscale, Metrics, Period, Resources, SecretSource, Storage};
use crate::{BackupCommands, ServiceName, StateSchema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `[defaults]`: what holds for every service that does not say otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Defaults {
    /// How many processes serve a service, from 1 to 1000; default 1.
    pub replicas: Option<u16>,
    /// How long requests in flight may take to finish; default `10s`.
    pub drain: Option<Period>,
    /// How long a process may take to end after SIGTERM; default `10s`.
    pub stop_grace: Option<Period>,
    /// What one replica is promised of a cluster, and what it may take.
    #[serde(skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// When a replica counts as ready.
    pub health: HealthSettings,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
}

/// `[services.NAME]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Service {
    /// The cargo package it is built from.
    pub package: String,
    /// The binary of that package; default: the service's name.
    #[serde(default)]
    pub bin: Option<String>,
    /// A Dockerfile that its image is built from, by a Docker Engine; without one the image is assembled without an engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_build: Option<DockerBuild>,
    /// How many processes serve it, from 1 to 1000.
    #[serde(default)]
    pub replicas: Option<u16>,
    /// The port clients use; without one the target chooses and keeps it.
    #[serde(default)]
    pub port: Option<u16>,
    /// Whether it may work while its slot is standby.
    #[serde(default)]
    pub activation: Activation,
    /// Who shares its state directory.
    #[serde(default)]
    pub state: StatePolicy,
    /// Which versions can read its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<StateSchema>,
    /// How its state is copied and put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupCommands>,
    /// The services it calls.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub depends_on: Vec<ServiceName>,
    /// How long requests in flight may take to finish when its slot is drained.
    #[serde(default)]
    pub drain: Option<Period>,
    /// How long a process may take to end after SIGTERM before it is killed.
    #[serde(default)]
    pub stop_grace: Option<Period>,
    /// What one replica is promised of a cluster, and what it may take.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// How many replicas a cluster gives it, by load.
    #[serde(default)]
    pub autoscale: Option<Autoscale>,
    /// The volume a cluster gives it, where its `state` is not `external`.
    #[serde(default)]
    pub storage: Option<Storage>,
    /// Where its replicas tell what they answered, for a target that does not see the requests itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// When a replica counts as ready.
    #[serde(default)]
    pub health: HealthSettings,
    /// Environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Environment variables whose values are secret, by where the values come from.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretSource>,
    /// Idempotent requests that show the service works.
    #[serde(default)]
    pub smoke: Vec<Smoke>,
}

/// `docker_build = { … }`: what `docker build` would be told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DockerBuild {
    /// The Dockerfile's path from the workspace's root, which is the context.
    pub dockerfile: String,
    /// The stage to build; the last one if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Values of its `ARG`s.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
}

/// `health = { … }`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HealthSettings {
    /// Path that answers 200 when the replica can take traffic; default `/ready`.
    pub path: Option<String>,
    /// How long a replica may take to become ready; default `30s`.
    pub deadline: Option<Period>,
    /// Time between two questions; default `100ms`. The target may ask less often what is ready and not new.
    pub interval: Option<Period>,
}

/// `[[services.NAME.smoke]]`: a request and what its answer must be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Smoke {
    /// Path and query.
    pub path: String,
    /// The method; default `GET`.
    #[serde(default)]
    pub method: Method,
    /// The expected status, from 200 to 599; default 200.
    #[serde(default = "ok")]
    pub status: u16,
    /// Text the body must contain.
    #[serde(default)]
    pub contains: Option<String>,
    /// JSON pointers (RFC 6901) into the body and the values they must have.
    #[serde(default)]
    pub json: BTreeMap<String, serde_json::Value>,
    /// Response headers that must be there with these values.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The longest acceptable time to the whole answer.
    #[serde(default)]
    pub within: Option<Period>,
}

const fn ok() -> u16 {
    200
}

/// The methods without effect, which a smoke request may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Method {
    /// `GET`.
    #[default]
    Get,
    /// `HEAD`.
    Head,
}

impl Method {
    /// `GET` or `HEAD`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
        }
    }
}

/// Whether a service may work while its slot is standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Activation {
    /// It works when requests reach it.
    #[default]
    Traffic,
    /// A worker: passive until it is told the environment's generation. It has one replica.
    Exclusive,
}

/// Who shares a service's state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum StatePolicy {
    /// Both slots use one directory, at the same time.
    Shared,
    /// Each slot has a directory of its own.
    PerSlot,
    /// The state lies elsewhere: no directory is given.
    #[default]
    External,
}
