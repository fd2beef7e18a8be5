//! Releases on a share of the requests, with real processes, the real proxy and clients that count.

#![expect(clippy::disallowed_macros, reason = "figures are part of what the test shows")]

use crate::{
    harness::scenarios,
    load::Load,
    world::{World, eventually, get, kill, release, spec},
};
use plimsoll_core::{Generation, ServiceName, Slot};
use plimsoll_deploy::{
    Canary, DriveError, DriveEvent, DriveObserver, Judgement, Outcome, Policy, Release, Target as _,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

scenarios![
    a_canary_that_fails_three_in_a_hundred_requests_gives_its_share_back_by_itself,
    a_canary_that_is_as_good_takes_over_and_no_request_is_lost,
    a_canary_with_hardly_a_request_holds_and_gives_its_share_back,
    a_canary_goes_on_when_proxy_and_supervisor_are_killed_in_it,
];

/// Steps of a second. How long an answer takes says nothing on a machine that has other things to do.
fn canary() -> Canary {
    Canary {
        steps: vec![10, 50],
        step: Duration::from_secs(1),
        hold: Duration::from_mins(2),
        max_p99_diff_ms: 5000,
        interval: Duration::from_millis(50),
        ..Canary::default()
    }
}

fn api() -> ServiceName {
    "api".parse().unwrap()
}

/// The largest share that was told, for those who wait for one.
#[derive(Default)]
struct Told(AtomicU8);

impl DriveObserver for Told {
    fn on(&self, event: &DriveEvent) {
        if let DriveEvent::Trying { share, .. } = event {
            self.0.fetch_max(*share, Relaxed);
        }
    }
}

async fn go(
    world: &World,
    release: Release,
    run: u16,
    canary: Option<Canary>,
    told: &Told,
) -> Result<Outcome, DriveError> {
    let policy = Policy { watch: Duration::ZERO, probes_per_second: 0, canary, ..Policy::default() };
    world.drive(release, run, &policy, told).await
}

async fn first(world: &World) {
    go(world, release("1", vec![spec("api", &[("N", "1")])]), 1, None, &Told::default()).await.unwrap();
}

/// What is there when a canary came to nothing.
async fn untouched(world: &World) {
    let seen = world.target.observe().await.unwrap();
    let view = &seen.services[&api()];
    assert_eq!((seen.generation, view.share, view.standby.is_none(), seen.lock), (Generation(1), 0, true, None));
    assert!(world.get("api", "/").await.starts_with("blue "));
}

async fn a_canary_that_fails_three_in_a_hundred_requests_gives_its_share_back_by_itself(world: Arc<World>) {
    first(&world).await;
    let load = Load::start(&world, "api", 6, 2).await;
    load.more(50).await;
    let begun = Instant::now();
    let bad = release("2", vec![spec("api", &[("N", "2"), ("FAIL_ONE_IN", "33")])]);
    let error = go(&world, bad, 2, Some(canary()), &Told::default()).await.unwrap_err();
    let DriveError::Canary { share, reason, steps, .. } = &error else { panic!("{error:?}") };
    assert!(reason.contains("requests failed, more than"), "{reason}");
    let seen = &steps.last().unwrap().trials[0].seen;
    println!(
        "a canary of {share} % that fails 3 of 100: {} against {} in {:?}: {reason}",
        seen.canary,
        seen.stable,
        begun.elapsed()
    );
    assert!(seen.canary.failed > 0 && seen.stable.failed == 0);
    untouched(&world).await;
    // From now on every answer is good again.
    let port = world.port("api").await;
    for _ in 0..50 {
        assert_eq!(get(port, "/").await.unwrap().0, 200);
    }
    load.stop().await;
}

async fn a_canary_that_is_as_good_takes_over_and_no_request_is_lost(world: Arc<World>) {
    first(&world).await;
    let load = Load::start(&world, "api", 6, 2).await;
    load.more(50).await;
    let good = release("2", vec![spec("api", &[("N", "2")])]);
    let outcome = go(&world, good, 2, Some(canary()), &Told::default()).await.unwrap();
    assert_eq!(outcome.canary.iter().map(|step| step.share).collect::<Vec<_>>(), [10, 50]);
    let trial = &outcome.canary.last().unwrap().trials[0];
    assert_eq!(trial.judgement, Judgement::Promote);
    load.more(50).await;
    let seen = load.stop().await;
    println!("an equal canary: {} against {}; {}", trial.seen.canary, trial.seen.stable, seen.line());
    seen.check(false);
    assert!(seen.blue.load(Relaxed) > 0 && seen.green.load(Relaxed) > 0);
    let now = world.target.observe().await.unwrap();
    assert_eq!((now.generation, now.services[&api()].share), (Generation(2), 0));
    assert!(world.get("api", "/").await.starts_with("green "));
}

async fn a_canary_with_hardly_a_request_holds_and_gives_its_share_back(world: Arc<World>) {
    first(&world).await;
    let port = world.port("api").await;
    let rare = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            get(port, "/").await.unwrap();
        }
    });
    let short = Canary { hold: Duration::from_secs(5), ..canary() };
    let error = go(&world, release("2", vec![spec("api", &[("N", "2")])]), 2, Some(short), &Told::default()).await;
    let DriveError::Canary { share: 10, reason, steps, .. } = error.unwrap_err() else { panic!("another end") };
    println!("a canary with a request a second: {}: {reason}", steps.last().unwrap().trials[0].seen.canary);
    assert!(reason.contains("after 5 s nobody knows yet"), "{reason}");
    untouched(&world).await;
    rare.abort();
}

async fn a_canary_goes_on_when_proxy_and_supervisor_are_killed_in_it(world: Arc<World>) {
    first(&world).await;
    let load = Load::start(&world, "api", 4, 2).await;
    load.more(50).await;
    let told = Arc::new(Told::default());
    let (there, listening) = (world.clone(), told.clone());
    let longer = Canary { step: Duration::from_secs(4), ..canary() };
    let driving = tokio::spawn(async move {
        go(&there, release("2", vec![spec("api", &[("N", "2")])]), 2, Some(longer), &listening).await
    });
    let at = |share| {
        let told = told.clone();
        async move { eventually("the share is given", || async { told.0.load(Relaxed) >= share }).await }
    };
    at(10).await;
    let before = world.target.hello().await.unwrap();
    kill(before.proxy.unwrap());
    eventually("another proxy runs", || async {
        world.target.hello().await.is_ok_and(|hello| hello.proxy.is_some_and(|pid| Some(pid) != before.proxy))
    })
    .await;
    at(50).await;
    kill(before.pid);
    eventually("another supervisor knows the share", || async {
        world.target.observe().await.is_ok_and(|seen| seen.services[&api()].share == 50)
    })
    .await;
    let outcome = driving.await.unwrap().unwrap();
    let seen = load.stop().await;
    println!("a canary with its proxy and its supervisor killed: {}", seen.line());
    seen.check(true);
    assert_eq!(outcome.live.version, "2");
    assert_eq!(world.target.observe().await.unwrap().services[&api()].live.as_ref().unwrap().slot, Slot::Green);
}
