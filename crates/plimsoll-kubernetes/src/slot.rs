//! The objects of a service as they are in one slot: what both slots share, what stands in this one, and the Service.
//! Pure.
//!
//! It does not matter who made the objects. The workload is called `NAME-SLOT`, its pods carry labels of their own, its
//! image is the approved digest, and the ConfigMaps and Secrets it reads are its own copies: what the other slot runs
//! with cannot change under it.

use crate::{names, object::Object};
use plimsoll_core::{EnvironmentName, ServiceName, Slot};
use plimsoll_deploy::{Activation, ServiceSpec, StatePolicy};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Where the identity file of a pod lies.
const IDENTITY_DIRECTORY: &str = "/plimsoll";
const IDENTITY_VOLUME: &str = "plimsoll-identity";

/// The objects of a service for one slot.
#[derive(Debug, Clone, PartialEq)]
pub struct Slotted {
    /// Those that serve both slots, such as the service account.
    pub shared: Vec<Object>,
    /// Those of this slot, in the order in which they are to be made; the workload is among them.
    pub own: Vec<Object>,
    /// The workload among them.
    pub workload: WorkloadName,
    /// The Service, leading to no slot yet.
    pub service: Object,
}

/// Which object runs the pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadName {
    /// `Deployment` or `StatefulSet`.
    pub kind: String,
    /// Its name in the slot.
    pub name: String,
}

/// What the slot is stood up for.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The environment.
    pub environment: &'a EnvironmentName,
    /// The slot.
    pub slot: Slot,
    /// The version of the release.
    pub version: &'a str,
    /// How many pods; where an autoscaler decides, how many to begin with.
    pub replicas: u16,
}

/// Why objects cannot be put into a slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// There must be one Deployment or StatefulSet for a service.
    #[error("{service} has {found}; it needs one Deployment or StatefulSet")]
    Workload {
        /// The service.
        service: ServiceName,
        /// What there is.
        found: String,
    },
    /// There must be a Service that leads to the pods.
    #[error("{service} has no Service of that name, or one that selects its pods")]
    Service {
        /// The service.
        service: ServiceName,
    },
    /// It is not clear which container runs the image.
    #[error("{workload} has the containers {containers:?}: name the one that runs the image `{service}`")]
    Container {
        /// The service.
        service: ServiceName,
        /// The workload's title.
        workload: String,
        /// The containers' names.
        containers: Vec<String>,
    },
}

/// Puts the objects of a service into a slot.
pub fn in_slot(objects: &[Object], spec: &ServiceSpec, place: &Place<'_>) -> Result<Slotted, SlotError> {
    let workload = workload(objects, spec)?;
    let service = service(objects, workload, spec)?;
    let copies = copied(objects, workload, spec);
    let mut slotted = Slotted {
        shared: Vec::new(),
        own: Vec::new(),
        workload: WorkloadName { kind: workload.kind().to_owned(), name: names::slotted(workload.name(), place.slot) },
        service: in_service(service, spec, place),
    };
    for object in objects.iter().filter(|o| *o != service) {
        if object == workload {
            slotted.own.push(in_workload(object, spec, place, &copies)?);
        } else if copies.contains(&key(object)) {
            slotted.own.push(in_copy(object, workload, spec, place));
        } else {
            slotted.shared.push(labelled(object.clone(), spec, place.environment));
        }
    }
    // What pods read comes before them, what acts on them after.
    slotted.own.sort_by_key(|o| match o.kind() {
        "ConfigMap" | "Secret" | "ExternalSecret" | "PersistentVolumeClaim" => 0,
        "Deployment" | "StatefulSet" => 1,
        _ => 2,
    });
    Ok(slotted)
}

/// How many pods a slot begins with: what a chart or an overlay says, else the configuration. Where an autoscaler decides, not
/// fewer than it made of the live slot, because that much traffic moves at once.
pub(crate) fn replicas(objects: &[Object], spec: &ServiceSpec, live: u16) -> u16 {
    let workload = objects.iter().find(|o| o.is_workload());
    let rendered = workload.and_then(|o| o.value().pointer("/spec/replicas")?.as_u64());
    let said = match (spec.objects.is_empty(), rendered) {
        (true, _) => spec.replicas,
        (false, said) => said.and_then(|n| u16::try_from(n).ok()).unwrap_or(1),
    };
    let scaled = objects.iter().any(|o| o.kind() == "HorizontalPodAutoscaler");
    if scaled { said.max(live) } else { said }
}

