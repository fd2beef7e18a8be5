//! The suite that every target passes.

use crate::world::{World, cluster, get, spec};
use plimsoll_core::BackupCommands;
use plimsoll_deploy::{Activation, Fixture, Prober, ServiceSpec, SmokeRequest, StatePolicy, Target};
use serde_json::{Value, json};
use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

/// The variable with the directory of the state, which is the same on the node.
const STATE: &str = "STATE_DIR";

/// Gives the pods of a service with a state its directory.
fn keep_state(workload: &mut Value, spec: &ServiceSpec) {
    let Some(directory) = spec.env.get(STATE) else { return };
    let pod = &mut workload["spec"]["template"]["spec"];
    pod["volumes"] = json!([{"name": "state", "hostPath": {"path": directory, "type": "DirectoryOrCreate"}}]);
    pod["containers"][0]["volumeMounts"] = json!([{"name": "state", "mountPath": directory}]);
    pod["containers"][0]["securityContext"] = json!({"runAsUser": 0});
}

struct InCluster {
    world: World,
    scratch: tempfile::TempDir,
    images: Vec<plimsoll_core::ImageRef>,
}

impl InCluster {
    fn spec(&self, name: &str, version: u32) -> ServiceSpec {
        spec(name, &self.images[version as usize - 1], &[("N", &version.to_string())])
    }
}

impl Fixture for InCluster {
    fn target(&self) -> &dyn Target {
        &self.world.target
    }

    fn prober(&self) -> &dyn Prober {
        self.world.target.prober().expect("a cluster is asked through its API server")
    }

    fn traffic(&self, version: u32) -> ServiceSpec {
        self.spec("gateway", version)
    }

    fn exclusive(&self, version: u32) -> ServiceSpec {
        ServiceSpec { activation: Activation::Exclusive, ..self.spec("ingestor", version) }
    }

    fn stateful(&self) -> ServiceSpec {
        let command = |verb: &str| vec!["/bin/service".to_owned(), verb.to_owned()];
        let backup = Some(BackupCommands { save: command("save"), load: command("load") });
        let directory = self.scratch.path().to_string_lossy();
        let spec = spec("gateway", &self.images[0], &[("N", "1"), (STATE, &directory)]);
        ServiceSpec { state: StatePolicy::Shared, backup, ..spec }
    }

    fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    fn tells(&self, version: u32) -> SmokeRequest {
        SmokeRequest { json: [("/version".to_owned(), version.to_string().into())].into(), ..get("/version") }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubernetes_target_passes_the_suite_of_all_targets() {
    let Some(cluster) = cluster().await else { return };
    let made = AtomicUsize::new(0);
    let cases = plimsoll_deploy::conformance(|_| async {
        let name = format!("case{}", made.fetch_add(1, Ordering::Relaxed));
        InCluster {
            world: World::with(cluster, &name, keep_state),
            scratch: tempfile::tempdir().expect("a directory"),
            images: cluster.images.clone(),
        }
    })
    .await;
    println!("conformance: {} cases passed", cases.len());
}
