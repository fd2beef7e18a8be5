//! Releases that are tried on a share of the requests where a route of the Gateway API leads to the service.
//!
//! No controller runs in the cluster: the tests' own gateway reads the route, says in its status that it did, as
//! controllers do, and sends requests by the weights.

use crate::{
    canary::{Heard, Scene, policy, shown, tried},
    driving::{look, reach, rollback, run, with},
    world::World,
};
use plimsoll_core::{Generation, config::CanaryBy};
use plimsoll_deploy::{Drive, DriveError, LockOwner, Policy, Target as _, drive};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    env,
    future::pending,
    io::Write as _,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::OnceCell, task::JoinHandle};

/// Requests of a round, between two looks at the route.
const ROUND: u64 = 200;
/// Controllers and what they program take their time.
const LAG: Duration = Duration::from_secs(2);
const ROUTE: &str = "httproutes.gateway.networking.k8s.io";

/// The kind, where the cluster does not know it: without the checks of the real definition. It stays there.
async fn definition(world: &World) {
    static DEFINED: OnceCell<()> = OnceCell::const_new();
    let define = || async {
        if world.kubectl(&["get", "crd", ROUTE, "--ignore-not-found"]).is_empty() {
            let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
            let version = json!({"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": schema}});
            apply(
                world,
                &json!({
                    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                    // Without it the API server takes nobody's definition under this group.
                    "metadata": {"name": ROUTE, "annotations": {"api-approved.kubernetes.io": "unapproved, a test's own"}},
                    "spec": {"group": "gateway.networking.k8s.io", "scope": "Namespaced", "versions": [version],
                        "names": {"plural": "httproutes", "singular": "httproute", "kind": "HTTPRoute"}},
                }),
            );
        }
        world.kubectl(&["wait", "--for=condition=Established", "--timeout=20s", "crd", ROUTE]);
    };
    DEFINED.get_or_init(define).await;
}

fn apply(world: &World, object: &Value) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(object.to_string().as_bytes()).expect("it is written");
    // On the server, where whoever changed a field owns it.
    world.kubectl(&["apply", "--server-side", "-f", file.path().to_str().expect("a path")]);
}

/// Version 1 serves, and a route leads to it.
pub(crate) struct Routed {
    pub(crate) scene: Scene,
    applied: Value,
    pub(crate) before: Value,
}

impl Routed {
    pub(crate) async fn new(name: &str, env: &[(&str, &str)]) -> Option<Self> {
        let scene = Scene::new(name, env).await?;
        definition(&scene.world).await;
        let filter =
            json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": {"add": [{"name": "x", "value": "y"}]}}]);
        let rule = |path: &str, refs: Value| json!({"matches": [{"path": {"type": "PathPrefix", "value": path}}], "backendRefs": refs});
        let rules = json!([
            rule("/docs", json!([{"name": "docs", "port": 80}])),
            rule("/", json!([{"name": "gateway", "port": 80, "filters": filter}])),
        ]);
        let spec = json!({"parentRefs": [{"name": "public"}], "rules": rules});
        let mut applied = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute"});
        // With an annotation of somebody else's, the place for ours is always there.
        applied["metadata"] = json!({"name": "shop", "annotations": {"example.com/team": "shop"}});
        applied["spec"] = spec;
        apply(&scene.world, &applied);
        let before = route(&scene.world)["spec"].clone();
        Some(Self { scene, applied, before })
    }

    /// Whoever applied the route on the server can do so again, with changes.
    fn is_whose_it_was(&self) {
        let mut changed = self.applied.clone();
        changed["spec"]["rules"][1]["backendRefs"][0]["port"] = 81.into();
        apply(&self.scene.world, &changed);
        assert_eq!(route(&self.scene.world)["spec"]["rules"][1]["backendRefs"][0]["port"], 81);
    }

