//! The bounds of autoscalers: of a slot that serves, of one that was left, and what is told of them.

use crate::{
    changes::built,
    driving::{deploy, reach},
    world::{World, cluster, spec},
};
use plimsoll_core::Millicores;
use plimsoll_deploy::{Autoscale, Resources, ServiceSpec};
use serde_json::Value;
use std::sync::Arc;

impl World {
    /// The lower bound of a slot's autoscaler, and the one that was declared, where that is told apart.
    fn bounds(&self, name: &str) -> (u64, Option<String>) {
        let text = self.kubectl(&["get", "horizontalpodautoscaler", name, "-o", "json"]);
        let scaler: Value = serde_json::from_str(&text).expect("an object");
        let told = &scaler["metadata"]["annotations"]["plimsoll.dev/min-replicas"];
        (scaler["spec"]["minReplicas"].as_u64().expect("a bound"), told.as_str().map(str::to_owned))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_autoscaler_of_a_slot_that_was_left_keeps_its_size_and_nobody_is_told_a_change() {
    let Some(cluster) = cluster().await else { return };
    let no_secrets = Arc::new(|name: &str| Err(format!("no secret {name}")));
    let world = World::rendered(cluster, "scalers", no_secrets, built());
    let service = |number: &str| ServiceSpec {
        replicas: 2,
        autoscale: Some(Autoscale { min: 1, max: 3, cpu_pct: Some(80), memory_pct: None, scale_down_after_s: 300 }),
        resources: Resources { cpu: Some(Millicores::new(50)), ..Resources::default() },
        ..spec("web", &cluster.images[0], &[("N", number)])
    };
    reach(&world.target, &deploy(1, "1", vec![service("1")])).await.expect("it is released");
    assert_eq!(world.bounds("web-blue"), (1, None));
    reach(&world.target, &deploy(2, "2", vec![service("2")])).await.expect("it is released");
    assert_eq!(world.bounds("web-green"), (1, None), "it goes by its load");
    assert_eq!(world.bounds("web-blue"), (2, Some("1".to_owned())), "the way back is as large");
    // As it is while a slot serves and its load is not known yet.
    let held = r#"{"metadata":{"annotations":{"plimsoll.dev/min-replicas":"1"}},"spec":{"minReplicas":2}}"#;
    world.kubectl(&["patch", "horizontalpodautoscaler", "web-green", "--type=merge", "-p", held]);
    let plimsoll_deploy::Goal::Deploy(release) = deploy(3, "2", vec![service("2")]) else { unreachable!() };
    let changes = world.target.changes(&release).await.expect("the cluster can be compared with");
    assert!(!format!("{changes:?}").contains("minReplicas"), "{changes:?}");
}
