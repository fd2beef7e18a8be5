//! Copies of what somebody else made, without what belongs to the original alone. Pure.
//!
//! Labels and annotations of the objects themselves are left out: by them the tools that made the originals (Helm, Argo CD,
//! Flux) know their own, and would delete a copy that none of their sources names. Those of pods stay.

use super::{labels, name};
use crate::names;
use plimsoll_core::ImageRef;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What the annotations of kubectl begin with: what it applied last, and when it restarted something.
const KUBECTL: &str = "kubectl.kubernetes.io/";

/// The Deployment as it is in no slot yet, called `called`.
pub(super) fn deployment(theirs: &Value, called: &str, without: &str, images: &BTreeMap<String, ImageRef>) -> Value {
    let mut spec = theirs["spec"].clone();
    if let Value::Object(fields) = &mut spec {
        // Pods are found by labels of the slot alone.
        fields.remove("selector");
        fields.remove("paused");
    }
    let of_pods = |part: &str| -> Map<String, Value> {
        let all = theirs["spec"]["template"]["metadata"][part].as_object();
        let kept = all.into_iter().flatten().filter(|(key, _)| *key != without && !key.starts_with(KUBECTL));
        kept.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    spec["template"]["metadata"] = json!({"labels": of_pods("labels"), "annotations": of_pods("annotations")});
    for list in ["containers", "initContainers"] {
        let pod = &mut spec["template"]["spec"];
        for container in pod.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(image) = container["name"].as_str().and_then(|name| images.get(name)) {
                container["image"] = image.to_string().into();
            }
        }
    }
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": managed(called), "spec": spec})
}

/// The Service, as it is made again should it be lost: it selects what slots are found by, and remembers what it selected.
pub(super) fn service(theirs: &Value, selector: &BTreeMap<String, String>) -> Value {
    let mut spec = theirs["spec"].clone();
    if let Value::Object(fields) = &mut spec {
        for given in ["clusterIP", "clusterIPs", "healthCheckNodePort"] {
            fields.remove(given);
        }
        fields.insert("selector".to_owned(), json!({}));
    }
    let told = serde_json::to_string(selector).expect("labels are plain data");
    let mut metadata = managed(name(theirs));
    metadata["annotations"] = json!({ (names::ADOPTED): told });
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
}

/// Whether an autoscaler scales this Deployment.
pub(super) fn scales(scaler: &Value, deployment: &str) -> bool {
    let target = &scaler["spec"]["scaleTargetRef"];
    target["kind"] == "Deployment" && target["name"] == deployment
}

/// The autoscaler of the workload that is called `called`.
pub(super) fn autoscaler(theirs: &Value, called: &str) -> Value {
    let mut spec = theirs["spec"].clone();
    spec["scaleTargetRef"]["name"] = called.into();
    let metadata = managed(name(theirs));
    json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata, "spec": spec})
}

/// Whether a disruption budget guards the pods of this Deployment and not those of its copy: a pod with two budgets could
/// not be evicted at all.
pub(super) fn guards(budget: &Value, deployment: &Value, without: &str) -> bool {
    let selector = &budget["spec"]["selector"];
    let pods = labels(&deployment["spec"]["template"]["metadata"]);
    let Some(matched) = selector["matchLabels"].as_object() else { return false };
    let all = matched.iter().all(|(key, value)| pods.is_some_and(|pods| pods.get(key) == Some(value)));
    all && matched.contains_key(without) && selector.get("matchExpressions").is_none()
}

/// The disruption budget; it gets the selector of its slot.
pub(super) fn budget(theirs: &Value) -> Value {
    let mut spec = theirs["spec"].clone();
    spec["selector"] = json!({});
    json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": managed(name(theirs)), "spec": spec})
}

/// The labels by which a network policy finds pods, its own and those it lets in or out.
pub(super) fn pod_selector_keys(policy: &Value) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    walk(&policy["spec"], &mut found);
    found
}

fn walk<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (field, inner) in fields {
                if field == "podSelector" {
                    found.extend(inner["matchLabels"].as_object().into_iter().flat_map(Map::keys).map(String::as_str));
                    let expressions = inner["matchExpressions"].as_array();
                    found.extend(expressions.into_iter().flatten().filter_map(|e| e["key"].as_str()));
                }
                walk(inner, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
        _ => {}
    }
}

fn managed(name: &str) -> Value {
    json!({"name": name, "labels": {"app.kubernetes.io/managed-by": names::MANAGER}})
}
