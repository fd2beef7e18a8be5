//! Adopting: what of a Service and a Deployment that somebody else made becomes the first slot, and what cannot. Pure; what
//! looks and writes is beside it.
//!
//! The Deployment is left as it is. A copy of it becomes the slot, and goes the way of every release: it is stood up,
//! waited for, asked, and cut over to. Until then nothing of theirs is written, and no client is led to the copy: its pods
//! lack one label that their Service selects ([`AdoptError::Policies`] says when that cannot be).

mod copy;
mod error;
mod images;
mod look;
mod take;

pub use error::AdoptError;
pub(crate) use look::workloads_behind;
pub(crate) use take::{may_lead, take};

use crate::{
    names,
    object::Object,
    slot::{SlotError, container_of},
};
use k8s_openapi::api::core::v1::Pod;
use plimsoll_core::{Fingerprint, ImageRef, ServiceName};
use plimsoll_deploy::{ADOPTED, Activation, Release, ServiceSpec};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What is in the namespace, as far as adopting depends on it.
#[derive(Debug, Clone, Default)]
pub(crate) struct There {
    pub(crate) services: Vec<Value>,
    pub(crate) deployments: Vec<Value>,
    pub(crate) stateful_sets: Vec<Value>,
    pub(crate) autoscalers: Vec<Value>,
    pub(crate) budgets: Vec<Value>,
    pub(crate) policies: Vec<Value>,
    pub(crate) pods: Vec<Pod>,
}

/// A service that can be adopted.
#[derive(Debug, Clone, PartialEq)]
pub struct Adopted {
    /// What the copy is stood up by.
    pub spec: ServiceSpec,
    /// The Deployment that it is a copy of.
    pub deployment: String,
    /// Its version, where a label tells it.
    pub version: Option<String>,
    /// What of theirs is copied.
    pub copied: Vec<String>,
    /// The label of their Service's selector that pods of the copy do not have.
    pub without: String,
    /// What somebody should know.
    pub notes: Vec<String>,
}

/// What would be adopted, service by service, in dependency order.
#[derive(Debug, Clone, PartialEq)]
pub struct Adoption(pub Vec<(ServiceName, Result<Adopted, AdoptError>)>);

impl Adoption {
    /// The release that adopts all of it on behalf of `wanted`; `None` where a service is refused.
    pub fn release(&self, wanted: &Release) -> Option<Release> {
        let adopted = self.0.iter().map(|(_, found)| found.as_ref().ok()).collect::<Option<Vec<_>>>()?;
        let mut versions = adopted.iter().map(|one| one.version.clone());
        let first = versions.next().flatten();
        let version = first.filter(|first| versions.all(|other| other.as_ref() == Some(first)));
        Some(Release {
            version: version.unwrap_or_else(|| ADOPTED.to_owned()),
            revision: ADOPTED.to_owned(),
            services: adopted.iter().map(|one| one.spec.clone()).collect(),
            approval: None,
            ..wanted.clone()
        })
    }
}

/// What their Service selects, for a spec that adopts one.
pub(crate) fn theirs(spec: &ServiceSpec) -> Option<BTreeMap<String, String>> {
    let services = spec.objects.iter().filter(|object| object["kind"] == "Service");
    let told = |service: &Value| service["metadata"]["annotations"][names::ADOPTED].as_str().map(str::to_owned);
    services.filter_map(told).find_map(|text| serde_json::from_str(&text).ok())
}

/// What a Service selected when it was somebody else's.
fn selected(service: &Value) -> BTreeMap<String, String> {
    // One that an adoption moved before it broke off.
    let told = service["metadata"]["annotations"][names::ADOPTED].as_str();
    let told = told.and_then(|text| serde_json::from_str(text).ok());
    told.or_else(|| serde_json::from_value(service["spec"]["selector"].clone()).ok()).unwrap_or_default()
}

/// What becomes of a service of which `wanted` is configured.
pub(crate) fn adopt(wanted: &ServiceSpec, there: &There, environment: &str) -> Result<Adopted, AdoptError> {
    if wanted.activation == Activation::Exclusive {
        return Err(AdoptError::Exclusive);
    }
    let service = their_service(wanted, there, environment)?;
    let selector = selected(service);
    let deployment = behind(wanted, &selector, there)?;
    let title = name(deployment).to_owned();
    let pods = images::pods(there, &selector, &title)?;
    let containers = deployment.pointer("/spec/template/spec/containers").and_then(Value::as_array);
    let containers = containers.map(Vec::as_slice).unwrap_or_default();
    let container = container_of(containers, &wanted.name).and_then(|at| containers.get(at)).ok_or_else(|| {
        let workload = format!("Deployment {title}");
        let containers = containers.iter().map(|c| c["name"].as_str().unwrap_or_default().to_owned()).collect();
        SlotError::Container { service: wanted.name.clone(), workload, containers }
    })?;
    if container["readinessProbe"].is_null() {
        let container = container["name"].as_str().unwrap_or_default().to_owned();
        return Err(AdoptError::NoReadiness { deployment: title, container });
    }
    let pinned = images::pinned(deployment, &pods)?;
    let without = without(&selector, deployment, there)?;
    let image: ImageRef = pinned[container["name"].as_str().unwrap_or_default()].clone();
    let digest = image.digest.clone().expect("images are pinned by digest");

    let (mut copied, mut objects) = (vec![format!("Deployment {title}")], Vec::new());
    objects.push(copy::deployment(deployment, wanted.name.as_str(), &without, &pinned));
    for scaler in there.autoscalers.iter().filter(|scaler| copy::scales(scaler, &title)) {
        copied.push(format!("HorizontalPodAutoscaler {}", name(scaler)));
        objects.push(copy::autoscaler(scaler, wanted.name.as_str()));
    }
    for budget in there.budgets.iter().filter(|budget| copy::guards(budget, deployment, &without)) {
        copied.push(format!("PodDisruptionBudget {}", name(budget)));
        objects.push(copy::budget(budget));
    }
    objects.push(copy::service(service, &selector));
    for object in &objects {
        Object::try_from(object.clone())?;
    }
    let replicas = deployment["spec"]["replicas"].as_u64().and_then(|n| u16::try_from(n).ok()).unwrap_or(1);
    let text = serde_json::to_string(&objects).expect("objects are plain data");
    let spec = ServiceSpec {
        image,
        digest,
        replicas,
        // What the pods read of Secrets stands in the template.
        secret_env: BTreeMap::new(),
        // What the checkout says of its own state says nothing of somebody else's image.
        schema: None,
        backup: None,
        config_hash: Fingerprint::of(format!("{} {text}", wanted.config_hash).as_bytes()),
        objects,
        ..wanted.clone()
    };
    let version = labels(&deployment["metadata"]).and_then(|l| l.get("app.kubernetes.io/version"));
    let version = version.and_then(Value::as_str).map(str::to_owned);
    let mut notes = others(wanted, deployment, &without, there);
    if deployment["spec"]["strategy"]["type"] == "Recreate" {
        notes.push(format!("Deployment {title} has the strategy Recreate, and two slots run at the same time"));
    }
    Ok(Adopted { spec, deployment: title, version, copied, without, notes })
}

