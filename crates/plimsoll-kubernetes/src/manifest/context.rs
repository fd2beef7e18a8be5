//! What the objects of one service must know of the environment around it.

use super::meta::Labels;
use crate::names;
use plimsoll_core::{EnvironmentName, ServiceName};
use plimsoll_deploy::ServiceSpec;
use std::collections::BTreeMap;

/// The port of a Service whose service says none.
const DEFAULT_PORT: u16 = 80;

/// How long a pod goes on after it is told to end: a Service's change has reached every node by then.
const LAME_DUCK_S: u32 = 5;

/// An environment: its project, its name, and who calls whom at which port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    pub(super) project: String,
    pub(super) environment: EnvironmentName,
    pub(super) lame_duck_s: u32,
    services: BTreeMap<ServiceName, Known>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    port: u16,
    callers: Vec<ServiceName>,
}

impl Context {
    /// An environment that has these services.
    pub fn new(project: impl Into<String>, environment: EnvironmentName, services: &[ServiceSpec]) -> Self {
        let callers = |of: &ServiceName| {
            let calls = services.iter().filter(|service| service.depends_on.contains(of));
            calls.map(|service| service.name.clone()).collect()
        };
        let known = services
            .iter()
            .map(|service| (service.name.clone(), Known { port: port_of(service), callers: callers(&service.name) }));
        Self { project: project.into(), environment, lame_duck_s: LAME_DUCK_S, services: known.collect() }
    }

    /// Pods go on for so many seconds when they are told to end; 5 unless told.
    pub const fn lame_duck(mut self, seconds: u32) -> Self {
        self.lame_duck_s = seconds;
        self
    }

    /// The port of a service's Service.
    pub(super) fn port(&self, service: &ServiceName) -> Option<u16> {
        self.services.get(service).map(|known| known.port)
    }

    /// The services that depend on this one.
    pub(super) fn callers(&self, service: &ServiceName) -> &[ServiceName] {
        self.services.get(service).map_or(&[], |known| &known.callers)
    }

    /// What finds the pods of a service, of both its slots.
    pub(super) fn pods(&self, service: &ServiceName) -> Labels {
        Labels::from([
            (names::ENVIRONMENT.to_owned(), self.environment.to_string()),
            (names::SERVICE.to_owned(), service.to_string()),
        ])
    }

    /// What every object of a service is labelled with.
    pub(super) fn labels(&self, service: &ServiceName) -> Labels {
        let mut labels = self.pods(service);
        labels.insert("app.kubernetes.io/name".to_owned(), service.to_string());
        labels.insert("app.kubernetes.io/part-of".to_owned(), self.project.clone());
        labels.insert("app.kubernetes.io/managed-by".to_owned(), names::MANAGER.to_owned());
        labels
    }
}

/// The port of the Service of this service.
pub(super) fn port_of(spec: &ServiceSpec) -> u16 {
    spec.public_port.unwrap_or(DEFAULT_PORT)
}
