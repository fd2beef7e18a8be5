//! The objects of a service, as the settings of its spec make them.

use super::*;
use crate::{Place, in_slot};
use plimsoll_core::{Digest, Millicores};
use plimsoll_deploy::{Access, Health, sample};
use serde_json::{Value, json};

fn spec(name: &str) -> ServiceSpec {
    let image: plimsoll_core::ImageRef = format!("registry.test/shop/{name}:1").parse().unwrap();
    ServiceSpec {
        image,
        health: Health { path: "/ready".to_owned(), deadline_ms: 30_500, interval_ms: 100 },
        stop_grace_ms: 10_000,
        ..sample(name)
    }
}

fn context(services: &[ServiceSpec]) -> Context {
    Context::new("shop", "production".parse().unwrap(), services)
}

fn built(spec: &ServiceSpec) -> Vec<Object> {
    typed(spec, &context(std::slice::from_ref(spec))).unwrap_or_else(|error| panic!("{error}"))
}

fn titles(objects: &[Object]) -> Vec<String> {
    objects.iter().map(Object::title).collect()
}

fn object<'o>(objects: &'o [Object], kind: &str) -> &'o Value {
    objects.iter().find(|object| object.kind() == kind).unwrap_or_else(|| panic!("no {kind}")).value()
}

