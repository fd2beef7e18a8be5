//! The scenarios. Names are sentences.

#![expect(clippy::disallowed_macros, reason = "figures are part of what the test shows")]

use crate::{
    conformance::the_target_passes_the_suite_of_all_targets,
    harness::scenarios,
    target::BY_ITSELF,
    world::{World, eventually, get, is_running, kill, moving, release, spec, worker},
};
use plimsoll_core::{Generation, RunId, ServiceName, Slot, Timestamp};
use plimsoll_deploy::{LockOutcome, LockOwner, Target as _, TargetError};
use plimsoll_local::supervisor::Launch;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

scenarios![
    the_target_passes_the_suite_of_all_targets,
    a_release_serves_after_its_cut_over_and_the_old_slot_can_be_emptied,
    a_killed_supervisor_leaves_everything_running_and_the_next_finds_it_again,
    supervisor_and_proxy_killed_together_come_back_on_the_same_port,
    a_crash_loop_is_slowed_down_counted_and_told_with_its_last_lines,
    a_slot_that_never_becomes_ready_is_not_cut_over_to,
    a_process_that_ignores_sigterm_is_killed_after_its_grace,
    of_two_cut_overs_at_the_same_time_one_is_stale,
    a_worker_is_handed_over_without_two_ever_being_active,
    a_supervisor_killed_at_any_moment_of_a_cut_over_comes_back_to_one_of_the_two_states,
    what_a_killed_supervisor_left_is_ended_by_down,
    a_peek_starts_nothing_and_says_what_runs,
    a_torn_state_file_gives_way_to_the_one_before_it,
    a_stopped_environment_answers_503_and_starts_again,
    a_public_port_in_use_is_refused_with_its_owner,
    the_registry_keeps_its_port,
    a_registry_serves_on_without_its_supervisor_and_is_found_again,
    the_lock_is_refused_to_a_second_run_until_it_lapses,
];

fn api() -> ServiceName {
    "api".parse().unwrap()
}

fn pid_in(body: &str) -> u32 {
    body.split(' ').nth(1).unwrap().parse().unwrap()
}

