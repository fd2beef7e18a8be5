//! A share by weights whose giving breaks at each of its writes, and what those find who come after.

use crate::{
    driving::{reach, rollback, run},
    gateway::{Routed, of, route, weighed},
    proxy::{Fault, Loss, Proxy},
};
use plimsoll_core::{Generation, Slot};
use plimsoll_deploy::{Goal, LockOutcome, LockOwner, Target as _, Weights};
use std::{collections::BTreeMap, time::Duration};

/// A share of one route has three writes; twenty means that something goes round in circles.
const MOST: u32 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_breaks_at_any_write_is_taken_away_and_its_late_writes_give_nothing() {
    let Some(routed) = Routed::new("route-torn", &[]).await else { return };
    let (scene, mut runs, mut trials) = (&routed.scene, 2, 0);
    let Goal::Deploy(release) = scene.second(&[]) else { panic!("it is a release") };
    let proxy = Proxy::start(&scene.cluster.access).await;
    for loss in [Loss::Request, Loss::Answer] {
        for write in 1..MOST {
            let owner = LockOwner { run: run(runs), actor: "ann".to_owned() };
            let locked = scene.world.target.lock(&owner, Duration::from_secs(30)).await.expect("an answer");
            assert!(matches!(locked, LockOutcome::Held(_)), "{locked:?}");
            stands(&routed, &release).await;
            let torn = scene.world.target_at(&proxy.access);
            let shares = BTreeMap::from([(release.services[0].name.clone(), 30)]);
            let wish = Weights { from: Generation(1), run: owner.run.clone(), shares };
            proxy.fail(Fault { write, loss, for_good: true });
            let done = tokio::select! {
                done = torn.weigh(&wish) => Some(done),
                () = proxy.hit() => None,
            };
            let lost = proxy.heal();
            routed.lapse();
            runs += 2;
            let Some(lost) = lost else {
                done.expect("nothing broke").expect("a share");
                assert_eq!(weighed(&route(&scene.world)), of(&[("gateway", 70), ("gateway-green", 30)]));
                assert!(write > 3, "it is announced, its Service is made, and it is given");
                put_back(&routed, runs).await;
                break;
            };
            let about = format!("{loss:?} of write {write} lost ({})", lost.title());
            put_back(&routed, runs).await;
            let status = proxy.late(&lost).await;
            println!("{about}: put back; sent late it is answered with {status}");
            assert_eq!(route(&scene.world)["spec"], routed.before, "{about}: sent late it gives nobody a share");
            put_back(&routed, runs + 1).await;
            runs += 2;
            trials += 1;
        }
    }
    println!("{trials} torn shares were taken away");
}

/// Version 2 is ready beside what serves.
async fn stands(routed: &Routed, release: &plimsoll_deploy::Release) {
    let target = &routed.scene.world.target;
    let spec = &release.services[0];
    let mut view = target.stand_up(spec, Slot::Green, release).await.expect("it stands");
    for _ in 0..600 {
        if view.ready == spec.replicas {
            return;
        }
        target.changed(Duration::from_millis(100)).await;
        let seen = target.observe().await.expect("a look");
        view = seen.services[&spec.name].standby.clone().expect("it stands");
    }
    panic!("it was not ready in time: {view:?}");
}

/// What serves is put back by another run, and nothing is left of a share.
async fn put_back(routed: &Routed, number: u16) {
    let other = routed.scene.world.target_at(&routed.scene.cluster.access);
    reach(&other, &rollback(number, routed.scene.one.clone())).await.expect("what serves can be put back");
    routed.is_as_before();
}
