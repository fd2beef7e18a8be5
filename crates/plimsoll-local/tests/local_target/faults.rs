//! Faults at bad moments, with real processes and clients that count. Each prints its figures.

#![expect(clippy::disallowed_macros, reason = "figures are part of what the test shows")]

use crate::{
    harness::scenarios,
    load::{Load, exchange},
    target::BY_ITSELF,
    world::{World, eventually, is_running, kill, moving, release, spec, worker},
};
use futures_util::{SinkExt as _, StreamExt as _};
use plimsoll_core::{Generation, ServiceName, Slot};
use plimsoll_deploy::{Change, CutOver, DriveError, Outcome, Policy, Release, ServiceSpec, SmokeRequest, Target as _};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::{io::BufReader, net::TcpStream};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

scenarios![
    a_proxy_that_is_killed_refuses_no_connect,
    a_proxy_killed_at_any_moment_of_a_cut_over_leaves_one_of_two_releases_serving,
    while_a_killed_supervisor_is_away_no_request_is_lost,
    a_release_that_crashes_after_the_switch_is_taken_back,
    slow_requests_and_a_web_socket_survive_a_cut_over_under_load,
    kept_connections_are_never_reset_at_a_cut_over,
    of_two_drives_at_the_same_time_one_is_told_who_holds_the_lock,
    a_release_that_never_gets_ready_leaves_production_as_it_was,
    no_order_is_placed_twice_and_none_by_a_standby,
];

fn api() -> ServiceName {
    "api".parse().unwrap()
}

/// Two releases that stand in blue and green, the first live.
async fn two_releases(world: &World, specs: impl Fn(&str) -> Vec<ServiceSpec>) -> [Release; 2] {
    let [one, two] = ["1", "2"].map(|version| release(version, specs(version)));
    world.release(&one, Slot::Blue).await.unwrap();
    for spec in &two.services {
        world.target.stand_up(spec, Slot::Green, &two).await.unwrap();
        world.ready(&spec.name, Slot::Green).await;
    }
    [one, two]
}

/// The cut-over to the release that does not serve now.
async fn other_way(world: &World, releases: &[Release; 2]) -> (CutOver, Slot) {
    let seen = world.target.observe().await.unwrap();
    let now = seen.live.unwrap();
    let to = now.services.values().next().unwrap().slot.other();
    let release = &releases[usize::from(to == Slot::Green)];
    (CutOver { change: Change::Rollback, ..moving(release, to, seen.generation) }, to)
}

/// Milliseconds below `bound`, the same for a seed on every machine.
fn clocked(seed: u64, bound: u64) -> u64 {
    // The finaliser of splitmix64.
    let mut z = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (z ^ (z >> 27)) % bound
}

async fn proxy_pid(world: &World, other_than: u32) -> u32 {
    eventually("another proxy runs", || async {
        world.target.hello().await.unwrap().proxy.is_some_and(|pid| pid != other_than)
    })
    .await;
    world.target.hello().await.unwrap().proxy.unwrap()
}

async fn a_proxy_that_is_killed_refuses_no_connect(world: Arc<World>) {
    world.release(&release("1", vec![spec("api", &[])]), Slot::Blue).await.unwrap();
    let load = Load::start(&world, "api", 4, 4).await;
    let (mut proxy, mut slowest) = (0, Duration::ZERO);
    for _ in 0..10 {
        proxy = proxy_pid(&world, proxy).await;
        load.more(50).await;
        kill(proxy);
        let killed = Instant::now();
        eventually("it is dead", || async { !is_running(proxy) }).await;
        load.more(10).await;
        slowest = slowest.max(killed.elapsed());
    }
    let seen = load.stop().await;
    println!("proxy killed 10 times under load: {}; served again after {slowest:?} at most", seen.line());
    seen.check(true);
    // At most what was in flight is lost: one request per client and kill.
    assert!(seen.broken.load(Relaxed) <= 80 && slowest < BY_ITSELF, "{slowest:?}");
}

