//! A Service and a Deployment that somebody else made are adopted, while clients are there.

use crate::{
    clients::begin,
    driving::{deploy, look, reach, rollback, run},
    world::{Cluster, World, cluster, plain, spec},
};
use plimsoll_core::{Slot, chain};
use plimsoll_deploy::{Goal, ObjectChange, Outcome, Release, ServiceSpec, Target as _};
use plimsoll_kubernetes::{Adopted, Adoption, Object, Render};
use serde_json::{Value, json};
use std::{io::Write as _, sync::Arc, time::Duration};

/// How long the clients are there.
const SECONDS: u64 = 40;

/// Objects that came with a service, else plain ones.
fn given() -> Render {
    let plain = plain();
    Arc::new(move |spec: &ServiceSpec, release: &Release| {
        if spec.objects.is_empty() {
            return plain(spec, release);
        }
        spec.objects.iter().map(|value| Object::try_from(value.clone()).map_err(|e| e.to_string())).collect()
    })
}

impl World {
    fn of_others(cluster: &Cluster, name: &str) -> Self {
        let world = Self::rendered(cluster, name, Arc::new(|name: &str| Err(format!("no secret {name}"))), given());
        world.kubectl(&["create", "namespace", &world.namespace]);
        world
    }

    fn apply(&self, objects: &[Value]) {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        file.write_all(list.to_string().as_bytes()).expect("the disk takes it");
        self.kubectl(&["apply", "-f", &file.path().to_string_lossy()]);
    }

    fn json(&self, args: &[&str]) -> Value {
        let text = self.kubectl(&[args, &["-o", "json"]].concat());
        serde_json::from_str(&text).expect("kubectl prints JSON")
    }

    /// The pods that the foreign Deployment made, and how often they were started.
    fn pods_of_others(&self) -> String {
        let form = "jsonpath={range .items[*]}{.metadata.name} {.status.podIP} {.status.containerStatuses[0].restartCount};{end}";
        self.kubectl(&["get", "pods", "-l", "app=gateway,by=others", "-o", form])
    }

    /// The addresses that the Service leads to.
    fn leads_to(&self) -> Vec<String> {
        let slices = self.json(&["get", "endpointslices", "-l", "kubernetes.io/service-name=gateway"]);
        let items = slices["items"].as_array().expect("a list").iter();
        let endpoints = items.flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
        let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
        let mut found: Vec<_> = ready.map(|e| e["addresses"][0].as_str().expect("an address").to_owned()).collect();
        found.sort();
        found
    }

    async fn adoption(&self, services: Vec<ServiceSpec>) -> (Adoption, Release) {
        let Goal::Deploy(wanted) = deploy(1, "checkout", services) else { unreachable!() };
        (self.target.adoption(&wanted).await.expect("the namespace can be looked at"), wanted)
    }

    async fn adopts(&self, service: ServiceSpec) -> Outcome {
        let (adoption, wanted) = self.adoption(vec![service]).await;
        let release = adoption.release(&wanted).unwrap_or_else(|| panic!("{adoption:?}"));
        reach(&self.target, &Goal::Deploy(release)).await.expect("it is adopted")
    }

    async fn changed(&self, service: &ServiceSpec) -> Vec<String> {
        let Goal::Deploy(release) = deploy(9, "2", vec![service.clone()]) else { unreachable!() };
        let changes = self.target.changes(&release).await.expect("the cluster can be compared with");
        let sign = |change: &ObjectChange| match change {
            ObjectChange::Added => '+',
            ObjectChange::Removed => '-',
            ObjectChange::Changed { .. } => '~',
            ObjectChange::Kept { .. } => '=',
            ObjectChange::Foreign => '!',
            ObjectChange::Unknown { .. } => '?',
        };
        changes.into_values().flatten().map(|diff| format!("{} {}", sign(&diff.change), diff.object)).collect()
    }
}