    /// The route says what it said before, and nothing is left of a share.
    pub(crate) fn is_as_before(&self) {
        let now = route(&self.scene.world);
        let note = &now["metadata"]["annotations"]["plimsoll.dev/share"];
        assert_eq!((now["spec"].to_string(), note), (self.before.to_string(), &Value::Null));
        let left = self.scene.world.kubectl(&["get", "services", "-l", "plimsoll.dev/share-of", "-o", "name"]);
        assert_eq!((left.as_str(), self.scene.sharing().as_str()), ("", ""));
    }

    fn patch(&self, patch: &Value) {
        self.scene.world.kubectl(&["patch", ROUTE, "shop", "--type=json", "-p", &patch.to_string()]);
    }

    /// A run that is killed as soon as version 2 has a share.
    async fn killed(&self, policy: &Policy) {
        let (goal, heard) = (self.scene.second(&[]), Heard::new());
        tokio::select! {
            done = tried(&self.scene, &goal, policy, &heard) => panic!("it was to be killed: {done:?}"),
            () = heard.given() => {}
        }
        let seen = look(&self.scene.world.target).await;
        let view = &seen.services[&"gateway".parse().expect("a name")];
        assert_eq!(
            (view.share, weighed(&route(&self.scene.world))),
            (50, of(&[("gateway", 50), ("gateway-green", 50)]))
        );
        self.lapse();
    }

    /// As though the half minute of the lock were over.
    pub(crate) fn lapse(&self) {
        let lapse = ["annotate", "lease", "plimsoll.staging", "plimsoll.dev/lease-ms=1", "--overwrite"];
        self.scene.world.kubectl(&lapse);
    }
}

pub(crate) fn route(world: &World) -> Value {
    serde_json::from_str(&world.kubectl(&["get", ROUTE, "shop", "-o", "json"])).expect("a route")
}

/// Where the rule for everything leads.
pub(crate) fn weighed(route: &Value) -> BTreeMap<String, u64> {
    let refs = route["spec"]["rules"][1]["backendRefs"].as_array().expect("references");
    let one = |r: &Value| (r["name"].as_str().unwrap_or_default().to_owned(), r["weight"].as_u64().unwrap_or(1));
    refs.iter().map(one).collect()
}

pub(crate) fn of(weights: &[(&str, u64)]) -> BTreeMap<String, u64> {
    weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
}

/// What the tests' gateway saw.
#[derive(Debug, Default)]
struct Sent {
    /// The weights it went by, each time they were others.
    by: Vec<BTreeMap<String, u64>>,
    /// Answers by slot.
    slots: BTreeMap<String, u64>,
    failed: u64,
}

/// A gateway with clients: sends rounds of requests by the weights of the route, until it is told to end.
struct Gateway {
    end: Arc<AtomicBool>,
    sent: JoinHandle<Sent>,
}