async fn a_proxy_killed_at_any_moment_of_a_cut_over_leaves_one_of_two_releases_serving(world: Arc<World>) {
    let releases = two_releases(&world, |n| vec![spec("api", &[("N", n)])]).await;
    let load = Load::start(&world, "api", 3, 3).await;
    let (mut proxy, mut made) = (0, 0);
    for seed in 0..12 {
        let (wish, to) = other_way(&world, &releases).await;
        proxy = proxy_pid(&world, proxy).await;
        load.more(20).await;
        let cutting = world.clone();
        let from = wish.from;
        let cut = tokio::spawn(async move { cutting.target.cut_over(&wish).await });
        tokio::time::sleep(Duration::from_millis(clocked(seed, 25))).await;
        kill(proxy);
        let told = cut.await.unwrap();
        let seen = world.target.observe().await.unwrap();
        let moved = seen.generation == from.next();
        assert!(moved || (seen.generation == from && told.is_err()), "{told:?}");
        made += u32::from(moved);
        let live = if moved { to } else { to.other() };
        assert_eq!(seen.services[&api()].live.as_ref().unwrap().slot, live);
        // Both kinds of clients get their answers from that one, and from no other.
        load.more(20).await;
        for _ in 0..5 {
            assert!(world.get("api", "/").await.starts_with(live.as_str()));
        }
        let file: serde_json::Value =
            serde_json::from_slice(&std::fs::read(world.paths().state_file()).unwrap()).unwrap();
        assert_eq!(file["environments"]["staging"]["generation"], seen.generation.0);
    }
    let seen = load.stop().await;
    println!("proxy killed inside 12 cut-overs, {made} of them made: {}", seen.line());
    seen.check(true);
    assert!(seen.broken.load(Relaxed) <= 12 * 6, "{}", seen.line());
}

async fn while_a_killed_supervisor_is_away_no_request_is_lost(world: Arc<World>) {
    world.release(&release("1", vec![spec("api", &[])]), Slot::Blue).await.unwrap();
    let service = world.get("api", "/").await;
    let load = Load::start(&world, "api", 4, 4).await;
    let mut before = world.target.hello().await.unwrap();
    for _ in 0..5 {
        kill(before.pid);
        eventually("the supervisor is gone", || async { !is_running(before.pid) }).await;
        load.more(100).await;
        let after = world.target.hello().await.unwrap();
        assert_eq!((after.proxy, world.get("api", "/").await), (before.proxy, service.clone()));
        load.more(50).await;
        before = after;
    }
    let seen = load.stop().await;
    println!("supervisor killed 5 times under load: {}", seen.line());
    seen.check(false);
    // With both gone nobody holds the listener: what is counted here is the gap until a command brings them back.
    let load = Load::start(&world, "api", 2, 2).await;
    load.more(20).await;
    let killed = Instant::now();
    kill(before.pid);
    kill(before.proxy.unwrap());
    eventually("both are gone", || async { !is_running(before.pid) && !is_running(before.proxy.unwrap()) }).await;
    assert_ne!(world.target.hello().await.unwrap().proxy, before.proxy);
    load.more(20).await;
    let gap = killed.elapsed();
    let seen = load.stop().await;
    println!("supervisor and proxy killed together: {}; served again after {gap:?}", seen.line());
    assert!(seen.wrong.lock().unwrap().is_empty(), "{:?}", seen.wrong);
    assert_eq!(world.get("api", "/").await, service);
}

fn smoke(path: &str) -> SmokeRequest {
    SmokeRequest {
        method: "GET".to_owned(),
        path: path.to_owned(),
        status: 200,
        contains: None,
        json: BTreeMap::new(),
        headers: BTreeMap::new(),
        max_ms: Some(5000),
    }
}

fn smoked(version: &str, mode: &str) -> ServiceSpec {
    ServiceSpec { smoke: vec![smoke("/version")], ..spec("api", &[("N", version), ("MODE", mode)]) }
}

/// Drives a release as a run of its own.
async fn go(world: &World, release: Release, run: u16, watch: Duration) -> Result<Outcome, DriveError> {
    world.drive(release, run, &Policy { watch, ..Policy::default() }, &()).await
}

async fn a_release_that_crashes_after_the_switch_is_taken_back(world: Arc<World>) {
    go(&world, release("1", vec![smoked("1", "")]), 1, Duration::ZERO).await.unwrap();
    let load = Load::start(&world, "api", 2, 2).await;
    load.more(50).await;
    let bad = release("2", vec![smoked("2", "crash-after-switch")]);
    let begun = Instant::now();
    let error = go(&world, bad, 2, Duration::from_secs(20)).await.unwrap_err();
    let DriveError::Returned { version, reason, probes, .. } = &error else { panic!("{error:?}") };
    assert!(version == "2" && reason.contains("crash"), "{version}: {reason}");
    load.more(50).await;
    let seen = load.stop().await;
    println!(
        "green crashed 50 ms after the switch: back after {:?}: {}; probes {} of {} failed",
        begun.elapsed(),
        seen.line(),
        probes.failed,
        probes.sent
    );
    // Not one is lost: those under way are sent again, those after it wait for blue.
    seen.check(false);
    assert!(world.get("api", "/").await.starts_with("blue "));
    let seen = world.target.observe().await.unwrap();
    assert_eq!((seen.live.unwrap().version.as_str(), seen.lock), ("1", None));
}