/// A Service `gateway`, and a workload behind it that is called otherwise.
fn objects(kind: &str, image: &str) -> [Value; 2] {
    let env = [("N", "0"), ("SERVICE_SLOT", "others"), ("KEPT", "50")].map(|(k, v)| json!({"name": k, "value": v}));
    let probe = json!({"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1});
    let workload = json!({
        "apiVersion": "apps/v1", "kind": kind,
        "metadata": {"name": "shop", "labels": {"app.kubernetes.io/version": "0.9", "app.kubernetes.io/managed-by": "Helm"}},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "gateway", "by": "others"}},
            "template": {
                "metadata": {"labels": {"app": "gateway", "by": "others", "tier": "front"}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
                    "name": "server", "image": image, "env": env, "readinessProbe": probe,
                    "ports": [{"name": "http", "containerPort": 8080}],
                }]},
            },
        },
    });
    let ports = [json!({"name": "http", "port": 80, "targetPort": "http"})];
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "gateway"},
        "spec": {"selector": {"app": "gateway"}, "ports": ports},
    });
    [workload, service]
}

/// The same for a service of another name.
fn objects_of(name: &str, image: &str) -> [Value; 2] {
    let named = |object: Value| -> Value {
        let text = object.to_string().replace("\"gateway\"", &format!("\"{name}\""));
        serde_json::from_str(&text.replace("\"shop\"", &format!("\"shop-{name}\""))).expect("it was JSON")
    };
    objects("Deployment", image).map(named)
}

/// An autoscaler and a disruption budget of the Deployment.
fn around() -> [Value; 2] {
    let scaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "shop"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"},
            "minReplicas": 2, "maxReplicas": 3,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}],
        },
    });
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "shop"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "gateway"}}},
    });
    [scaler, budget]
}

fn checkout(cluster: &Cluster) -> ServiceSpec {
    let env = [("N", "2"), ("KEPT", "50")];
    ServiceSpec { replicas: 2, ..spec("gateway", &cluster.images[1], &env) }
}

