//! What clients in the cluster see of a release: wrk, with connections that it keeps, counts.

use crate::{
    driving::{deploy, look, reach, rollback},
    world::{World, cluster, spec},
};
use std::{
    collections::BTreeMap,
    env,
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::task::JoinHandle;

/// How long the clients are there: a release and a rollback on a machine that has other things to do take half of it.
const SECONDS: u64 = 30;

/// What the clients counted.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) requests: u64,
    /// Those without an answer, and those with another status than 200.
    pub(crate) failed: u64,
    /// By slot: answers, and the second of the last one.
    pub(crate) slots: BTreeMap<String, (u64, u64)>,
    /// By slot: answers with another status, which are among the failed ones.
    pub(crate) sick: BTreeMap<String, u64>,
    pub(crate) text: String,
}

impl Counted {
    fn of(text: String) -> Self {
        let mut counted = Self::default();
        for line in text.lines() {
            let number = |word: &str| word.parse::<u64>().expect("a number");
            match line.split(' ').collect::<Vec<_>>().as_slice() {
                ["requests", n] => counted.requests = number(n),
                ["failed", n] => counted.failed = number(n),
                ["slot", slot, count, last] => {
                    let all = counted.slots.entry((*slot).to_owned()).or_default();
                    *all = (all.0 + number(count), all.1.max(number(last)));
                }
                ["sick", slot, count] => *counted.sick.entry((*slot).to_owned()).or_default() += number(count),
                _ => {}
            }
        }
        counted.text = text;
        counted
    }
}

/// Clients with connections that they keep, inside the cluster's network.
fn clients(world: &World) -> Option<JoinHandle<Counted>> {
    begin(world, SECONDS, None)
}

/// Such clients for some time; where they pause, so many milliseconds before each request.
pub(crate) fn begin(world: &World, seconds: u64, pause: Option<u32>) -> Option<JoinHandle<Counted>> {
    let Some(program) = env::var_os("PLIMSOLL_TEST_CLUSTER") else {
        println!("skipped: clients can only be run where pods are reached (PLIMSOLL_TEST_CLUSTER)");
        return None;
    };
    let address = world.kubectl(&["get", "service", "gateway", "-o", "jsonpath={.spec.clusterIP}"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/wrk.lua");
    Some(tokio::task::spawn_blocking(move || {
        let output = Command::new(program)
            .args(["exec", "wrk", "-t2", "-c16", &format!("-d{seconds}s"), "-s", script])
            .arg(format!("http://{address}/version"))
            .args(pause.map(|pause| format!("-- {pause}")).iter().flat_map(|args| args.split(' ')))
            .output()
            .expect("wrk runs in the cluster's network");
        assert!(output.status.success(), "wrk: {}", String::from_utf8_lossy(&output.stderr));
        Counted::of(String::from_utf8_lossy(&output.stdout).into_owned())
    }))
}

pub(crate) fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_keep_their_connections_lose_no_request_by_a_release_and_its_rollback() {
    let Some(cluster) = cluster().await else { return };
    let world = World::new(cluster, "clients");
    let of = |n: usize| vec![spec("gateway", &cluster.images[n - 1], &[("N", &n.to_string())])];
    reach(&world.target, &deploy(1, "1", of(1))).await.expect("version 1 is released");
    let one = look(&world.target).await.live.expect("version 1 is recorded");
    let Some(clients) = clients(&world) else { return };
    let begun = Instant::now();
    let released = reach(&world.target, &deploy(2, "2", of(2))).await.expect("version 2 is released");
    reach(&world.target, &rollback(3, one)).await.expect("version 1 is put back");
    let (back, took) = (seconds(), begun.elapsed());
    assert!(took < Duration::from_secs(SECONDS - 3), "the clients were there to the end and after it: {took:?}");
    let counted = clients.await.expect("the clients end");
    println!(
        "{} requests, {} failed, {:?}; released and put back in {:.1} s; {:?}",
        counted.requests,
        counted.failed,
        counted.slots,
        took.as_secs_f64(),
        released.drain,
    );
    assert!(!counted.text.contains("Socket errors") && !counted.text.contains("Non-2xx"), "{}", counted.text);
    assert_eq!(counted.failed, 0, "{}", counted.text);
    assert!(counted.requests >= 10_000, "{}", counted.text);
    let (by_green, last) = counted.slots["green"];
    assert!(by_green > 0 && counted.slots["blue"].0 > 0, "both slots answered: {:?}", counted.slots);
    assert!(last <= back, "after its drain nobody is answered by the slot that was left: {last}, {back}");
    assert!(counted.slots["blue"].1 > back, "the clients went on: {:?}", counted.slots);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_lame_ducks_the_same_clients_lose_requests_when_the_old_pods_end() {
    let Some(cluster) = cluster().await else { return };
    let world = World::new(cluster, "lame");
    let of = |n: usize| vec![spec("gateway", &cluster.images[n - 1], &[("N", &n.to_string()), ("LAME", "off")])];
    reach(&world.target, &deploy(1, "1", of(1))).await.expect("version 1 is released");
    let Some(clients) = clients(&world) else { return };
    reach(&world.target, &deploy(2, "2", of(2))).await.expect("version 2 is released");
    world.kubectl(&["delete", "deployment", "gateway-blue"]);
    let counted = clients.await.expect("the clients end");
    println!("without lame ducks: {} requests, {} failed, {:?}", counted.requests, counted.failed, counted.slots);
    assert!(counted.failed > 0, "the clients can see failures: {}", counted.text);
}
