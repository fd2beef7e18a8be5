//! Releases that are tried on a share of the requests: what clients in the cluster see, and what becomes of the share.

use crate::{
    clients::{Counted, begin, seconds},
    driving::{deploy, look, quick, reach, rollback, with},
    world::{Cluster, World, cluster, spec},
};
use plimsoll_core::Slot;
use plimsoll_deploy::{
    Canary, CanaryStep, Drive, DriveError, DriveEvent, DriveObserver, Goal, Outcome, Policy, ReleaseRecord,
    ServiceSpec, Target as _, drive,
};
use serde_json::{Value, json};
use std::{
    future::pending,
    sync::Mutex as Sync,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Mutex, MutexGuard, watch},
    task::JoinHandle,
};

const REPLICAS: u16 = 3;
/// Milliseconds that each of sixteen connections waits before a request: some hundred a second, whatever else is going on.
const PAUSE: u32 = 20;

/// Several at a time would measure each other.
static TURN: Mutex<()> = Mutex::const_new(());

/// Pods that send their clients away before they end.
fn orderly(workload: &mut Value, _: &ServiceSpec) {
    let pod = &mut workload["spec"]["template"]["spec"];
    pod["terminationGracePeriodSeconds"] = 10.into();
    pod["containers"][0]["lifecycle"] = json!({"preStop": {"httpGet": {"path": "/quit", "port": "http"}}});
}

pub(crate) fn policy(steps: &[u8], hold: Duration) -> Policy {
    let canary = Canary {
        steps: steps.to_vec(),
        step: Duration::from_secs(2),
        interval: Duration::from_millis(200),
        hold,
        min_requests: 50,
        max_error_diff_pp: 1.0,
        // What else runs on the machine is not to be judged here.
        max_p99_diff_ms: 250,
        ..Canary::default()
    };
    Policy { canary: Some(canary), ..quick() }
}

/// Version 1 serves with three replicas.
pub(crate) struct Scene {
    pub(crate) cluster: &'static Cluster,
    pub(crate) world: World,
    pub(crate) one: ReleaseRecord,
    _turn: MutexGuard<'static, ()>,
}

impl Scene {
    pub(crate) async fn new(name: &str, env: &[(&str, &str)]) -> Option<Self> {
        Self::with(name, env, |_, _| {}).await
    }

    pub(crate) async fn with(name: &str, env: &[(&str, &str)], change: fn(&mut Value, &ServiceSpec)) -> Option<Self> {
        let cluster = cluster().await?;
        let turn = TURN.lock().await;
        let world = World::with(cluster, name, change);
        let one = gateway(cluster, 1, env);
        reach(&world.target, &deploy(1, "1", vec![one])).await.expect("version 1 is released");
        let one = look(&world.target).await.live.expect("version 1 is recorded");
        Some(Self { cluster, world, one, _turn: turn })
    }

    pub(crate) fn second(&self, env: &[(&str, &str)]) -> Goal {
        deploy(2, "2", vec![gateway(self.cluster, 2, env)])
    }

    /// Version 1 serves as it did, and nobody has a share.
    pub(crate) async fn is_untouched(&self) {
        let seen = look(&self.world.target).await;
        assert_eq!((seen.live.as_ref(), seen.drift.as_slice()), (Some(&self.one), &[][..]));
        let view = &seen.services[&"gateway".parse().expect("a name")];
        let live = view.live.as_ref().map(|live| (live.version.as_str(), live.ready, live.crashes));
        assert_eq!((live, view.share), (Some(("1", REPLICAS, 0)), 0));
        assert_eq!((self.world.selects("gateway").as_str(), self.sharing().as_str()), ("blue", ""));
    }

    /// The pods of green that get the traffic of blue.
    pub(crate) fn sharing(&self) -> String {
        let labels = "plimsoll.dev/slot=green,plimsoll.dev/traffic-of-blue";
        self.world.kubectl(&["get", "pods", "-l", labels, "-o", "name"])
    }
}

fn gateway(cluster: &Cluster, version: usize, env: &[(&str, &str)]) -> ServiceSpec {
    let n = version.to_string();
    let env: Vec<_> = [("N", n.as_str()), ("KEPT", "20")].into_iter().chain(env.iter().copied()).collect();
    ServiceSpec { replicas: REPLICAS, ..spec("gateway", &cluster.images[version - 1], &env) }
}

/// Hears of shares, and tells the largest one.
pub(crate) struct Heard {
    share: watch::Sender<u8>,
    told: Sync<Vec<String>>,
}

impl Heard {
    pub(crate) fn new() -> Self {
        Self { share: watch::Sender::new(0), told: Sync::default() }
    }

    /// Waits until somebody has a share.
    pub(crate) async fn given(&self) {
        self.share.subscribe().wait_for(|share| *share > 0).await.expect("it is there");
    }
}

impl DriveObserver for Heard {
    fn on(&self, event: &DriveEvent) {
        if let DriveEvent::Trying { trials, .. } = event {
            let share = trials.iter().map(|trial| trial.share).max().unwrap_or(0);
            self.share.send_if_modified(|most| share > *most && std::mem::replace(most, share) < share);
            let mut told = self.told.lock().expect("nobody panicked");
            told.extend(trials.last().map(ToString::to_string));
        }
    }
}

