//! Environments: where services run, which branch may go there, whose yes is needed, and how a cut-over is watched.

use super::{Autoscale, CanarySettings, KubernetesSettings, Period, Resources, Storage};
use crate::ServiceName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `[environments.NAME]`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Environment {
    /// What it runs on.
    pub target: Target,
    /// Which cluster and namespace, where the target is one.
    #[serde(skip_serializing_if = "is_default")]
    pub kubernetes: KubernetesSettings,
    /// The branch that is released to it; without one, any.
    pub branch: Option<String>,
    /// Whether a person's yes is needed; without one, what the pipeline's type says. It may tighten that, never loosen it.
    pub gate: Option<Gate>,
    /// Whose yes it is.
    #[serde(skip_serializing_if = "ApprovalRule::is_default")]
    pub approval: ApprovalRule,
    /// How traffic moves.
    pub strategy: Strategy,
    /// How it grows, where it does.
    #[serde(skip_serializing_if = "is_standard")]
    pub canary: CanarySettings,
    /// What is watched after a cut-over.
    pub slo: Slo,
    /// Environment variables of every service.
    pub env: BTreeMap<String, String>,
    /// What differs for single services.
    #[cfg_attr(feature = "schema", schemars(with = "BTreeMap<String, ServiceOverride>"))]
    pub services: BTreeMap<ServiceName, ServiceOverride>,
}

fn is_default(settings: &KubernetesSettings) -> bool {
    *settings == KubernetesSettings::default()
}

fn is_standard(canary: &CanarySettings) -> bool {
    *canary == CanarySettings::default()
}

/// What an environment runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Target {
    /// Processes of this machine behind the embedded proxy.
    #[default]
    Local,
    /// Containers of this machine's Docker Engine behind the embedded proxy.
    Docker,
    /// A namespace of a Kubernetes cluster.
    Kubernetes,
}

impl Target {
    /// Whether it is what an environment runs on that names nothing.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether a person's yes is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Gate {
    /// It is not.
    Open,
    /// It is.
    Approval,
}

/// `approval = { … }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ApprovalRule {
    /// The least that counts; default `none`. The profile may ask for more.
    pub evidence: Evidence,
    /// How many different people must say yes, from 1; default 1.
    pub quorum: u16,
    /// Who may, by e-mail address; empty: anyone.
    pub approvers: Vec<String>,
    /// How long a yes lasts; default `24h`.
    pub expires: Period,
    /// Whether who started the run may say yes to it; default true.
    pub self_approval: bool,
}

impl ApprovalRule {
    /// An open gate refuses a rule of its own, so the rule that nobody wrote is not written either.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for ApprovalRule {
    fn default() -> Self {
        Self {
            evidence: Evidence::None,
            quorum: 1,
            approvers: Vec::new(),
            expires: Period::from_secs(24 * 3600),
            self_approval: true,
        }
    }
}

/// What kind of yes stands behind an approval, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

/// `strategy = { … }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Strategy {
    /// How traffic moves; default `blue-green`.
    pub kind: StrategyKind,
}

/// How traffic moves from live to standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum StrategyKind {
    /// All at once.
    #[default]
    BlueGreen,
    /// A growing share, compared with what serves; then all of it.
    Canary,
}

/// `slo = { … }`: when a cut-over is undone by itself.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Slo {
    /// How long the new slot is watched, up to `1h`; default `3s`.
    pub watch: Period,
    /// The largest acceptable share of failed requests, in per cent, from 0 to 100; default 1.
    pub max_error_pct: f64,
    /// The longest acceptable 99th percentile of response times; default `1s`.
    pub max_p99: Period,
    /// Probes per second while it is watched, from 1 to 200; default 50.
    pub probe_rate: u16,
}

impl Default for Slo {
    fn default() -> Self {
        Self { watch: Period::from_secs(3), max_error_pct: 1.0, max_p99: Period::from_secs(1), probe_rate: 50 }
    }
}

/// `[environments.NAME.services.NAME]`: what differs for one service here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServiceOverride {
    /// How many processes serve it.
    pub replicas: Option<u16>,
    /// The port clients use.
    pub port: Option<u16>,
    /// How long requests in flight may take to finish.
    pub drain: Option<Period>,
    /// What one replica is promised of a cluster, and what it may take.
    #[serde(skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// How many replicas a cluster gives it, by load.
    pub autoscale: Option<Autoscale>,
    /// The volume a cluster gives it.
    pub storage: Option<Storage>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
}
