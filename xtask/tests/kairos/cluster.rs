//! Releases and rollbacks of the four services in a real cluster, with objects from each source, while clients inside the
//! cluster's network use them.
//!
//! The cluster is taken from `PLIMSOLL_TEST_CLUSTER`: a program that prints the path of a kubeconfig, and runs
//! `exec COMMAND` where Services can be reached. Images go to `PLIMSOLL_TEST_REGISTRY`, which the cluster pulls from.

use crate::{
    load::{self, Load, Summary},
    place::{self, Place, Ran},
    world::eventually,
};
use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

const REQUESTS: u64 = 10_000;
const SOME: u64 = 1_000;
const PATIENCE: Duration = Duration::from_mins(3);
/// Volumes for three services with state, in two environments.
const VOLUMES: usize = 6;

/// The cluster of this machine.
struct Cluster {
    program: OsString,
    kubeconfig: PathBuf,
    path: OsString,
}

impl Cluster {
    fn find() -> Option<Self> {
        let Some(program) = env::var_os("PLIMSOLL_TEST_CLUSTER") else {
            println!("skipped: there is no cluster (PLIMSOLL_TEST_CLUSTER)");
            return None;
        };
        let output = Command::new(&program).output().expect("PLIMSOLL_TEST_CLUSTER can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let kubeconfig = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        // It may bring its tools along.
        let tools = kubeconfig.parent().map(|directory| directory.join("bin"));
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(env::split_paths(&path).chain(tools)).expect("directories");
        Some(Self { program, kubeconfig, path })
    }

    fn kubectl(&self, args: &[&str]) -> String {
        let mut command = Command::new("kubectl");
        let output = command.env("PATH", &self.path).env("KUBECONFIG", &self.kubeconfig).args(args).output().unwrap();
        assert!(output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn variables(&self) -> Vec<(String, OsString)> {
        let kubeconfig = self.kubeconfig.clone().into_os_string();
        vec![("KUBECONFIG".to_owned(), kubeconfig), ("PATH".to_owned(), self.path.clone())]
    }

    fn load(&self, url: &str) -> Load {
        let mut command = Command::new(&self.program);
        command.arg("exec");
        Load::by_way_of(command, url)
    }
}

/// Two environments in namespaces of their own, gone with this value.
struct Scene<'a> {
    cluster: &'a Cluster,
    name: String,
    volumes: Option<tempfile::TempDir>,
    /// A claim takes whichever volume is free: one scene at a time has any.
    _turn: MutexGuard<'static, ()>,
}

impl<'a> Scene<'a> {
    fn new(cluster: &'a Cluster, name: &str) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("plimsoll-{name}-{}", std::process::id());
        let mut scene = Self { cluster, name, volumes: None, _turn: turn };
        // A cluster with storage of its own has a default class.
        if !cluster.kubectl(&["get", "storageclass"]).contains("(default)") {
            scene.volumes = Some(scene.make_volumes());
        }
        scene
    }

    fn make_volumes(&self) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..VOLUMES {
            let path = directory.path().join(number.to_string());
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
            let volume = format!(
                "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: {}-{number}}}\nspec: {{capacity: {{storage: 5Gi}}, \
                 accessModes: [ReadWriteOnce], persistentVolumeReclaimPolicy: Retain, hostPath: {{path: {}}}}}\n",
                self.name,
                path.display(),
            );
            let file = directory.path().join(format!("{number}.yaml"));
            fs::write(&file, volume).unwrap();
            self.cluster.kubectl(&["apply", "-f", file.to_str().unwrap()]);
        }
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        directory
    }

    fn namespace(&self, environment: &str) -> String {
        format!("{}-{environment}", self.name)
    }

    /// The configuration of this repository with both environments in the cluster.
    fn configured(&self, text: &str, render: &dyn Fn(&str) -> String) -> String {
        let registry = env::var("PLIMSOLL_TEST_REGISTRY").unwrap_or_else(|_| "127.0.0.1:5000".to_owned());
        let mut text = place::configured(text);
        for environment in ["staging", "production"] {
            let header = format!("[environments.{environment}]\n");
            let namespace = self.namespace(environment);
            let table = format!("namespace = \"{namespace}\", lame_duck = \"1s\"{}", render(environment));
            text = text.replace(&header, &format!("{header}target = \"kubernetes\"\nkubernetes = {{ {table} }}\n"));
        }
        text.replace("[images]\n", &format!("[images]\nregistry = \"{registry}/{}\"\n", self.name))
    }

    /// The address of production's gateway.
    fn url(&self) -> String {
        let namespace = self.namespace("production");
        let address = "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}";
        let address = self.cluster.kubectl(&["-n", &namespace, "get", "service", "api-gateway", "-o", address]);
        format!("http://{address}/version")
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        for environment in ["staging", "production"] {
            let namespace = self.namespace(environment);
            if std::thread::panicking() {
                println!(
                    "{}",
                    self.cluster.kubectl(&["-n", &namespace, "get", "pods,services,deployments", "-o", "wide"])
                );
            }
            self.cluster.kubectl(&["delete", "namespace", &namespace, "--ignore-not-found", "--timeout=60s"]);
        }
        for number in (0..VOLUMES).filter(|_| self.volumes.is_some()) {
            let volume = format!("{}-{number}", self.name);
            self.cluster.kubectl(&["delete", "persistentvolume", &volume, "--ignore-not-found", "--timeout=60s"]);
        }
    }
}

/// Runs a command while `wrk` asks production.
fn under_load(scene: &Scene<'_>, place: &Place, what: &str, args: &[&str]) -> Summary {
    let load = scene.cluster.load(&scene.url());
    eventually("the load begins", PATIENCE, || load.answered() >= SOME);
    let began = Instant::now();
    let ran: Ran = place.run(args).expect(0);
    let took = began.elapsed();
    let answered = load.answered();
    eventually("the load goes on", PATIENCE, || load.answered() >= REQUESTS.max(answered + SOME));
    let load = load.stop();
    let rate = load.requests * 1_000_000 / load.micros.max(1);
    println!("{what}: {} requests at {rate}/s, errors {:?}, answered by {:?}", load.requests, load.errors, load.seen);
    println!("{what}: command {} ms", took.as_millis());
    assert!(load.requests >= REQUESTS, "{load:?}");
    assert_eq!(load.failed(), 0, "{load:?}\n{}", ran.text());
    let slots: Vec<_> = load.seen.keys().filter_map(|who| who.split(' ').next()).collect();
    assert!(slots.contains(&"blue") && slots.contains(&"green"), "{:?}", load.seen);
    load
}

/// A first release, a second one and a rollback from a fresh clone, the latter two under load.
fn released_and_put_back(source: &str, render: &dyn Fn(&Scene<'_>, &str) -> String) {
    let Some(cluster) = Cluster::find().filter(|_| load::available()) else { return };
    let scene = Scene::new(&cluster, source);
    let configured = |text: &str| scene.configured(text, &|environment| render(&scene, environment));
    let mut place = Place::configured(configured, cluster.variables());
    place.run(&["release", "--yes"]).expect(0);
    let (_, first) = place.production();
    change(&place, source);
    under_load(&scene, &place, &format!("{source}: release"), &["release", "--yes"]);
    let (generation, second) = place.production();
    assert_eq!(generation, 2);
    assert_ne!(first.version, second.version);
    for (name, service) in &first.services {
        assert_ne!(service.slot, second.services[name].slot, "{name} was not moved");
    }
    place.forget();
    under_load(&scene, &place, &format!("{source}: rollback"), &["rollback", "production", "--yes"]);
    let (generation, back) = place.production();
    assert_eq!((generation, &back.version), (3, &first.version));
}

/// Another value of a variable of all services, wherever this source has it.
fn change(place: &Place, source: &str) {
    for environment in ["staging", "production"] {
        for name in ["values.yaml", "kustomization.yaml"] {
            let file = directory(source, environment).join(name);
            if let Ok(text) = fs::read_to_string(&file) {
                assert!(text.contains("SEED"), "{text}");
                fs::write(&file, text.replace("\"11\"", "\"12\"").replace("SEED=11", "SEED=12")).unwrap();
            }
        }
    }
    place.change(2);
}

fn directory(source: &str, environment: &str) -> PathBuf {
    place::clone().join("deploy").join(format!("test-{source}-{environment}"))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(place::clone()).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_release_of_typed_objects_and_its_rollback_lose_nothing_in_a_cluster() {
    released_and_put_back("typed", &|_, _| String::new());
}

#[test]
fn a_release_of_a_chart_and_its_rollback_lose_nothing_in_a_cluster() {
    released_and_put_back("helm", &|_, environment| {
        let directory = directory("helm", environment);
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("values.yaml");
        fs::write(&file, include_str!("values.yaml")).unwrap();
        format!(", render = \"helm\", chart = \"helm/kairos\", values = [\"{}\"]", relative(&file))
    });
}

#[test]
fn a_release_of_an_overlay_and_its_rollback_lose_nothing_in_a_cluster() {
    released_and_put_back("kustomize", &|scene, environment| {
        let directory = directory("kustomize", environment);
        fs::create_dir_all(&directory).unwrap();
        let overlay = include_str!("kustomization.yaml").replace("NAMESPACE", &scene.namespace(environment));
        fs::write(directory.join("kustomization.yaml"), overlay).unwrap();
        format!(", render = \"kustomize\", overlay = \"{}\"", relative(&directory))
    });
}
