//! What becomes of objects in a slot, and which sets of objects are refused.

use super::*;
use crate::render::by_service;
use plimsoll_core::{Digest, Fingerprint};
use plimsoll_deploy::sample;

fn spec(name: &str) -> ServiceSpec {
    let digest = Digest::of(b"image");
    ServiceSpec {
        image: format!("registry.example/shop/{name}@{digest}").parse().unwrap(),
        digest,
        replicas: 2,
        config_hash: Fingerprint::of(b"config"),
        ..sample(name)
    }
}

fn object(value: Value) -> Object {
    Object::try_from(value).unwrap()
}

fn deployment(name: &str) -> Object {
    object(json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{
                "name": name, "image": "shop/web:latest",
                "env": [{"name": "SERVICE_SLOT", "value": "theirs"}],
                "envFrom": [{"configMapRef": {"name": "shared"}}, {"secretRef": {"name": "vault"}}],
            }]}},
        },
    }))
}

fn of_kind(kind: &str, name: &str, spec: &Value) -> Object {
    object(json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": spec}))
}

fn service(name: &str, app: &str) -> Object {
    of_kind("Service", name, &json!({"selector": {"app": app}, "ports": [{"port": 80}]}))
}

fn placed(objects: &[Object], spec: &ServiceSpec) -> Result<Slotted, SlotError> {
    let environment = "staging".parse().unwrap();
    in_slot(objects, spec, &Place { environment: &environment, slot: Slot::Green, version: "1.2.0", replicas: 4 })
}

fn own<'a>(slotted: &'a Slotted, kind: &str) -> &'a Object {
    slotted.own.iter().find(|o| o.kind() == kind).unwrap_or_else(|| panic!("no {kind} of its own: {slotted:?}"))
}

#[test]
fn a_workload_is_renamed_labelled_and_runs_the_approved_digest() {
    let spec = spec("web");
    let slotted = placed(&[deployment("web"), service("web", "web")], &spec).unwrap();
    let workload = own(&slotted, "Deployment");
    assert_eq!((workload.name(), slotted.workload.name.as_str()), ("web-green", "web-green"));
    let pod = "/spec/template/spec/containers/0";
    assert_eq!(workload.text(&format!("{pod}/image")), spec.image.to_string());
    assert_eq!(workload.value().pointer("/spec/replicas"), Some(&json!(4)));
    for place in ["/spec/selector/matchLabels", "/spec/template/metadata/labels"] {
        let labels = workload.value().pointer(place).unwrap();
        assert_eq!((&labels[names::SLOT], &labels["app"]), (&json!("green"), &json!("web")), "{place}");
    }
    let own = names::traffic_of(Some(Slot::Green));
    let labels = workload.value().pointer("/spec/template/metadata/labels").unwrap();
    assert_eq!(labels[own], "yes", "its pods get the traffic of their slot");
    let selector = workload.value().pointer("/spec/selector/matchLabels").unwrap();
    assert_eq!(selector.get(own), None, "and are its pods without it");
    assert_eq!(workload.value()["metadata"]["annotations"][names::VERSION], "1.2.0");
    let env = workload.value().pointer(&format!("{pod}/env")).unwrap().as_array().unwrap();
    let slots: Vec<_> = env.iter().filter(|v| v["name"] == "SERVICE_SLOT").collect();
    assert_eq!(slots, [&json!({"name": "SERVICE_SLOT", "value": "green"})], "what the chart says of it is replaced");
    let volumes = workload.value().pointer("/spec/template/spec/volumes").unwrap();
    assert_eq!(volumes[0]["configMap"]["name"], "web-green-identity");
}

#[test]
fn a_service_selects_no_slot_when_it_is_made_and_remembers_the_rest() {
    let slotted = placed(&[deployment("web"), service("web", "web")], &spec("web")).unwrap();
    let selector = slotted.service.value().pointer("/spec/selector").unwrap();
    assert_eq!((&selector[names::traffic_of(None)], &selector["app"]), (&json!("yes"), &json!("web")));
    let rest = slotted.service.value()["metadata"]["annotations"][names::SELECTOR].as_str().unwrap();
    let rest: BTreeMap<String, String> = serde_json::from_str(rest).unwrap();
    assert!(rest.contains_key("app") && !rest.keys().any(|key| names::is_slot_key(key)), "{rest:?}");
}

#[test]
fn what_pods_read_is_copied_for_the_slot_and_the_service() {
    let shared = of_kind("ConfigMap", "shared", &json!({}));
    let vault = object(json!({
        "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "metadata": {"name": "from-vault"},
        "spec": {"target": {"name": "vault"}},
    }));
    let account = of_kind("ServiceAccount", "web", &json!({}));
    let objects = [deployment("web"), service("web", "web"), shared, vault, account.clone()];
    let slotted = placed(&objects, &spec("web")).unwrap();
    assert_eq!(own(&slotted, "ConfigMap").name(), "web-shared-green");
    assert_eq!(own(&slotted, "ExternalSecret").text("/spec/target/name"), "web-vault-green");
    let sources = own(&slotted, "Deployment").value().pointer("/spec/template/spec/containers/0/envFrom").unwrap();
    assert_eq!(sources[0]["configMapRef"]["name"], "web-shared-green");
    assert_eq!(sources[1]["secretRef"]["name"], "web-vault-green");
    assert_eq!(slotted.shared.iter().map(Object::title).collect::<Vec<_>>(), [account.title()]);
    let kinds: Vec<&str> = slotted.own.iter().map(Object::kind).collect();
    assert_eq!(kinds, ["ConfigMap", "ExternalSecret", "Deployment"], "what pods read is made before them");
}

