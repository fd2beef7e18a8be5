//! What becomes of objects that others made, and what is refused.

use super::*;
use crate::slot::{Place, in_slot};
use plimsoll_core::{Digest, RunId, Slot, Timestamp};
use plimsoll_deploy::sample;
use serde_json::json;

fn wanted() -> ServiceSpec {
    ServiceSpec { secret_env: [("KEY".to_owned(), "env:KEY".to_owned())].into(), ..sample("web") }
}

fn deployment() -> Value {
    json!({
        "metadata": {
            "name": "shop", "uid": "u", "resourceVersion": "7", "generation": 3,
            "labels": {"app.kubernetes.io/version": "0.9", "app.kubernetes.io/instance": "argo"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
            "managedFields": [{}], "ownerReferences": [{"kind": "Shop"}],
        },
        "spec": {
            "replicas": 3,
            "paused": true,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {
                    "labels": {"app": "web", "track": "stable"},
                    "annotations": {"kubectl.kubernetes.io/restartedAt": "yesterday", "prometheus.io/scrape": "true"},
                },
                "spec": {"containers": [
                    {"name": "web", "image": "ghcr.io/acme/web:1.2", "readinessProbe": {"httpGet": {"path": "/", "port": 80}}},
                    {"name": "mesh", "image": "envoy:v1"},
                ]},
            },
        },
        "status": {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2},
    })
}

fn service(name: &str, selector: &Value) -> Value {
    let spec =
        json!({"selector": selector, "clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7"], "ports": [{"port": 80}]});
    json!({"metadata": {"name": name, "labels": {"chart": "shop"}}, "spec": spec})
}

fn pod(web: &str) -> Pod {
    let status =
        |name: &str, id: &str| json!({"name": name, "image": "", "imageID": id, "ready": true, "restartCount": 0});
    let envoy = format!("docker.io/library/envoy@{}", Digest::of(b"envoy"));
    let pod = json!({
        "metadata": {"name": "shop-1", "labels": {"app": "web", "track": "stable", "pod-template-hash": "h"}},
        "status": {"phase": "Running", "containerStatuses": [status("web", web), status("mesh", &envoy)]},
    });
    serde_json::from_value(pod).unwrap()
}

fn running(image: &[u8]) -> Pod {
    pod(&format!("ghcr.io/acme/web@{}", Digest::of(image)))
}

fn there() -> There {
    There {
        services: vec![service("web", &json!({"app": "web"}))],
        deployments: vec![deployment()],
        pods: vec![running(b"one"), running(b"one")],
        ..There::default()
    }
}

fn adopted(there: &There) -> Adopted {
    adopt(&wanted(), there, "production").unwrap()
}

/// The whole of what is refused, in words.
fn refused(change: impl FnOnce(&mut There)) -> String {
    let mut there = there();
    change(&mut there);
    adopt(&wanted(), &there, "production").unwrap_err().to_string()
}

#[test]
fn a_copy_has_the_template_the_replicas_and_the_digests_and_nothing_of_its_own_original() {
    let there = there();
    let found = adopted(&there);
    let (one, envoy) = (Digest::of(b"one"), Digest::of(b"envoy"));
    assert_eq!((found.spec.digest.clone(), found.spec.replicas), (one.clone(), 3));
    assert_eq!(found.spec.image.to_string(), format!("ghcr.io/acme/web@{one}"));
    assert!(found.spec.secret_env.is_empty(), "its Secrets are those of the template");
    assert_eq!((found.version.as_deref(), found.without.as_str()), (Some("0.9"), "app"));
    let copy = &found.spec.objects[0];
    assert_eq!(copy["metadata"], json!({"name": "web", "labels": {"app.kubernetes.io/managed-by": "plimsoll"}}));
    assert_eq!(copy["spec"]["strategy"], json!({"type": "Recreate"}));
    assert!(
        copy.get("status").is_none() && copy["spec"].get("paused").is_none() && copy["spec"].get("selector").is_none()
    );
    let template = &copy["spec"]["template"];
    let of_pods = json!({"labels": {"track": "stable"}, "annotations": {"prometheus.io/scrape": "true"}});
    assert_eq!(template["metadata"], of_pods);
    assert_eq!(template["spec"]["containers"][1]["image"], format!("docker.io/library/envoy@{envoy}"));
    // Looked at again, it is the same: an adoption that broke off goes on.
    assert_eq!(adopted(&there), found);
}

