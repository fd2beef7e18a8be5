//! The four services together, as real processes: orders, limits, hand-over, and orderly and disorderly ends.

mod backups;
mod durability;
mod health;
mod lame_duck;
mod lifecycle;
mod reload;
mod replicas;
mod schema;
mod sockets;
mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};
use support::{GATEWAY, INGESTOR, RISK, STRATEGY, Service, start, text, wait};

fn order(id: &str, quantity: u32, price: Option<f64>) -> Value {
    json!({"id": id, "instrument": "AAPL", "side": "buy", "quantity": quantity, "price": price})
}

fn position(risk: &Service) -> i64 {
    let (status, answer) = risk.get("/positions");
    assert_eq!(status, 200, "{answer}");
    answer["positions"]["AAPL"]["position"].as_i64().unwrap_or(0)
}

fn gateway(risk: &Service, ingestor: Option<&Service>, more: &[(&str, &str)]) -> Service {
    let risk = risk.url();
    let ingestor = ingestor.map(|service| service.url()).unwrap_or_default();
    let mut variables = vec![("RISK_MANAGER_URL", risk.as_str()), ("MARKET_DATA_INGESTOR_URL", &ingestor)];
    variables.extend(more);
    start(GATEWAY, &variables)
}

#[test]
fn an_order_through_the_gateway_changes_the_position_and_a_breach_changes_nothing() {
    let risk = start(RISK, &[("MAX_POSITION_SIZE", "100"), ("SERVICE_SLOT", "green")]);
    let ingestor = start(INGESTOR, &[("ACTIVATION", "always"), ("TICK_MS", "5")]);
    let gateway = gateway(&risk, Some(&ingestor), &[]);
    let (status, answer) = gateway.post("/orders", &order("1", 60, Some(10.0)));
    assert_eq!((status, answer), (200, json!({"accepted": true, "position": 60, "duplicate": false})));
    assert_eq!(position(&risk), 60);

    let (status, answer) = gateway.post("/orders", &order("1", 60, Some(10.0)));
    assert_eq!((status, answer), (200, json!({"accepted": true, "position": 60, "duplicate": true})));

    let (status, answer) = gateway.post("/orders", &order("2", 41, Some(10.0)));
    assert_eq!(status, 422);
    assert!(answer["reason"].as_str().expect("a reason").starts_with("position limit"), "{answer}");
    assert_eq!(position(&risk), 60);

    wait("a first price", || gateway.get("/prices").1["prices"]["MSFT"]["seq"].is_u64());
    let bought = json!({"id": "3", "instrument": "MSFT", "side": "buy", "quantity": 1});
    assert_eq!(gateway.post("/orders", &bought).0, 200, "the price is filled in");

    let (_, orders) = gateway.get("/orders?since=1&limit=1");
    assert_eq!(orders["orders"][0]["id"], "2");
    assert_eq!(orders["orders"][0]["handled_by"], "green");
    assert_eq!((&orders["total"], &orders["next"]), (&json!(3), &json!(2)));
    let summary = gateway.get("/").1;
    assert_eq!(summary["positions"]["positions"]["AAPL"]["position"], 60);
    assert!(summary["strategies"]["reason"].is_string(), "one missing service spoils nothing: {summary}");
}

#[test]
fn without_risk_manager_or_price_there_is_no_order() {
    let mut risk = start(RISK, &[]);
    let mut ingestor = start(INGESTOR, &[]);
    let gateway = gateway(&risk, Some(&ingestor), &[]);
    let (status, answer) = gateway.post("/orders", &order("1", 1, None));
    assert_eq!((status, &answer["accepted"]), (503, &json!(false)), "a passive ingestor has no price: {answer}");
    ingestor.kill();
    assert_eq!(gateway.post("/orders", &order("2", 1, None)).0, 503);
    assert_eq!(gateway.post("/orders", &order("3", 1, Some(10.0))).0, 200);
    risk.kill();
    let (status, answer) = gateway.post("/orders", &order("4", 1, Some(10.0)));
    assert_eq!((status, &answer["accepted"]), (503, &json!(false)));
    assert!(answer["reason"].as_str().expect("a reason").starts_with("risk-manager is unreachable"), "{answer}");
    assert_eq!(gateway.get("/ready").0, 200, "readiness is about this process only");
    wait("the heartbeat to notice", || gateway.get("/status").1["dependencies"]["risk-manager"]["reachable"] == false);
}

