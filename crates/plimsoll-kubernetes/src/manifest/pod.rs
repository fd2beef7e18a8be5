//! The template of pods: containers, volumes, where they may land and how they end.
//!
//! Without being asked: not as root, no token of the API, the runtime's system call filter, and away from each other.

use super::{
    container::Container,
    meta::{Labels, Meta, SUBDOMAIN, list, selector},
    mistake::{Findings, Nonsense},
    volume::Volume,
};
use k8s_openapi::api::core::v1::{
    Affinity, PodAffinityTerm, PodAntiAffinity, PodSecurityContext, PodSpec, PodTemplateSpec, SeccompProfile,
    TopologySpreadConstraint, WeightedPodAffinityTerm,
};

/// User and group of every image that Plimsoll builds.
const NONROOT: i64 = 65_532;

/// What pods are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub(super) labels: Labels,
    pub(super) containers: Vec<Container>,
    volumes: Vec<Volume>,
    service_account: Option<String>,
    priority_class: Option<String>,
    grace: u32,
}

impl Pod {
    /// Pods of this container; they may take 30 s to end.
    pub fn new(labels: &Labels, container: Container) -> Self {
        Self {
            labels: labels.clone(),
            containers: vec![container],
            volumes: Vec::new(),
            service_account: None,
            priority_class: None,
            grace: 30,
        }
    }

    /// With another container.
    pub fn container(mut self, container: Container) -> Self {
        self.containers.push(container);
        self
    }

    /// With a volume that containers can mount.
    pub fn volume(mut self, volume: Volume) -> Self {
        self.volumes.push(volume);
        self
    }

    /// As this account, whose token they still do not get.
    pub fn service_account(mut self, name: impl Into<String>) -> Self {
        self.service_account = Some(name.into());
        self
    }

    /// Before or after others when room is short.
    pub fn priority_class(mut self, name: impl Into<String>) -> Self {
        self.priority_class = Some(name.into());
        self
    }

    /// Killed so many seconds after they were told to end, the sleep before it included.
    pub const fn grace(mut self, seconds: u32) -> Self {
        self.grace = seconds;
        self
    }

    pub(super) fn has_readiness(&self) -> bool {
        self.containers.iter().any(|container| container.readiness.is_some())
    }

    pub(super) fn has_port(&self, name: &str) -> bool {
        self.containers.iter().any(|container| container.port_names().any(|port| port == name))
    }

    pub(super) fn promises(&self, resource: &str) -> bool {
        self.containers.iter().all(|container| container.resources.promises(resource))
    }

    /// The template; `claims` are volumes the workload brings along, `apart` the labels of pods to stay away from.
    pub(super) fn checked(&self, claims: &[&str], apart: Option<&Labels>, found: &mut Findings) -> PodTemplateSpec {
        let names: Vec<&str> = self.volumes.iter().map(|v| v.name.as_str()).chain(claims.iter().copied()).collect();
        found.once("spec.containers", self.containers.iter().map(|c| c.name.as_str()));
        found.once("spec.volumes", names.iter().copied());
        found.once("spec.containers.ports", self.containers.iter().flat_map(Container::port_names));
        let sleep = self.containers.iter().map(|container| container.pre_stop).max().unwrap_or(0);
        let grace = self.grace;
        found.unless(grace > sleep, "spec.terminationGracePeriodSeconds", || Nonsense::GraceTooShort { grace, sleep });
        if let Some(account) = &self.service_account {
            super::meta::name(found, "spec.serviceAccountName", account, SUBDOMAIN);
        }
        let spec = PodSpec {
            containers: self.containers.iter().map(|container| container.checked(&names, found)).collect(),
            volumes: list(self.volumes.iter().map(|volume| volume.checked(found)).collect()),
            service_account_name: self.service_account.clone(),
            automount_service_account_token: Some(false),
            // Variables for every Service of the namespace would name services that this one does not depend on.
            enable_service_links: Some(false),
            priority_class_name: self.priority_class.clone(),
            termination_grace_period_seconds: Some(i64::from(grace)),
            security_context: Some(unprivileged()),
            affinity: apart.map(rather_not_beside),
            topology_spread_constraints: apart
                .map(|labels| ["kubernetes.io/hostname", "topology.kubernetes.io/zone"].map(|key| evenly(labels, key)))
                .map(Vec::from),
            ..PodSpec::default()
        };
        PodTemplateSpec { metadata: Some(Meta::default().labels(&self.labels).plain()), spec: Some(spec) }
    }
}

fn unprivileged() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(NONROOT),
        run_as_group: Some(NONROOT),
        // So that it can write to the volumes it claims, without a change of every file of a large one at each start.
        fs_group: Some(NONROOT),
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

/// Not on a node that already has one, while there is another: a wish, for a small cluster must still run them.
fn rather_not_beside(labels: &Labels) -> Affinity {
    let term = PodAffinityTerm {
        label_selector: Some(selector(labels)),
        topology_key: "kubernetes.io/hostname".to_owned(),
        ..PodAffinityTerm::default()
    };
    let wish = WeightedPodAffinityTerm { weight: 100, pod_affinity_term: term };
    let preferred_during_scheduling_ignored_during_execution = Some(vec![wish]);
    let pod_anti_affinity =
        Some(PodAntiAffinity { preferred_during_scheduling_ignored_during_execution, ..PodAntiAffinity::default() });
    Affinity { pod_anti_affinity, ..Affinity::default() }
}

/// As many in one node or zone as in another, counting only pods of the same template: two slots do not push each other.
fn evenly(labels: &Labels, topology_key: &str) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        label_selector: Some(selector(labels)),
        match_label_keys: Some(vec!["pod-template-hash".to_owned()]),
        max_skew: 1,
        topology_key: topology_key.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        ..TopologySpreadConstraint::default()
    }
}