async fn a_release_serves_after_its_cut_over_and_the_old_slot_can_be_emptied(world: Arc<World>) {
    let mut dependent = spec("front", &[]);
    dependent.depends_on = vec![api()];
    let first = release("1.0.0", vec![spec("api", &[]), dependent.clone()]);
    let done = world.release(&first, Slot::Blue).await.unwrap();
    assert_eq!(done.live.generation, Generation(1));
    assert!(world.get("api", "/").await.starts_with("blue "));
    assert_eq!(world.get("front", "/peer").await, format!("http://127.0.0.1:{}", world.port("api").await));
    assert!(world.get("front", "/version").await.contains(r#""version":"1.0.0""#));

    // Only one service moves; the other one answers with the new release all the same.
    let second = release("1.1.0", vec![spec("api", &[("NEW", "1")]), dependent]);
    world.target.stand_up(&second.services[0], Slot::Green, &second).await.unwrap();
    world.ready(&api(), Slot::Green).await;
    assert!(world.get("api", "/").await.starts_with("blue "));
    let mut wish = moving(&second, Slot::Green, Generation(1));
    wish.moves.truncate(1);
    let done = world.target.cut_over(&wish).await.unwrap();
    assert!(done.switch_micros > 0);
    assert!(world.get("api", "/").await.starts_with("green "));
    assert!(world.get("front", "/").await.starts_with("blue "));
    let identity = world.get("front", "/version").await;
    assert!(identity.contains(r#""version":"1.1.0""#) && identity.contains(r#""generation":2"#), "{identity}");

    let old = world.target.observe().await.unwrap();
    assert_eq!((old.history.len(), old.history[0].version.as_str()), (1, "1.0.0"));
    let traffic = world.target.traffic(&api(), Slot::Green).await.unwrap().total();
    assert_eq!((traffic.real.requests, traffic.real.failed), (1, 0));
    assert!(matches!(world.target.retire(&api(), Slot::Green).await, Err(TargetError::Refused { .. })));
    world.target.drain(&api(), Slot::Blue, Duration::from_secs(1)).await.unwrap();
    world.target.retire(&api(), Slot::Blue).await.unwrap();
    world.target.retire(&api(), Slot::Blue).await.unwrap();
    assert_eq!(world.target.observe().await.unwrap().services[&api()].standby, None);
    assert!(world.get("api", "/").await.starts_with("green "));
}

/// A client that connects again and again until it is told to stop; returns how many answers it got and what went wrong.
fn hammer(port: u16, path: &'static str, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<(usize, Vec<String>)> {
    tokio::spawn(async move {
        let (mut answers, mut refused) = (0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            match get(port, path).await {
                Ok((200, _)) => answers += 1,
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => refused.push(e.to_string()),
                Ok((status, _)) => refused.push(format!("answered {status}")),
                // In flight when the proxy died.
                Err(_) => {}
            }
        }
        (answers, refused)
    })
}

async fn a_killed_supervisor_leaves_everything_running_and_the_next_finds_it_again(world: Arc<World>) {
    let mut with_secret = spec("api", &[]);
    with_secret.secret_env.insert("TOKEN".to_owned(), "token".to_owned());
    world.release(&release("1.0.0", vec![with_secret]), Slot::Blue).await.unwrap();
    let (port, before) = (world.port("api").await, world.target.hello().await.unwrap());
    let service = world.get("api", "/").await;
    kill(before.pid);
    eventually("the supervisor is gone", || async { !is_running(before.pid) }).await;
    assert_eq!(get(port, "/").await.unwrap(), (200, service.clone()));

    let after = world.target.hello().await.unwrap();
    assert_ne!(after.pid, before.pid);
    assert_eq!(after.proxy, before.proxy);
    assert_eq!(world.get("api", "/").await, service);
    // It holds the listeners again: a proxy that dies now is replaced on the same port.
    kill(after.proxy.unwrap());
    eventually("the next proxy serves", || async { get(port, "/").await.is_ok_and(|a| a == (200, service.clone())) })
        .await;
    // And it keeps what it found again, secrets and all.
    kill(pid_in(&service));
    eventually("another process serves", || async {
        get(port, "/").await.is_ok_and(|a| a.0 == 200 && a.1 != service && a.1.ends_with(" secret-token"))
    })
    .await;
    assert_eq!(world.target.observe().await.unwrap().services[&api()].live.as_ref().unwrap().crashes, 1);
    let state = std::fs::read_to_string(world.paths().state_file()).unwrap();
    assert!(!state.contains("secret-token"));
}

async fn supervisor_and_proxy_killed_together_come_back_on_the_same_port(world: Arc<World>) {
    world.release(&release("1.0.0", vec![spec("api", &[])]), Slot::Blue).await.unwrap();
    let (port, service) = (world.port("api").await, world.get("api", "/").await);
    let hello = world.target.hello().await.unwrap();
    kill(hello.pid);
    kill(hello.proxy.unwrap());
    eventually("both are gone", || async { !is_running(hello.pid) && !is_running(hello.proxy.unwrap()) }).await;
    world.target.hello().await.unwrap();
    eventually("it serves", || async { get(port, "/").await.is_ok_and(|a| a == (200, service.clone())) }).await;
}

async fn a_crash_loop_is_slowed_down_counted_and_told_with_its_last_lines(world: Arc<World>) {
    for (mode, exit) in [("crash", "code 3"), ("exit-0", "code 0")] {
        let bad = release("1.0.0", vec![spec("api", &[("MODE", mode)])]);
        let began = Instant::now();
        world.target.stand_up(&bad.services[0], Slot::Blue, &bad).await.unwrap();
        let standby = || async { world.target.observe().await.unwrap().services[&api()].standby.clone().unwrap() };
        eventually("three crashes", || async { standby().await.crashes >= 3 }).await;
        // 100 and 200 ms lie between three crashes.
        assert!(began.elapsed() >= Duration::from_millis(300));
        let failing = standby().await.failing.unwrap();
        assert!(failing.contains(exit) && failing.contains(&format!("begins as {mode}")), "{failing}");
        let refused = world.target.cut_over(&moving(&bad, Slot::Blue, Generation(0))).await.unwrap_err();
        assert!(matches!(&refused, TargetError::Slot { .. }), "{refused}");
        let log = world.target.logs(&api(), Slot::Blue, 2).await.unwrap();
        assert_eq!(log.last().unwrap(), &format!("begins as {mode}"));
    }
}

async fn a_slot_that_never_becomes_ready_is_not_cut_over_to(world: Arc<World>) {
    world.release(&release("1.0.0", vec![spec("api", &[])]), Slot::Blue).await.unwrap();
    let mut never = spec("api", &[("MODE", "never-ready")]);
    never.health.deadline_ms = 100;
    let bad = release("1.1.0", vec![never]);
    world.target.stand_up(&bad.services[0], Slot::Green, &bad).await.unwrap();
    let refused = world.target.cut_over(&moving(&bad, Slot::Green, Generation(1))).await.unwrap_err();
    assert!(matches!(&refused, TargetError::Slot { .. }), "{refused}");
    let standby = || async { world.target.observe().await.unwrap().services[&api()].standby.clone().unwrap() };
    eventually("its deadline is over", || async { standby().await.failing.is_some() }).await;
    assert!(standby().await.failing.unwrap().contains("/ready answered 302"));
    assert!(world.get("api", "/").await.starts_with("blue "));
    assert_eq!(world.target.observe().await.unwrap().generation, Generation(1));
}

async fn a_process_that_ignores_sigterm_is_killed_after_its_grace(world: Arc<World>) {
    let deaf = release("1.0.0", vec![spec("api", &[("MODE", "ignore-sigterm")])]);
    world.target.stand_up(&deaf.services[0], Slot::Blue, &deaf).await.unwrap();
    world.ready(&api(), Slot::Blue).await;
    let endpoint = world.target.endpoints(&api(), Slot::Blue).await.unwrap().remove(0);
    let (_, body) = get(endpoint.rsplit(':').next().unwrap().parse().unwrap(), "/").await.unwrap();
    let began = Instant::now();
    world.target.retire(&api(), Slot::Blue).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(500));
    assert!(!is_running(pid_in(&body)));
}

async fn of_two_cut_overs_at_the_same_time_one_is_stale(world: Arc<World>) {
    let first = release("1.0.0", vec![spec("api", &[])]);
    world.target.stand_up(&first.services[0], Slot::Blue, &first).await.unwrap();
    world.ready(&api(), Slot::Blue).await;
    let wish = moving(&first, Slot::Blue, Generation(0));
    let (one, other) = tokio::join!(world.target.cut_over(&wish), world.target.cut_over(&wish));
    let stale = |outcome: &Result<_, TargetError>| {
        matches!(outcome, Err(TargetError::Stale { current: Generation(1), expected: Generation(0), .. }))
    };
    assert!(one.is_ok() && stale(&other) || other.is_ok() && stale(&one), "{one:?} {other:?}");
    assert_eq!(world.target.observe().await.unwrap().generation, Generation(1));
}

async fn a_worker_is_handed_over_without_two_ever_being_active(world: Arc<World>) {
    let name: ServiceName = "worker".parse().unwrap();
    let active = || async {
        let seen = world.target.observe().await.unwrap().services[&name].clone();
        (seen.live.and_then(|s| s.active), seen.standby.and_then(|s| s.active))
    };
    world.release(&release("1.0.0", vec![worker(&[])]), Slot::Blue).await.unwrap();
    assert_eq!(active().await, (Some(Generation(1)), None));
    let done = world.release(&release("1.1.0", vec![worker(&[("MODE", "stubborn")])]), Slot::Green).await.unwrap();
    assert_eq!(active().await, (Some(Generation(2)), None));
    assert_eq!(done.handover_micros.len(), 1);
    // It does not give up by itself: it is killed before its successor is told.
    world.release(&release("1.2.0", vec![worker(&[("NEW", "2")])]), Slot::Blue).await.unwrap();
    assert_eq!(active().await, (Some(Generation(3)), None));
    // A worker that crashes is activated again; so is one that a new supervisor finds.
    kill(pid_in(&world.get("worker", "/").await));
    eventually("it is active again", || async { active().await == (Some(Generation(3)), None) }).await;
    let pid = world.target.hello().await.unwrap().pid;
    kill(pid);
    eventually("the supervisor is gone", || async { !is_running(pid) }).await;
    eventually("it is active again", || async { active().await == (Some(Generation(3)), None) }).await;
    assert!(!world.directory.path().join("state/staging/worker/violation").exists());
}

async fn a_supervisor_killed_at_any_moment_of_a_cut_over_comes_back_to_one_of_the_two_states(world: Arc<World>) {
    let name: ServiceName = "worker".parse().unwrap();
    let mut slot = Slot::Blue;
    world.release(&release("0", vec![spec("api", &[]), worker(&[])]), slot).await.unwrap();
    // From before the first step to after the last one, which takes ten milliseconds and on a busy machine some more.
    let mut made = 0;
    for (round, millis) in [0, 2, 4, 7, 11, 16, 20, 25, 30, 40, 55, 80].into_iter().enumerate() {
        let new = round.to_string();
        let next = release(&new, vec![spec("api", &[("N", &new)]), worker(&[("N", &new)])]);
        for spec in &next.services {
            world.target.stand_up(spec, slot.other(), &next).await.unwrap();
            world.ready(&spec.name, slot.other()).await;
        }
        let before = world.target.observe().await.unwrap();
        let pid = world.target.hello().await.unwrap().pid;
        let wish = moving(&next, slot.other(), before.generation);
        let cutting = world.clone();
        let cut = tokio::spawn(async move { cutting.target.cut_over(&wish).await });
        tokio::time::sleep(Duration::from_millis(millis)).await;
        kill(pid);
        let told = cut.await.unwrap();
        eventually("the supervisor is gone", || async { !is_running(pid) }).await;
        let after = world.target.observe().await.unwrap();
        let moved = after.generation == before.generation.next();
        assert!(moved || after.generation == before.generation);
        // What was acknowledged is durable.
        assert!(moved || told.is_err());
        made += u32::from(moved);
        slot = if moved { slot.other() } else { slot };
        for service in ["api", "worker"] {
            eventually("the live slot answers", || async {
                let port = world.port(service).await;
                get(port, "/").await.is_ok_and(|a| a.0 == 200 && a.1.starts_with(slot.as_str()))
            })
            .await;
        }
        eventually("the live worker is active", || async {
            let seen = world.target.observe().await.unwrap().services[&name].clone();
            seen.live.is_some_and(|s| s.slot == slot && s.active.is_some())
                && seen.standby.is_none_or(|s| s.active.is_none())
        })
        .await;
        assert!(!world.directory.path().join("state/staging/worker/violation").exists());
    }
    println!("supervisor killed inside 12 cut-overs, {made} of them made");
}

async fn what_a_killed_supervisor_left_is_ended_by_down(world: Arc<World>) {
    world.release(&release("1.0.0", vec![spec("api", &[])]), Slot::Blue).await.unwrap();
    let (hello, service) = (world.target.hello().await.unwrap(), pid_in(&world.get("api", "/").await));
    kill(hello.pid);
    eventually("the supervisor is gone", || async { !is_running(hello.pid) }).await;
    world.target.down().await.unwrap();
    assert!(!is_running(service) && !is_running(hello.proxy.unwrap()));
    // The state stays: the next command starts everything again, on the same port.
    assert!(world.get("api", "/").await.starts_with("blue "));
}

async fn a_peek_starts_nothing_and_says_what_runs(world: Arc<World>) {
    let started = || world.paths().supervisor_log().exists();
    assert_eq!((world.target.peek().await.unwrap(), started()), (None, false));
    world.release(&release("1.0.0", vec![spec("api", &[])]), Slot::Blue).await.unwrap();
    let observed = world.target.observe().await.unwrap();
    assert_eq!(world.target.peek().await.unwrap().as_ref(), Some(&observed));
    // A service whose supervisor was killed goes on, and is seen to.
    let hello = world.target.hello().await.unwrap();
    kill(hello.pid);
    eventually("the supervisor is gone", || async { !is_running(hello.pid) }).await;
    assert_eq!(world.target.peek().await.unwrap(), Some(observed));
    world.target.down().await.unwrap();
    let seen = world.target.peek().await.unwrap().unwrap();
    let live = seen.services[&api()].live.clone().unwrap();
    assert_eq!((seen.generation, live.ready, live.replicas), (Generation(1), 0, 1));
    assert!(live.failing.unwrap().contains("`cargo xtask start staging`"));
    assert!(!world.paths().supervisor_socket().exists() && !is_running(hello.proxy.unwrap()));
}

async fn a_torn_state_file_gives_way_to_the_one_before_it(world: Arc<World>) {
    world.release(&release("1.0.0", vec![spec("api", &[])]), Slot::Blue).await.unwrap();
    let owner = LockOwner { run: RunId::new(Timestamp::from_millis(0), 7), actor: "ann".to_owned() };
    world.target.lock(&owner, Duration::from_mins(1)).await.unwrap();
    let (port, hello) = (world.port("api").await, world.target.hello().await.unwrap());
    kill(hello.pid);
    eventually("the supervisor is gone", || async { !is_running(hello.pid) }).await;
    let file = world.paths().state_file();
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 3]).unwrap();
    let seen = world.target.observe().await.unwrap();
    // The lock was the last thing written.
    assert_eq!((seen.generation, seen.lock), (Generation(1), None));
    assert!(get(port, "/").await.unwrap().1.starts_with("blue "));
    assert!(file.with_extension("json.damaged").exists());
}

async fn a_stopped_environment_answers_503_and_starts_again(world: Arc<World>) {
    world.release(&release("1.0.0", vec![spec("api", &[]), worker(&[])]), Slot::Blue).await.unwrap();
    let pid = pid_in(&world.get("api", "/").await);
    assert!(matches!(world.target.stop(Generation(0), "ann", None).await, Err(TargetError::Stale { .. })));
    assert_eq!(world.target.stop(Generation(1), "ann", None).await.unwrap(), Generation(2));
    assert!(!is_running(pid));
    assert_eq!(get(world.port("api").await, "/").await.unwrap().0, 503);
    let seen = world.target.observe().await.unwrap();
    assert!(seen.stopped && seen.live.is_some());
    assert_eq!(world.target.start(Generation(2), "ann").await.unwrap(), Generation(3));
    assert!(world.get("api", "/").await.starts_with("blue "));
    let seen = world.target.observe().await.unwrap();
    assert_eq!(seen.services[&"worker".parse().unwrap()].live.as_ref().unwrap().active, Some(Generation(3)));
}

async fn a_public_port_in_use_is_refused_with_its_owner(world: Arc<World>) {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut wish = release("1.0.0", vec![spec("api", &[])]);
    wish.services[0].public_port = Some(port);
    let refused = world.target.stand_up(&wish.services[0], Slot::Blue, &wish).await.unwrap_err();
    let text = refused.to_string();
    assert!(text.contains(&port.to_string()) && text.contains(&format!("process {}", std::process::id())), "{text}");
}

async fn the_registry_keeps_its_port(world: Arc<World>) {
    let own = std::env::current_exe().unwrap();
    let launch = Launch { program: own, args: vec!["role:registry".to_owned()] };
    let url = world.target.ensure_registry(launch.clone()).await.unwrap();
    let port = url.rsplit(':').next().unwrap().parse().unwrap();
    let first: u32 = get(port, "/v2/").await.unwrap().1.parse().unwrap();
    kill(first);
    let (_, second) = get(port, "/v2/").await.unwrap();
    assert_ne!(second, first.to_string());
    world.target.down().await.unwrap();
    assert!(!is_running(second.parse().unwrap()));
    assert_eq!(world.target.ensure_registry(launch).await.unwrap(), url);
    assert_eq!(get(port, "/v2/").await.unwrap().0, 200);
}

async fn a_registry_serves_on_without_its_supervisor_and_is_found_again(world: Arc<World>) {
    let launch = Launch { program: std::env::current_exe().unwrap(), args: vec!["role:registry".to_owned()] };
    let url = world.target.ensure_registry(launch.clone()).await.unwrap();
    let port = url.rsplit(':').next().unwrap().parse().unwrap();
    let (_, first) = get(port, "/v2/").await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let client = hammer(port, "/v2/", stop.clone());
    let supervisor = world.target.hello().await.unwrap().pid;
    kill(supervisor);
    eventually("the supervisor is gone", || async { !is_running(supervisor) }).await;
    assert_eq!(world.target.ensure_registry(launch).await.unwrap(), url);
    stop.store(true, Ordering::Relaxed);
    let (answers, refused) = client.await.unwrap();
    assert!(answers > 0 && refused.is_empty(), "{answers} answers, {refused:?}");
    assert_eq!(get(port, "/v2/").await.unwrap(), (200, first.clone()));
    // Its listener lived in it alone; the port comes back with the next one all the same.
    kill(first.parse().unwrap());
    let died = Instant::now();
    eventually("another one serves", || async { get(port, "/v2/").await.is_ok_and(|a| a.0 == 200 && a.1 != first) })
        .await;
    assert!(died.elapsed() < BY_ITSELF, "{:?}", died.elapsed());
}

async fn the_lock_is_refused_to_a_second_run_until_it_lapses(world: Arc<World>) {
    let owner = |salt| LockOwner { run: RunId::new(Timestamp::from_millis(0), salt), actor: "ann".to_owned() };
    let (one, other) = (owner(1), owner(2));
    let long = Duration::from_mins(1);
    assert!(matches!(world.target.lock(&one, long).await.unwrap(), LockOutcome::Held(_)));
    assert!(matches!(world.target.lock(&other, long).await.unwrap(), LockOutcome::Busy(v) if v.run == one.run));
    world.target.unlock(&other).await.unwrap();
    assert!(matches!(world.target.lock(&one, Duration::from_millis(100)).await.unwrap(), LockOutcome::Held(_)));
    eventually("the lease is over", || async {
        matches!(world.target.lock(&other, long).await.unwrap(), LockOutcome::Held(_))
    })
    .await;
    world.target.unlock(&other).await.unwrap();
    assert_eq!(world.target.observe().await.unwrap().lock, None);
}