fn workload<'a>(objects: &'a [Object], spec: &ServiceSpec) -> Result<&'a Object, SlotError> {
    let all: Vec<_> = objects.iter().filter(|o| o.is_workload()).collect();
    match all.as_slice() {
        [one] => Ok(one),
        _ => Err(SlotError::Workload {
            service: spec.name.clone(),
            found: if all.is_empty() {
                "none".to_owned()
            } else {
                all.iter().map(|o| o.title()).collect::<Vec<_>>().join(", ")
            },
        }),
    }
}

/// The Service called as the service is, else the only one with an address that selects the workload's pods.
fn service<'a>(objects: &'a [Object], workload: &Object, spec: &ServiceSpec) -> Result<&'a Object, SlotError> {
    let services = || objects.iter().filter(|o| o.kind() == "Service");
    let headless = |o: &Object| o.text("/spec/clusterIP") == "None";
    let labels = workload.value().pointer("/spec/template/metadata/labels").and_then(Value::as_object);
    let selects = |o: &Object| {
        let selector = o.value().pointer("/spec/selector").and_then(Value::as_object);
        let is_in = |(key, value): (&String, &Value)| labels.is_some_and(|l| l.get(key) == Some(value));
        selector.is_some_and(|s| !s.is_empty() && s.iter().all(is_in))
    };
    services()
        .find(|o| o.name() == spec.name.as_str() && !headless(o))
        .or_else(|| services().find(|o| !headless(o) && selects(o)))
        .ok_or_else(|| SlotError::Service { service: spec.name.clone() })
}

type Key = (String, String);

fn key(object: &Object) -> Key {
    (object.kind().to_owned(), object.name().to_owned())
}

/// The objects of which each slot has a copy.
fn copied(objects: &[Object], workload: &Object, spec: &ServiceSpec) -> BTreeSet<Key> {
    let mut read = BTreeSet::new();
    references(workload.value(), &mut |kind, name| {
        read.insert((kind.to_owned(), name.to_owned()));
    });
    let is_copied = |object: &&Object| match object.kind() {
        "ConfigMap" | "Secret" => read.contains(&key(object)),
        "ExternalSecret" => read.contains(&("Secret".to_owned(), secret_of(object).to_owned())),
        "PersistentVolumeClaim" => spec.state == StatePolicy::PerSlot && read.contains(&key(object)),
        "PodDisruptionBudget" => true,
        "HorizontalPodAutoscaler" => object.text("/spec/scaleTargetRef/name") == workload.name(),
        _ => false,
    };
    let mut copies: BTreeSet<Key> = objects.iter().filter(is_copied).map(key).collect();
    let external = objects.iter().filter(|o| o.kind() == "ExternalSecret" && copies.contains(&key(o)));
    let made: Vec<Key> = external.map(|o| ("Secret".to_owned(), secret_of(o).to_owned())).collect();
    copies.extend(made);
    // The target makes these two itself.
    copies.insert(("ConfigMap".to_owned(), format!("{}-identity", spec.name)));
    if !spec.secret_env.is_empty() {
        copies.insert(("Secret".to_owned(), spec.name.to_string()));
    }
    copies
}

/// Whether a workload's pods read an object.
pub(crate) fn reads(workload: &Object, kind: &str, name: &str) -> bool {
    let mut found = false;
    references(workload.value(), &mut |k, n| found |= k == kind && n == name);
    found
}

/// The Secret that an ExternalSecret makes.
pub(crate) fn secret_of(object: &Object) -> &str {
    match object.text("/spec/target/name") {
        "" => object.name(),
        name => name,
    }
}

