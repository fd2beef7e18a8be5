//! What runs the pods of a slot, whether a Deployment or a StatefulSet.

use crate::names;
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{Pod, PodTemplateSpec},
};
use kube::api::ObjectMeta;
use plimsoll_core::{Digest, Fingerprint, ServiceName, Slot};
use plimsoll_deploy::Metrics;
use std::collections::BTreeMap;

/// The workload of a slot.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) kind: WorkloadKind,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) service: ServiceName,
    pub(crate) slot: Slot,
    /// What it was made to run; where somebody gave it another image since, that one.
    pub(crate) digest: Digest,
    pub(crate) config_hash: Fingerprint,
    pub(crate) version: String,
    pub(crate) exclusive: bool,
    /// Pods wanted now.
    pub(crate) replicas: u16,
    /// Pods wanted when it was stood up.
    pub(crate) wanted: u16,
    /// Whether the controller has seen its latest form.
    pub(crate) seen: bool,
    /// Whether its pods get the traffic of their slot.
    pub(crate) leads: bool,
    /// Where its pods tell what they answered.
    pub(crate) metrics: Metrics,
    /// What its conditions complain about.
    pub(crate) complaints: Vec<String>,
    /// The label that its pods have and those of its former contents have not.
    spec: String,
    /// The images of its containers.
    pub(crate) images: Vec<String>,
}

/// Which kind it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkloadKind {
    Deployment,
    StatefulSet,
}

/// What `images` run: `made` if that is among them. An image that is named without a digest runs nobody knows what.
fn digest(made: Digest, images: &[String]) -> Digest {
    let Some(other) = images.first().filter(|_| !images.iter().any(|image| image.ends_with(made.as_str()))) else {
        return made;
    };
    let named = other.rsplit_once('@').and_then(|(_, digest)| digest.parse().ok());
    named.unwrap_or_else(|| Digest::of(other.as_bytes()))
}

/// The service and slot that labels say an object belongs to.
pub(crate) fn slot_of(labels: &BTreeMap<String, String>) -> Option<(ServiceName, Slot)> {
    let slot = [Slot::Blue, Slot::Green].into_iter().find(|s| labels.get(names::SLOT).is_some_and(|l| l == s.as_str()));
    Some((labels.get(names::SERVICE)?.parse().ok()?, slot?))
}

impl Workload {
    pub(crate) fn of_deployment(deployment: Deployment) -> Option<Self> {
        let status = deployment.status.unwrap_or_default();
        let spec = deployment.spec?;
        let is_bad = |type_: &str, state: &str| {
            (type_ == "ReplicaFailure" && state == "True") || (type_ == "Progressing" && state == "False")
        };
        let conditions = status.conditions.unwrap_or_default();
        let bad = conditions.iter().filter(|c| is_bad(&c.type_, &c.status));
        let complaints = bad.filter_map(|c| c.message.clone()).collect();
        let meta = deployment.metadata;
        Self::of(WorkloadKind::Deployment, meta, spec.replicas, &spec.template, status.observed_generation, complaints)
    }

    pub(crate) fn of_stateful_set(set: StatefulSet) -> Option<Self> {
        let (status, spec) = (set.status.unwrap_or_default(), set.spec?);
        let observed = status.observed_generation;
        Self::of(WorkloadKind::StatefulSet, set.metadata, spec.replicas, &spec.template, observed, Vec::new())
    }

    fn of(
        kind: WorkloadKind,
        meta: ObjectMeta,
        replicas: Option<i32>,
        template: &PodTemplateSpec,
        observed: Option<i64>,
        complaints: Vec<String>,
    ) -> Option<Self> {
        if meta.deletion_timestamp.is_some() {
            return None;
        }
        let (service, slot) = slot_of(meta.labels.as_ref()?)?;
        let about = meta.annotations?;
        let labels = template.metadata.as_ref()?.labels.as_ref()?;
        let containers = template.spec.iter().flat_map(|pod| &pod.containers);
        let images: Vec<String> = containers.filter_map(|c| c.image.clone()).collect();
        Some(Self {
            kind,
            name: meta.name?,
            uid: meta.uid?,
            service,
            slot,
            digest: digest(about.get(names::DIGEST)?.parse().ok()?, &images),
            config_hash: about.get(names::CONFIG)?.clone().try_into().ok()?,
            version: about.get(names::VERSION)?.clone(),
            exclusive: about.get(names::ACTIVATION).is_some_and(|a| a == "exclusive"),
            replicas: u16::try_from(replicas.unwrap_or(1)).unwrap_or(u16::MAX),
            wanted: about.get(names::REPLICAS).and_then(|r| r.parse().ok()).unwrap_or(1),
            seen: observed >= meta.generation,
            leads: labels.contains_key(names::traffic_of(Some(slot))),
            metrics: about.get(names::METRICS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default(),
            complaints,
            spec: labels.get(names::SPEC)?.clone(),
            images,
        })
    }

    /// Whether a pod is of this slot, in its present form or a former one.
    pub(crate) fn is_slot_of(&self, pod: &Pod) -> bool {
        let of = pod.metadata.labels.as_ref().and_then(slot_of);
        of.is_some_and(|(service, slot)| service == self.service && slot == self.slot)
    }

    /// Whether a pod is of this slot in its present form.
    pub(crate) fn owns(&self, pod: &Pod) -> bool {
        let spec = pod.metadata.labels.as_ref().and_then(|labels| labels.get(names::SPEC));
        self.is_slot_of(pod) && spec == Some(&self.spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_with_another_image_is_seen_to_run_that_one() {
        let (made, other) = (Digest::of(b"made"), Digest::of(b"other"));
        let runs = |images: &[String]| digest(made.clone(), images);
        assert_eq!(runs(&[format!("registry/api@{made}")]), made);
        assert_eq!(runs(&["registry/mesh:1".to_owned(), format!("registry/api@{made}")]), made);
        assert_eq!(runs(&[format!("registry/api@{other}")]), other);
        assert_ne!(runs(&["registry/api:latest".to_owned()]), made);
        assert_eq!(runs(&[]), made);
    }
}
