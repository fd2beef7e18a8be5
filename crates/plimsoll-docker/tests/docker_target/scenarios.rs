//! The scenarios. Names are sentences.

use crate::{
    conformance::the_target_passes_the_suite_of_all_targets,
    engine::{docker, inspect, left},
    harness::scenarios,
    images,
    world::{World, eventually, get, moving, release, spec, worker},
};
use plimsoll_core::{Generation, ServiceName, Slot};
use plimsoll_deploy::{Resources, ServiceSpec, StatePolicy, Target as _, TargetError};
use std::{path::Path, sync::Arc, time::Duration};

scenarios![
    the_target_passes_the_suite_of_all_targets,
    a_release_serves_from_containers_that_reach_each_other_through_the_proxy,
    a_container_is_confined_and_runs_the_very_image_of_the_release,
    a_container_that_ends_by_itself_is_told_with_its_code_and_last_lines_and_started_again,
    a_container_that_takes_more_memory_than_its_limit_is_killed_and_told_so,
    a_slot_that_never_becomes_ready_is_not_cut_over_to,
    a_container_deaf_to_sigterm_is_killed_after_its_grace,
    a_worker_is_handed_over_and_its_state_stays,
    a_stopped_environment_has_no_container_and_starts_again_on_its_port,
    a_registry_that_asks_for_a_login_is_given_it_and_nobody_else_sees_it,
    an_image_that_cannot_be_pulled_and_an_engine_that_is_not_there_are_told_in_words,
    down_leaves_neither_container_nor_network_nor_volume,
];

fn api() -> ServiceName {
    "api".parse().unwrap()
}

