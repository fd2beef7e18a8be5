//! How many pods a cluster may take away at once when it empties nodes.

use super::{
    Build,
    meta::{Meta, SUBDOMAIN, selector},
    mistake::{Findings, Nonsense},
    workload::Workload,
};
use crate::{Object, ObjectError};
use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

/// A `PodDisruptionBudget`. Pods that are not ready are no reason to keep a node.
#[derive(Debug, Clone)]
pub struct Disruption<'w, W> {
    meta: Meta,
    workload: &'w W,
    rule: Rule,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    MinAvailable(u16),
    MaxUnavailable(u16),
}

impl<'w, W: Workload> Disruption<'w, W> {
    /// One pod of `workload` at a time.
    pub fn of(workload: &'w W, meta: impl Into<Meta>) -> Self {
        Self { meta: meta.into(), workload, rule: Rule::MaxUnavailable(1) }
    }

    /// As many as leave so many.
    pub const fn min_available(mut self, pods: u16) -> Self {
        self.rule = Rule::MinAvailable(pods);
        self
    }

    /// So many at a time.
    pub const fn max_unavailable(mut self, pods: u16) -> Self {
        self.rule = Rule::MaxUnavailable(pods);
        self
    }
}

impl<W: Workload> Build for Disruption<'_, W> {
    fn title(&self) -> String {
        format!("PodDisruptionBudget {}", self.meta.name)
    }

    fn render(&self, found: &mut Findings) -> Result<Object, ObjectError> {
        let common = self.workload.common();
        let replicas = common.replicas;
        let mut spec = PodDisruptionBudgetSpec {
            selector: Some(selector(&common.selector)),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        };
        found.unless(replicas > 1, "spec", || Nonsense::OnePod);
        match self.rule {
            Rule::MinAvailable(min) => {
                let fine = min < replicas || replicas <= 1;
                found.unless(fine, "spec.minAvailable", || Nonsense::NoDisruption { min, replicas });
                spec.min_available = Some(IntOrString::Int(i32::from(min)));
            }
            Rule::MaxUnavailable(most) => {
                let none = || Nonsense::NoDisruption { min: replicas, replicas };
                found.unless(most > 0, "spec.maxUnavailable", none);
                spec.max_unavailable = Some(IntOrString::Int(i32::from(most)));
            }
        }
        Object::of(&PodDisruptionBudget {
            metadata: self.meta.checked(SUBDOMAIN, found),
            spec: Some(spec),
            status: None,
        })
    }
}