#[test]
fn in_its_slot_the_copy_is_found_by_labels_that_every_release_has_and_not_by_its_former_service() {
    let found = adopted(&there());
    let objects: Vec<Object> = found.spec.objects.iter().map(|o| Object::try_from(o.clone()).unwrap()).collect();
    let environment = "production".parse().unwrap();
    let place = Place { environment: &environment, slot: Slot::Blue, version: "0.9", replicas: 3 };
    let slotted = in_slot(&objects, &found.spec, &place).unwrap();
    assert_eq!(slotted.workload.name, "web-blue");
    let rest = slotted.service.text("/metadata/annotations/plimsoll.dev~1selector").to_owned();
    assert_eq!(rest, r#"{"plimsoll.dev/environment":"production","plimsoll.dev/service":"web"}"#);
    assert!(slotted.service.value()["spec"].get("clusterIP").is_none());
    let pods = slotted.own[0].value().pointer("/spec/template/metadata/labels").unwrap();
    assert!(pods.get("app").is_none() && pods["plimsoll.dev/traffic-of-blue"] == "yes", "{pods}");
    assert_eq!(theirs(&found.spec), Some(BTreeMap::from([("app".to_owned(), "web".to_owned())])));
}

#[test]
fn what_acts_on_the_deployment_is_copied_with_it() {
    let mut there = there();
    let scaler = |name: &str, of: &str| json!({"metadata": {"name": name}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": of}, "maxReplicas": 4}});
    there.autoscalers = vec![scaler("shop", "shop"), scaler("other", "other")];
    let budget =
        |name: &str, labels: &Value| json!({"metadata": {"name": name}, "spec": {"selector": {"matchLabels": labels}}});
    there.budgets = vec![
        budget("web", &json!({"app": "web"})),
        // It would guard the pods of the copy too, and with two nobody could evict them.
        budget("stable", &json!({"track": "stable"})),
        budget("other", &json!({"app": "other"})),
    ];
    let found = adopted(&there);
    assert_eq!(found.copied, ["Deployment shop", "HorizontalPodAutoscaler shop", "PodDisruptionBudget web"]);
    assert_eq!(found.spec.objects[1]["spec"]["scaleTargetRef"]["name"], "web");
}

#[test]
fn the_label_that_is_left_out_is_one_that_no_network_policy_goes_by() {
    let policy = |key: &str| json!({"metadata": {"name": "deny"}, "spec": {"ingress": [{"from": [{"podSelector": {"matchLabels": {(key): "x"}}}]}]}});
    let mut there = there();
    there.services = vec![service("web", &json!({"app": "web", "track": "stable"}))];
    assert_eq!(adopted(&there).without, "app", "the Deployment goes by it as well");
    there.policies = vec![policy("app")];
    assert_eq!(adopted(&there).without, "track");
    there.policies.push(policy("track"));
    let refused = adopt(&wanted(), &there, "production").unwrap_err().to_string();
    assert!(refused.contains("network policies deny, deny go by each of them"), "{refused}");
}

#[test]
fn what_somebody_should_know_is_told() {
    let mut there = there();
    there.deployments[0]["spec"]["strategy"]["type"] = "RollingUpdate".into();
    there.services.push(service("admin", &json!({"app": "web"})));
    there.services.push(service("metrics", &json!({"track": "stable"})));
    there.services.push(service("other", &json!({"app": "other"})));
    assert_eq!(
        adopted(&there).notes,
        [
            "Service admin stays with Deployment shop, and leads nowhere without it",
            "Service metrics leads to pods of the copy too, as soon as they are ready",
        ]
    );
    there.services.truncate(1);
    there.deployments[0]["spec"]["strategy"]["type"] = "Recreate".into();
    assert_eq!(
        adopted(&there).notes,
        ["Deployment shop has the strategy Recreate, and two slots run at the same time"]
    );
}

#[test]
fn what_cannot_be_adopted_is_refused_in_words() {
    let check = |change: fn(&mut There), expected: &str| {
        let error = refused(change);
        assert!(error.contains(expected), "{expected}: {error}");
    };
    check(|t| t.services.clear(), "there is no Service web");
    check(|t| t.services[0]["spec"]["clusterIP"] = "None".into(), "Service web is headless");
    check(|t| t.services[0]["spec"]["selector"] = Value::Null, "Service web selects nothing");
    check(
        |t| t.services[0]["metadata"]["labels"][names::ENVIRONMENT] = "staging".into(),
        "Service web is of the environment staging",
    );
    check(|t| t.deployments.clear(), "no Deployment has pods with the labels app=web, which Service web selects");
    check(
        |t| {
            let mut other = deployment();
            other["metadata"]["name"] = "canary".into();
            t.deployments.push(other);
        },
        "Service web selects pods of several Deployments: shop, canary",
    );
    check(|t| t.stateful_sets.push(deployment()), "StatefulSet shop serves it, whose volumes two copies cannot share");
    check(|t| t.deployments[0]["status"]["updatedReplicas"] = 1.into(), "Deployment shop does not stand still");
    check(|t| t.deployments[0]["status"]["observedGeneration"] = 2.into(), "Deployment shop does not stand still");
    check(|t| t.pods.clear(), "Deployment shop has no pod that runs");
    check(|t| t.pods.push(running(b"two")), "run different images in the container web: sha256:");
    check(|t| t.pods[0] = pod("sha256:abc"), "has no digest that a registry knows: its pods tell `sha256:abc`");
    check(
        |t| t.deployments[0]["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = Value::Null,
        "the container web of Deployment shop has no readiness probe",
    );
    check(
        |t| t.deployments[0]["spec"]["template"]["spec"]["containers"][0]["name"] = "main".into(),
        "name the one that runs the image `web`",
    );
}

#[test]
fn a_worker_that_must_be_alone_is_refused() {
    let exclusive = ServiceSpec { activation: Activation::Exclusive, ..wanted() };
    assert_eq!(adopt(&exclusive, &there(), "production"), Err(AdoptError::Exclusive));
}

#[test]
fn a_service_that_was_moved_before_an_adoption_broke_off_is_known_by_what_it_selected() {
    let mut there = there();
    let before = adopted(&there);
    let service = &mut there.services[0];
    service["metadata"]["labels"][names::ENVIRONMENT] = "production".into();
    service["metadata"]["annotations"] = json!({ (names::ADOPTED): r#"{"app":"web"}"# });
    service["spec"]["selector"] = json!({"plimsoll.dev/service": "web", "plimsoll.dev/traffic-of-blue": "yes"});
    assert_eq!(adopted(&there), before);
}

#[test]
fn a_release_has_the_version_that_all_labels_agree_on_and_none_while_one_service_is_refused() {
    let release = |versions: &[Option<&str>]| {
        let one = |version: Option<&str>| {
            let version = version.map(str::to_owned);
            ("web".parse().unwrap(), Ok(Adopted { version, ..adopted(&there()) }))
        };
        let wanted = Release {
            environment: "production".parse().unwrap(),
            version: "2.0.0".to_owned(),
            revision: "abc".to_owned(),
            run: RunId::new(Timestamp::from_millis(0), 0),
            actor: "ada".to_owned(),
            services: vec![wanted()],
            approval: None,
        };
        let mut adoption = Adoption(versions.iter().copied().map(one).collect());
        let found = adoption.release(&wanted).unwrap();
        assert_eq!((found.revision.as_str(), found.actor.as_str()), (ADOPTED, "ada"));
        adoption.0.push(("worker".parse().unwrap(), Err(AdoptError::Exclusive)));
        assert_eq!(adoption.release(&wanted), None);
        found.version
    };
    assert_eq!(release(&[Some("0.9"), Some("0.9")]), "0.9");
    assert_eq!(release(&[Some("0.9"), Some("1.0")]), "adopted");
    assert_eq!(release(&[Some("0.9"), None]), "adopted");
    assert_eq!(release(&[None]), "adopted");
}
