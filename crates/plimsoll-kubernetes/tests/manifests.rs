//! A real API server takes everything that the builders make: each object is applied as a dry run, strictly validated.
//!
//! It needs a cluster (`KUBECONFIG`) and a namespace of its own in it, which it makes and deletes.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a test asks where the cluster is, and says when there is none"
)]

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Config,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams, ValidationDirective,
    },
    config::{KubeConfigOptions, Kubeconfig},
};
use plimsoll_core::{ByteSize, EnvironmentName, ImageRef, Millicores, Secret as Value, Slot};
use plimsoll_deploy::{Access, Activation, Autoscale, Resources as Wanted, ServiceSpec, StatePolicy, Storage, sample};
use plimsoll_kubernetes::{
    Object, Place, in_slot,
    manifest::{
        Autoscaler, Claim, ConfigMap, Container, Context, CronJob, Deployment, Disruption, Ingress, Labels, Pod,
        PriorityClass, Probe, Resources, Role, RoleBinding, Scaling, Secret, Service, ServiceAccount, StatefulSet,
        Volume, objects, typed,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::PathBuf,
};

/// What the builders make, but for `ExternalSecret`, which a bare cluster does not know.
const KINDS: [&str; 15] = [
    "ConfigMap",
    "CronJob",
    "Deployment",
    "HorizontalPodAutoscaler",
    "Ingress",
    "NetworkPolicy",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "PriorityClass",
    "Role",
    "RoleBinding",
    "Secret",
    "Service",
    "ServiceAccount",
    "StatefulSet",
];

/// The cluster's API; `None`, and a sentence, where there is no cluster.
async fn cluster() -> Option<Client> {
    let Some(file) = env::var_os("KUBECONFIG").map(PathBuf::from) else {
        println!("skipped: there is no cluster (KUBECONFIG)");
        return None;
    };
    let kubeconfig = Kubeconfig::read_from(file).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Some(Client::try_from(config.expect("a configuration")).expect("a client"))
}

fn spec(name: &str) -> ServiceSpec {
    let image: ImageRef = format!("registry.test/shop/{name}:1").parse().expect("a reference");
    ServiceSpec { image, drain_ms: 10_000, stop_grace_ms: 10_000, ..sample(name) }
}

/// One service with everything, one with nothing, one of each kind that keeps state.
fn services() -> Vec<ServiceSpec> {
    let minimal = spec("minimal");
    let worker = ServiceSpec { activation: Activation::Exclusive, state: StatePolicy::Shared, ..spec("worker") };
    let storage =
        Storage { size: ByteSize::new(5 << 30), class: Some("fast".to_owned()), access: Access::ReadWriteMany };
    let keeper = ServiceSpec { state: StatePolicy::PerSlot, storage: Some(storage), ..spec("keeper") };
    let amounts = Wanted {
        cpu: Some(Millicores::new(100)),
        memory: Some(ByteSize::new(64 << 20)),
        cpu_limit: Some(Millicores::new(1_500)),
        memory_limit: Some(ByteSize::new(129_000_000)),
    };
    let autoscale = Autoscale { min: 2, max: 6, cpu_pct: Some(70), memory_pct: Some(80), scale_down_after_s: 300 };
    let full = ServiceSpec {
        replicas: 3,
        public_port: Some(9000),
        env: BTreeMap::from([("PRICE".to_owned(), "$5".to_owned())]),
        secret_env: BTreeMap::from([("KEY".to_owned(), "env:KEY".to_owned())]),
        depends_on: vec![minimal.name.clone(), worker.name.clone()],
        resources: amounts,
        autoscale: Some(autoscale),
        ..spec("full")
    };
    vec![minimal, worker, keeper, full]
}

/// What no service has by itself.
fn others() -> Vec<Object> {
    let labels = Labels::from([("app".to_owned(), "other".to_owned())]);
    let web = Container::new("other", "registry.test/other:1")
        .port("http", 8080)
        .args(["--port=8080"])
        .readiness(Probe::http("/ready", "http"))
        .resources(Resources::default().cpu("100m"))
        .mount("config", "/config")
        .mount("secret", "/secret")
        .mount_writable("scratch", "/tmp");
    let pod = |container: Container| {
        Pod::new(&labels, container)
            .volume(Volume::config_map("config", "other"))
            .volume(Volume::secret("secret", "other"))
            .volume(Volume::scratch("scratch", "16Mi"))
            .service_account("other")
    };
    let deployment = Deployment::new("other", pod(web.clone())).replicas(3).min_ready(5).history(5);
    let set = StatefulSet::new("set", pod(web.mount_writable("data", "/data")))
        .service("set-pods")
        .replicas(2)
        .claim(Claim::new("data", "1Gi").access(Access::ReadWriteOncePod));
    let job = Pod::new(&labels, Container::new("tidy", "registry.test/tidy:1"));
    let role =
        Role::new("reader").allow("", &["configmaps"], &["get", "list"]).allow("apps", &["deployments"], &["get"]);
    let account = ServiceAccount::new("other");
    let scaling = Scaling::after(60).pods(1, 60).percent(10, 60);
    objects(&[
        &account,
        &role,
        &RoleBinding::new("reader", &role, &[&account]),
        &ConfigMap::new("other").entry("a.json", "{}"),
        &Secret::new("other").entry("KEY", Value::new("value")),
        &deployment,
        &Service::of(&deployment, "other").port("http", 80),
        &Autoscaler::of(&deployment, "other", 2, 4).cpu(70).pods_metric("inflight", "2500m").down(scaling),
        &Disruption::of(&deployment, "other").min_available(2),
        &set,
        &Service::of(&set, "set-pods").port("http", 8080).headless(),
        &CronJob::new("tidy", "*/15 2-4 * jan-mar mon", job).deadline(60).retries(0),
        &Ingress::new("other").class("nginx").route("other.test", "/", "other", "http").tls("other.test", "cert"),
        &PriorityClass::new("plimsoll-manifests-test", 1_000, "of a test").preempting(),
    ])
    .unwrap_or_else(|error| panic!("{error}"))
}

/// What the server says against an object; it is asked as if the object were applied.
async fn refusal(client: &Client, namespace: &str, object: &Object) -> Option<String> {
    let (group, version) = object.api_version().split_once('/').unwrap_or(("", object.api_version()));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, object.kind()));
    let api: Api<DynamicObject> = match object.kind() {
        "PriorityClass" => Api::all_with(client.clone(), &resource),
        _ => Api::namespaced_with(client.clone(), namespace, &resource),
    };
    let mut asked = PatchParams::apply("plimsoll").dry_run();
    asked.field_validation = Some(ValidationDirective::Strict);
    let answer = api.patch(object.name(), &asked, &Patch::Apply(object.value())).await;
    answer.err().map(|error| format!("{}: {error}", object.title()))
}