async fn slow_requests_and_a_web_socket_survive_a_cut_over_under_load(world: Arc<World>) {
    let releases = two_releases(&world, |n| vec![spec("api", &[("N", n)])]).await;
    let port = world.port("api").await;
    let slow = |millis: u64| {
        tokio::spawn(async move {
            let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
            exchange(&mut stream, &format!("/slow/{millis}"), true).await
        })
    };
    let requests: Vec<_> = (0..100).map(|_| slow(2000)).collect();
    let beyond = slow(60_000);
    let url = format!("ws://127.0.0.1:{port}/ws");
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    socket.send(Message::text("before")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("before"));
    eventually("all are under way", || async {
        world.target.traffic(&api(), Slot::Blue).await.unwrap().total().real.in_flight == 102
    })
    .await;
    let load = Load::start(&world, "api", 4, 4).await;
    load.more(50).await;
    let (wish, to) = other_way(&world, &releases).await;
    let done = world.target.cut_over(&wish).await.unwrap();
    let old = load.seen.blue.load(Relaxed);
    let deadline = Duration::from_secs(4);
    let begun = Instant::now();
    let draining = world.clone();
    let drain = tokio::spawn(async move { draining.target.drain(&api(), to.other(), deadline).await.unwrap() });
    let Message::Close(Some(close)) = socket.next().await.unwrap().unwrap() else { panic!("no close frame") };
    assert_eq!(close.code, CloseCode::Away);
    let (_, again) = tokio_tungstenite::connect_async(&url).await.unwrap();
    assert_eq!(again.headers()["x-plimsoll-slot"], to.as_str());
    let mut finished = 0;
    for request in requests {
        let (status, body, _) = request.await.unwrap().unwrap();
        finished += u64::from(status == 200 && body.starts_with("blue "));
    }
    let (status, body, _) = beyond.await.unwrap().unwrap();
    let report = drain.await.unwrap();
    let late = begun.elapsed().saturating_sub(deadline);
    let seen = load.stop().await;
    println!(
        "switch in {} us: 100 slow requests, {finished} finished on blue; drain {report:?}, {late:?} late; {}",
        done.switch_micros,
        seen.line()
    );
    assert_eq!(finished, 100);
    assert!(status == 504 && body.contains("drain"), "{status} {body}");
    assert_eq!((report.timed_out, report.aborted, report.websockets_closed), (1, 0, 1));
    assert!(begun.elapsed() >= deadline && late < BY_ITSELF, "{late:?}");
    seen.check(false);
    // What was on its way to blue at the switch, one per client at most, was answered there; nothing after it.
    assert!(seen.blue.load(Relaxed) <= old + 8 && seen.green.load(Relaxed) > 100, "{}", seen.line());
}

async fn kept_connections_are_never_reset_at_a_cut_over(world: Arc<World>) {
    let releases = two_releases(&world, |n| vec![spec("api", &[("N", n)])]).await;
    let load = Load::start(&world, "api", 16, 0).await;
    let (mut cut_overs, mut slowest) = (0, 0);
    while cut_overs < 100 || load.seen.answered() < 100_000 {
        load.more(if cut_overs < 100 { 1000 } else { 100 }).await;
        let (wish, to) = other_way(&world, &releases).await;
        slowest = slowest.max(world.target.cut_over(&wish).await.unwrap().switch_micros);
        let report = world.target.drain(&api(), to.other(), Duration::from_secs(5)).await.unwrap();
        assert_eq!((report.timed_out, report.aborted), (0, 0));
        cut_overs += 1;
    }
    let seen = load.stop().await;
    println!("{cut_overs} cut-overs under 16 kept connections, {slowest} us at most: {}", seen.line());
    seen.check(false);
    for slot in [&seen.blue, &seen.green] {
        assert!(slot.load(Relaxed) > 1000, "{}", seen.line());
    }
}

