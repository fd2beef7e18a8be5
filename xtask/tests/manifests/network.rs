//! A `NetworkPolicy` allows what the services need, which is what plimsoll.toml says of who calls whom, and nothing else.

use crate::{
    cluster::Cluster,
    namespace::Namespace,
    objects::{self, Rendered, WIDEST, documents, title},
    policies::{Allowed, Direction, Pods, STRANGERS, allowed},
    server::moved,
    table,
};
use serde_json::{Value, json};

const HTTP: &str = "TCP 8080";
const INGRESS: &str = "namespaces kubernetes.io/metadata.name=ingress-nginx";
const EVERY_NAMESPACE: &str = "namespaces all";
const MONITORING: &str = "namespaces kubernetes.io/metadata.name=monitoring";
/// By chart and overlays; typed objects only know the namespace.
const DNS: &str = "namespaces kubernetes.io/metadata.name=kube-system, pods k8s-app=kube-dns";
const DNS_NAMESPACE: &str = "namespaces kubernetes.io/metadata.name=kube-system";

/// Objects whose policies are on, and who outside of the namespace may be talked to.
struct Source<'a> {
    rendered: &'a Rendered,
    /// Who may call a service, by its name; `""` is every service.
    callers: Vec<(&'static str, &'static str)>,
    dns: &'static str,
}

impl<'a> Source<'a> {
    fn of(rendered: &'a Rendered) -> Self {
        let mut source = Self { rendered, callers: Vec::new(), dns: DNS };
        if rendered.title.starts_with("typed") {
            source.dns = DNS_NAMESPACE;
            // A service with a port of its own is for everybody, others are for those that call them.
            if rendered.title.ends_with("everything") {
                source.callers.push(("api-gateway", EVERY_NAMESPACE));
            }
        } else {
            source.callers.push(("api-gateway", INGRESS));
        }
        match rendered.title.as_str() {
            "chart with production-values.yaml" | "overlay of all components" => source.callers.push(("", MONITORING)),
            _ => {}
        }
        source
    }
}

/// Every source that has both pods and policies, but for those that open more: to servers outside, and to tests.
fn sources() -> Option<Vec<Source<'static>>> {
    let all = objects::all()?;
    let has = |rendered: &Rendered, kind: &str| rendered.objects.iter().any(|object| object["kind"] == kind);
    let opens = ["chart with externalServices", "chart with everything", "chart with tests"];
    let policed = all.iter().filter(|r| has(r, "NetworkPolicy") && has(r, "Deployment"));
    Some(policed.filter(|r| !opens.iter().any(|o| r.title.starts_with(o))).map(Source::of).collect())
}

/// What the policies of a source allow that is not needed, and what is needed and not allowed.
fn wrong(source: &Source<'_>, objects: &[Value]) -> Vec<String> {
    let pods = Pods::of(&source.rendered.objects);
    let calls = table::calls();
    let mut wrong = Vec::new();
    for name in pods.names() {
        // Who is no service calls nobody and is called by nobody, as the job that makes backups.
        let callers = calls.iter().filter(|(_, called)| called.contains(name)).map(|(caller, _)| caller.as_str());
        let is_asked = |of: &str| of == name || (of.is_empty() && calls.contains_key(name));
        let outside = source.callers.iter().filter(|(of, _)| is_asked(of));
        let ingress = callers.chain(outside.map(|(_, peer)| *peer)).map(|peer| (peer.to_owned(), HTTP.to_owned()));
        let called = calls.get(name).into_iter().flatten().map(|peer| (peer.clone(), HTTP.to_owned()));
        let names = ["TCP 53", "UDP 53"].map(|port| (source.dns.to_owned(), port.to_owned()));
        let wanted = [(Direction::Ingress, ingress.collect()), (Direction::Egress, called.chain(names).collect())];
        for (direction, wanted) in wanted {
            let found = allowed(objects, &pods, name, direction);
            wrong.extend(differs(&source.rendered.title, name, direction, found, &wanted));
        }
    }
    wrong
}