impl Gateway {
    fn start(world: &World) -> Option<Self> {
        let Some(program) = env::var_os("PLIMSOLL_TEST_CLUSTER") else {
            println!("skipped: clients can only be run where pods are reached (PLIMSOLL_TEST_CLUSTER)");
            return None;
        };
        let end = Arc::new(AtomicBool::new(false));
        let (told, kubectl) = (Arc::clone(&end), world.remote());
        let sent = tokio::task::spawn_blocking(move || {
            let (mut sent, mut addresses) = (Sent::default(), BTreeMap::new());
            // What it goes by, and the generation that it knows; since when there is another one.
            let (mut weights, mut heard, mut since) = (BTreeMap::new(), 0, None);
            while !told.load(Ordering::Relaxed) {
                let route: Value =
                    serde_json::from_str(&kubectl(&["get", ROUTE, "shop", "-o", "json"])).expect("a route");
                let generation = route["metadata"]["generation"].as_i64().expect("a generation");
                let is_due = weights.is_empty() || since.get_or_insert_with(Instant::now).elapsed() > LAG;
                if generation == heard {
                    since = None;
                } else if is_due {
                    (weights, heard, since) = (weighed(&route), generation, None);
                    let columns = r#"jsonpath={range .items[*]}{.metadata.name} {.spec.clusterIP}{"\n"}{end}"#;
                    let services = kubectl(&["get", "services", "-o", columns]);
                    let named = services.lines().filter_map(|line| line.split_once(' '));
                    addresses = named.map(|(name, address)| (name.to_owned(), address.to_owned())).collect();
                    let status = accepted(generation).to_string();
                    kubectl(&["patch", ROUTE, "shop", "--subresource=status", "--type=merge", "-p", &status]);
                }
                if sent.by.last() != Some(&weights) {
                    sent.by.push(weights.clone());
                }
                let all: u64 = weights.values().sum();
                for (service, weight) in &weights {
                    let n = ROUND * weight / all;
                    let address: &str = addresses.get(service).map_or("0.0.0.0", String::as_str);
                    let url = format!("http://{address}/version?[1-{n}]");
                    let asked = Command::new(&program)
                        .args(["exec", "curl", "-sf", "--connect-timeout", "1", "-w", "\n", &url])
                        .output();
                    let text = String::from_utf8_lossy(&asked.expect("curl runs").stdout).into_owned();
                    let by = |slot: &str| text.matches(&format!("\"slot\":\"{slot}\"")).count() as u64;
                    sent.failed += n - by("blue") - by("green");
                    for slot in ["blue", "green"] {
                        *sent.slots.entry(slot.to_owned()).or_default() += by(slot);
                    }
                }
            }
            sent
        });
        Some(Self { end, sent })
    }

    async fn end(self) -> Sent {
        self.end.store(true, Ordering::Relaxed);
        let sent = self.sent.await.expect("the gateway ends");
        println!("the gateway sent {sent:?}");
        sent
    }
}