#[test]
fn a_minimal_service_has_an_account_pods_an_address_and_a_closed_door() {
    let objects = built(&spec("web"));
    assert_eq!(titles(&objects), ["ServiceAccount web", "Deployment web", "Service web", "NetworkPolicy web"]);
    insta::assert_snapshot!(object(&objects, "Service")["spec"], @r#"{"ports":[{"name":"http","port":80,"protocol":"TCP","targetPort":"http"}],"selector":{"plimsoll.dev/environment":"production","plimsoll.dev/service":"web"},"type":"ClusterIP"}"#);
    insta::assert_snapshot!(object(&objects, "NetworkPolicy")["spec"], @r#"{"egress":[{"ports":[{"port":53,"protocol":"UDP"},{"port":53,"protocol":"TCP"}],"to":[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"kube-system"}}}]}],"podSelector":{"matchLabels":{"plimsoll.dev/environment":"production","plimsoll.dev/service":"web"}},"policyTypes":["Ingress","Egress"]}"#);
    let container = object(&objects, "Deployment").pointer("/spec/template/spec/containers/0").unwrap();
    insta::assert_snapshot!(container["env"], @r#"[{"name":"HOST","value":"0.0.0.0"},{"name":"PLIMSOLL_ENVIRONMENT","value":"production"},{"name":"PLIMSOLL_IDENTITY","value":"/plimsoll/identity.json"},{"name":"PORT","value":"8080"}]"#);
    insta::assert_snapshot!(container["startupProbe"], @r#"{"failureThreshold":31,"httpGet":{"path":"/ready","port":"http"},"periodSeconds":1,"timeoutSeconds":1}"#);
    insta::assert_snapshot!(container["livenessProbe"], @r#"{"failureThreshold":3,"periodSeconds":10,"tcpSocket":{"port":"http"},"timeoutSeconds":5}"#);
    assert_eq!(container["image"], json!(format!("registry.test/shop/web@{}", Digest::of(b"web"))));
}

#[test]
fn every_object_and_every_pod_is_found_by_its_labels() {
    let objects = built(&ServiceSpec { state: StatePolicy::Shared, replicas: 2, ..spec("web") });
    let all = json!({
        "app.kubernetes.io/managed-by": "plimsoll", "app.kubernetes.io/name": "web", "app.kubernetes.io/part-of": "shop",
        "plimsoll.dev/environment": "production", "plimsoll.dev/service": "web",
    });
    for object in &objects {
        assert_eq!(object.value()["metadata"]["labels"], all, "{}", object.title());
    }
    let own = json!({ "plimsoll.dev/environment": "production", "plimsoll.dev/service": "web" });
    let deployment = &object(&objects, "Deployment")["spec"];
    assert_eq!(deployment["template"]["metadata"]["labels"], all);
    assert_eq!(deployment["selector"]["matchLabels"], own);
    assert_eq!(object(&objects, "Service")["spec"]["selector"], own);
    assert_eq!(object(&objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"], own);
}

#[test]
fn services_find_each_other_by_name_and_only_callers_come_in() {
    let prices = ServiceSpec { public_port: Some(9000), ..spec("price-feed") };
    let risk = ServiceSpec { depends_on: vec![prices.name.clone()], ..spec("risk") };
    let web = ServiceSpec {
        depends_on: vec![prices.name.clone(), risk.name.clone()],
        env: BTreeMap::from([("RISK_URL".to_owned(), "elsewhere".to_owned())]),
        ..spec("web")
    };
    let context = context(&[prices.clone(), risk.clone(), web.clone()]);
    let of_web = typed(&web, &context).unwrap();
    let env = object(&of_web, "Deployment").pointer("/spec/template/spec/containers/0/env").unwrap();
    let value = |name: &str| env.as_array().unwrap().iter().find(|v| v["name"] == name).map(|v| v["value"].clone());
    assert_eq!(value("PRICE_FEED_URL"), Some(json!("http://price-feed:9000")));
    assert_eq!(value("RISK_URL"), Some(json!("http://risk:80")));
    let egress = object(&of_web, "NetworkPolicy")["spec"]["egress"].as_array().unwrap().len();
    assert_eq!(egress, 2);
    let of_risk = typed(&risk, &context).unwrap();
    insta::assert_snapshot!(object(&of_risk, "NetworkPolicy")["spec"]["ingress"], @r#"[{"from":[{"podSelector":{"matchLabels":{"plimsoll.dev/environment":"production","plimsoll.dev/service":"web"}}}],"ports":[{"port":8080,"protocol":"TCP"}]}]"#);
    let of_prices = typed(&prices, &context).unwrap();
    insta::assert_snapshot!(object(&of_prices, "NetworkPolicy")["spec"]["ingress"], @r#"[{"from":[{"namespaceSelector":{}}],"ports":[{"port":8080,"protocol":"TCP"}]}]"#);
    let lost = Context::new("shop", "production".parse().unwrap(), std::slice::from_ref(&web));
    let error = typed(&web, &lost).unwrap_err().to_string();
    assert!(error.contains("nothing is known of service `price-feed`") && error.contains("`risk`"), "{error}");
}

#[test]
fn a_worker_with_state_is_never_there_twice_under_one_name() {
    let worker = ServiceSpec { activation: Activation::Exclusive, state: StatePolicy::Shared, ..spec("worker") };
    let objects = built(&worker);
    assert_eq!(
        titles(&objects),
        [
            "ServiceAccount worker",
            "PersistentVolumeClaim worker-state",
            "StatefulSet worker",
            "Service worker",
            "NetworkPolicy worker"
        ]
    );
    let pod = object(&objects, "StatefulSet").pointer("/spec/template/spec").unwrap();
    insta::assert_snapshot!(pod["volumes"], @r#"[{"configMap":{"name":"worker-identity"},"name":"identity"},{"name":"state","persistentVolumeClaim":{"claimName":"worker-state"}}]"#);
    insta::assert_snapshot!(pod["containers"][0]["volumeMounts"], @r#"[{"mountPath":"/plimsoll","name":"identity","readOnly":true},{"mountPath":"/state","name":"state"}]"#);
    insta::assert_snapshot!(object(&objects, "PersistentVolumeClaim")["spec"], @r#"{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}"#);
}

#[test]
fn state_is_claimed_as_the_spec_says_and_mounted_where_the_service_looks() {
    let storage =
        Storage { size: ByteSize::new(5 << 30), class: Some("fast".to_owned()), access: Access::ReadWriteOncePod };
    let objects = built(&ServiceSpec { state: StatePolicy::PerSlot, storage: Some(storage), ..spec("web") });
    assert_eq!(titles(&objects)[1..3], ["PersistentVolumeClaim web-state", "Deployment web"]);
    insta::assert_snapshot!(object(&objects, "PersistentVolumeClaim")["spec"], @r#"{"accessModes":["ReadWriteOncePod"],"resources":{"requests":{"storage":"5Gi"}},"storageClassName":"fast"}"#);
    let pod = object(&objects, "Deployment").pointer("/spec/template/spec").unwrap();
    assert_eq!(pod["volumes"][1]["persistentVolumeClaim"]["claimName"], json!("web-state"));
    let directory = json!({ "name": "STATE_DIR", "value": "/state" });
    assert!(pod["containers"][0]["env"].as_array().unwrap().contains(&directory));
}

#[test]
fn a_name_must_fit_once_it_is_in_a_slot() {
    let long = |length: usize| ServiceSpec {
        activation: Activation::Exclusive,
        state: StatePolicy::Shared,
        ..spec(&"w".repeat(length))
    };
    assert!(typed(&long(46), &context(&[])).is_ok());
    let error = typed(&long(47), &context(&[])).unwrap_err().to_string();
    assert!(error.contains("with its slot at most 52"), "{error}");
}

#[test]
fn load_decides_between_the_bounds_and_one_pod_at_a_time_may_go() {
    let autoscale = Autoscale { min: 3, max: 6, cpu_pct: Some(70), memory_pct: None, scale_down_after_s: 120 };
    let mut web = ServiceSpec { autoscale: Some(autoscale), ..spec("web") };
    let error = typed(&web, &context(&[])).unwrap_err().to_string();
    assert!(error.contains("a share of the cpu request"), "{error}");
    web.resources.cpu = Some(Millicores::new(100));
    let objects = built(&web);
    assert_eq!(object(&objects, "Deployment")["spec"]["replicas"], json!(3));
    assert_eq!(object(&objects, "PodDisruptionBudget")["spec"]["maxUnavailable"], json!(1));
    let scaler = &object(&objects, "HorizontalPodAutoscaler")["spec"];
    insta::assert_snapshot!(scaler["metrics"], @r#"[{"resource":{"name":"cpu","target":{"averageUtilization":70,"type":"Utilization"}},"type":"Resource"}]"#);
    assert_eq!(scaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"], json!(120));
}

#[test]
fn a_pod_ends_after_its_clients_forgot_it() {
    let web = ServiceSpec { stop_grace_ms: 1_500, ..spec("web") };
    let objects = typed(&web, &context(&[]).lame_duck(7)).unwrap();
    let pod = object(&objects, "Deployment").pointer("/spec/template/spec").unwrap();
    assert_eq!(pod["terminationGracePeriodSeconds"], json!(9));
    assert_eq!(pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"], json!(7));
}

#[test]
fn secrets_come_from_a_secret_of_the_service_s_name() {
    let secret_env = BTreeMap::from([("KEY".to_owned(), "env:KEY".to_owned())]);
    let mut web = ServiceSpec { secret_env, ..spec("web") };
    let objects = built(&web);
    let container = object(&objects, "Deployment").pointer("/spec/template/spec/containers/0").unwrap();
    assert_eq!(container["envFrom"], json!([{ "secretRef": { "name": "web" } }]));
    web.env.insert("KEY".to_owned(), "plain".to_owned());
    let error = typed(&web, &context(&[])).unwrap_err().to_string();
    assert!(error.contains("`KEY` is in Secret web too"), "{error}");
}

#[test]
fn in_a_slot_a_service_has_its_own_of_everything_but_its_address() {
    let autoscale = Autoscale { min: 2, max: 6, cpu_pct: Some(70), memory_pct: None, scale_down_after_s: 120 };
    let mut web = ServiceSpec { state: StatePolicy::PerSlot, autoscale: Some(autoscale), ..spec("web") };
    web.resources.cpu = Some(Millicores::new(100));
    let environment = "production".parse().unwrap();
    let place = Place { environment: &environment, slot: Slot::Green, version: "1.0.0", replicas: 2 };
    let slotted = in_slot(&built(&web), &web, &place).unwrap();
    assert_eq!(titles(&slotted.shared), ["ServiceAccount web", "NetworkPolicy web"]);
    let own = [
        "PersistentVolumeClaim web-state-green",
        "Deployment web-green",
        "PodDisruptionBudget web-green",
        "HorizontalPodAutoscaler web-green",
    ];
    assert_eq!(titles(&slotted.own), own);
    assert_eq!(slotted.service.title(), "Service web");
    let pod = object(&slotted.own, "Deployment").pointer("/spec/template/spec").unwrap();
    assert_eq!(pod["volumes"].as_array().unwrap().len(), 2, "{pod}");
    assert_eq!(pod["volumes"][0]["configMap"]["name"], json!(names::identity(&web.name, Slot::Green)));
    assert_eq!(pod["volumes"][1]["persistentVolumeClaim"]["claimName"], json!("web-state-green"));
}
