//! A namespace of its own for each test, and images to run in it.

use plimsoll_core::{Fingerprint, ImageRef, Platform};
use plimsoll_deploy::{Release, SecretSource, ServiceSpec, SmokeRequest, sample};
use plimsoll_http::{Client, ClientOptions};
use plimsoll_kubernetes::{Access, KubernetesTarget, Object, Render};
use plimsoll_oci::{BlobStore, IndexSpec, RegistryClient, RegistryOptions, ServiceImage, service_image, write_index};
use serde_json::{Value, json};
use std::{collections::BTreeMap, env, path::PathBuf, process::Command, sync::Arc};
use tokio::sync::OnceCell;

/// The cluster and the images in its registry.
pub(crate) struct Cluster {
    pub(crate) access: Access,
    kubeconfig: PathBuf,
    /// The test service as version 1 and 2, by digest.
    pub(crate) images: Vec<ImageRef>,
}

/// The cluster, made ready once; `None`, and a sentence, where there is none.
pub(crate) async fn cluster() -> Option<&'static Cluster> {
    static CLUSTER: OnceCell<Option<Cluster>> = OnceCell::const_new();
    CLUSTER.get_or_init(find).await.as_ref()
}

async fn find() -> Option<Cluster> {
    let kubeconfig = match (env::var_os("PLIMSOLL_TEST_CLUSTER"), env::var_os("KUBECONFIG")) {
        (Some(program), _) => {
            let output = Command::new(program).output().expect("PLIMSOLL_TEST_CLUSTER can be run");
            assert!(output.status.success(), "the cluster starts: {}", String::from_utf8_lossy(&output.stderr));
            PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
        }
        (None, Some(file)) => PathBuf::from(file),
        (None, None) => {
            println!("skipped: there is no cluster (PLIMSOLL_TEST_CLUSTER, KUBECONFIG)");
            return None;
        }
    };
    let access = Access { kubeconfig: vec![kubeconfig.clone()], context: None };
    let mut images = Vec::new();
    for version in 1..=2 {
        images.push(push(version).await);
    }
    Some(Cluster { access, kubeconfig, images })
}

/// Builds the test service and pushes it with a label that makes each version another image.
async fn push(version: u32) -> ImageRef {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let binary = directory.path().join("service");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/service.rs");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let built = Command::new(rustc)
        .args(["--edition=2024", "-O", "-Ctarget-feature=+crt-static", "-o"])
        .arg(&binary)
        .arg(source)
        .status()
        .expect("rustc runs");
    assert!(built.success(), "the test service compiles");
    let store = BlobStore::open(directory.path().join("blobs")).expect("a store");
    let labels = BTreeMap::from([("version".to_owned(), version.to_string())]);
    let platform = Platform::host().expect("a platform that Plimsoll knows");
    let image = ServiceImage {
        name: "service",
        binary: &binary,
        platform,
        cmd: Vec::new(),
        env: Vec::new(),
        labels: labels.clone(),
        epoch: 0,
        base: None,
        compression: plimsoll_oci::Compression::Gzip,
    };
    let image = service_image(&store, &image).expect("an image");
    let index = write_index(&store, &IndexSpec { images: vec![(platform, image)], annotations: labels });
    let digest = index.expect("an index").digest;
    let http = Client::new(&ClientOptions::default()).expect("a client");
    let client = RegistryClient::new(http, RegistryOptions::default());
    let registry = env::var("PLIMSOLL_TEST_REGISTRY").unwrap_or_else(|_| "127.0.0.1:5000".to_owned());
    let name: ImageRef = format!("{registry}/plimsoll-test/service").parse().expect("a reference");
    client.push_index(&store, &digest, &name.tagged("test"), &|_| {}).await.expect("the registry takes the image");
    name.at(digest)
}

/// A namespace that goes with this value.
pub(crate) struct World {
    pub(crate) target: KubernetesTarget,
    pub(crate) namespace: String,
    kubeconfig: PathBuf,
    render: Render,
}

impl World {
    pub(crate) fn new(cluster: &Cluster, name: &str) -> Self {
        Self::with(cluster, name, |_, _| {})
    }

    /// A world in which `change` has a last word on each workload.
    pub(crate) fn with(cluster: &Cluster, name: &str, change: fn(&mut Value, &ServiceSpec)) -> Self {
        let namespace = format!("plimsoll-test-{name}-{}", std::process::id());
        let (access, render) = (&cluster.access, objects(change));
        let target = target(access, &namespace, &render);
        Self { target, namespace, kubeconfig: cluster.kubeconfig.clone(), render }
    }

