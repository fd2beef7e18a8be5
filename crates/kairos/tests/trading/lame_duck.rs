//! A lame duck answers everything, and asks its clients to go elsewhere.

use futures_util::StreamExt;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Client, GATEWAY, INGESTOR, Kept, RISK, STRATEGY, start, wait};

const PATH: &str = "/_plimsoll/lame-duck";

fn switch(service: &Client, on: bool) {
    let (status, answer) = service.post(PATH, &json!({"on": on}));
    assert_eq!((status, &answer["on"]), (200, &json!(on)), "{answer}");
    assert!(answer["connections"].is_u64() && answer["in_flight"].is_u64(), "{answer}");
}

/// A client sees the end of its connection a moment before the service has forgotten it.
fn shows(service: &Client, on: bool, connections: u64, in_flight: u64) {
    let expected = json!({"on": on, "connections": connections, "in_flight": in_flight});
    wait(&format!("{expected}"), || service.get(PATH).1 == expected);
}

#[test]
fn a_lame_duck_ends_each_connection_with_its_next_answer_and_keeps_them_again_when_it_is_none_any_more() {
    for binary in [RISK, GATEWAY, INGESTOR, STRATEGY] {
        let service = start(binary, &[]);
        let (mut idle, mut another) = (Kept::open(&service.address), Kept::open(&service.address));
        assert_eq!((idle.get("/version"), another.get("/version")), ((200, false), (200, false)));
        shows(&service, false, 2, 0);

        switch(&service, true);
        assert_eq!(service.get("/ready").0, 200, "readiness stays as it is");
        shows(&service, true, 2, 0);
        assert_eq!(idle.get("/nothing"), (404, true), "also what is not found says so");
        assert!(idle.ended());
        shows(&service, true, 1, 0);
        assert_eq!(Kept::open(&service.address).get("/version"), (200, true), "a new one is answered too");

        switch(&service, false);
        assert_eq!((another.get("/version"), another.get("/version")), ((200, false), (200, false)));
    }
}

#[test]
fn a_request_under_way_is_counted_and_its_connection_ends_after_its_answer() {
    let risk = start(RISK, &[]);
    let mut slow = Kept::open(&risk.address);
    slow.ask("/slow?ms=1000");
    shows(&risk, false, 1, 1);
    switch(&risk, true);
    shows(&risk, true, 1, 1);
    assert_eq!(slow.answer(), (200, true));
    assert!(slow.ended());
    shows(&risk, true, 0, 0);
}

#[test]
fn what_is_no_switch_is_refused_and_changes_nothing() {
    let risk = start(RISK, &[]);
    for body in [json!({}), json!({"on": "yes"}), json!(true)] {
        assert_eq!(risk.post(PATH, &body).0, 422, "{body}");
    }
    assert_eq!(risk.get(PATH).1["on"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn web_sockets_are_sent_away_old_ones_and_new_ones() {
    let gateway = start(GATEWAY, &[]);
    let url = format!("ws://{}/ws", gateway.address);
    let (mut old, _) = tokio_tungstenite::connect_async(&url).await.expect("connected");
    assert!(old.next().await.expect("a greeting").expect("received").is_text());
    shows(&gateway, false, 1, 0);
    switch(&gateway, true);
    let (mut new, _) = tokio_tungstenite::connect_async(&url).await.expect("connected");
    assert!(new.next().await.expect("a greeting").expect("received").is_text());
    for socket in [&mut old, &mut new] {
        match socket.next().await.expect("a frame").expect("received") {
            Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1001),
            other => panic!("not a close frame: {other:?}"),
        }
        while socket.next().await.is_some() {}
    }
    shows(&gateway, true, 0, 0);
}

#[test]
fn a_terminated_service_is_a_lame_duck_first_and_still_takes_connections() {
    let mut risk = start(RISK, &[("LAME_DUCK_MS", "1500")]);
    let mut kept = Kept::open(&risk.address);
    assert_eq!(kept.get("/version"), (200, false));
    risk.terminate();
    wait("the lame duck", || risk.get(PATH).1["on"] == true);
    assert_eq!(risk.get("/ready").0, 503, "its deployment should know");
    switch_back_is_in_vain(&risk);
    assert_eq!(kept.get("/version"), (200, true));
    assert!(kept.ended());
    assert_eq!(Kept::open(&risk.address).get("/version"), (200, true));
    assert_eq!(risk.ended().code(), Some(0));
}

fn switch_back_is_in_vain(service: &Client) {
    assert_eq!(service.post(PATH, &json!({"on": false})).1["on"], true, "an end is final");
}