pub(crate) async fn tried(scene: &Scene, goal: &Goal, policy: &Policy, heard: &Heard) -> Result<Outcome, DriveError> {
    drive(&Drive { observer: heard, ..with(&scene.world.target, goal, policy) }, pending()).await
}

pub(crate) fn shown(steps: &[CanaryStep]) -> String {
    let one = |step: &CanaryStep| {
        let trials: Vec<String> = step.trials.iter().map(ToString::to_string).collect();
        format!(
            "asked for {} %, {:.1} s, {}",
            step.share,
            Duration::from_millis(step.millis).as_secs_f64(),
            trials.join("; ")
        )
    };
    steps.iter().map(one).collect::<Vec<_>>().join("\n  ")
}

/// What clients counted, with figures on the way.
async fn ended(what: &str, clients: JoinHandle<Counted>) -> Counted {
    let counted = clients.await.expect("the clients end");
    let Counted { requests, failed, slots, sick, .. } = &counted;
    println!("{what}: {requests} requests, {failed} failed, of these answered with another status {sick:?}; {slots:?}");
    counted
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_with_three_percent_errors_gives_its_share_back_by_itself() {
    let Some(scene) = Scene::new("canary-bad", &[]).await else { return };
    let Some(clients) = begin(&scene.world, 40, Some(PAUSE)) else { return };
    let begun = Instant::now();
    let policy = policy(&[25, 50], Duration::from_secs(30));
    let error = tried(&scene, &scene.second(&[("FAIL_PERCENT", "3")]), &policy, &Heard::new()).await;
    let error = error.expect_err("version 2 is worse");
    let DriveError::Canary { reason, steps, share, .. } = &error else { panic!("{error:?}") };
    println!("given back at {share} % after {:.1} s: {reason}\n  {}", begun.elapsed().as_secs_f64(), shown(steps));
    assert!(reason.contains("requests failed, more than"), "{reason}");
    assert!(steps.iter().all(|step| step.trials[0].share > 0), "it had its share: {steps:?}");
    scene.is_untouched().await;
    let counted = ended("3 % errors", clients).await;
    assert_eq!(counted.failed, counted.sick["green"], "nothing else failed: {}", counted.text);
    assert!(counted.slots["green"].0 > 0 && counted.slots["blue"].1 > counted.slots["green"].1, "{}", counted.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_equal_version_takes_over_by_steps_and_no_request_fails() {
    let Some(scene) = Scene::new("canary-good", &[]).await else { return };
    let Some(clients) = begin(&scene.world, 60, Some(PAUSE)) else { return };
    let begun = Instant::now();
    let policy = policy(&[25, 50], Duration::from_secs(50));
    let outcome = tried(&scene, &scene.second(&[]), &policy, &Heard::new()).await.expect("version 2 is as good");
    println!("promoted after {:.1} s:\n  {}", begun.elapsed().as_secs_f64(), shown(&outcome.canary));
    let shares: Vec<u8> = outcome.canary.iter().map(|step| step.trials[0].share).collect();
    assert_eq!(shares, [25, 50], "one pod beside three, then three");
    let seen = look(&scene.world.target).await;
    let live = seen.live.as_ref().expect("version 2 is recorded");
    let name = "gateway".parse().expect("a name");
    assert_eq!((live.version.as_str(), seen.services[&name].share, seen.drift.as_slice()), ("2", 0, &[][..]));
    assert_eq!((scene.world.selects("gateway").as_str(), scene.sharing().as_str()), ("green", ""));
    // Pods of green had a share of blue: they must have nothing of it when blue takes over again.
    reach(&scene.world.target, &rollback(3, scene.one.clone())).await.expect("version 1 is put back");
    assert_eq!((scene.world.selects("gateway").as_str(), scene.sharing().as_str()), ("blue", ""));
    let counted = ended("an equal version", clients).await;
    assert_eq!(counted.failed, 0, "{}", counted.text);
    assert!(counted.slots["green"].0 > 1000 && counted.slots["blue"].0 > 1000, "{}", counted.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_requests_a_share_is_held_and_given_back_in_the_end() {
    let Some(scene) = Scene::new("canary-idle", &[]).await else { return };
    let hold = Duration::from_secs(8);
    let (goal, policy, heard) = (scene.second(&[]), policy(&[25, 50], hold), Heard::new());
    let begun = Instant::now();
    let one_request = async {
        heard.given().await;
        scene.world.reached("gateway");
    };
    let (result, ()) = tokio::join!(tried(&scene, &goal, &policy, &heard), one_request);
    let error = result.expect_err("nobody knows whether version 2 is as good");
    let DriveError::Canary { reason, .. } = &error else { panic!("{error:?}") };
    println!("held for {:.1} s: {reason}", begun.elapsed().as_secs_f64());
    assert!(reason.contains("after 8 s nobody knows yet") && reason.contains("of at least 50 requests"), "{reason}");
    assert!(begun.elapsed() >= hold);
    scene.is_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_holds_and_never_promotes() {
    let Some(scene) = Scene::new("canary-blind", &[("METRICS", "off")]).await else { return };
    let Some(clients) = begin(&scene.world, 25, Some(PAUSE)) else { return };
    let (policy, goal) = (policy(&[50], Duration::from_secs(6)), scene.second(&[("METRICS", "off")]));
    let error =
        tried(&scene, &goal, &policy, &Heard::new()).await.expect_err("nobody knows whether version 2 is as good");
    let DriveError::Canary { reason, .. } = &error else { panic!("{error:?}") };
    println!("{reason}");
    for words in ["its numbers cannot be read", "pod gateway-", "answers /metrics with status 404"] {
        assert!(reason.contains(words), "`{words}` in: {reason}");
    }
    scene.is_untouched().await;
    let counted = ended("without metrics", clients).await;
    assert_eq!(counted.failed, 0, "{}", counted.text);
}

/// A pod with a share is deleted as soon as there is one, by somebody who looks every `interval`.
async fn deleted(name: &str, interval: Duration) -> Option<(Scene, Result<Outcome, DriveError>)> {
    let scene = Scene::with(name, &[], orderly).await?;
    let clients = begin(&scene.world, 55, Some(PAUSE))?;
    let (goal, mut policy, heard) = (scene.second(&[]), policy(&[25, 50], Duration::from_secs(50)), Heard::new());
    policy.canary.iter_mut().for_each(|canary| canary.interval = interval);
    let delete = async {
        heard.given().await;
        let pod = scene.sharing();
        scene.world.kubectl(&["delete", pod.trim(), "--wait=false"]);
        pod
    };
    let (result, pod) = tokio::join!(tried(&scene, &goal, &policy, &heard), delete);
    let told = heard.told.lock().expect("nobody panicked").clone();
    println!("{} was deleted; heard:\n  {}", pod.trim(), told.join("\n  "));
    let counted = ended("a deleted pod", clients).await;
    assert_eq!(counted.failed, 0, "{}", counted.text);
    Some((scene, result))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_a_share_that_is_deleted_costs_no_request() {
    let Some((scene, result)) = deleted("canary-gone", Duration::from_millis(200)).await else { return };
    // Whether the slot is missed a pod for two looks is a matter of how fast the other one gets ready.
    match result {
        Ok(outcome) => println!("promoted:\n  {}", shown(&outcome.canary)),
        Err(DriveError::Canary { reason, .. }) => {
            println!("given back: {reason}");
            assert!(reason.contains("no longer ready"), "{reason}");
            scene.is_untouched().await;
        }
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_a_share_that_is_replaced_in_time_gives_it_to_another() {
    let Some((scene, result)) = deleted("canary-again", Duration::from_secs(6)).await else { return };
    let outcome = result.expect("version 2 is as good");
    println!("promoted:\n  {}", shown(&outcome.canary));
    assert!(outcome.canary.iter().all(|step| step.trials[0].share > 0), "it had a share again: {:?}", outcome.canary);
    assert_eq!(scene.world.selects("gateway"), "green");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_whose_run_was_killed_is_taken_away_by_a_rollback_to_what_serves_with_its_clients() {
    // Nobody's connection ends by itself.
    let env = [("KEPT", "1000000000")];
    let Some(scene) = Scene::new("canary-dead", &env).await else { return };
    let (goal, policy, heard) = (scene.second(&env), policy(&[50], Duration::from_secs(50)), Heard::new());
    tokio::select! {
        done = tried(&scene, &goal, &policy, &heard) => panic!("it was to be killed: {done:?}"),
        () = heard.given() => {}
    }
    let seen = look(&scene.world.target).await;
    let name = "gateway".parse().expect("a name");
    assert_eq!((seen.services[&name].share, seen.drift.as_slice()), (50, &[][..]), "what it gave is there");
    let Some(clients) = begin(&scene.world, 40, Some(PAUSE)) else { return };
    let begun = Instant::now();
    // Ends by the bound.
    while scene.world.target.traffic(&name, Slot::Green).await.expect("counters").total().real.requests < 50 {
        assert!(begun.elapsed() < Duration::from_secs(10), "clients come to the share");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // As though the half minute of the lock were over.
    scene.world.kubectl(&["annotate", "lease", "plimsoll.staging", "plimsoll.dev/lease-ms=1", "--overwrite"]);
    let other = scene.world.target_at(&scene.cluster.access);
    reach(&other, &rollback(3, scene.one.clone())).await.expect("what serves can be put back");
    let (back, took) = (seconds(), begun.elapsed());
    scene.is_untouched().await;
    assert!(took < Duration::from_secs(37), "the clients were there to the end and after it: {took:?}");
    let counted = ended("a killed run", clients).await;
    assert_eq!(counted.failed, 0, "{}", counted.text);
    let last = |slot: &str| counted.slots[slot].1;
    assert!(last("green") <= back && last("blue") > back, "they left at {back}: {:?}", counted.slots);
}