#[tokio::test]
async fn a_real_api_server_takes_what_is_built() {
    let Some(client) = cluster().await else { return };
    let services = services();
    let environment: EnvironmentName = "staging".parse().expect("a name");
    let context = Context::new("shop", environment.clone(), &services);
    let mut built = others();
    for service in &services {
        let objects = typed(service, &context).unwrap_or_else(|error| panic!("{error}"));
        let place =
            Place { environment: &environment, slot: Slot::Green, version: "1.0.0", replicas: service.replicas };
        let slotted = in_slot(&objects, service, &place).unwrap_or_else(|error| panic!("{error}"));
        built.extend(objects);
        built.extend(slotted.own);
        built.push(slotted.service);
    }
    let namespace = format!("plimsoll-manifests-{}", std::process::id());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mut own = Namespace::default();
    own.metadata.name = Some(namespace.clone());
    // The server refuses pods here that are not confined: it is the builders' defaults that let them in.
    let enforce = ("pod-security.kubernetes.io/enforce".to_owned(), "restricted".to_owned());
    own.metadata.labels = Some(BTreeMap::from([enforce]));
    namespaces.create(&PostParams::default(), &own).await.expect("a namespace is made");
    let mut refused = Vec::new();
    for object in &built {
        refused.extend(refusal(&client, &namespace, object).await);
    }
    // Pods are what the admission of the namespace judges, and a dry run makes none of a workload's.
    for object in built.iter().filter(|object| object.value().pointer("/spec/template/spec/containers").is_some()) {
        refused.extend(refusal(&client, &namespace, &pod_of(object)).await);
    }
    namespaces.delete(&namespace, &DeleteParams::default()).await.expect("the namespace is deleted");
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    let kinds: BTreeSet<&str> = built.iter().map(Object::kind).collect();
    assert_eq!(kinds, BTreeSet::from(KINDS));
}

/// The first pod of a workload, without what must be there before it.
fn pod_of(workload: &Object) -> Object {
    let template = &workload.value()["spec"]["template"];
    let mut spec = template["spec"].clone();
    if workload.name() == "set" {
        spec["volumes"]
            .as_array_mut()
            .expect("it has some")
            .push(serde_json::json!({ "name": "data", "emptyDir": {} }));
    }
    for absent in ["serviceAccountName", "priorityClassName"] {
        spec.as_object_mut().expect("a pod's spec").remove(absent);
    }
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("{}-x", workload.name()), "labels": template["metadata"]["labels"] },
        "spec": spec,
    });
    Object::try_from(pod).expect("a pod")
}
