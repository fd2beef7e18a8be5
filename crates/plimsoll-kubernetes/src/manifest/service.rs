//! One address for many pods.

use super::{
    Build,
    meta::{LABEL, Labels, Meta, some},
    mistake::{Findings, Nonsense},
    workload::Workload,
};
use crate::{Object, ObjectError};
use k8s_openapi::{
    api::core::v1::{Service as Typed, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

/// A Service of the pods of a workload.
#[derive(Debug, Clone)]
pub struct Service<'w, W> {
    meta: Meta,
    workload: &'w W,
    ports: Vec<(String, u16)>,
    headless: bool,
}

impl<'w, W: Workload> Service<'w, W> {
    /// An address inside the cluster for the pods that `workload` selects.
    pub fn of(workload: &'w W, meta: impl Into<Meta>) -> Self {
        Self { meta: meta.into(), workload, ports: Vec::new(), headless: false }
    }

    /// Clients use `port` for the containers' port of this name.
    pub fn port(mut self, name: impl Into<String>, port: u16) -> Self {
        self.ports.push((name.into(), port));
        self
    }

    /// No address of its own: its name stands for the addresses of all pods.
    pub const fn headless(mut self) -> Self {
        self.headless = true;
        self
    }

    fn selector(&self) -> &Labels {
        &self.workload.common().selector
    }
}

impl<W: Workload> Build for Service<'_, W> {
    fn title(&self) -> String {
        format!("Service {}", self.meta.name)
    }

    fn render(&self, found: &mut Findings) -> Result<Object, ObjectError> {
        let pod = &self.workload.common().pod;
        found.unless(pod.has_readiness(), "spec.selector", || Nonsense::NoReadinessProbe {
            service: self.meta.name.clone(),
        });
        found.unless(!self.ports.is_empty(), "spec.ports", || Nonsense::Empty("which ports clients use"));
        found.once("spec.ports", self.ports.iter().map(|(name, _)| name.as_str()));
        let numbers: Vec<String> = self.ports.iter().map(|(_, port)| port.to_string()).collect();
        found.once("spec.ports", numbers.iter().map(String::as_str));
        for (name, port) in &self.ports {
            found.unless(pod.has_port(name), format!("spec.ports[{name}].targetPort"), || Nonsense::NoPort {
                port: name.clone(),
                workload: Workload::title(self.workload),
            });
            found.unless(*port > 0, format!("spec.ports[{name}].port"), || Nonsense::Below { number: 0, least: 1 });
        }
        let port = |(name, port): &(String, u16)| ServicePort {
            name: Some(name.clone()),
            port: i32::from(*port),
            protocol: Some("TCP".to_owned()),
            target_port: Some(IntOrString::String(name.clone())),
            ..ServicePort::default()
        };
        let spec = ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: self.headless.then(|| "None".to_owned()),
            ports: Some(self.ports.iter().map(port).collect()),
            selector: some(self.selector().clone()),
            ..ServiceSpec::default()
        };
        Object::of(&Typed { metadata: self.meta.checked(LABEL, found), spec: Some(spec), status: None })
    }
}
