//! The API server goes away for a while in the middle of a deployment, as when a control plane is upgraded.

use crate::{
    driving::{deploy, look, quick, reach, with},
    proxy::Proxy,
    world::{World, cluster, spec},
};
use plimsoll_deploy::{Drive, DriveEvent, DriveObserver, Policy, drive};
use std::{
    future::pending,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

/// Whether this is the event at which it goes.
type Moment = fn(&DriveEvent) -> bool;

/// Takes the API server away at the first event that `when` names, and brings it back.
struct Outage {
    proxy: Arc<Proxy>,
    when: Moment,
    length: Duration,
    begun: OnceLock<Instant>,
}

impl DriveObserver for Outage {
    fn on(&self, event: &DriveEvent) {
        if !(self.when)(event) || self.begun.set(Instant::now()).is_err() {
            return;
        }
        self.proxy.away(true);
        let (proxy, length) = (Arc::clone(&self.proxy), self.length);
        tokio::spawn(async move {
            tokio::time::sleep(length).await;
            proxy.away(false);
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_goes_on_when_the_api_server_was_away_while_it_looked_or_waited() {
    let Some(cluster) = cluster().await else { return };
    let world = World::new(cluster, "away");
    let of = |n: &str| vec![spec("gateway", &cluster.images[0], &[("N", n)])];
    reach(&world.target, &deploy(1, "1", of("1"))).await.expect("version 1 is released");
    let proxy = Arc::new(Proxy::start(&cluster.access).await);
    // Standing up begins with a look.
    let moments: [(&str, u16, u64, Moment); 3] = [
        ("while it looks", 2, 60, |event| matches!(event, DriveEvent::StandingUp { .. })),
        ("while it waits", 3, 5, |event| matches!(event, DriveEvent::Waiting { .. })),
        ("while it is watched", 4, 10, |event| matches!(event, DriveEvent::Watching { .. })),
    ];
    for (moment, number, seconds, when) in moments {
        let target = world.target_at(&proxy.access);
        let length = Duration::from_secs(seconds);
        let outage = Outage { proxy: Arc::clone(&proxy), when, length, begun: OnceLock::new() };
        let goal = deploy(number, &number.to_string(), of(&number.to_string()));
        let policy = Policy { watch: Duration::from_secs(3), probes_per_second: 20, max_p99_ms: None, ..quick() };
        let outcome = drive(&Drive { observer: &outage, ..with(&target, &goal, &policy) }, pending()).await;
        let outcome = outcome.unwrap_or_else(|error| panic!("away {moment}: {error:?}"));
        let since = outage.begun.get().expect("it was away").elapsed();
        assert!(outcome.changed && since >= length, "{moment}: {since:?}");
        let seen = look(&world.target).await;
        assert_eq!(seen.live.expect("something is live").version, number.to_string(), "{moment}");
        assert_eq!(seen.generation.0, u64::from(number), "{moment}: one switch, and no return");
        assert_eq!(
            outcome.probes.failed, 0,
            "{moment}: nobody could be asked, which is no failure: {:?}",
            outcome.probes
        );
        println!(
            "away for {seconds} s {moment}: done {:.1} s after it went, {} probes answered, {} not asked",
            since.as_secs_f64(),
            outcome.probes.sent,
            outcome.probes.unasked
        );
    }
}
