//! Faults at bad moments: killed supervisors, orphans, load, a reboot, an engine that goes away.

#![expect(clippy::disallowed_macros, reason = "figures are part of what the test shows")]

use crate::{
    engine::{self, containers, docker, inspect, left},
    harness::scenarios,
    world::{World, eventually, get, is_running, kill, moving, release, spec, worker},
};
use plimsoll_core::{Generation, ServiceName, Slot};
use plimsoll_deploy::{Change, CutOver, Target as _};
use plimsoll_local::supervisor::project;
use plimsoll_process::{Cancel, Cmd, Environment};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::net::{UnixListener, UnixStream};

scenarios![
    a_killed_supervisor_leaves_its_containers_running_and_the_next_finds_them_again,
    a_supervisor_killed_at_any_moment_of_a_cut_over_comes_back_to_one_of_the_two_states,
    no_request_fails_while_a_real_client_calls_across_ten_cut_overs,
    what_belongs_nowhere_is_removed_by_the_next_supervisor_and_what_is_not_ours_stays,
    after_a_reboot_the_next_supervisor_starts_everything_again_on_the_same_port,
    while_the_engine_does_not_answer_containers_serve_and_nothing_is_handed_over,
];

fn api() -> ServiceName {
    "api".parse().unwrap()
}

async fn kill_supervisor(world: &World) {
    let pid = world.target.hello().await.unwrap().pid;
    kill(pid);
    eventually("the supervisor is gone", || async { !is_running(pid) }).await;
}

async fn a_killed_supervisor_leaves_its_containers_running_and_the_next_finds_them_again(world: Arc<World>) {
    let mut with_secret = spec("api", &[]);
    with_secret.secret_env.insert("TOKEN".to_owned(), "token".to_owned());
    world.release(&release("1.0.0", vec![with_secret]), Slot::Blue).await.unwrap();
    let (port, before) = (world.port("api").await, world.target.hello().await.unwrap());
    let service = world.get("api", "/").await;
    let observed = world.target.observe().await.unwrap();
    kill_supervisor(&world).await;
    assert_eq!(get(port, "/").await.unwrap(), (200, service.clone()));
    assert_eq!(world.target.peek().await.unwrap(), Some(observed));

    // The same container behind the same proxy, and it did not end in between.
    let after = world.target.hello().await.unwrap();
    assert!(after.pid != before.pid && after.proxy == before.proxy);
    assert_eq!(world.get("api", "/").await, service);
    assert_eq!(world.target.observe().await.unwrap().services[&api()].live.as_ref().unwrap().crashes, 0);
    // What it found again it keeps, secrets and all.
    docker(&["kill", &world.container("api", Slot::Blue).await]).await;
    eventually("another container serves", || async {
        get(port, "/").await.is_ok_and(|a| a.0 == 200 && a.1 != service && a.1.ends_with(" secret-token"))
    })
    .await;
    let state = std::fs::read_to_string(world.paths().state_file()).unwrap();
    assert!(!state.contains("secret-token"));
}

async fn a_supervisor_killed_at_any_moment_of_a_cut_over_comes_back_to_one_of_the_two_states(world: Arc<World>) {
    let name: ServiceName = "worker".parse().unwrap();
    let specs = |n: &str| vec![spec("api", &[("N", n)]), worker(&[("N", n)])];
    let [one, two] = ["1", "2"].map(|n| release(n, specs(n)));
    world.release(&one, Slot::Blue).await.unwrap();
    for spec in &two.services {
        world.target.stand_up(spec, Slot::Green, &two).await.unwrap();
        world.ready(&spec.name, Slot::Green).await;
    }
    let (mut slot, mut made) = (Slot::Blue, 0);
    for millis in [0, 3, 6, 10, 15, 22, 30, 60] {
        let before = world.target.observe().await.unwrap();
        let wanted = if slot == Slot::Blue { &two } else { &one };
        let wish = CutOver { change: Change::Rollback, ..moving(wanted, slot.other(), before.generation) };
        let pid = world.target.hello().await.unwrap().pid;
        let cutting = world.clone();
        let cut = tokio::spawn(async move { cutting.target.cut_over(&wish).await });
        tokio::time::sleep(Duration::from_millis(millis)).await;
        kill(pid);
        let told = cut.await.unwrap();
        eventually("the supervisor is gone", || async { !is_running(pid) }).await;
        let after = world.target.observe().await.unwrap();
        let moved = after.generation == before.generation.next();
        // What was acknowledged is durable.
        assert!(moved || (after.generation == before.generation && told.is_err()));
        made += u32::from(moved);
        slot = if moved { slot.other() } else { slot };
        eventually("the live slot answers, and its worker alone is active", || async {
            let seen = world.target.observe().await.unwrap().services[&name].clone();
            let whole = |s: &plimsoll_deploy::SlotView| s.slot == slot && s.ready == 1 && s.active.is_some();
            get(world.port("api").await, "/").await.is_ok_and(|a| a.0 == 200 && a.1.starts_with(slot.as_str()))
                && seen.live.is_some_and(|s| whole(&s))
                && seen.standby.is_some_and(|s| s.ready == 1 && s.active.is_none())
        })
        .await;
        assert!(!world.directory.path().join("state/staging/worker/violation").exists());
    }
    // None of it cost a container its life.
    assert_eq!(containers(&world.paths(), true).await.len(), 4);
    println!("supervisor killed inside 8 cut-overs between containers, {made} of them made");
}

