//! Somebody changes the cluster behind the record's back: that is told, nothing fights over it, and a person's rollback
//! puts it right.

use crate::{
    driving::{deploy, look, reach, rollback},
    world::{World, cluster, get, spec},
};
use plimsoll_deploy::{DriveError, Observation, Refusal, SmokeRequest, Target as _, ask};
use std::time::{Duration, Instant};

/// What an action of Plimsoll would change: the Service in any way, what the Deployments are to be.
fn written(world: &World) -> String {
    let service = world.kubectl(&["get", "service", "gateway", "-o", "jsonpath={.metadata.resourceVersion}"]);
    let form = "jsonpath={range .items[*]}{.metadata.name} {.metadata.generation}{\"\\n\"}{end}";
    format!("{service} {}", world.kubectl(&["get", "deployments", "-o", form]))
}

/// Looks until the cluster shows what was done to it.
async fn drifted(world: &World) -> Observation {
    let begun = Instant::now();
    // Ends by the bound.
    loop {
        let seen = look(&world.target).await;
        if !seen.drift.is_empty() {
            return seen;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "the drift is seen: {seen:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Version 1 is live in blue; `harm` is done with kubectl; `recorded` and `found` are what is told.
async fn check(name: &str, harm: &[&str], (what, recorded, found): (&str, &str, &str)) {
    let Some(cluster) = cluster().await else { return };
    let world = World::new(cluster, name);
    let one = |n: &str| spec("gateway", &cluster.images[0], &[("N", n)]);
    reach(&world.target, &deploy(1, "1", vec![one("1")])).await.expect("version 1 is released");
    world.kubectl(harm);
    let seen = drifted(&world).await;
    let drift = seen.drift.first().expect("a drift");
    assert_eq!(drift.what, what);
    assert!(drift.recorded.contains(recorded), "recorded: {drift}");
    assert!(drift.found.contains(found), "found: {drift}");

    let before = written(&world);
    for round in 0..3 {
        let refused = reach(&world.target, &deploy(2 + round, "2", vec![one("2")])).await.expect_err("it has drifted");
        let DriveError::Refused(Refusal::Drifted { drift, .. }) = &refused else { panic!("{refused:?}") };
        assert_eq!(drift, &seen.drift);
        let text = refused.to_string();
        assert!(
            text.contains(recorded) && text.contains(found) && text.contains("cargo xtask rollback staging"),
            "{text}"
        );
    }
    assert_eq!(written(&world), before, "a refusal changes nothing");
    assert_eq!(look(&world.target).await.generation, seen.generation);

    let record = seen.live.clone().expect("version 1 is recorded");
    reach(&world.target, &rollback(9, record)).await.expect("a person puts it right");
    let after = look(&world.target).await;
    assert_eq!((after.drift.as_slice(), after.live.map(|live| live.version)), (&[][..], Some("1".to_owned())));
    let view = &after.services[&one("1").name];
    let live = view.live.as_ref().expect("something serves");
    assert!(live.runs(&one("1")) && live.ready == 1, "{live:?}");
    let prober = world.target.prober().expect("a prober");
    let tells = SmokeRequest { json: [("/version".to_owned(), "1".into())].into(), ..get("/version") };
    ask(prober, view.url.as_deref().expect("a URL"), &tells).await.expect("version 1 answers");
    let outcome = reach(&world.target, &deploy(10, "2", vec![one("2")])).await.expect("releases go on");
    assert!(outcome.changed);
}

const SELECTOR: &str = "selector of Service gateway";

#[tokio::test(flavor = "multi_thread")]
async fn a_service_pointed_at_the_other_slot_is_told_refused_and_put_right() {
    let patch = r#"{"spec":{"selector":{"plimsoll.dev/traffic-of-blue":null,"plimsoll.dev/traffic-of-green":"yes"}}}"#;
    let harm = ["patch", "service", "gateway", "-p", patch];
    check("drift-slot", &harm, (SELECTOR, "blue since generation 1", "green")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_added_to_a_selector_is_told_refused_and_put_right() {
    let patch = r#"{"spec":{"selector":{"track":"canary"}}}"#;
    let harm = ["patch", "service", "gateway", "-p", patch];
    check("drift-key", &harm, (SELECTOR, "plimsoll.dev/traffic-of-blue=yes", "track=canary")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_taken_out_of_a_selector_is_told_refused_and_put_right() {
    let patch = r#"{"spec":{"selector":{"plimsoll.dev/traffic-of-blue":null}}}"#;
    let harm = ["patch", "service", "gateway", "-p", patch];
    check("drift-none", &harm, (SELECTOR, "plimsoll.dev/traffic-of-blue=yes", "app=gateway")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_deployment_that_was_deleted_is_told_refused_and_put_right() {
    let harm = ["delete", "deployment", "gateway-blue", "--wait=true"];
    check("drift-gone", &harm, ("gateway (blue)", "sha256:", "it is gone")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_image_in_the_live_deployment_is_told_refused_and_put_right() {
    let Some(cluster) = cluster().await else { return };
    let image = format!("gateway={}", cluster.images[1]);
    let harm = ["set", "image", "deployment/gateway-blue", &image];
    let found = cluster.images[1].digest.as_ref().expect("a digest").to_string();
    check("drift-image", &harm, ("gateway (blue)", "sha256:", &found)).await;
}
