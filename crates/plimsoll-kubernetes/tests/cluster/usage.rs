//! What pods use, asked of a real metrics server.

use crate::world::{World, cluster, spec};
use plimsoll_core::{RunId, Slot, Timestamp};
use plimsoll_deploy::{MIN_SAMPLES, Release, Resources, Target, UsageSample, rightsize};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A metrics server measures every 15 s, and tells of a pod after its second measurement.
const PATIENCE: Duration = Duration::from_mins(3);
const PAUSE: Duration = Duration::from_secs(5);

impl World {
    /// Waits until so many measurements were told.
    async fn measured(&self, wanted: usize) -> Vec<UsageSample> {
        let (begun, mut told) = (Instant::now(), Vec::<UsageSample>::new());
        while told.len() < wanted {
            assert!(begun.elapsed() < PATIENCE, "{} measurements in {PATIENCE:?}: {told:?}", told.len());
            let samples = self.target.usage().await.expect("the cluster has a metrics server");
            told.extend(samples.into_iter().map(|(service, sample)| {
                assert_eq!(service.as_str(), "api");
                sample
            }));
            told.dedup();
            sleep(PAUSE).await;
        }
        told
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_proposed_from_what_the_pods_that_serve_use() {
    let Some(cluster) = cluster().await else { return };
    let world = World::new(cluster, "usage");
    let api = spec("api", &cluster.images[0], &[]);
    let release = Release {
        environment: "staging".parse().expect("a name"),
        version: "1.0.0".to_owned(),
        revision: "abc".to_owned(),
        run: RunId::new(Timestamp::from_millis(0), 0),
        actor: "ada".to_owned(),
        services: vec![api.clone()],
        approval: None,
    };
    world.target.stand_up(&api, Slot::Blue, &release).await.expect("the API server takes the objects");
    world.kubectl(&[
        "patch",
        "service",
        "api",
        "-p",
        r#"{"spec":{"selector":{"plimsoll.dev/traffic-of-none":null,"plimsoll.dev/traffic-of-blue":"yes"}}}"#,
    ]);
    // One that is no part of what serves: nobody may be promised what it uses.
    world.target.stand_up(&api, Slot::Green, &release).await.expect("the API server takes the objects");
    let told = world.measured(MIN_SAMPLES).await;
    assert!(told.iter().all(|sample| sample.pod.starts_with("api-blue-")), "{told:?}");
    let usage = rightsize(&told, &Resources::default());
    assert_eq!((usage.samples, usage.pods), (told.len(), 1));
    assert!(usage.span_s >= 15 && usage.memory_max.get() > 0, "{usage:?}");
    let proposed = usage.proposed.expect("that is enough");
    assert!(proposed.memory_limit > proposed.memory || proposed.memory.is_some_and(|m| m.get() == 4 << 20));
    assert!(proposed.cpu.is_some_and(|cpu| cpu >= usage.cpu_p95));
}
