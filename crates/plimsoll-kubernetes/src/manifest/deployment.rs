//! Pods that are all alike.

use super::{
    Build,
    meta::{SUBDOMAIN, selector},
    mistake::Findings,
    pod::Pod,
    probe::number,
    workload::{Common, Workload, common_methods},
};
use crate::{Object, ObjectError, manifest::Meta};
use k8s_openapi::{
    api::apps::v1::{Deployment as Typed, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
    apimachinery::pkg::util::intstr::IntOrString,
};

/// A Deployment; a change of its template takes no ready pod away before another is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    common: Common,
}

impl Deployment {
    /// One pod of this template, found by all of its labels.
    pub fn new(meta: impl Into<Meta>, pod: Pod) -> Self {
        Self { common: Common::new(meta.into(), pod) }
    }

    common_methods!();
}

impl Workload for Deployment {
    const KIND: &'static str = "Deployment";

    fn common(&self) -> &Common {
        &self.common
    }
}

impl Build for Deployment {
    fn title(&self) -> String {
        Workload::title(self)
    }

    fn render(&self, found: &mut Findings) -> Result<Object, ObjectError> {
        let Common { meta, pod, selector: own, replicas, min_ready, history } = &self.common;
        self.common.check(found);
        let rolling_update = Some(RollingUpdateDeployment {
            max_surge: Some(IntOrString::String("100%".to_owned())),
            max_unavailable: Some(IntOrString::Int(0)),
        });
        let spec = DeploymentSpec {
            replicas: Some(i32::from(*replicas)),
            min_ready_seconds: (*min_ready > 0).then(|| number(*min_ready)),
            revision_history_limit: Some(number(*history)),
            selector: selector(own),
            strategy: Some(DeploymentStrategy { rolling_update, type_: Some("RollingUpdate".to_owned()) }),
            template: pod.checked(&[], Some(own), found),
            ..DeploymentSpec::default()
        };
        Object::of(&Typed { metadata: meta.checked(SUBDOMAIN, found), spec: Some(spec), status: None })
    }
}
