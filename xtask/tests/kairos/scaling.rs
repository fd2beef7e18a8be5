//! Autoscalers at work: under load there are more gateways, a release in between begins with as many, the slot it left keeps as
//! many, and without load there is one again. No client notices any of it.

use crate::{
    cluster::chart,
    load::{self, Load},
    place::Place,
    scene::{Cluster, Scene},
    world::eventually,
};
use serde_json::Value;
use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// For one step of an autoscaler, which looks at figures that are up to a minute old.
const PATIENCE: Duration = Duration::from_mins(4);
const SOME: u64 = 1_000;
/// The gateway of these values has an autoscaler that is quick to follow: between one and three, at a third of little.
const VALUES: &str = "  api-gateway:
    image: {tag: any}
    pod: {resources: {requests: {cpu: 50m}}}
    autoscaling:
      enabled: true
      minReplicas: 1
      maxReplicas: 3
      cpuPercent: 30
      memoryPercent: 0
      behavior:
        scaleUp: {policies: [{type: Pods, value: 2, periodSeconds: 15}]}
        scaleDown: {stabilizationWindowSeconds: 15, policies: [{type: Pods, value: 2, periodSeconds: 15}]}
";
/// Clients in no hurry: each request takes half a second, and hardly any of a processor.
const CALM: &str = include_str!("calm.lua");

/// The gateway's deployment and autoscaler in a slot of production.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gateways {
    ready: u64,
    wanted: u64,
    /// The autoscaler's lower bound, and whether it has seen figures.
    least: u64,
    measured: bool,
}

impl Gateways {
    fn seen(scene: &Scene<'_>, slot: &str) -> Self {
        let objects = scene.objects("deployments,horizontalpodautoscalers");
        let name = format!("api-gateway-{slot}");
        let find = |kind: &str| {
            objects.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == name.as_str()).unwrap_or(&Value::Null)
        };
        let (deployment, scaler) = (find("Deployment"), find("HorizontalPodAutoscaler"));
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        Self {
            ready: number(&deployment["status"]["readyReplicas"]),
            wanted: number(&deployment["spec"]["replicas"]),
            least: number(&scaler["spec"]["minReplicas"]),
            measured: scaler.pointer("/status/currentMetrics/0/resource/current/averageUtilization").is_some(),
        }
    }

    /// Waits until they are as they must be.
    fn until(scene: &Scene<'_>, slot: &str, what: &str, fact: impl Fn(Self) -> bool) -> Self {
        let (began, last) = (Instant::now(), Cell::new(None));
        eventually(&format!("{what} ({slot})"), PATIENCE, || {
            std::thread::sleep(Duration::from_millis(500));
            let seen = Self::seen(scene, slot);
            if last.replace(Some(seen)) != Some(seen) {
                println!("{slot} after {} s: {seen:?}", began.elapsed().as_secs());
            }
            fact(seen)
        });
        last.get().expect("it was looked at")
    }
}

/// Whether the cluster has figures for an autoscaler; else it says so.
fn has_figures(cluster: &Cluster) -> bool {
    let asked = cluster.command(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes"]).output().unwrap();
    let there = asked.status.success();
    assert!(there || std::env::var_os("CI").is_none(), "the cluster has no metrics-server");
    if !there {
        println!("skipped: the cluster has no metrics-server");
    }
    there
}

#[test]
fn gateways_come_with_load_and_go_without_it_and_a_release_begins_with_as_many() {
    let Some(cluster) = Cluster::find().filter(|c| load::available() && has_figures(c)) else { return };
    let scene = Scene::new(&cluster, "scaling");
    let values = include_str!("values.yaml").replace("  api-gateway: {image: {tag: any}}\n", VALUES);
    assert!(values.ends_with(VALUES));
    let render = |environment: &str| chart("scaling", environment, &values);
    let place = Place::configured(|text| scene.configured(text, &render), cluster.variables());
    place.run(&["release", "--yes"]).expect(0);
    let began = Instant::now();
    Gateways::until(&scene, "blue", "one, and figures of it", |g| (g.wanted, g.ready, g.measured) == (1, 1, true));

    let load = cluster.load("-c16", &scene.url());
    eventually("the load begins", PATIENCE, || load.answered() >= SOME);
    let more = Gateways::until(&scene, "blue", "more under load", |g| g.ready >= 2);
    place.change(2);
    place.run(&["release", "--yes"]).expect(0);
    let (new, old) = (Gateways::seen(&scene, "green"), Gateways::seen(&scene, "blue"));
    println!("after the release: {new:?}, what was left {old:?}");
    assert!(new.ready >= more.ready, "it began with {new:?}, and {more:?} had served");
    let kept = Gateways::until(&scene, "green", "it goes by its load again", |g| g.measured);
    assert!(kept.ready >= more.ready, "it shrank under load: {kept:?}");
    assert!(old.least >= more.ready && old.ready >= more.ready, "the way back is smaller: {old:?}");
    let answered = load.answered();
    eventually("the load goes on", PATIENCE, || load.answered() >= answered + SOME);

    // Some clients stay, and must not notice that gateways go.
    let mut calm = cluster.inside();
    calm.arg("wrk");
    let calm = Load::running(calm, CALM, &["-t1", "-c4"], &scene.gateway());
    let load = load.stop();
    println!("load: {} requests, errors {:?}, answered by {:?}", load.requests, load.errors, load.seen);
    assert_eq!(load.failed(), 0, "{load:?}");
    assert_eq!(load.seen.len(), 2, "{load:?}");
    Gateways::until(&scene, "green", "one again", |g| (g.wanted, g.ready) == (1, 1));
    let warm = Gateways::seen(&scene, "blue");
    let calm = calm.stop();
    println!("calm: {} requests, errors {:?}; all in {} s", calm.requests, calm.errors, began.elapsed().as_secs());
    assert!(calm.failed() == 0 && calm.requests > 0, "{calm:?}");
    assert_eq!(warm.ready, old.ready, "the slot that was left keeps its size");
}
