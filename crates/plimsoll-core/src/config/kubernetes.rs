//! `[environments.NAME.kubernetes]`: which cluster and namespace, and where the objects come from.

use super::Period;
use serde::{Deserialize, Serialize};

/// `kubernetes = { … }` of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KubernetesSettings {
    /// The context of the kubeconfig; default: the current one.
    pub context: Option<String>,
    /// The namespace, which the environment has to itself; default: `PROJECT-ENVIRONMENT`.
    pub namespace: Option<String>,
    /// Where the objects come from; default `typed`.
    pub render: Render,
    /// For `helm`: the chart's directory, in the workspace.
    pub chart: Option<String>,
    /// For `helm`: files of values, in the workspace, later ones over earlier ones.
    pub values: Vec<String>,
    /// For `helm`: the version of Kubernetes that the chart is rendered for; default `1.33`.
    pub version: Option<String>,
    /// For `kustomize`: the directory of the overlay, in the workspace.
    pub overlay: Option<String>,
    /// How long a pod goes on answering after it was asked to end, so that everybody has learnt of it; default `5s`.
    pub lame_duck: Option<Period>,
    /// What gives a slot its share of the requests in a canary; default `auto`.
    pub canary_by: CanaryBy,
}

/// What gives a slot its share of the requests in a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum CanaryBy {
    /// Weights, where an HTTPRoute of the namespace leads to the service; else replicas.
    #[default]
    Auto,
    /// Replicas, also for clients that come through no gateway.
    Replicas,
}

/// Where the objects of an environment come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Render {
    /// Plimsoll makes them from this configuration.
    #[default]
    Typed,
    /// `helm template` of a chart.
    Helm,
    /// `kubectl kustomize` of an overlay.
    Kustomize,
}

impl KubernetesSettings {
    /// The namespace of an environment of a project.
    pub fn namespace(&self, project: &str, environment: &str) -> String {
        self.namespace.clone().unwrap_or_else(|| format!("{project}-{environment}"))
    }
}