fn only(adoption: &Adoption) -> Result<&Adopted, String> {
    adoption.0[0].1.as_ref().map_err(ToString::to_string)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_made_is_adopted_released_to_and_put_back_and_clients_lose_no_request() {
    let Some(cluster) = cluster().await else { return };
    let world = World::of_others(cluster, "adopted");
    let (theirs, new) = (cluster.images[0].to_string(), checkout(cluster));
    world.apply(&objects("Deployment", &theirs));
    world.apply(&around());
    world.kubectl(&["rollout", "status", "deployment/shop", "--timeout=60s"]);
    let before = world.pods_of_others();

    let refused = reach(&world.target, &deploy(1, "2", vec![new.clone()])).await.expect_err("it is not ours");
    let refused = chain(&refused);
    assert!(refused.contains("`cargo xtask adopt staging` takes it over"), "{refused}");
    assert_eq!(world.changed(&new).await, ["+ Deployment gateway-blue", "! Service gateway", "! Deployment shop"]);

    let (adoption, wanted) = world.adoption(vec![new.clone()]).await;
    let adopted = only(&adoption).expect("it can be adopted");
    assert_eq!(adopted.copied, ["Deployment shop", "HorizontalPodAutoscaler shop", "PodDisruptionBudget shop"]);
    assert_eq!((adopted.without.as_str(), adopted.notes.as_slice()), ("app", &[][..]));
    let release = adoption.release(&wanted).expect("nothing is refused");

    let Some(clients) = begin(&world, SECONDS, None) else { return };
    let begun = std::time::Instant::now();
    // A copy whose pods are ready has no clients before the cut-over.
    world.target.stand_up(&release.services[0], Slot::Blue, &release).await.expect("the copy is made");
    world.kubectl(&["rollout", "status", "deployment/gateway-blue", "--timeout=60s"]);
    let led = world.leads_to();
    assert!(led.len() == 2 && led.iter().all(|address| before.contains(address.as_str())), "{led:?} {before}");
    assert!(!world.kubectl(&["get", "service", "gateway", "-o", "yaml"]).contains("plimsoll.dev"), "it is theirs yet");

    let done = reach(&world.target, &Goal::Deploy(release)).await.expect("it is adopted");
    assert!(done.changed && done.live.is_adopted(), "{done:?}");
    let seen = look(&world.target).await;
    assert_eq!((seen.generation.0, seen.drift.as_slice(), world.selects("gateway").as_str()), (1, &[][..], "blue"));
    let live = seen.live.expect("it is recorded");
    assert_eq!((live.version.as_str(), live.actor.as_str()), ("0.9", "ann"));
    assert_eq!(world.pods_of_others(), before, "theirs run on");
    let digest = cluster.images[0].digest.clone().expect("by digest");
    assert_eq!(live.services[&new.name].spec.digest, digest);
    let copy = world.json(&["get", "deployment", "gateway-blue"]);
    assert!(!copy.to_string().contains("kubectl.kubernetes.io") && !copy.to_string().contains("Helm"), "{copy}");
    let bounds = world.json(&["get", "horizontalpodautoscaler", "gateway-shop-blue"]);
    assert_eq!(bounds["spec"]["scaleTargetRef"]["name"], "gateway-blue");
    let budget = world.json(&["get", "poddisruptionbudget", "gateway-shop-blue"]);
    assert_eq!(budget["spec"]["selector"]["matchLabels"]["plimsoll.dev/slot"], "blue");
    assert_eq!(
        world.changed(&new).await,
        [
            "~ Deployment gateway-green",
            "- HorizontalPodAutoscaler gateway-shop-blue",
            "- PodDisruptionBudget gateway-shop-blue",
            "= Service gateway"
        ]
    );
    let twice = world.target.adoption(&wanted).await.expect_err("it has a record");
    assert!(twice.to_string().contains("0.9 is live there since generation 1"), "{twice}");

    reach(&world.target, &deploy(2, "2", vec![new.clone()])).await.expect("version 2 is released");
    assert_eq!(world.selects("gateway"), "green");
    tokio::time::sleep(Duration::from_secs(1)).await;
    reach(&world.target, &rollback(3, live)).await.expect("the copy is put back");
    assert_eq!(world.selects("gateway"), "blue");
    assert!(begun.elapsed() < Duration::from_secs(SECONDS - 3), "the clients were there: {:?}", begun.elapsed());
    world.kubectl(&["delete", "deployment/shop", "horizontalpodautoscaler/shop", "poddisruptionbudget/shop"]);

    let counted = clients.await.expect("the clients end");
    println!("{} requests, {} failed, {:?}", counted.requests, counted.failed, counted.slots);
    assert_eq!(counted.failed, 0, "{}", counted.text);
    for slot in ["others", "blue", "green"] {
        assert!(counted.slots.get(slot).is_some_and(|(count, _)| *count > 0), "{slot} answered: {:?}", counted.slots);
    }
    let seen = look(&world.target).await;
    assert!(seen.drift.is_empty() && seen.live.is_some_and(|live| live.is_adopted()), "nothing depends on theirs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_and_a_deployment_that_nobody_can_ask_are_refused_in_words() {
    let Some(cluster) = cluster().await else { return };
    let world = World::of_others(cluster, "unadoptable");
    let theirs = cluster.images[0].to_string();
    let refused = async |reason: &str| {
        let (adoption, wanted) = world.adoption(vec![checkout(cluster)]).await;
        let error = only(&adoption).expect_err("it is refused");
        assert!(error.contains(reason), "{error}");
        assert_eq!(adoption.release(&wanted), None);
    };
    refused("there is no Service gateway").await;
    world.apply(&objects("StatefulSet", &theirs));
    refused("StatefulSet shop serves it, whose volumes two copies cannot share").await;
    world.kubectl(&["delete", "statefulset", "shop", "--wait=true"]);
    refused("no Deployment has pods with the labels app=gateway").await;
    let [mut workload, service] = objects("Deployment", &theirs);
    workload["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = Value::Null;
    world.apply(&[workload, service]);
    world.kubectl(&["rollout", "status", "deployment/shop", "--timeout=60s"]);
    refused("the container server of Deployment shop has no readiness probe").await;
    world.apply(&objects("Deployment", &theirs));
    world.kubectl(&["rollout", "status", "deployment/shop", "--timeout=60s"]);
    world.kubectl(&["create", "configmap", "gateway-green-identity"]);
    refused("ConfigMap gateway-green-identity is there, and is not this environment's").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selector_that_was_changed_since_it_was_looked_at_is_not_taken_over() {
    let Some(cluster) = cluster().await else { return };
    let world = World::of_others(cluster, "moved");
    world.apply(&objects("Deployment", &cluster.images[0].to_string()));
    world.kubectl(&["rollout", "status", "deployment/shop", "--timeout=60s"]);
    let (adoption, wanted) = world.adoption(vec![checkout(cluster)]).await;
    let release = adoption.release(&wanted).expect("nothing is refused");
    world.target.stand_up(&release.services[0], Slot::Blue, &release).await.expect("the copy is made");
    world.kubectl(&["patch", "service", "gateway", "-p", r#"{"spec":{"selector":{"tier":"front"}}}"#]);
    let refused = reach(&world.target, &Goal::Deploy(release)).await.expect_err("somebody else is at work");
    let refused = chain(&refused);
    assert!(refused.contains("selected app=gateway when it was looked at"), "{refused}");
    assert!(!world.kubectl(&["get", "service", "gateway", "-o", "yaml"]).contains("plimsoll.dev"), "it is theirs");
    assert_eq!(look(&world.target).await.generation.0, 0);
    // As it is now, it can be.
    assert!(world.adopts(checkout(cluster)).await.changed);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adoption_that_broke_off_between_two_services_is_finished_by_the_next_and_by_nothing_else() {
    let Some(cluster) = cluster().await else { return };
    let world = World::of_others(cluster, "torn-adoption");
    let image = cluster.images[0].to_string();
    world.apply(&[objects_of("gateway", &image), objects_of("web", &image)].concat());
    for name in ["gateway", "web"] {
        world.kubectl(&["rollout", "status", &format!("deployment/shop-{name}"), "--timeout=60s"]);
    }
    let both =
        || ["gateway", "web"].map(|name| ServiceSpec { name: name.parse().unwrap(), ..checkout(cluster) }).to_vec();
    let (adoption, wanted) = world.adoption(both()).await;
    let release = adoption.release(&wanted).expect("nothing is refused");
    for spec in &release.services {
        world.target.stand_up(spec, Slot::Blue, &release).await.expect("the copies are made");
    }
    let change = |tier: &str| format!("{{\"spec\":{{\"selector\":{{\"tier\":{tier}}}}}}}");
    world.kubectl(&["patch", "service", "web", "-p", &change("\"front\"")]);
    reach(&world.target, &Goal::Deploy(release)).await.expect_err("the second one is not as it was");
    assert_eq!(world.selects("gateway"), "blue", "the first one had been moved");
    world.kubectl(&["patch", "service", "web", "-p", &change("null")]);

    let refused = reach(&world.target, &deploy(7, "2", both())).await.expect_err("nothing could be gone back to");
    let refused = chain(&refused);
    assert!(refused.contains("was broken off: `cargo xtask adopt staging` finishes it"), "{refused}");
    let (adoption, wanted) = world.adoption(both()).await;
    let again = Release { run: run(8), ..adoption.release(&wanted).expect("nothing is refused") };
    reach(&world.target, &Goal::Deploy(again)).await.expect("it is finished");
    assert_eq!((world.selects("gateway").as_str(), world.selects("web").as_str()), ("blue", "blue"));
    let seen = look(&world.target).await;
    assert_eq!((seen.generation.0, seen.drift.as_slice()), (1, &[][..]));
    assert!(seen.live.is_some_and(|live| live.is_adopted() && live.services.len() == 2));
}