/// Calls `found` with kind and name of all that a pod template reads.
fn references<'a>(value: &'a Value, found: &mut impl FnMut(&'static str, &'a str)) {
    match value {
        Value::Object(fields) => {
            for (field, inner) in fields {
                for (kind, at) in reference(field) {
                    if let Some(name) = inner.get(at).and_then(Value::as_str) {
                        found(kind, name);
                    }
                }
                references(inner, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// Which kind a field of a pod template refers to, and the key that holds the name.
fn reference(field: &str) -> &'static [(&'static str, &'static str)] {
    match field {
        "configMap" | "configMapRef" | "configMapKeyRef" => &[("ConfigMap", "name")],
        "secret" => &[("Secret", "secretName"), ("Secret", "name")],
        "secretRef" | "secretKeyRef" => &[("Secret", "name")],
        "persistentVolumeClaim" => &[("PersistentVolumeClaim", "claimName")],
        _ => &[],
    }
}

/// What a slot's copy of an object is called. What several services read, each has a copy of.
fn copy_name(name: &str, spec: &ServiceSpec, slot: Slot) -> String {
    let service = spec.name.as_str();
    if name == format!("{service}-identity") {
        return names::identity(&spec.name, slot);
    }
    let own = name.strip_prefix(service).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    if own { names::slotted(name, slot) } else { names::slotted(&format!("{service}-{name}"), slot) }
}

/// Renames what a pod template reads where the slot has a copy of it.
fn rename(value: &mut Value, copies: &BTreeSet<Key>, spec: &ServiceSpec, slot: Slot) {
    match value {
        Value::Object(fields) => {
            for (field, inner) in fields.iter_mut() {
                for (kind, at) in reference(field) {
                    if let Some(Value::String(name)) = inner.get_mut(*at)
                        && copies.contains(&((*kind).to_owned(), name.clone()))
                    {
                        *name = copy_name(name, spec, slot);
                    }
                }
                rename(inner, copies, spec, slot);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, copies, spec, slot)),
        _ => {}
    }
}

/// The object at a path of keys, made where it is missing.
fn at<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut Map<String, Value> {
    let mut inner = value;
    for key in path {
        if !inner.is_object() {
            *inner = json!({});
        }
        inner = inner.as_object_mut().expect("it was just made one").entry(*key).or_insert_with(|| json!({}));
    }
    if !inner.is_object() {
        *inner = json!({});
    }
    inner.as_object_mut().expect("it was just made one")
}

fn put(map: &mut Map<String, Value>, pairs: &[(&str, &str)]) {
    for (key, value) in pairs {
        map.insert((*key).to_owned(), Value::from(*value));
    }
}

/// With the labels of everything of a service.
fn labelled(mut object: Object, spec: &ServiceSpec, environment: &EnvironmentName) -> Object {
    let labels = [(names::ENVIRONMENT, environment.as_str()), (names::SERVICE, spec.name.as_str())];
    put(at(object.value_mut(), &["metadata", "labels"]), &labels);
    object
}

fn in_copy(object: &Object, workload: &Object, spec: &ServiceSpec, place: &Place<'_>) -> Object {
    let name = copy_name(object.name(), spec, place.slot);
    let mut object = labelled(object.clone(), spec, place.environment);
    put(at(object.value_mut(), &["metadata", "labels"]), &[(names::SLOT, place.slot.as_str())]);
    put(at(object.value_mut(), &["metadata"]), &[("name", &name)]);
    match object.kind() {
        "HorizontalPodAutoscaler" => {
            let target = names::slotted(workload.name(), place.slot);
            put(at(object.value_mut(), &["spec", "scaleTargetRef"]), &[("name", &target)]);
        }
        "PodDisruptionBudget" => {
            put(at(object.value_mut(), &["spec", "selector", "matchLabels"]), &of_slot(spec, place));
        }
        "ExternalSecret" => {
            let secret = copy_name(secret_of(&object), spec, place.slot);
            put(at(object.value_mut(), &["spec", "target"]), &[("name", &secret)]);
        }
        _ => {}
    }
    object
}

fn of_slot<'a>(spec: &'a ServiceSpec, place: &Place<'a>) -> [(&'static str, &'a str); 3] {
    [
        (names::ENVIRONMENT, place.environment.as_str()),
        (names::SERVICE, spec.name.as_str()),
        (names::SLOT, place.slot.as_str()),
    ]
}

fn in_workload(
    object: &Object,
    spec: &ServiceSpec,
    place: &Place<'_>,
    copies: &BTreeSet<Key>,
) -> Result<Object, SlotError> {
    let mut workload = labelled(object.clone(), spec, place.environment);
    let name = names::slotted(object.name(), place.slot);
    let hash = names::spec_label(spec);
    let value = workload.value_mut();
    put(at(value, &["metadata"]), &[("name", &name)]);
    put(at(value, &["metadata", "labels"]), &[(names::SLOT, place.slot.as_str())]);
    let replicas = place.replicas.to_string();
    let config = spec.config_hash.to_string();
    let metrics = metrics(spec);
    let about = [
        (names::METRICS, metrics.as_str()),
        (names::DIGEST, spec.digest.as_str()),
        (names::CONFIG, &config),
        (names::VERSION, place.version),
        (names::REPLICAS, &replicas),
        (names::ACTIVATION, if spec.activation == Activation::Exclusive { "exclusive" } else { "traffic" }),
    ];
    put(at(value, &["metadata", "annotations"]), &about);
    at(value, &["spec"]).insert("replicas".to_owned(), place.replicas.into());
    put(at(value, &["spec", "selector", "matchLabels"]), &of_slot(spec, place));
    put(at(value, &["spec", "template", "metadata", "labels"]), &of_slot(spec, place));
    let own = names::traffic_of(Some(place.slot));
    put(at(value, &["spec", "template", "metadata", "labels"]), &[(names::SPEC, &hash), (own, names::YES)]);
    // Claims that the workload makes itself bear its name and the pod's number: they are the slot's already.
    rename(at(value, &["spec", "template"]).get_mut("spec").unwrap_or(&mut Value::Null), copies, spec, place.slot);
    in_container(&mut workload, object, spec, place)?;
    Ok(workload)
}

/// Where the pods tell what they answered; what asks whether they are well does not count.
fn metrics(spec: &ServiceSpec) -> String {
    let mut metrics = spec.metrics.clone().unwrap_or_default();
    if !metrics.ignores(&spec.health.path) {
        metrics.ignore.push(spec.health.path.clone());
    }
    serde_json::to_string(&metrics).expect("settings are plain data")
}

/// The container that runs the image gets the digest, and is told who it is.
fn in_container(
    workload: &mut Object,
    object: &Object,
    spec: &ServiceSpec,
    place: &Place<'_>,
) -> Result<(), SlotError> {
    let pod = at(workload.value_mut(), &["spec", "template", "spec"]);
    let Some(Value::Array(containers)) = pod.get_mut("containers") else {
        return Err(SlotError::Container {
            service: spec.name.clone(),
            workload: object.title(),
            containers: Vec::new(),
        });
    };
    let named: Vec<String> = containers.iter().map(|c| c["name"].as_str().unwrap_or_default().to_owned()).collect();
    let index = container_of(containers, &spec.name);
    let Some(container) = index.and_then(|i| containers.get_mut(i)) else {
        return Err(SlotError::Container { service: spec.name.clone(), workload: object.title(), containers: named });
    };
    container["image"] = spec.image.to_string().into();
    let identity = format!("{IDENTITY_DIRECTORY}/identity.json");
    let told = [
        ("SERVICE_SLOT", place.slot.as_str()),
        ("PLIMSOLL_ENVIRONMENT", place.environment.as_str()),
        ("PLIMSOLL_IDENTITY", &identity),
    ];
    // A worker of a slot waits until it is told, whatever its chart says.
    let waits = (spec.activation == Activation::Exclusive).then_some(("PLIMSOLL_ACTIVATION", "managed"));
    let told: Vec<(&str, &str)> = told.into_iter().chain(waits).collect();
    let env = list(container, "env");
    env.retain(|v| !told.iter().any(|(name, _)| v["name"] == *name));
    env.extend(told.iter().map(|(name, value)| json!({"name": name, "value": value})));
    let mounts = list(container, "volumeMounts");
    if !mounts.iter().any(|m| m["mountPath"] == IDENTITY_DIRECTORY) {
        mounts.push(json!({"name": IDENTITY_VOLUME, "mountPath": IDENTITY_DIRECTORY, "readOnly": true}));
    }
    let map = names::identity(&spec.name, place.slot);
    let pod = workload.value_mut().pointer_mut("/spec/template/spec").expect("it has containers");
    let volumes = list(pod, "volumes");
    if !volumes.iter().any(|v| v.pointer("/configMap/name") == Some(&Value::from(map.as_str()))) {
        volumes.push(json!({"name": IDENTITY_VOLUME, "configMap": {"name": map}}));
    }
    Ok(())
}

/// The container that runs the image of a service: the one called as the service is, or the only one.
pub(crate) fn container_of(containers: &[Value], service: &ServiceName) -> Option<usize> {
    let named = containers.iter().position(|container| container["name"] == service.as_str());
    named.or((containers.len() == 1).then_some(0))
}

fn list<'a>(value: &'a mut Value, key: &str) -> &'a mut Vec<Value> {
    if !value[key].is_array() {
        value[key] = json!([]);
    }
    value[key].as_array_mut().expect("it was just made one")
}

/// The Service as it is made the first time: it selects no slot, and remembers what else it selects.
fn in_service(object: &Object, spec: &ServiceSpec, place: &Place<'_>) -> Object {
    let mut service = labelled(object.clone(), spec, place.environment);
    let value = service.value_mut();
    put(at(value, &["metadata", "annotations"]), &[(names::GENERATION, "0"), (names::RUN, "")]);
    let selector = at(value, &["spec", "selector"]);
    put(selector, &of_slot(spec, place));
    selector.retain(|key, _| !names::is_slot_key(key));
    let rest = Value::Object(selector.clone()).to_string();
    put(selector, &[(names::traffic_of(None), names::YES)]);
    put(at(value, &["metadata", "annotations"]), &[(names::SELECTOR, &rest)]);
    service
}

/// What a Service selects besides the slot.
pub(crate) fn rest_of_selector(selector: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    selector.iter().filter(|(key, _)| !names::is_slot_key(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

#[cfg(test)]
mod tests;
