//! Pods with names and storage of their own: never two of one name at a time.

use super::{
    Build,
    meta::{Meta, OF_PODS, selector},
    mistake::{Findings, Nonsense},
    pod::Pod,
    probe::number,
    volume::Claim,
    workload::{Common, Workload, common_methods},
};
use crate::{Object, ObjectError};
use k8s_openapi::api::apps::v1::{StatefulSet as Typed, StatefulSetSpec};

/// A `StatefulSet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatefulSet {
    common: Common,
    service: String,
    claims: Vec<Claim>,
}

impl StatefulSet {
    /// One pod of this template, found by all of its labels. It needs a [service](Self::service).
    pub fn new(meta: impl Into<Meta>, pod: Pod) -> Self {
        Self { common: Common::new(meta.into(), pod), service: String::new(), claims: Vec::new() }
    }

    common_methods!();

    /// The Service under which its pods have names.
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.service = name.into();
        self
    }

    /// Storage for each pod, a volume of the claim's name. It stays when the pod goes.
    pub fn claim(mut self, claim: Claim) -> Self {
        self.claims.push(claim);
        self
    }
}

impl Workload for StatefulSet {
    const KIND: &'static str = "StatefulSet";

    fn common(&self) -> &Common {
        &self.common
    }
}

impl Build for StatefulSet {
    fn title(&self) -> String {
        Workload::title(self)
    }

    fn render(&self, found: &mut Findings) -> Result<Object, ObjectError> {
        let Common { meta, pod, selector: own, replicas, min_ready, history } = &self.common;
        self.common.check(found);
        found.unless(!self.service.is_empty(), "spec.serviceName", || {
            Nonsense::Empty("the Service under which its pods have names")
        });
        let volumes: Vec<&str> = self.claims.iter().map(|claim| claim.meta.name.as_str()).collect();
        let claims: Vec<_> =
            self.claims.iter().map(|claim| claim.checked("spec.volumeClaimTemplates.", found)).collect();
        let spec = StatefulSetSpec {
            replicas: Some(i32::from(*replicas)),
            min_ready_seconds: (*min_ready > 0).then(|| number(*min_ready)),
            revision_history_limit: Some(number(*history)),
            selector: selector(own),
            service_name: Some(self.service.clone()),
            template: pod.checked(&volumes, Some(own), found),
            volume_claim_templates: (!claims.is_empty()).then_some(claims),
            ..StatefulSetSpec::default()
        };
        Object::of(&Typed { metadata: meta.checked(OF_PODS, found), spec: Some(spec), status: None })
    }
}
