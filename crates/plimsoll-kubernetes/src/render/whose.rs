//! Which of the rendered objects belong to which service. Pure.
//!
//! A service's workload bears its name, or says so in a label; its Service selects the workload's pods; what the pods
//! read, and what acts on them, follows. What belongs to nobody (an Ingress, a CronJob) goes with the first service.

use crate::object::Object;
use plimsoll_core::ServiceName;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Labels by which charts tell whose a workload is, the most telling first.
const NAMES: [&str; 4] = ["plimsoll.dev/service", "app.kubernetes.io/name", "app.kubernetes.io/component", "app"];

/// Why objects cannot be given to services.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartitionError {
    /// A service has no workload.
    #[error("no Deployment or StatefulSet is called {service} or labelled so; there are: {}", .found.join(", "))]
    Missing {
        /// The service.
        service: ServiceName,
        /// The workloads there are.
        found: Vec<String>,
    },
    /// A Secret with its values would be recorded with the release.
    #[error(
        "{object} holds values, which would be recorded: name it in `secrets` of the service, or use an ExternalSecret"
    )]
    Secret {
        /// The Secret.
        object: String,
    },
    /// A service has several.
    #[error("{service} has several workloads: {}", .found.join(", "))]
    Several {
        /// The service.
        service: ServiceName,
        /// Which.
        found: Vec<String>,
    },
}

/// Gives every object to the services it belongs to.
pub fn by_service(
    objects: &[Object],
    services: &[ServiceName],
) -> Result<BTreeMap<ServiceName, Vec<Object>>, PartitionError> {
    let holds_values = |o: &&Object| ["/data", "/stringData"].iter().any(|at| o.value().pointer(at).is_some());
    if let Some(secret) = objects.iter().filter(|o| o.kind() == "Secret").find(holds_values) {
        return Err(PartitionError::Secret { object: secret.title() });
    }
    let workloads: Vec<&Object> = objects.iter().filter(|o| o.is_workload()).collect();
    let mut of: BTreeMap<ServiceName, &Object> = BTreeMap::new();
    for service in services {
        of.insert(service.clone(), workload(&workloads, service)?);
    }
    let mut given: BTreeMap<ServiceName, Vec<Object>> = BTreeMap::new();
    for object in objects {
        let owners: Vec<&ServiceName> =
            of.iter().filter(|(_, workload)| belongs(object, workload)).map(|(name, _)| name).collect();
        // A workload of no service is left out: who runs it is not for a release to say.
        if owners.is_empty() && object.is_workload() {
            continue;
        }
        let first = services.first().into_iter().collect();
        for owner in if owners.is_empty() { first } else { owners } {
            given.entry(owner.clone()).or_default().push(object.clone());
        }
    }
    Ok(given)
}

fn workload<'a>(workloads: &[&'a Object], service: &ServiceName) -> Result<&'a Object, PartitionError> {
    let titles = |of: &[&Object]| of.iter().map(|o| o.title()).collect();
    if let Some(named) = workloads.iter().find(|o| o.name() == service.as_str()) {
        return Ok(named);
    }
    for label in NAMES {
        let says = |o: &&&Object| {
            labels(o, "/metadata/labels")
                .is_some_and(|l| l.get(label).and_then(Value::as_str) == Some(service.as_str()))
        };
        let found: Vec<&'a Object> = workloads.iter().filter(says).copied().collect();
        match found.as_slice() {
            [] => {}
            [one] => return Ok(one),
            several => return Err(PartitionError::Several { service: service.clone(), found: titles(several) }),
        }
    }
    Err(PartitionError::Missing { service: service.clone(), found: titles(workloads) })
}

fn labels<'a>(object: &'a Object, pointer: &str) -> Option<&'a Map<String, Value>> {
    object.value().pointer(pointer)?.as_object()
}

fn belongs(object: &Object, workload: &Object) -> bool {
    if object == workload {
        return true;
    }
    let pod = labels(workload, "/spec/template/metadata/labels");
    let selects = |pointer: &str| {
        let selector = labels(object, pointer).filter(|s| !s.is_empty());
        selector.is_some_and(|s| s.iter().all(|(key, value)| pod.is_some_and(|p| p.get(key) == Some(value))))
    };
    match object.kind() {
        "Service" => selects("/spec/selector"),
        "PodDisruptionBudget" => selects("/spec/selector/matchLabels"),
        "NetworkPolicy" => selects("/spec/podSelector/matchLabels"),
        "HorizontalPodAutoscaler" => {
            object.text("/spec/scaleTargetRef/kind") == workload.kind()
                && object.text("/spec/scaleTargetRef/name") == workload.name()
        }
        "ServiceAccount" => workload.text("/spec/template/spec/serviceAccountName") == object.name(),
        "ConfigMap" | "Secret" | "PersistentVolumeClaim" => crate::slot::reads(workload, object.kind(), object.name()),
        "ExternalSecret" => crate::slot::reads(workload, "Secret", crate::slot::secret_of(object)),
        _ => false,
    }
}