#[test]
fn a_secret_that_is_not_rendered_is_read_under_its_own_name() {
    let slotted = placed(&[deployment("web"), service("web", "web")], &spec("web")).unwrap();
    let sources = own(&slotted, "Deployment").value().pointer("/spec/template/spec/containers/0/envFrom").unwrap();
    assert_eq!(sources[1]["secretRef"]["name"], "vault", "somebody else made it, for both slots");
}

#[test]
fn what_acts_on_the_workload_acts_on_the_slot() {
    let scaler = of_kind(
        "HorizontalPodAutoscaler",
        "web",
        &json!({"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 9}),
    );
    let budget = of_kind("PodDisruptionBudget", "web", &json!({"selector": {"matchLabels": {"app": "web"}}}));
    let objects = [deployment("web"), service("web", "web"), scaler, budget];
    let slotted = placed(&objects, &spec("web")).unwrap();
    assert_eq!(own(&slotted, "HorizontalPodAutoscaler").text("/spec/scaleTargetRef/name"), "web-green");
    let selector = own(&slotted, "PodDisruptionBudget").value().pointer("/spec/selector/matchLabels").unwrap();
    assert_eq!(selector[names::SLOT], "green");
    // An autoscaler made the live slot larger: the new one begins as large.
    assert_eq!(replicas(&objects, &spec("web"), 7), 7);
    assert_eq!(replicas(&objects[..2], &spec("web"), 7), 2, "a person who asks for fewer gets fewer");
    let rendered = ServiceSpec { objects: vec![json!({})], ..spec("web") };
    assert_eq!(replicas(&objects[..2], &rendered, 0), 3, "a chart says how many");
}

#[test]
fn a_worker_waits_whatever_its_chart_says() {
    let worker = ServiceSpec { activation: Activation::Exclusive, ..spec("web") };
    let slotted = placed(&[deployment("web"), service("web", "web")], &worker).unwrap();
    let env = own(&slotted, "Deployment").value().pointer("/spec/template/spec/containers/0/env").unwrap();
    assert!(env.as_array().unwrap().contains(&json!({"name": "PLIMSOLL_ACTIVATION", "value": "managed"})), "{env}");
}

#[test]
fn sets_of_objects_that_leave_a_question_open_are_refused() {
    let check = |objects: &[Object], words: &str| {
        let error = placed(objects, &spec("web")).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    check(&[service("web", "web")], "web has none; it needs one Deployment or StatefulSet");
    check(&[deployment("web"), deployment("other"), service("web", "web")], "Deployment web, Deployment other");
    check(&[deployment("web")], "web has no Service");
    check(&[deployment("web"), service("else", "nobody")], "web has no Service");
    let mut two = deployment("web");
    let containers = two.value_mut().pointer_mut("/spec/template/spec/containers").unwrap();
    *containers = json!([{"name": "a", "image": "a"}, {"name": "b", "image": "b"}]);
    check(&[two, service("web", "web")], "name the one that runs the image `web`");
}

#[test]
fn objects_are_given_to_the_services_they_belong_to() {
    let names: Vec<ServiceName> = ["api", "web"].map(|n| n.parse().unwrap()).into();
    let ingress = of_kind("Ingress", "front", &json!({}));
    let shared = of_kind("ConfigMap", "shared", &json!({}));
    let stranger = deployment("stranger");
    let objects = [
        deployment("web"),
        service("web", "web"),
        deployment("api"),
        service("api-svc", "api"),
        shared,
        ingress,
        stranger,
    ];
    let given = by_service(&objects, &names).unwrap();
    let titles = |name: &str| given[&name.parse().unwrap()].iter().map(Object::title).collect::<Vec<_>>();
    assert_eq!(titles("web"), ["Deployment web", "Service web", "ConfigMap shared"]);
    assert_eq!(titles("api"), ["Deployment api", "Service api-svc", "ConfigMap shared", "Ingress front"]);
}

#[test]
fn a_workload_may_say_in_a_label_whose_it_is_but_not_two_at_once() {
    let names: Vec<ServiceName> = vec!["web".parse().unwrap()];
    let labelled = |name: &str| {
        let mut object = deployment(name);
        object.value_mut()["metadata"]["labels"]["app.kubernetes.io/component"] = json!("web");
        object
    };
    assert_eq!(by_service(&[labelled("release-web")], &names).unwrap().len(), 1);
    let error = by_service(&[labelled("one"), labelled("two")], &names).unwrap_err().to_string();
    assert_eq!(error, "web has several workloads: Deployment one, Deployment two");
    let error = by_service(&[deployment("other")], &names).unwrap_err().to_string();
    assert!(
        error.contains("no Deployment or StatefulSet is called web") && error.contains("Deployment other"),
        "{error}"
    );
}

#[test]
fn a_secret_with_values_is_not_recorded_with_a_release() {
    let names: Vec<ServiceName> = vec!["web".parse().unwrap()];
    let secret = object(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"KEY": "canary-4711"},
    }));
    let error = by_service(&[deployment("web"), secret], &names).unwrap_err().to_string();
    assert!(error.starts_with("Secret key holds values") && !error.contains("canary"), "{error}");
}