async fn a_release_serves_from_containers_that_reach_each_other_through_the_proxy(world: Arc<World>) {
    let mut front = spec("front", &[]);
    front.depends_on = vec![api()];
    let first = release("1.0.0", vec![spec("api", &[("N", "1")]), front.clone()]);
    let done = world.release(&first, Slot::Blue).await.unwrap();
    assert_eq!(done.live.generation, Generation(1));
    assert!(world.get("api", "/").await.starts_with("blue "));
    // What the specification says wins over the image; what it does not say is the image's.
    assert_eq!(world.get("api", "/env/N").await, "N=1;");
    assert_eq!(world.get("front", "/env/N").await, "N=from the image;");
    // From inside a container, over the proxy, to the other container.
    assert_eq!(world.get("front", "/peer").await, world.get("api", "/").await);
    assert!(world.get("front", "/version").await.contains(r#""version":"1.0.0""#));

    // Only one service moves; the other one answers with the new release all the same, and follows its dependency.
    let api_two = ServiceSpec { digest: images::version(2), ..spec("api", &[("N", "2")]) };
    let second = release("1.1.0", vec![api_two, front]);
    world.target.stand_up(&second.services[0], Slot::Green, &second).await.unwrap();
    world.ready(&api(), Slot::Green).await;
    assert!(world.get("front", "/peer").await.starts_with("blue "));
    let mut wish = moving(&second, Slot::Green, Generation(1));
    wish.moves.truncate(1);
    world.target.cut_over(&wish).await.unwrap();
    assert!(world.get("front", "/peer").await.starts_with("green "));
    let identity = world.get("front", "/version").await;
    assert!(identity.contains(r#""version":"1.1.0""#) && identity.contains(r#""generation":2"#), "{identity}");

    // Until the old slot is retired its containers stand; afterwards none of them is left.
    let old = world.container("api", Slot::Blue).await;
    assert_eq!(inspect(&old, "{{.State.Running}}").await, "true");
    world.target.drain(&api(), Slot::Blue, Duration::from_secs(1)).await.unwrap();
    world.target.retire(&api(), Slot::Blue).await.unwrap();
    assert!(!left(&world.paths()).await.contains(&old));
    assert!(world.get("api", "/").await.starts_with("green "));
}

async fn a_container_is_confined_and_runs_the_very_image_of_the_release(world: Arc<World>) {
    let wish = release("1.0.0", vec![ServiceSpec { state: StatePolicy::PerSlot, ..spec("api", &[]) }]);
    world.release(&wish, Slot::Blue).await.unwrap();
    assert_eq!(
        world.get("api", "/confined").await,
        "uid=65532 caps=0000000000000000 no_new_privs=1 root=false tmp=true identity=false"
    );
    let name = world.container("api", Slot::Blue).await;
    assert!(name.starts_with("plimsoll-") && name.ends_with("-staging-api-blue-0"), "{name}");
    let label = |key: &str| format!("{{{{index .Config.Labels \"dev.plimsoll.{key}\"}}}}");
    let digest = images::version(1).to_string();
    for (key, value) in
        [("digest", digest.as_str()), ("version", "1.0.0"), ("slot", "blue"), ("environment", "staging")]
    {
        assert_eq!(inspect(&name, &label(key)).await, value);
    }
    // By digest, and of that digest.
    let image = images::name().at(images::version(1)).to_string();
    assert_eq!(inspect(&name, "{{.Config.Image}}").await, image);
    assert_eq!(inspect(&name, "{{.Image}}").await, docker(&["image", "inspect", "--format", "{{.Id}}", &image]).await);
    let limits = "{{.HostConfig.RestartPolicy.Name}} {{index .HostConfig.LogConfig.Config \"max-size\"}} {{.HostConfig.PortBindings}}";
    assert_eq!(inspect(&name, limits).await, "no 10m map[]");
}

async fn a_container_that_ends_by_itself_is_told_with_its_code_and_last_lines_and_started_again(world: Arc<World>) {
    let standby = || async { world.target.observe().await.unwrap().services[&api()].standby.clone().unwrap() };
    for (mode, exit) in [("exit-101", "code 101"), ("exit-0", "code 0")] {
        let bad = release("1.0.0", vec![spec("api", &[("MODE", mode)])]);
        world.target.stand_up(&bad.services[0], Slot::Blue, &bad).await.unwrap();
        eventually("two ends", || async { standby().await.crashes >= 2 }).await;
        let failing = standby().await.failing.unwrap();
        assert!(failing.contains(exit) && failing.contains(&format!("begins as {mode}")), "{failing}");
        let refused = world.target.cut_over(&moving(&bad, Slot::Blue, Generation(0))).await.unwrap_err();
        assert!(matches!(&refused, TargetError::Slot { .. }), "{refused}");
    }
    // One that served for a while is started again, and what somebody else removed too.
    let good = release("1.1.0", vec![spec("api", &[])]);
    world.release(&good, Slot::Blue).await.unwrap();
    let again = |before: String| {
        let world = world.clone();
        async move {
            eventually("another container serves", || async {
                get(world.port("api").await, "/").await.is_ok_and(|a| a.0 == 200 && a.1 != before)
            })
            .await;
        }
    };
    let before = world.get("api", "/").await;
    world.ask_itself("api", Slot::Blue, "/exit").await;
    again(before).await;
    let before = world.get("api", "/").await;
    docker(&["rm", "--force", &world.container("api", Slot::Blue).await]).await;
    again(before).await;
    assert_eq!(world.target.observe().await.unwrap().services[&api()].live.as_ref().unwrap().crashes, 2);
    let log = world.target.logs(&api(), Slot::Blue, 2).await.unwrap();
    assert_eq!(log, ["begins as "]);
}

async fn a_container_that_takes_more_memory_than_its_limit_is_killed_and_told_so(world: Arc<World>) {
    let resources = Resources {
        cpu: Some("100m".parse().unwrap()),
        cpu_limit: Some("1500m".parse().unwrap()),
        memory_limit: Some("32Mi".parse().unwrap()),
        ..Resources::default()
    };
    world.release(&release("1.0.0", vec![ServiceSpec { resources, ..spec("api", &[]) }]), Slot::Blue).await.unwrap();
    let name = world.container("api", Slot::Blue).await;
    let limits = "{{.HostConfig.NanoCpus}} {{.HostConfig.CpuShares}} {{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}";
    assert_eq!(inspect(&name, limits).await, "1500000000 102 33554432 33554432");
    world.ask_itself("api", Slot::Blue, "/eat").await;
    // Told until the next one is ready, which takes longer than a look.
    eventually("its end is told", || async {
        let seen = world.target.observe().await.unwrap().services[&api()].live.clone().unwrap();
        seen.failing.is_some_and(|f| f.contains("it was killed: out of memory"))
    })
    .await;
    world.ready(&api(), Slot::Blue).await;
}

async fn a_slot_that_never_becomes_ready_is_not_cut_over_to(world: Arc<World>) {
    world.release(&release("1.0.0", vec![spec("api", &[])]), Slot::Blue).await.unwrap();
    let mut never = spec("api", &[("MODE", "never-ready")]);
    never.health.deadline_ms = 100;
    let bad = release("1.1.0", vec![never]);
    world.target.stand_up(&bad.services[0], Slot::Green, &bad).await.unwrap();
    let standby = || async { world.target.observe().await.unwrap().services[&api()].standby.clone().unwrap() };
    eventually("its deadline is over", || async { standby().await.failing.is_some() }).await;
    assert!(standby().await.failing.unwrap().contains("/ready answered 503"));
    let refused = world.target.cut_over(&moving(&bad, Slot::Green, Generation(1))).await.unwrap_err();
    let TargetError::Slot { log_tail, .. } = &refused else { panic!("{refused}") };
    assert_eq!(log_tail, &["begins as never-ready"]);
    assert!(world.get("api", "/").await.starts_with("blue "));
    assert_eq!(world.target.observe().await.unwrap().generation, Generation(1));
}

async fn a_container_deaf_to_sigterm_is_killed_after_its_grace(world: Arc<World>) {
    let mut wish = release("1.0.0", vec![spec("api", &[])]);
    wish.services[0].stop_grace_ms = 20_000;
    world.target.stand_up(&wish.services[0], Slot::Blue, &wish).await.unwrap();
    world.ready(&api(), Slot::Blue).await;
    let name = world.container("api", Slot::Blue).await;
    // A program without a handler ends at SIGTERM, as it would outside a container.
    let began = std::time::Instant::now();
    world.target.retire(&api(), Slot::Blue).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(!left(&world.paths()).await.contains(&name));
    // One that is stopped cannot hear it.
    wish.services[0].stop_grace_ms = 500;
    world.target.stand_up(&wish.services[0], Slot::Blue, &wish).await.unwrap();
    world.ready(&api(), Slot::Blue).await;
    docker(&["kill", "--signal", "STOP", &name]).await;
    world.target.retire(&api(), Slot::Blue).await.unwrap();
    assert!(!left(&world.paths()).await.contains(&name));
}

async fn a_worker_is_handed_over_and_its_state_stays(world: Arc<World>) {
    let name: ServiceName = "worker".parse().unwrap();
    let active = || async {
        let seen = world.target.observe().await.unwrap().services[&name].clone();
        (seen.live.and_then(|s| s.active), seen.standby.and_then(|s| s.active))
    };
    world.release(&release("1.0.0", vec![worker(&[])]), Slot::Blue).await.unwrap();
    assert_eq!(active().await, (Some(Generation(1)), None));
    let state = world.directory.path().join("state/staging/worker");
    assert_eq!(std::fs::read_to_string(state.join("held")).unwrap(), "blue");
    let done = world.release(&release("1.1.0", vec![worker(&[("N", "2")])]), Slot::Green).await.unwrap();
    assert_eq!((active().await, done.handover_micros.len()), ((Some(Generation(2)), None), 1));
    assert_eq!(std::fs::read_to_string(state.join("held")).unwrap(), "green");
    // One that is killed is active again after its start.
    docker(&["kill", &world.container("worker", Slot::Green).await]).await;
    eventually("it ended", || async {
        world.target.observe().await.unwrap().services[&name].live.as_ref().unwrap().crashes == 1
    })
    .await;
    eventually("it is active again", || async { active().await == (Some(Generation(2)), None) }).await;
    assert!(!state.join("violation").exists());
}

async fn a_stopped_environment_has_no_container_and_starts_again_on_its_port(world: Arc<World>) {
    world.release(&release("1.0.0", vec![spec("api", &[])]), Slot::Blue).await.unwrap();
    let port = world.port("api").await;
    assert_eq!(world.target.stop(Generation(1), "ann", None).await.unwrap(), Generation(2));
    assert!(!left(&world.paths()).await.contains("api"));
    assert_eq!(get(port, "/").await.unwrap().0, 503);
    assert_eq!(world.target.start(Generation(2), "ann").await.unwrap(), Generation(3));
    assert!(get(port, "/").await.unwrap().1.starts_with("blue "));
}

async fn a_registry_that_asks_for_a_login_is_given_it_and_nobody_else_sees_it(world: Arc<World>) {
    let image = format!("{}/plimsoll-test/service:1", images::guarded()).parse().unwrap();
    let wish = release("1.0.0", vec![ServiceSpec { image, ..spec("api", &[]) }]);
    let refused = world.target.stand_up(&wish.services[0], Slot::Blue, &wish).await;
    assert!(refused.is_err());
    let target = world.logged_in("ann", "hunter2");
    target.stand_up(&wish.services[0], Slot::Blue, &wish).await.unwrap();
    world.ready(&api(), Slot::Blue).await;
    target.cut_over(&moving(&wish, Slot::Blue, Generation(0))).await.unwrap();
    assert!(world.get("api", "/").await.starts_with("blue "));
    let state = std::fs::read_to_string(world.paths().state_file()).unwrap();
    assert!(!state.contains("hunter2"));
}

async fn an_image_that_cannot_be_pulled_and_an_engine_that_is_not_there_are_told_in_words(world: Arc<World>) {
    let mut wish = release("1.0.0", vec![spec("api", &[])]);
    wish.services[0].digest = plimsoll_core::Digest::of(b"never pushed");
    let text = |error: TargetError| {
        let mut text = error.to_string();
        let mut next = std::error::Error::source(&error);
        while let Some(cause) = next {
            text = format!("{text}: {cause}");
            next = cause.source();
        }
        text
    };
    let refused = text(world.target.stand_up(&wish.services[0], Slot::Blue, &wish).await.unwrap_err());
    assert!(refused.contains("pull 127.0.0.1:") && refused.contains("manifest"), "{refused}");
    let absent = world.through(Path::new("/nowhere/docker.sock"));
    let refused = text(absent.stand_up(&spec("api", &[]), Slot::Blue, &wish).await.unwrap_err());
    assert!(refused.contains("`/nowhere/docker.sock`") && refused.contains("systemctl start docker"), "{refused}");
    // Nothing was changed by what could not be done.
    assert!(world.target.observe().await.unwrap().services.is_empty());
}

async fn down_leaves_neither_container_nor_network_nor_volume(world: Arc<World>) {
    let volumes = || async { docker(&["volume", "ls", "--quiet"]).await };
    let before = volumes().await;
    let services =
        vec![ServiceSpec { replicas: 2, state: StatePolicy::Shared, ..spec("api", &[]) }, spec("front", &[])];
    world.release(&release("1.0.0", services), Slot::Blue).await.unwrap();
    let there = left(&world.paths()).await;
    assert_eq!((there.matches("-api-blue-").count(), there.matches("-front-blue-").count()), (2, 1), "{there}");
    let port = world.port("api").await;
    world.target.down().await.unwrap();
    assert_eq!((left(&world.paths()).await, volumes().await), (String::new(), before));
    let peeked = world.target.peek().await.unwrap().unwrap();
    assert!(peeked.services[&api()].live.as_ref().unwrap().failing.as_ref().unwrap().contains("cargo xtask start"));
    // The state stays: the next command starts everything again, on the same port.
    eventually("it serves again", || async {
        world.target.observe().await.unwrap();
        get(port, "/").await.is_ok_and(|a| a.0 == 200)
    })
    .await;
}
