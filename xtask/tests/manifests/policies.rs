//! What every `NetworkPolicy` allows, taken together, told as pairs of a peer and a port. Pure.
//!
//! A policy only adds to what others allow, so none of them can be judged by itself: what counts is their sum for a pod.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A peer and a port: `("risk-manager", "TCP 8080")`.
pub(crate) type Allowed = BTreeSet<(String, String)>;

/// A pod that nobody knows, and one that only says that it is of Kairos: no rule may be so wide that it lets them in.
pub(crate) const STRANGERS: [&str; 2] = ["a stranger", "a stranger of kairos"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

/// Pods by the name of what makes them: their labels and their ports by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pods(BTreeMap<String, (Value, BTreeMap<String, u64>)>);

impl Pods {
    /// The pods of the workloads among these objects, and the strangers.
    pub(crate) fn of(objects: &[Value]) -> Self {
        let mut pods = Self::default();
        for object in objects {
            let template =
                ["/spec/template", "/spec/jobTemplate/spec/template"].iter().find_map(|at| object.pointer(at));
            let Some(template) = template else { continue };
            let ports = template.pointer("/spec/containers/0/ports").and_then(Value::as_array);
            let port = |port: &Value| Some((port["name"].as_str()?.to_owned(), port["containerPort"].as_u64()?));
            let name =
                template.pointer("/spec/containers/0/name").and_then(Value::as_str).expect("a container has a name");
            let ports = ports.into_iter().flatten().filter_map(port).collect();
            pods.0.insert(name.to_owned(), (template["metadata"]["labels"].clone(), ports));
        }
        let part_of = serde_json::json!({ "app.kubernetes.io/part-of": "kairos" });
        for (name, labels) in STRANGERS.into_iter().zip([Value::Null, part_of]) {
            pods.0.insert(name.to_owned(), (labels, BTreeMap::new()));
        }
        pods
    }

    /// Their names, without the strangers.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str).filter(|name| !STRANGERS.contains(name))
    }

    fn selected<'a>(&'a self, selector: &'a Value) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(|(_, (labels, _))| selects(selector, labels)).map(|(name, _)| name.as_str())
    }

    /// A port as a number; the name means what the pod at the receiving end calls so.
    fn port(&self, of: &str, port: &Value) -> String {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let named = |name| self.0.get(of).and_then(|(_, ports)| ports.get(name));
        match (&port["port"], port.get("endPort")) {
            (Value::Number(number), None) => format!("{protocol} {number}"),
            (Value::String(name), None) => match named(name.as_str()) {
                Some(number) => format!("{protocol} {number}"),
                None => format!("{protocol} {name}"),
            },
            (from, Some(to)) => format!("{protocol} {from} to {to}"),
            (other, None) => format!("{protocol} {other}"),
        }
    }
}

fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.get("matchLabels").and_then(Value::as_object);
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    let holds = |expression: &Value| {
        assert_eq!(expression["operator"], "In", "these tests read no other operator: {selector}");
        let label = expression["key"].as_str().and_then(|key| labels.get(key));
        label.is_some_and(|label| expression["values"].as_array().is_some_and(|values| values.contains(label)))
    };
    wanted.into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
        && expressions.into_iter().flatten().all(holds)
}

/// What the policies allow a pod; `None` if none of them says anything about it, so that it may do everything.
pub(crate) fn allowed(objects: &[Value], pods: &Pods, of: &str, direction: Direction) -> Option<Allowed> {
    let (word, rules, peers) = match direction {
        Direction::Ingress => ("Ingress", "ingress", "from"),
        Direction::Egress => ("Egress", "egress", "to"),
    };
    let policies = objects.iter().filter(|object| object["kind"] == "NetworkPolicy").map(|object| &object["spec"]);
    let about = |spec: &&Value| {
        let types = spec["policyTypes"].as_array().expect("the types of a policy are written down");
        types.iter().any(|t| t == word) && pods.selected(&spec["podSelector"]).any(|name| name == of)
    };
    let mut found = None;
    for spec in policies.filter(about) {
        let found: &mut Allowed = found.get_or_insert_default();
        for rule in spec[rules].as_array().into_iter().flatten() {
            for peer in peers_of(&rule[peers], pods) {
                let receiver = if direction == Direction::Ingress { of } else { peer.as_str() };
                match rule["ports"].as_array().filter(|ports| !ports.is_empty()) {
                    Some(ports) => found.extend(ports.iter().map(|port| (peer.clone(), pods.port(receiver, port)))),
                    None => _ = found.insert((peer.clone(), "every port".to_owned())),
                }
            }
        }
    }
    found
}

/// The peers of a rule: pods by their names, what is outside the namespace in words.
fn peers_of(peers: &Value, pods: &Pods) -> Vec<String> {
    let Some(peers) = peers.as_array().filter(|peers| !peers.is_empty()) else { return vec!["everybody".to_owned()] };
    let mut all = Vec::new();
    for peer in peers {
        match (peer.get("namespaceSelector"), peer.get("podSelector"), peer.get("ipBlock")) {
            (None, Some(selector), None) => all.extend(pods.selected(selector).map(str::to_owned)),
            (Some(namespaces), None, None) => all.push(format!("namespaces {}", words(namespaces))),
            (Some(namespaces), Some(selector), None) => {
                all.push(format!("namespaces {}, pods {}", words(namespaces), words(selector)));
            }
            _ => all.push(peer.to_string()),
        }
    }
    all
}

fn words(selector: &Value) -> String {
    assert!(selector.get("matchExpressions").is_none(), "these tests do not read matchExpressions: {selector}");
    let labels = selector.get("matchLabels").and_then(Value::as_object);
    let labels: BTreeMap<&String, &Value> = labels.into_iter().flatten().collect();
    if labels.is_empty() {
        return "all".to_owned();
    }
    let labels = labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    labels.collect::<Vec<_>>().join(" ")
}
