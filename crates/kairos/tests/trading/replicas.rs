//! Several replicas of one service: what a killed one costs its callers, who is preferred, and how it comes back.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::{Client, GATEWAY, RISK, Service, start, text, wait};
use crate::{order, position};

/// Orders before a kill, and after it.
const SOME: usize = 40;

fn replica(state: &str, slot: &str, port: &str) -> Service {
    let limit = ("MAX_POSITION_SIZE", "1000000");
    start(RISK, &[("STATE_DIR", state), ("SERVICE_SLOT", slot), ("PORT", port), limit])
}

fn port(service: &Client) -> String {
    service.address.rsplit(':').next().expect("a port").to_owned()
}

fn dependency(gateway: &Client) -> Value {
    gateway.get("/status").1["dependencies"]["risk-manager"].clone()
}

/// Places an order and says who decided it.
fn placed(gateway: &Client, risk: &Client, id: &str) -> String {
    let (status, answer) = gateway.post("/orders", &order(id, 1, Some(10.0)));
    assert_eq!(status, 200, "{answer}");
    let total = risk.get("/orders?limit=1").1["total"].as_u64().expect("a number");
    let last = &risk.get(&format!("/orders?since={}", total - 1)).1["orders"][0];
    assert_eq!(last["id"], id);
    last["handled_by"].as_str().expect("a slot").to_owned()
}

#[test]
fn a_replica_killed_under_load_fails_no_order_and_is_taken_back_when_it_is_there_again() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let state = text(directory.path());
    let mut blue = replica(state, "blue", "0");
    let green = replica(state, "green", "0");
    let urls = format!("{},{}", blue.url(), green.url());
    let gateway = start(GATEWAY, &[("RISK_MANAGER_URL", &urls)]);
    let (end, placed_so_far) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (gateway, end, placed_so_far) = (&gateway, &end, &placed_so_far);
            scope.spawn(move || {
                for number in 0.. {
                    let id = format!("{client}-{number}");
                    let (status, answer) = gateway.post("/orders", &order(&id, 1, Some(10.0)));
                    assert_eq!(status, 200, "{id}: {answer}");
                    placed_so_far.fetch_add(1, Ordering::SeqCst);
                    if end.load(Ordering::SeqCst) {
                        return;
                    }
                }
            });
        }
        let more = || {
            let before = placed_so_far.load(Ordering::SeqCst);
            wait("more orders", || placed_so_far.load(Ordering::SeqCst) >= before + SOME);
        };
        more();
        blue.kill();
        more();
        wait("the ejection", || dependency(&gateway)["replicas"][0]["healthy"] == false);
        more();
        end.store(true, Ordering::SeqCst);
    });
    let orders = i64::try_from(placed_so_far.load(Ordering::SeqCst)).expect("few");
    assert_eq!(position(&green), orders, "each stands once");
    assert!(gateway.metric("kairos_retries_total") > 0, "the kill was noticed");
    assert_eq!(dependency(&gateway)["reachable"], true);
    let healthy = |url: &str, value: u8| {
        format!("kairos_replica_healthy{{service=\"risk-manager\",url=\"{url}\",zone=\"\"}} {value}")
    };
    let metrics = gateway.get("/metrics").1;
    let metrics = metrics.as_str().expect("a text");
    assert!(metrics.contains(&healthy(&blue.url(), 0)) && metrics.contains(&healthy(&green.url(), 1)), "{metrics}");

    let blue = replica(state, "blue", &port(&blue));
    wait("blue to be taken back", || dependency(&gateway)["replicas"][0]["healthy"] == true);
    let mut number = 0;
    wait("an order decided by blue", || {
        number += 1;
        placed(&gateway, &blue, &format!("after-{number}")) == "blue"
    });
    assert_eq!(dependency(&gateway)["replicas"][0]["circuit"], "closed");
}

#[test]
fn the_own_zone_decides_while_it_can_and_again_when_it_can() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let state = text(directory.path());
    let far = replica(state, "green", "0");
    let mut near = replica(state, "blue", "0");
    let urls = format!("{};zone=b,{};zone=a", far.url(), near.url());
    let gateway = start(GATEWAY, &[("RISK_MANAGER_URL", &urls), ("ZONE", "a")]);
    for number in 0..6 {
        assert_eq!(placed(&gateway, &far, &format!("near-{number}")), "blue");
    }
    let port = port(&near);
    near.kill();
    for number in 0..6 {
        assert_eq!(placed(&gateway, &far, &format!("far-{number}")), "green");
    }
    let near = replica(state, "blue", &port);
    let mut number = 0;
    wait("the own zone", || {
        number += 1;
        placed(&gateway, &near, &format!("back-{number}")) == "blue"
    });
    assert_eq!(dependency(&gateway)["replicas"][1]["zone"], "a");
}

#[test]
fn the_circuit_to_a_dead_service_opens_says_so_and_closes_when_it_is_back() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut risk = replica(text(directory.path()), "blue", "0");
    let gateway = start(GATEWAY, &[("RISK_MANAGER_URL", &risk.url())]);
    let circuit = || dependency(&gateway)["replicas"][0]["circuit"].clone();
    assert_eq!((gateway.get("/positions").0, circuit()), (200, json!("closed")));
    let port = port(&risk);
    risk.kill();
    let mut reason = String::new();
    wait("the circuit to open", || {
        let (status, answer) = gateway.get("/positions");
        assert_eq!(status, 503);
        answer["reason"].as_str().expect("a reason").clone_into(&mut reason);
        reason.contains("the circuit to") && circuit() == "open"
    });
    assert!(reason.starts_with("risk-manager is unreachable"), "{reason}");
    assert!(gateway.metric("kairos_circuit_opened_total") >= 1);
    let _risk = replica(text(directory.path()), "blue", &port);
    wait("an answer", || gateway.get("/positions").0 == 200);
    assert_eq!(circuit(), "closed");
}
