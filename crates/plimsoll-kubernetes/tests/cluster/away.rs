//! The API server goes away for a while in the middle of a deployment, as when a control plane is upgraded.

use crate::{
    driving::{deploy, look, quick, reach, with},
    proxy::Proxy,
    world::{World, cluster, spec},
};
use plimsoll_deploy::{Drive, DriveEvent, DriveObserver, drive};
use std::{
    future::pending,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

const AWAY: Duration = Duration::from_secs(5);

/// Whether this is the event at which it goes.
type Moment = fn(&DriveEvent) -> bool;

/// Takes the API server away at the first event that `when` names, and brings it back.
struct Outage {
    proxy: Arc<Proxy>,
    when: Moment,
    begun: OnceLock<Instant>,
}

impl DriveObserver for Outage {
    fn on(&self, event: &DriveEvent) {
        if !(self.when)(event) || self.begun.set(Instant::now()).is_err() {
            return;
        }
        self.proxy.away(true);
        let proxy = Arc::clone(&self.proxy);
        tokio::spawn(async move {
            tokio::time::sleep(AWAY).await;
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
    let moments: [(&str, u16, Moment); 2] = [
        ("while it looks", 2, |event| matches!(event, DriveEvent::StandingUp { .. })),
        ("while it waits", 3, |event| matches!(event, DriveEvent::Waiting { .. })),
    ];
    for (moment, number, when) in moments {
        let target = world.target_at(&proxy.access);
        let outage = Outage { proxy: Arc::clone(&proxy), when, begun: OnceLock::new() };
        let goal = deploy(number, &number.to_string(), of(&number.to_string()));
        let policy = quick();
        let outcome = drive(&Drive { observer: &outage, ..with(&target, &goal, &policy) }, pending()).await;
        let outcome = outcome.unwrap_or_else(|error| panic!("away {moment}: {error:?}"));
        let since = outage.begun.get().expect("it was away").elapsed();
        assert!(outcome.changed && since >= AWAY, "{moment}: {since:?}");
        let live = look(&world.target).await.live.expect("something is live");
        assert_eq!(live.version, number.to_string(), "{moment}");
        println!("away for {AWAY:?} {moment}: live {:.1} s after it went", since.as_secs_f64());
    }
}