fn differs(source: &str, name: &str, direction: Direction, found: Option<Allowed>, wanted: &Allowed) -> Vec<String> {
    let Some(found) = found else { return vec![format!("{source}: no policy is about the {direction:?} of {name}")] };
    let more = found.difference(wanted).map(|pair| format!("{source}: {direction:?} of {name} is open to {pair:?}"));
    let less = wanted.difference(&found).map(|pair| format!("{source}: {direction:?} of {name} is closed to {pair:?}"));
    more.chain(less).collect()
}

#[test]
fn each_service_is_reached_by_its_callers_and_reaches_dns_and_what_it_calls() {
    let Some(sources) = sources() else { return };
    for source in &sources {
        let wrong = wrong(source, &source.rendered.objects);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
    println!("network policies: {} sources are held to the table of plimsoll.toml", sources.len());
}

#[test]
fn a_cluster_stores_the_policies_as_they_were_meant() {
    let Some(cluster) = Cluster::find() else { return };
    let Some(sources) = objects::some(&WIDEST) else { return };
    let namespace = Namespace::restricted(&cluster, "manifests-network");
    for source in sources.into_iter().map(Source::of) {
        let is_policy = |object: &&Value| object["kind"] == "NetworkPolicy";
        let policies: Vec<&Value> = source.rendered.objects.iter().filter(is_policy).collect();
        let applied = documents(&moved(&policies));
        namespace.kubectl(&["apply", "--server-side", "-f", "-"], &applied);
        let stored = namespace.kubectl(&["get", "networkpolicies", "--output", "json"], "");
        let stored: Value = serde_json::from_str(&stored).expect("JSON");
        let stored = stored["items"].as_array().expect("a list").clone();
        assert_eq!(stored.len(), policies.len(), "{}", source.rendered.title);
        let wrong = wrong(&source, &stored);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        namespace.kubectl(&["delete", "--wait", "-f", "-"], &applied);
    }
}

/// Policies with one more thing that is allowed, and the words by which it is told.
fn wider(policies: &[Value], rule: &str, value: &Value) -> Vec<Value> {
    let mut policies = policies.to_vec();
    let policy = policies.iter_mut().find(|object| title(object) == "NetworkPolicy risk-manager");
    let rules = policy.and_then(|policy| policy.pointer_mut(&format!("/spec/{rule}"))).and_then(Value::as_array_mut);
    rules.expect("the risk manager has rules").push(value.clone());
    policies
}

#[test]
fn a_rule_that_is_wider_than_it_must_be_is_told_with_what_it_opens() {
    let Some(sources) = objects::some(&["chart with defaults"]) else { return };
    let source = Source::of(sources[0]);
    let port = json!([{ "port": "http", "protocol": "TCP" }]);
    let of = |name: &str| json!([{ "podSelector": { "matchLabels": { "app.kubernetes.io/name": name } } }]);
    let cases = [
        ("ingress", json!({ "from": [{ "podSelector": {} }], "ports": port }), STRANGERS[0]),
        ("ingress", json!({ "from": of("market-data-ingestor"), "ports": port }), "market-data-ingestor"),
        ("ingress", json!({ "from": of("api-gateway") }), "every port"),
        ("ingress", json!({ "ports": port }), "everybody"),
        ("ingress", json!({ "from": of("api-gateway"), "ports": [{ "port": 1, "endPort": 9 }] }), "TCP 1 to"),
        ("egress", json!({ "to": [{ "ipBlock": { "cidr": "0.0.0.0/0" } }], "ports": port }), "0.0.0.0/0"),
        ("egress", json!({ "to": of("api-gateway"), "ports": port }), "api-gateway"),
        ("egress", json!({ "to": [{ "namespaceSelector": {} }], "ports": port }), "namespaces all"),
    ];
    for (direction, rule, told) in cases {
        let found = wrong(&source, &wider(&source.rendered.objects, direction, &rule));
        assert!(!found.is_empty() && found.iter().any(|line| line.contains(told)), "{rule}: {found:?}");
    }
    let without: Vec<Value> =
        source.rendered.objects.iter().filter(|o| o["kind"] != "NetworkPolicy").cloned().collect();
    // In and out of each service.
    assert_eq!(wrong(&source, &without).len(), 8);
}
