//! The suite that every target passes.

use crate::world::{World, cluster, get, spec};
use plimsoll_deploy::{Activation, Fixture, Prober, ServiceSpec, SmokeRequest, Target};
use std::sync::atomic::{AtomicUsize, Ordering};

struct InCluster {
    world: World,
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
        InCluster { world: World::new(cluster, &name), images: cluster.images.clone() }
    })
    .await;
    println!("conformance: {} cases passed", cases.len());
}