async fn no_request_fails_while_a_real_client_calls_across_ten_cut_overs(world: Arc<World>) {
    let [one, two] = ["1", "2"].map(|n| release(n, vec![spec("api", &[("N", n)])]));
    world.release(&one, Slot::Blue).await.unwrap();
    world.target.stand_up(&two.services[0], Slot::Green, &two).await.unwrap();
    world.ready(&api(), Slot::Green).await;
    let url = format!("http://127.0.0.1:{}/", world.port("api").await);
    let cmd = Cmd::new("wrk").args(["-t1", "-c16", "-d8s", &url]).inherit_base(&Environment::capture());
    let load = tokio::spawn(async move { plimsoll_process::output(&cmd, &Cancel::new()).await });
    for round in 1..=10 {
        let to = if round % 2 == 1 { Slot::Green } else { Slot::Blue };
        let release = if round % 2 == 1 { &two } else { &one };
        let wish = CutOver { change: Change::Rollback, ..moving(release, to, Generation(round)) };
        world.target.cut_over(&wish).await.unwrap();
        world.target.drain(&api(), to.other(), Duration::from_secs(5)).await.unwrap();
    }
    if load.is_finished() {
        let error = load.await.unwrap().map(|_| "it was done before the cut-overs".to_owned());
        println!("skipped: wrk as the client: {error:?}");
        return;
    }
    let said = load.await.unwrap().unwrap().stdout_text().into_owned();
    assert!(said.contains("requests in") && !said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    println!("ten cut-overs between containers under wrk:\n{said}");
}

async fn what_belongs_nowhere_is_removed_by_the_next_supervisor_and_what_is_not_ours_stays(world: Arc<World>) {
    world.release(&release("1.0.0", vec![spec("api", &[])]), Slot::Blue).await.unwrap();
    let image = crate::images::name().at(crate::images::version(1)).to_string();
    let ours = format!("dev.plimsoll.project={}", project(&world.paths()));
    let (orphan, foreign) = (
        format!("plimsoll-test-orphan-{}", project(&world.paths())),
        format!("plimsoll-test-foreign-{}", project(&world.paths())),
    );
    docker(&[
        "run",
        "--detach",
        "--label",
        &ours,
        "--name",
        &orphan,
        "--env",
        "HOST=127.0.0.1",
        "--env",
        "PORT=80",
        &image,
    ])
    .await;
    docker(&["create", "--label", "dev.plimsoll.project=another", "--name", &foreign, &image]).await;
    docker(&["network", "create", "--label", &ours, "--label", "dev.plimsoll.environment=gone", &orphan]).await;
    let service = world.get("api", "/").await;
    kill_supervisor(&world).await;
    world.target.hello().await.unwrap();
    let there = left(&world.paths()).await;
    assert!(!there.contains(&orphan), "{there}");
    assert_eq!(inspect(&foreign, "{{.State.Status}}").await, "created");
    docker(&["rm", &foreign]).await;
    assert_eq!(world.get("api", "/").await, service);
}

async fn after_a_reboot_the_next_supervisor_starts_everything_again_on_the_same_port(world: Arc<World>) {
    let mut front = spec("front", &[]);
    front.depends_on = vec![api()];
    world.release(&release("1.0.0", vec![spec("api", &[]), front, worker(&[])]), Slot::Blue).await.unwrap();
    let (port, hello) = (world.port("api").await, world.target.hello().await.unwrap());
    let before = containers(&world.paths(), false).await;
    // What a reboot leaves: no process, and containers that have ended and that no restart policy brings back.
    kill(hello.pid);
    kill(hello.proxy.unwrap());
    let names: Vec<&str> = before.iter().map(String::as_str).collect();
    docker(&[&["kill"][..], &names].concat()).await;
    eventually("nothing runs", || async {
        !is_running(hello.pid) && containers(&world.paths(), false).await.is_empty()
    })
    .await;
    assert!(get(port, "/").await.is_err());
    world.target.observe().await.unwrap();
    eventually("all serve again", || async {
        let peer = get(world.port("front").await, "/peer").await;
        peer.is_ok_and(|a| a.0 == 200) && get(port, "/").await.is_ok_and(|a| a.1.starts_with("blue "))
    })
    .await;
    assert_eq!(containers(&world.paths(), true).await, before);
    eventually("the worker is active again", || async {
        let seen = world.target.observe().await.unwrap().services[&"worker".parse::<ServiceName>().unwrap()].clone();
        seen.live.is_some_and(|s| s.active == Some(Generation(1)))
    })
    .await;
}

/// A way to the engine that can be cut.
struct Wire {
    path: PathBuf,
    running: tokio::task::JoinHandle<()>,
}

impl Wire {
    fn lay(path: PathBuf) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        let running = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                open.spawn(async move {
                    let mut far = UnixStream::connect(engine::socket()).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { path, running }
    }

    /// Ends every connection, and refuses new ones.
    async fn cut(self) -> PathBuf {
        self.running.abort();
        let _ = self.running.await;
        std::fs::remove_file(&self.path).unwrap();
        self.path
    }
}

async fn while_the_engine_does_not_answer_containers_serve_and_nothing_is_handed_over(world: Arc<World>) {
    let wire = Wire::lay(world.directory.path().join("engine.sock"));
    let target = world.through(&wire.path);
    let specs = |n: &str| vec![spec("api", &[("N", n)]), worker(&[("N", n)])];
    let [one, two] = ["1", "2"].map(|n| release(n, specs(n)));
    for (release, slot) in [(&one, Slot::Blue), (&two, Slot::Green)] {
        for spec in &release.services {
            target.stand_up(spec, slot, release).await.unwrap();
            world.ready(&spec.name, slot).await;
        }
        if slot == Slot::Blue {
            target.cut_over(&moving(&one, Slot::Blue, Generation(0))).await.unwrap();
        }
    }
    let (port, service) = (world.port("api").await, world.get("api", "/").await);
    let path = wire.cut().await;
    // The supervisor dies too: the next one cannot know what runs, and starts nothing in place of it.
    kill_supervisor(&world).await;
    let seen = target.observe().await.unwrap();
    let live = seen.services[&api()].live.clone().unwrap();
    assert!(live.failing.as_ref().is_some_and(|f| f.contains("no Docker Engine answers")), "{live:?}");
    assert_eq!(get(port, "/").await.unwrap(), (200, service.clone()));
    let refused = target.retire(&api(), Slot::Green).await.unwrap_err();
    assert!(refused.to_string().contains("-staging-api-green-0"), "{refused}");

    // It answers again: every container is the one that it was, and the releases go on.
    let wire = Wire::lay(path);
    eventually("what is live is found again", || async {
        let seen = target.observe().await.unwrap();
        let found =
            |s: &plimsoll_deploy::ServiceView| s.live.as_ref().is_some_and(|l| l.ready == 1 && l.failing.is_none());
        seen.services.values().all(found)
    })
    .await;
    assert_eq!(get(port, "/").await.unwrap(), (200, service));
    // Its keeper asks first whether it is ready, and then whether it works.
    eventually("the worker works on under its generation", || async {
        let worker = &target.observe().await.unwrap().services[&"worker".parse::<ServiceName>().unwrap()];
        worker.live.as_ref().unwrap().active == Some(Generation(1))
    })
    .await;
    target.retire(&api(), Slot::Green).await.unwrap();
    assert!(!world.directory.path().join("state/staging/worker/violation").exists());

    // What cannot be ended is not said to be, and is ended when it can.
    let path = wire.cut().await;
    let refused = target.down().await.unwrap_err();
    assert!(refused.to_string().contains("end plimsoll-"), "{refused}");
    let wire = Wire::lay(path);
    target.down().await.unwrap();
    drop(wire);
}
