//! A cut-over that breaks at each of its writes, and what those find who come after.

use crate::{
    driving::{deploy, live_slot, look, quick, reach, rollback, run, with},
    proxy::{Fault, Kept, Loss, Proxy},
    world::{Cluster, World, cluster, spec},
};
use plimsoll_deploy::{Drive, DriveError, Goal, Observation, Outcome, Release, drive};
use std::future::pending;

/// A cut-over of two services has about seven writes; a hundred means that something goes round in circles.
const MOST: u32 = 100;

/// Two services, one of which calls the other, released through the proxy again and again.
struct Torn<'a> {
    cluster: &'a Cluster,
    world: World,
    proxy: Proxy,
    runs: u16,
}

/// One cut-over that was broken.
struct Trial {
    goal: Goal,
    number: u16,
    before: Observation,
    lost: Kept,
    /// What the run itself came to, where it was not killed.
    came_to: Option<Result<Outcome, DriveError>>,
}

impl<'a> Torn<'a> {
    async fn new(cluster: &'a Cluster, name: &str) -> Self {
        let (world, proxy) = (World::new(cluster, name), Proxy::start(&cluster.access).await);
        let mut torn = Self { cluster, world, proxy, runs: 0 };
        // Both slots stand: what follows starts no pod.
        for version in [1, 2] {
            let goal = torn.release(version);
            reach(&torn.world.target, &goal).await.expect("both versions can be released");
        }
        torn
    }

    fn next_run(&mut self) -> u16 {
        self.runs += 1;
        self.runs
    }

    fn release(&mut self, version: usize) -> Goal {
        let number = self.next_run();
        let image = &self.cluster.images[version - 1];
        let text = version.to_string();
        let mut front = spec("front", image, &[("N", &text)]);
        let gateway = spec("gateway", image, &[("N", &text)]);
        front.depends_on = vec![gateway.name.clone()];
        deploy(number, &text, vec![front, gateway])
    }

    /// Releases the version that does not serve, and breaks its cut-over; `None` when it has no such write.
    async fn tear(&mut self, fault: Fault) -> Option<Trial> {
        let before = look(&self.world.target).await;
        let live = before.live.as_ref().expect("something is live").version.clone();
        let goal = self.release(if live == "1" { 2 } else { 1 });
        let number = self.runs;
        let target = self.world.target_at(&self.proxy.access);
        let (policy, proxy) = (quick(), &self.proxy);
        let arm = |_: &Observation, _: &Release| {
            proxy.fail(fault);
            Ok(())
        };
        let torn = Drive { gate: &arm, ..with(&target, &goal, &policy) };
        let came_to = tokio::select! {
            done = drive(&torn, pending()) => Some(done),
            () = proxy.hit(), if fault.for_good => None,
        };
        let lost = proxy.heal()?;
        Some(Trial { goal, number, before, lost, came_to })
    }

    /// Record and Services agree, and nothing is left under way.
    async fn is_whole(&self, about: &str) -> Observation {
        let seen = look(&self.world.target_at(&self.cluster.access)).await;
        assert_eq!((seen.drift.as_slice(), seen.lock.as_ref()), (&[][..], None), "{about}");
        assert!(!seen.is_half_made(), "{about}: {seen:?}");
        for service in ["front", "gateway"] {
            let selects = self.world.selects(service);
            let recorded = live_slot(&seen, &service.parse().expect("a name"));
            assert_eq!(selects, recorded.as_str(), "{about}: what Service {service} selects");
        }
        let record =
            self.world.kubectl(&["get", "configmap", "plimsoll.staging", "-o", r"jsonpath={.data.record\.json}"]);
        assert!(record.contains(r#""pending":null"#), "{about}: nobody's claim is left: {record}");
        seen
    }
}

fn recorded_by(seen: &Observation, number: u16) -> usize {
    seen.live.iter().chain(&seen.history).filter(|record| record.run == run(number)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_over_that_breaks_at_any_write_is_finished_by_driving_it_again() {
    let Some(cluster) = cluster().await else { return };
    let mut torn = Torn::new(cluster, "torn").await;
    let mut trials = 0;
    for loss in [Loss::Request, Loss::Answer] {
        for for_good in [true, false] {
            for write in 1..MOST {
                let Some(trial) = torn.tear(Fault { write, loss, for_good }).await else {
                    assert!(write > 5, "claim, two Services, release and record are written");
                    break;
                };
                let about = format!("{loss:?} of write {write} lost ({}), killed: {for_good}", trial.lost.title());
                let came_to = trial.came_to.map(|done| done.map(|outcome| outcome.changed).map_err(|e| e.to_string()));
                println!("{about}; {came_to:?}");
                let again = torn.world.target_at(&cluster.access);
                reach(&again, &trial.goal).await.unwrap_or_else(|error| panic!("{about}: {error:?}"));
                let seen = torn.is_whole(&about).await;
                assert_eq!(seen.live.as_ref().map(|live| &live.run), Some(&run(trial.number)), "{about}");
                assert_eq!(seen.generation, trial.before.generation.next(), "{about}");
                assert_eq!(recorded_by(&seen, trial.number), 1, "{about}");
                trials += 1;
            }
        }
    }
    println!("{trials} torn cut-overs were finished");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_run_left_is_put_back_by_another_and_its_late_writes_change_nothing() {
    let Some(cluster) = cluster().await else { return };
    let mut torn = Torn::new(cluster, "late").await;
    let mut trials = 0;
    for loss in [Loss::Request, Loss::Answer] {
        for write in 1..MOST {
            let Some(trial) = torn.tear(Fault { write, loss, for_good: true }).await else { break };
            let about = format!("{loss:?} of write {write} lost ({})", trial.lost.title());
            // As though the half minute of the lock were over.
            let lapse = ["annotate", "lease", "plimsoll.staging", "plimsoll.dev/lease-ms=1", "--overwrite"];
            torn.world.kubectl(&lapse);
            let other = torn.world.target_at(&cluster.access);
            let live = look(&other).await.live.expect("something is live");
            let number = torn.next_run();
            reach(&other, &rollback(number, live.clone())).await.unwrap_or_else(|error| panic!("{about}: {error:?}"));
            let seen = torn.is_whole(&about).await;
            let now = seen.live.as_ref().expect("something is live");
            assert_eq!((&now.version, live_slots(&seen)), (&live.version, slots_of(&live)), "{about}");

            let status = torn.proxy.late(&trial.lost).await;
            println!("{about}: put back; sent late it is answered with {status}");
            if trial.lost.is_switch() {
                assert!([409, 422].contains(&status), "{about}: {status}");
            }
            let after = look(&other).await;
            assert_eq!((&after.live, after.generation, &after.drift), (&seen.live, seen.generation, &seen.drift));
            assert_eq!(live_slots(&after), live_slots(&seen), "{about}");
            trials += 1;
        }
    }
    println!("{trials} torn cut-overs were put back");
}

fn slots_of(record: &plimsoll_deploy::ReleaseRecord) -> Vec<plimsoll_core::Slot> {
    record.services.values().map(|service| service.slot).collect()
}

fn live_slots(seen: &Observation) -> Vec<plimsoll_core::Slot> {
    seen.services.values().filter_map(|view| view.live.as_ref()).map(|slot| slot.slot).collect()
}