#[test]
fn the_gateway_refuses_orders_when_trading_is_off_or_the_key_is_wrong() {
    let risk = start(RISK, &[]);
    let off = gateway(&risk, None, &[("DEPLOY_ENV", "production")]);
    let (status, answer) = off.post("/orders", &order("1", 1, Some(10.0)));
    assert_eq!((status, &answer["reason"]), (403, &json!("trading is off")));
    let keyed = gateway(&risk, None, &[("KAIROS_API_KEY", "a key")]);
    assert_eq!(keyed.post("/orders", &order("1", 1, Some(10.0))).0, 401);
    assert_eq!(position(&risk), 0);
}

#[test]
fn an_older_generation_is_fenced_and_its_id_stays_free_for_the_successor() {
    let risk = start(RISK, &[]);
    let placed = |id: &str, slot: &str, generation: u64| {
        let mut order = order(id, 1, Some(10.0));
        order["generation"] = json!(generation);
        order["placed_by"] = json!(slot);
        risk.post("/orders", &order)
    };
    assert_eq!(placed("1", "green", 2).0, 200);
    let (status, answer) = placed("2", "blue", 1);
    assert_eq!(status, 409);
    assert!(answer["reason"].as_str().expect("a reason").starts_with("stale generation"), "{answer}");
    assert_eq!(placed("2", "green", 2).1["duplicate"], false);
}

#[test]
fn a_handed_over_ingestor_goes_on_with_higher_numbers_and_the_passive_one_stands_still() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let variables = [("STATE_DIR", text(directory.path())), ("TICK_MS", "2")];
    let (blue, green) = (start(INGESTOR, &variables), start(INGESTOR, &variables));
    assert_eq!(blue.get("/prices").1["last_seq"], 0, "passive from the start");
    blue.activate(1);
    wait("ticks", || blue.get("/prices").1["last_seq"].as_u64() > Some(100));
    let refused = green.post("/_plimsoll/activate", &json!({"generation": 2}));
    assert_eq!(refused.0, 409, "two at once: {}", refused.1);
    blue.deactivate(2);
    let last = blue.get("/prices").1;
    assert_eq!(green.get("/prices").1, last, "the passive one tells what the active one saved");
    assert_eq!(blue.post("/_plimsoll/activate", &json!({"generation": 1})).0, 409);
    green.activate(2);
    wait("ticks", || green.get("/prices").1["last_seq"].as_u64() > last["last_seq"].as_u64());
    let first = green.get("/ticks?limit=1").1["ticks"][0]["seq"].as_u64();
    assert_eq!(first, last["last_seq"].as_u64().map(|seq| seq + 1), "no gap and no repetition");
    let own = blue.get("/ticks").1["ticks"].as_array().and_then(|ticks| ticks.last()?["seq"].as_u64());
    assert_eq!(own, last["last_seq"].as_u64(), "no tick after the deactivation");
}

/// Prices which cross their averages every twenty ticks.
fn zigzag() -> String {
    let mut text = String::from("instrument,price\n");
    for step in 0..80_u32 {
        let height = if (step / 20) % 2 == 0 { step % 20 } else { 20 - step % 20 };
        writeln!(text, "AAPL,{}", 100 + height).expect("a string takes all");
    }
    text
}

#[test]
fn strategies_hand_over_without_a_repeated_order_or_one_by_a_standby() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let prices = directory.path().join("prices.csv");
    std::fs::write(&prices, zigzag()).expect("written");
    let state = directory.path().join("state");
    let risk = start(RISK, &[]);
    let ingestor = start(INGESTOR, &[("PRICE_FILE", text(&prices)), ("TICK_MS", "2"), ("ACTIVATION", "always")]);
    let (risk_url, ingestor_url) = (risk.url(), ingestor.url());
    let common = [
        ("RISK_MANAGER_URL", risk_url.as_str()),
        ("MARKET_DATA_INGESTOR_URL", &ingestor_url),
        ("STATE_DIR", text(&state)),
        ("TICK_MS", "5"),
    ];
    let slot = |name: &'static str| start(STRATEGY, &[&common[..], &[("SERVICE_SLOT", name)]].concat());
    let slots = [slot("blue"), slot("green")];
    let orders = || risk.get("/orders").1["orders"].as_array().expect("orders").clone();
    assert!(orders().is_empty(), "nobody is active");
    for generation in 1..=4_u64 {
        let at = usize::try_from(generation % 2).expect("0 or 1");
        let (working, name) = (&slots[at], ["blue", "green"][at]);
        let before = orders().len();
        working.activate(generation);
        wait("two orders", || orders().len() >= before + 2);
        working.deactivate(generation);
        let after = orders();
        for order in &after[before..] {
            assert_eq!((&order["placed_by"], &order["generation"]), (&json!(name), &json!(generation)));
        }
        let seen = ingestor.get("/prices").1["last_seq"].as_u64();
        wait("forty ticks", || ingestor.get("/prices").1["last_seq"].as_u64() > seen.map(|seq| seq + 40));
        assert_eq!(orders().len(), after.len(), "no order while nobody is active");
    }
    let all = orders();
    let ids: BTreeSet<&str> = all.iter().filter_map(|order| order["id"].as_str()).collect();
    assert_eq!(ids.len(), all.len());
    assert!(risk.get("/metrics").1.to_string().contains("kairos_orders_duplicate_total 0"), "none was even repeated");
    assert!(slots[0].get("/orders/placed").1["orders"][0]["slot"] == "blue");
}

