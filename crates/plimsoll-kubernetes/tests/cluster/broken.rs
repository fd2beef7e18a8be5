//! Releases that are not fit to serve: what served goes on, the error says why in the cluster's own words, and nothing
//! of the release stays.

use crate::{
    driving::{deploy, live_slot, look, reach},
    world::{World, cluster, spec},
};
use plimsoll_core::{Digest, Slot};
use plimsoll_deploy::{DriveError, ServiceSpec, Target as _, ask};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What the failed release may take beside its own deadline: to be noticed, told, and ended.
const BESIDES: Duration = Duration::from_secs(15);

/// As a StatefulSet where the service asks for that by a variable, on a node that nobody has where it asks for that.
fn as_asked(workload: &mut Value, spec: &ServiceSpec) {
    if spec.env.contains_key("STATEFUL") {
        workload["kind"] = "StatefulSet".into();
        workload["spec"]["serviceName"] = spec.name.to_string().into();
    }
    if spec.env.contains_key("NOWHERE") {
        workload["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "of-gold"});
    }
}

/// A release that fails, and what it left.
struct Failed {
    error: DriveError,
    took: Duration,
}

impl Failed {
    fn text(&self) -> String {
        plimsoll_core::chain(&self.error)
    }

    fn tells(&self, words: &[&str]) {
        let text = self.text();
        println!("{:.1} s: {text}", self.took.as_secs_f64());
        for word in words {
            assert!(text.contains(word), "`{word}` in: {text}");
        }
    }
}

/// Version 1 serves; `between` happens; then the second release, which is not fit, is driven.
async fn fails(
    world: &World,
    first: ServiceSpec,
    between: impl FnOnce(),
    second: ServiceSpec,
    deadline: Duration,
) -> Failed {
    let name = first.name.clone();
    let image_digest = first.digest.clone();
    reach(&world.target, &deploy(1, "1", vec![first])).await.expect("version 1 is released");
    between();
    let mut second = second;
    second.health.deadline_ms = u64::try_from(deadline.as_millis()).expect("it is short");
    let begun = Instant::now();
    let error = reach(&world.target, &deploy(2, "2", vec![second])).await.expect_err("version 2 is not fit");
    let took = begun.elapsed();
    assert!(took < deadline + BESIDES, "it fails within its deadline: {took:?}");
    let seen = look(&world.target).await;
    let live = seen.live.as_ref().expect("version 1 is recorded");
    assert_eq!((live.version.as_str(), live_slot(&seen, &name)), ("1", Slot::Blue));
    assert_eq!((seen.drift.as_slice(), seen.lock.as_ref()), (&[][..], None));
    let view = &seen.services[&name];
    assert_eq!(view.live.as_ref().map(|slot| (&slot.digest, slot.ready)), Some((&image_digest, 1)));
    assert_eq!(view.standby, None, "nothing of it stands");
    let url = view.url.clone().expect("a URL");
    let prober = world.target.prober().expect("a prober");
    ask(prober, &url, &crate::world::get("/version")).await.expect("version 1 answers");
    gone(world, "plimsoll.dev/slot=green").await;
    Failed { error, took }
}

/// Waits until nothing with these labels is there.
async fn gone(world: &World, labels: &str) {
    let begun = Instant::now();
    let kinds = "deployments,statefulsets,replicasets,pods,configmaps,secrets,hpa,pdb";
    // Ends by the bound.
    loop {
        let left = world.kubectl(&["get", kinds, "-l", labels, "-o", "name"]);
        if left.trim().is_empty() {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "it stays standing: {left}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_crashes_at_once_fails_with_its_exit_status_and_its_last_line() {
    let Some(cluster) = cluster().await else { return };
    let world = World::new(cluster, "crash");
    let second = spec("gateway", &cluster.images[1], &[("MODE", "crash")]);
    let first = spec("gateway", &cluster.images[0], &[]);
    let failed = fails(&world, first, || {}, second, Duration::from_secs(15)).await;
    failed.tells(&["it ended with status 7"]);
    let last = failed.error.log_tail().last().map(String::as_str);
    assert_eq!(last, Some("the price feed is not configured"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_never_gets_ready_fails_at_its_deadline() {
    let Some(cluster) = cluster().await else { return };
    let world = World::new(cluster, "unready");
    let second = spec("gateway", &cluster.images[1], &[("MODE", "never-ready")]);
    let first = spec("gateway", &cluster.images[0], &[]);
    let deadline = Duration::from_secs(6);
    let failed = fails(&world, first, || {}, second, deadline).await;
    failed.tells(&["its deadline passed", "0 of 1 replicas are ready", "containers with unready status: [gateway]"]);
    assert!(failed.took >= deadline);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_the_registry_does_not_have_fails_long_before_the_deadline() {
    let Some(cluster) = cluster().await else { return };
    let world = World::new(cluster, "noimage");
    let absent = cluster.images[1].at(Digest::of(b"nobody pushed this"));
    let first = spec("gateway", &cluster.images[0], &[]);
    let second = spec("gateway", &absent, &[]);
    let failed = fails(&world, first, || {}, second, Duration::from_mins(2)).await;
    failed.tells(&["waiting will not help", "not found", absent.digest.as_ref().expect("a digest").as_str()]);
    assert!(failed.took < Duration::from_secs(30), "{:?}", failed.took);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_lets_no_pod_in_is_told_in_words_for_both_kinds_of_workload() {
    let Some(cluster) = cluster().await else { return };
    for (kind, variables) in [("Deployment", &[][..]), ("StatefulSet", &[("STATEFUL", "1")][..])] {
        let world = World::with(cluster, &format!("quota-{}", kind.to_lowercase()), as_asked);
        let first = spec("gateway", &cluster.images[0], variables);
        let second = spec("gateway", &cluster.images[1], variables);
        let limit = || drop(world.kubectl(&["create", "quota", "one-pod", "--hard=pods=1"]));
        let failed = fails(&world, first, limit, second, Duration::from_secs(6)).await;
        failed.tells(&["gateway-green", "exceeded quota: one-pod", "limited: pods=1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_no_node_takes_is_told_in_the_words_of_the_scheduler() {
    let Some(cluster) = cluster().await else { return };
    let world = World::with(cluster, "nowhere", as_asked);
    let first = spec("gateway", &cluster.images[0], &[]);
    let second = spec("gateway", &cluster.images[1], &[("NOWHERE", "1")]);
    let failed = fails(&world, first, || {}, second, Duration::from_secs(6)).await;
    failed.tells(&["is not scheduled", "node affinity/selector"]);
}