async fn of_two_drives_at_the_same_time_one_is_told_who_holds_the_lock(world: Arc<World>) {
    go(&world, release("1", vec![smoked("1", "")]), 1, Duration::ZERO).await.unwrap();
    let next = |n: &str| release(n, vec![smoked(n, "")]);
    let (a, b) = tokio::join!(go(&world, next("2"), 2, Duration::ZERO), go(&world, next("3"), 3, Duration::ZERO));
    let locked = |outcome: &Result<Outcome, DriveError>| matches!(outcome, Err(DriveError::Locked { holder, .. }) if holder.actor == "ann");
    let winner = match (&a, &b) {
        (Ok(done), _) if locked(&b) => done,
        (_, Ok(done)) if locked(&a) => done,
        _ => panic!("{a:?}\n{b:?}"),
    };
    let seen = world.target.observe().await.unwrap();
    assert_eq!((seen.generation, seen.live.as_ref(), &seen.lock), (Generation(2), Some(&winner.live), &None));
    assert!(world.get("api", "/version").await.contains(&format!(r#""version":"{}""#, winner.live.version)));
}

async fn a_release_that_never_gets_ready_leaves_production_as_it_was(world: Arc<World>) {
    go(&world, release("1", vec![smoked("1", "")]), 1, Duration::ZERO).await.unwrap();
    let load = Load::start(&world, "api", 2, 2).await;
    load.more(20).await;
    for (run, mode, why) in [(2, "crash", "code 3"), (3, "exit-0", "code 0"), (4, "never-ready", "/ready answered 302")]
    {
        let mut bad = smoked("2", mode);
        bad.health.deadline_ms = 3000;
        let begun = Instant::now();
        let error = go(&world, release("2", vec![bad]), run, Duration::ZERO).await.unwrap_err();
        let DriveError::NotReady { slot, reason, log_tail, .. } = &error else { panic!("{error:?}") };
        assert!(*slot == Slot::Green && reason.contains(why), "{reason}");
        assert!(log_tail.iter().any(|line| line.contains(&format!("begins as {mode}"))), "{log_tail:?}");
        println!("a release that is {mode} was given up after {:?}", begun.elapsed());
        let seen = world.target.observe().await.unwrap();
        assert_eq!((seen.generation, seen.lock.as_ref()), (Generation(1), None));
        assert_eq!(seen.services[&api()].standby, None);
    }
    load.more(20).await;
    let seen = load.stop().await;
    seen.check(false);
    assert_eq!(seen.green.load(Relaxed), 0);
}

/// The slots that placed orders, one entry for each time that another one goes on; checks that no number is missing
/// or there twice.
fn shifts(book: &str) -> Vec<String> {
    let mut shifts: Vec<String> = Vec::new();
    for (line, number) in book.lines().zip(1..) {
        let (n, slot) = line.split_once(' ').unwrap();
        assert_eq!(n, format!("{number}"), "placed twice or lost: {line}");
        if shifts.last().is_none_or(|last| last != slot) {
            shifts.push(slot.to_owned());
        }
    }
    shifts
}

async fn no_order_is_placed_twice_and_none_by_a_standby(world: Arc<World>) {
    let releases = two_releases(&world, |n| vec![worker(&[("N", n)])]).await;
    let book = world.directory.path().join("state/staging/worker/orders");
    let orders = || std::fs::read_to_string(&book).unwrap_or_default().lines().count();
    let mut gaps = Vec::new();
    let mut expected = vec!["blue".to_owned()];
    for _ in 0..20 {
        let before = orders();
        eventually("orders are placed", || async { orders() > before + 2 }).await;
        let (wish, to) = other_way(&world, &releases).await;
        gaps.push(world.target.cut_over(&wish).await.unwrap().handover_micros[0].1);
        expected.push(to.to_string());
    }
    let before = orders();
    eventually("the last one works", || async { orders() > before + 2 }).await;
    let text = std::fs::read_to_string(&book).unwrap();
    assert_eq!(shifts(&text), expected);
    assert!(!world.directory.path().join("state/staging/worker/violation").exists());
    gaps.sort_unstable();
    let [median, most] = [gaps[10], gaps[19]];
    println!(
        "20 hand-overs of a worker, {} orders: nobody active for {median} us (median), {most} us (most)",
        orders()
    );
}