fn accepted(generation: i64) -> Value {
    let condition = json!({"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
        "observedGeneration": generation, "lastTransitionTime": "2024-01-01T00:00:00Z"});
    let parent =
        json!({"parentRef": {"name": "public"}, "controllerName": "plimsoll.dev/test", "conditions": [condition]});
    json!({"status": {"parents": [parent]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_equal_version_takes_over_by_weights_and_the_route_is_as_it_was() {
    let Some(routed) = Routed::new("route-good", &[]).await else { return };
    let Some(gateway) = Gateway::start(&routed.scene.world) else { return };
    let policy = policy(&[10, 40], Duration::from_mins(1));
    let outcome = tried(&routed.scene, &routed.scene.second(&[]), &policy, &Heard::new()).await;
    let sent = gateway.end().await;
    let outcome = outcome.expect("version 2 is as good");
    println!("promoted:\n  {}", shown(&outcome.canary));
    let shares: Vec<u8> = outcome.canary.iter().map(|step| step.trials[0].share).collect();
    assert_eq!(shares, [10, 40], "what was asked for, whatever the number of replicas");
    let steps = [
        of(&[("gateway", 1)]),
        of(&[("gateway", 90), ("gateway-green", 10)]),
        of(&[("gateway", 60), ("gateway-green", 40)]),
        of(&[("gateway", 1)]),
    ];
    assert_eq!(sent.by, steps);
    assert_eq!(sent.failed, 0, "{sent:?}");
    assert_eq!(routed.scene.world.selects("gateway"), "green");
    routed.is_as_before();
    routed.is_whose_it_was();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_fails_gives_its_weight_back_by_itself() {
    let Some(routed) = Routed::new("route-bad", &[]).await else { return };
    let Some(gateway) = Gateway::start(&routed.scene.world) else { return };
    let goal = routed.scene.second(&[("FAIL_PERCENT", "5")]);
    let result = tried(&routed.scene, &goal, &policy(&[30], Duration::from_secs(40)), &Heard::new()).await;
    let sent = gateway.end().await;
    let error = result.expect_err("version 2 is worse");
    let DriveError::Canary { reason, share, .. } = &error else { panic!("{error:?}") };
    println!("given back at {share} %: {reason}");
    assert!(reason.contains("requests failed, more than"), "{reason}");
    assert!(sent.by.contains(&of(&[("gateway", 70), ("gateway-green", 30)])), "{sent:?}");
    let by_green = sent.slots["green"] + sent.failed;
    assert_eq!(sent.failed, by_green * 5 / 100, "nothing else failed: {sent:?}");
    routed.scene.is_untouched().await;
    routed.is_as_before();
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_whose_run_was_killed_are_taken_away_by_the_next_one() {
    let Some(routed) = Routed::new("route-dead", &[]).await else { return };
    routed.killed(&policy(&[50], Duration::from_secs(50))).await;
    let other = routed.scene.world.target_at(&routed.scene.cluster.access);
    reach(&other, &rollback(3, routed.scene.one.clone())).await.expect("what serves can be put back");
    routed.scene.is_untouched().await;
    routed.is_as_before();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_takes_weights_away() {
    let Some(routed) = Routed::new("route-stop", &[]).await else { return };
    routed.killed(&policy(&[50], Duration::from_secs(50))).await;
    let other = routed.scene.world.target_at(&routed.scene.cluster.access);
    other.stop(Generation(1), "ann", None).await.expect("it stops");
    routed.is_as_before();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_somebody_else_changed_is_not_overwritten() {
    let Some(routed) = Routed::new("route-theirs", &[]).await else { return };
    routed.killed(&policy(&[50], Duration::from_secs(50))).await;
    let at = |n: u8| format!("/spec/rules/1/backendRefs/{n}/weight");
    routed.patch(&json!([
        {"op": "replace", "path": at(0), "value": 80},
        {"op": "replace", "path": at(1), "value": 20},
    ]));
    let theirs = route(&routed.scene.world)["spec"].clone();
    let seen = look(&routed.scene.world.target).await;
    assert_eq!(seen.services[&"gateway".parse().expect("a name")].share, 20, "it is told as it is");
    let other = routed.scene.world.target_at(&routed.scene.cluster.access);
    let back = |number| rollback(number, routed.scene.one.clone());
    let error = reach(&other, &back(3)).await.expect_err("it is somebody else's");
    let text = plimsoll_core::chain(&error);
    println!("{text}");
    for words in ["HTTPRoute shop", "somebody else changed backendRefs of its rule 1", "gateway-green"] {
        assert!(text.contains(words), "`{words}` in: {text}");
    }
    assert_eq!(route(&routed.scene.world)["spec"], theirs);
    // As the message says.
    routed.patch(&json!([
        {"op": "replace", "path": "/spec/rules/1", "value": routed.before["rules"][1]},
        {"op": "remove", "path": "/metadata/annotations/plimsoll.dev~1share"},
    ]));
    reach(&other, &back(4)).await.expect("what serves can be put back");
    routed.scene.is_untouched().await;
    routed.is_as_before();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_so_configured_a_route_is_left_alone_and_pods_get_the_share() {
    let Some(routed) = Routed::new("route-off", &[]).await else { return };
    let target = routed.scene.world.target_at(&routed.scene.cluster.access).canary_by(CanaryBy::Replicas);
    let (goal, heard, policy) = (routed.scene.second(&[]), Heard::new(), policy(&[50], Duration::from_secs(50)));
    let driven = Drive { observer: &heard, ..with(&target, &goal, &policy) };
    tokio::select! {
        done = drive(&driven, pending()) => panic!("it was to be killed: {done:?}"),
        () = heard.given() => {}
    }
    assert_eq!(route(&routed.scene.world)["spec"], routed.before);
    assert_ne!(routed.scene.sharing(), "");
    let owner = LockOwner { run: run(2), actor: "ann".to_owned() };
    target.unlock(&owner).await.expect("the lock is given back");
}