    /// Another target for the same namespace, as another process has one.
    pub(crate) fn target_at(&self, access: &Access) -> KubernetesTarget {
        target(access, &self.namespace, &self.render)
    }

    /// A world with objects and secrets of its own.
    pub(crate) fn rendered(cluster: &Cluster, name: &str, secrets: SecretSource, render: Render) -> Self {
        let namespace = format!("plimsoll-test-{name}-{}", std::process::id());
        let environment = "staging".parse().expect("a name");
        let target =
            KubernetesTarget::new(cluster.access.clone(), environment, namespace.clone(), secrets, Arc::clone(&render));
        Self { target, namespace, kubeconfig: cluster.kubeconfig.clone(), render }
    }

    /// The slots that a Service leads to.
    pub(crate) fn selects(&self, service: &str) -> String {
        let selector: BTreeMap<String, String> =
            serde_json::from_str(&self.kubectl(&["get", "service", service, "-o", "jsonpath={.spec.selector}"]))
                .expect("a selector");
        let slots = selector.keys().filter_map(|key| key.strip_prefix("plimsoll.dev/traffic-of-"));
        slots.collect::<Vec<_>>().join(" and ")
    }

    /// Sends one request to a Service, as a client in the cluster does; nothing where nobody can be one.
    pub(crate) fn reached(&self, service: &str) {
        let Some(program) = env::var_os("PLIMSOLL_TEST_CLUSTER") else { return };
        let address = self.kubectl(&["get", "service", service, "-o", "jsonpath={.spec.clusterIP}"]);
        let asked = Command::new(program).args(["exec", "curl", "-sSf", &format!("http://{address}/version")]).output();
        let asked = asked.expect("curl runs in the cluster's network");
        assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    }

    /// Runs kubectl in the namespace and returns what it prints.
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        self.remote()(args)
    }

    /// The same, for another thread.
    pub(crate) fn remote(&self) -> impl Fn(&[&str]) -> String + Send + 'static {
        let (kubeconfig, namespace) = (self.kubeconfig.clone(), self.namespace.clone());
        move |args| {
            let output = Command::new("kubectl")
                .arg("--kubeconfig")
                .arg(&kubeconfig)
                .args(["-n", &namespace])
                .args(args)
                .output()
                .expect("kubectl runs");
            assert!(output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if env::var_os("KEEP").is_none() {
            self.kubectl(&["delete", "namespace", &self.namespace, "--wait=false", "--ignore-not-found"]);
        }
    }
}

fn target(access: &Access, namespace: &str, render: &Render) -> KubernetesTarget {
    let environment = "staging".parse().expect("a name");
    let secrets = Arc::new(|source: &str| Err(format!("no secret {source}")));
    KubernetesTarget::new(access.clone(), environment, namespace.to_owned(), secrets, Arc::clone(render))
}

/// The objects without a change.
pub(crate) fn plain() -> Render {
    objects(|_, _| {})
}

/// Plain objects, as somebody else's chart may have them.
fn objects(change: fn(&mut Value, &ServiceSpec)) -> Render {
    Arc::new(move |spec: &ServiceSpec, _: &Release| {
        let labels = json!({"app": spec.name});
        let env: Vec<_> = spec.env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let mut workload = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": spec.name, "labels": labels},
            "spec": {
                "replicas": spec.replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": spec.name, "image": "to-be-replaced",
                        "ports": [{"name": "http", "containerPort": 8080}], "env": env,
                        "readinessProbe": {"httpGet": {"path": spec.health.path, "port": "http"}, "periodSeconds": 1},
                    }],
                }},
            },
        });
        change(&mut workload, spec);
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": spec.name},
            "spec": {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        });
        [workload, service].into_iter().map(|o| Object::try_from(o).map_err(|e| e.to_string())).collect()
    })
}

/// A service of one replica.
pub(crate) fn spec(name: &str, image: &ImageRef, env: &[(&str, &str)]) -> ServiceSpec {
    let env: BTreeMap<String, String> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    ServiceSpec {
        image: image.clone(),
        digest: image.digest.clone().expect("by digest"),
        config_hash: Fingerprint::of(format!("{env:?}").as_bytes()),
        env,
        smoke: vec![get("/version")],
        drain_ms: 2000,
        ..sample(name)
    }
}

pub(crate) fn get(path: &str) -> SmokeRequest {
    SmokeRequest {
        method: "GET".to_owned(),
        path: path.to_owned(),
        status: 200,
        contains: None,
        json: BTreeMap::new(),
        headers: BTreeMap::new(),
        max_ms: None,
    }
}