#[test]
fn a_strategy_that_learns_of_a_later_generation_stops_by_itself() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let prices = directory.path().join("prices.csv");
    std::fs::write(&prices, zigzag()).expect("written");
    let risk = start(RISK, &[]);
    let mut later = order("later", 1, Some(10.0));
    later["generation"] = json!(9);
    later["placer"] = json!("strategy-orchestrator");
    assert_eq!(risk.post("/orders", &later).0, 200);
    let ingestor = start(INGESTOR, &[("PRICE_FILE", text(&prices)), ("TICK_MS", "2"), ("ACTIVATION", "always")]);
    let strategy = start(
        STRATEGY,
        &[("RISK_MANAGER_URL", &risk.url()), ("MARKET_DATA_INGESTOR_URL", &ingestor.url()), ("TICK_MS", "5")],
    );
    strategy.activate(8);
    wait("the strategy to stop", || strategy.get("/_plimsoll/activation").1["active"] == false);
    assert_eq!(risk.get("/orders").1["total"], 1);
    strategy.activate(9);
    wait("an order", || risk.get("/orders").1["total"].as_u64() >= Some(2));
}

#[test]
fn an_ingestor_killed_or_terminated_repeats_no_number() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let variables = [("STATE_DIR", text(directory.path())), ("TICK_MS", "2"), ("ACTIVATION", "always")];
    let mut highest = 0;
    for kill in [true, false, true] {
        let mut ingestor = start(INGESTOR, &variables);
        wait("a hundred ticks", || ingestor.get("/ticks").1["ticks"].as_array().is_some_and(|all| all.len() > 100));
        let ticks = ingestor.get("/ticks?limit=4096").1["ticks"].as_array().expect("ticks").clone();
        let seq = |tick: Option<&Value>| tick.and_then(|tick| tick["seq"].as_u64()).expect("a number");
        assert!(seq(ticks.first()) > highest, "{} after {highest}", seq(ticks.first()));
        highest = seq(ticks.last());
        if kill {
            ingestor.kill();
        } else {
            ingestor.terminate();
            assert_eq!(ingestor.ended().code(), Some(0));
            let state = std::fs::read_to_string(directory.path().join("market-data.json")).expect("state");
            let state: Value = serde_json::from_str(&state).expect("JSON");
            assert_eq!(state["last_seq"], state["reserved"], "flushed");
        }
    }
}

#[test]
fn two_risk_managers_over_one_state_lose_no_update() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let shared = ("STATE_DIR", text(directory.path()));
    let slots = [start(RISK, &[shared, ("SERVICE_SLOT", "blue")]), start(RISK, &[shared, ("SERVICE_SLOT", "green")])];
    std::thread::scope(|scope| {
        for (index, slot) in slots.iter().enumerate() {
            for client in 0..3 {
                scope.spawn(move || {
                    for number in 0..15 {
                        let (status, answer) =
                            slot.post("/orders", &order(&format!("{index}-{client}-{number}"), 1, Some(10.0)));
                        assert_eq!(status, 200, "{answer}");
                    }
                });
            }
        }
    });
    assert_eq!((position(&slots[0]), position(&slots[1])), (90, 90));
    let repeated = slots[1].post("/orders", &order("0-0-0", 1, Some(10.0)));
    assert_eq!(repeated.1["duplicate"], true);
}
