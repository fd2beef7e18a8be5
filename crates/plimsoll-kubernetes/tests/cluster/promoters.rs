//! Two people release at the same time.

use crate::{
    driving::{deploy, look, reach, run},
    world::{World, cluster, spec},
};
use plimsoll_deploy::{DriveError, Refusal, TargetError};

const ROUNDS: u16 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn of_two_promoters_at_the_same_time_one_is_live_and_the_other_is_told_by_whom() {
    let Some(cluster) = cluster().await else { return };
    let world = World::new(cluster, "promoters");
    let name = "gateway".parse().expect("a name");
    let (mut locked, mut stale) = (0, 0);
    for round in 0..ROUNDS {
        let numbers = [2 * round + 1, 2 * round + 2];
        let [a, b] = numbers.map(|n| {
            let services = vec![spec("gateway", &cluster.images[0], &[("N", &n.to_string())])];
            (deploy(n, &n.to_string(), services), world.target_at(&cluster.access))
        });
        let (first, second) = tokio::join!(reach(&a.1, &a.0), reach(&b.1, &b.0));
        let (winner, loser, error) = match (first, second) {
            (Ok(_), Err(error)) => (numbers[0], numbers[1], error),
            (Err(error), Ok(_)) => (numbers[1], numbers[0], error),
            other => panic!("exactly one is acknowledged: {other:?}"),
        };
        match &error {
            DriveError::Locked { holder, .. } => {
                assert_eq!(holder.run, run(winner));
                assert!(error.to_string().contains(&run(winner).to_string()), "{error}");
                locked += 1;
            }
            DriveError::Refused(Refusal::Stale { live, .. }) => {
                assert_eq!(live.as_ref(), Some(&run(winner)));
                stale += 1;
            }
            DriveError::Target(TargetError::Stale { .. }) => stale += 1,
            other => panic!("run {loser} lost to {winner}: {other}"),
        }
        let seen = look(&world.target).await;
        let live = seen.live.as_ref().expect("one is live");
        assert_eq!((&live.run, live.version.as_str()), (&run(winner), winner.to_string().as_str()));
        assert_eq!((seen.generation.0, seen.drift.as_slice()), (u64::from(round) + 1, &[][..]));
        let form = r"jsonpath={.metadata.annotations.plimsoll\.dev/run}";
        assert_eq!(world.kubectl(&["get", "service", "gateway", "-o", form]), live.run.to_string());
        assert_eq!(world.selects("gateway"), live.services[&name].slot.as_str(), "Service and record agree");
    }
    println!("{ROUNDS} rounds of two promoters: {locked} times locked, {stale} times stale");
}