fn their_service<'a>(wanted: &ServiceSpec, there: &'a There, environment: &str) -> Result<&'a Value, AdoptError> {
    let service = there.services.iter().find(|service| name(service) == wanted.name.as_str());
    let service = service.ok_or_else(|| AdoptError::NoService(wanted.name.clone()))?;
    let refused = |why| Err(AdoptError::NoSelector { service: wanted.name.clone(), why });
    let of = labels(&service["metadata"]).and_then(|l| l.get(names::ENVIRONMENT)).and_then(Value::as_str);
    match of {
        Some(of) if of != environment => {
            Err(AdoptError::Other { service: wanted.name.clone(), environment: of.to_owned() })
        }
        _ if service["spec"]["clusterIP"] == "None" => refused("is headless"),
        _ if selected(service).is_empty() => refused("selects nothing"),
        _ => Ok(service),
    }
}

/// The one Deployment whose pods the Service selects.
fn behind<'a>(
    wanted: &ServiceSpec,
    selector: &BTreeMap<String, String>,
    there: &'a There,
) -> Result<&'a Value, AdoptError> {
    if let Some(set) = there.stateful_sets.iter().find(|set| makes_pods_of(set, selector)) {
        return Err(AdoptError::StatefulSet(name(set).to_owned()));
    }
    let found: Vec<&Value> = there.deployments.iter().filter(|one| makes_pods_of(one, selector)).collect();
    let service = wanted.name.clone();
    match found.as_slice() {
        [] => Err(AdoptError::NoDeployment { service, selector: shown(selector) }),
        [one] if images::rolls(one) => Err(AdoptError::Rollout(name(one).to_owned())),
        [one] => Ok(one),
        several => {
            Err(AdoptError::Several { service, found: several.iter().map(|one| name(one).to_owned()).collect() })
        }
    }
}

/// Whether somebody else's workload makes pods that a selector finds.
pub(crate) fn makes_pods_of(workload: &Value, selector: &BTreeMap<String, String>) -> bool {
    let own = labels(&workload["metadata"]).is_some_and(|labels| labels.contains_key(names::ENVIRONMENT));
    let pods = labels(&workload["spec"]["template"]["metadata"]);
    !own && !selector.is_empty()
        && selector.iter().all(|(k, v)| pods.is_some_and(|pods| pods.get(k) == Some(&Value::from(v.as_str()))))
}

/// The label of the selector that pods of the copy are not to have, so that their Service does not lead to them. One by which
/// other Services find the pods too is best: neither do those lead to it then.
fn without(selector: &BTreeMap<String, String>, deployment: &Value, there: &There) -> Result<String, AdoptError> {
    let by = |policy: &Value, key: &str| copy::pod_selector_keys(policy).contains(key);
    let free = selector.keys().filter(|key| !there.policies.iter().any(|policy| by(policy, key)));
    let matched = deployment.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    let worth = |key: &&String| {
        let others = there.services.iter().filter(|other| other["spec"]["selector"].get(key.as_str()).is_some());
        (others.count(), matched.is_some_and(|matched| matched.contains_key(key.as_str())))
    };
    free.max_by_key(worth).cloned().ok_or_else(|| {
        let going = there.policies.iter().filter(|policy| selector.keys().any(|key| by(policy, key)));
        AdoptError::Policies { selector: shown(selector), policies: going.map(|p| name(p).to_owned()).collect() }
    })
}

/// What is to be said of other Services that select the same pods.
fn others(wanted: &ServiceSpec, deployment: &Value, without: &str, there: &There) -> Vec<String> {
    let also = there.services.iter().filter(|other| name(other) != wanted.name.as_str());
    let also = also.filter(|other| makes_pods_of(deployment, &selected(other)));
    let say = |other: &Value| {
        if selected(other).contains_key(without) {
            format!("Service {} stays with Deployment {}, and leads nowhere without it", name(other), name(deployment))
        } else {
            format!("Service {} leads to pods of the copy too, as soon as they are ready", name(other))
        }
    };
    also.map(say).collect()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn labels(metadata: &Value) -> Option<&Map<String, Value>> {
    metadata["labels"].as_object()
}

fn shown(selector: &BTreeMap<String, String>) -> String {
    selector.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
