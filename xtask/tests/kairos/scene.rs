//! A real cluster, and two environments in it for one test.
//!
//! The cluster is taken from `PLIMSOLL_TEST_CLUSTER`: a program that prints the path of a kubeconfig, and runs
//! `exec COMMAND` where Services can be reached. Images go to `PLIMSOLL_TEST_REGISTRY`, which the cluster pulls from.

use crate::{load::Load, place};
use serde_json::Value;
use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Volumes for three services with state, in three environments.
const VOLUMES: usize = 9;

/// The cluster of this machine.
pub(crate) struct Cluster {
    program: OsString,
    kubeconfig: PathBuf,
    path: OsString,
}

impl Cluster {
    pub(crate) fn find() -> Option<Self> {
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

    /// A call of kubectl.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.env("PATH", &self.path).env("KUBECONFIG", &self.kubeconfig).args(args);
        command
    }

    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn variables(&self) -> Vec<(String, OsString)> {
        let kubeconfig = self.kubeconfig.clone().into_os_string();
        vec![("KUBECONFIG".to_owned(), kubeconfig), ("PATH".to_owned(), self.path.clone())]
    }

    /// A command that runs its arguments within the cluster's network.
    pub(crate) fn inside(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("exec");
        command
    }

    /// As many requests are under way at any time as `connections` says, such as `-c16`.
    pub(crate) fn load(&self, connections: &str, url: &str) -> Load {
        Load::by_way_of(self.inside(), connections, url)
    }

    /// The bodies of 200s from these addresses, each on a line of its own, as curl gets them within the network.
    pub(crate) fn get(&self, urls: &[String]) -> String {
        let mut command = self.inside();
        command.args(["curl", "--silent", "--show-error", "--fail", "--max-time", "10", "--write-out", "\n"]);
        let output = command.args(urls).output().unwrap();
        assert!(output.status.success(), "{urls:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Two environments in namespaces of their own, gone with this value.
pub(crate) struct Scene<'a> {
    pub(crate) cluster: &'a Cluster,
    name: String,
    volumes: Option<tempfile::TempDir>,
    /// A claim takes whichever volume is free: one scene at a time has any.
    _turn: MutexGuard<'static, ()>,
}

impl<'a> Scene<'a> {
    pub(crate) fn new(cluster: &'a Cluster, name: &str) -> Self {
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

    pub(crate) fn namespace(&self, environment: &str) -> String {
        format!("{}-{environment}", self.name)
    }

    /// The configuration of this repository with both environments in the cluster.
    pub(crate) fn configured(&self, text: &str, render: &dyn Fn(&str) -> String) -> String {
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

    /// The address of production's gateway, within the cluster's network.
    pub(crate) fn gateway(&self) -> String {
        self.gateway_of("production")
    }

    /// The same of another environment's.
    pub(crate) fn gateway_of(&self, environment: &str) -> String {
        let namespace = self.namespace(environment);
        let address = "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}";
        let address = self.cluster.kubectl(&["-n", &namespace, "get", "service", "api-gateway", "-o", address]);
        format!("http://{address}")
    }

    /// Where it says which version it is.
    pub(crate) fn url(&self) -> String {
        format!("{}/version", self.gateway())
    }

    /// Objects of production, of these kinds.
    pub(crate) fn objects(&self, kinds: &str) -> Vec<Value> {
        let namespace = self.namespace("production");
        let text = self.cluster.kubectl(&["-n", &namespace, "get", kinds, "-o", "json"]);
        let mut list: Value = serde_json::from_str(&text).unwrap();
        serde_json::from_value(list["items"].take()).unwrap()
    }
}

impl Scene<'_> {
    /// Deletes objects and waits for it. A cluster looks at a namespace whose pods are ending only now and then.
    fn delete(&self, kind: &str, names: &[String]) {
        let mut args = vec!["delete", kind, "--ignore-not-found", "--timeout=5m"];
        args.extend(names.iter().map(String::as_str));
        self.cluster.kubectl(&args);
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        let namespaces = ["staging", "production", "recovery"].map(|environment| self.namespace(environment));
        if std::thread::panicking() {
            for namespace in &namespaces {
                let objects = ["-n", namespace, "get", "pods,services,deployments", "-o", "wide"];
                println!("{}", self.cluster.kubectl(&objects));
            }
        }
        self.delete("namespace", &namespaces);
        if self.volumes.is_some() {
            let volumes: Vec<String> = (0..VOLUMES).map(|number| format!("{}-{number}", self.name)).collect();
            self.delete("persistentvolume", &volumes);
        }
    }
}
