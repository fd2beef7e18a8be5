//! Cut-overs while the strategy trades: an order is placed once, and only by the slot that was live.

use crate::{
    place::Place,
    world::{eventually, get},
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

const CUT_OVERS: usize = 20;
/// The first of so many cut-overs is a release; the others go back to what was live before it, and forth.
const RELEASE_EVERY: usize = 5;
/// For what depends on how much else this machine does; it bounds a test that hangs.
const PATIENCE: Duration = Duration::from_mins(1);
const STRATEGY: &str = "strategy-orchestrator";

/// One line of the risk manager's orders.
#[derive(Debug)]
struct Order {
    id: String,
    generation: u64,
    placed_by: String,
    placer: String,
    accepted: bool,
}

impl Order {
    fn of(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        Self {
            id: text("id"),
            generation: value["generation"].as_u64().unwrap(),
            placed_by: text("placed_by"),
            placer: text("placer"),
            accepted: value["accepted"].as_bool().unwrap(),
        }
    }
}

/// Reads what has come since, page by page.
fn read_on(url: &str, orders: &mut Vec<Order>) {
    // Two hundred prices a second give a few orders: this is far more than a test lasts.
    for _ in 0..1000 {
        let body = get(url, &format!("/orders?since={}&limit=500", orders.len())).unwrap();
        let page: Value = serde_json::from_str(&body).unwrap();
        let more = page["orders"].as_array().unwrap();
        orders.extend(more.iter().map(Order::of));
        if more.is_empty() {
            return;
        }
    }
    panic!("the orders have no end");
}

/// By the strategy's own logs: by generation, the slot that says it placed orders, and the times of the first and last.
fn told_by_strategy(place: &Place) -> BTreeMap<u64, (BTreeSet<String>, jiff::Timestamp, jiff::Timestamp)> {
    let mut told = BTreeMap::new();
    for entry in fs::read_dir(place.state().join("logs/production").join(STRATEGY)).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let slot = name.split('-').next().unwrap();
        let text = fs::read_to_string(entry.path()).unwrap();
        for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            if line["message"] != "order placed" {
                continue;
            }
            let at: jiff::Timestamp = line["timestamp"].as_str().unwrap().parse().unwrap();
            let generation = line["generation"].as_u64().unwrap();
            let (slots, first, last) = told.entry(generation).or_insert_with(|| (BTreeSet::new(), at, at));
            slots.insert(slot.to_owned());
            (*first, *last) = ((*first).min(at), (*last).max(at));
        }
    }
    told
}

#[test]
fn twenty_cut_overs_with_trading_on_place_no_order_twice_and_none_from_a_standby() {
    let place = Place::new();
    place.run(&["release", "--yes"]).expect(0);
    let mut live = BTreeMap::new();
    let mut orders = Vec::new();
    for cut_over in 0..=CUT_OVERS {
        if cut_over % RELEASE_EVERY == 1 {
            place.change(cut_over + 1);
            place.run(&["release", "--yes"]).expect(0);
        } else if cut_over > 0 {
            place.run(&["rollback", "production", "--yes"]).expect(0);
        }
        let (generation, production) = place.production();
        let slot = production.services[STRATEGY].slot.clone();
        assert_eq!(live.insert(generation, slot), None, "generation {generation} was live twice");
        let url = production.url("api-gateway").to_owned();
        eventually("the live slot trades", PATIENCE, || {
            read_on(&url, &mut orders);
            orders.last().is_some_and(|order| order.generation == generation && order.accepted)
        });
    }
    read_on(place.production().1.url("risk-manager"), &mut orders);

    let slots: Vec<&String> = live.values().collect();
    assert_eq!(slots.len(), CUT_OVERS + 1);
    assert!(slots.windows(2).all(|pair| pair[0] != pair[1]), "not every cut-over moved the strategy: {live:?}");
    let ids: BTreeSet<&str> = orders.iter().map(|order| order.id.as_str()).collect();
    assert_eq!(ids.len(), orders.len(), "an order was placed twice");
    for pair in orders.windows(2) {
        assert!(pair[0].generation <= pair[1].generation, "out of their turn: {pair:?}");
    }
    for order in &orders {
        assert_eq!(order.placer, STRATEGY);
        assert_eq!(live.get(&order.generation), Some(&order.placed_by), "placed by a standby: {order:?}");
    }
    print_figures(&place, &live, &orders);
    place.down();
}

/// Prints the figures, after the strategy's own logs have told the same as the risk manager's.
fn print_figures(place: &Place, live: &BTreeMap<u64, String>, orders: &[Order]) {
    let told = told_by_strategy(place);
    for (generation, (slots, ..)) in &told {
        assert_eq!(Some(slots), live.get(generation).map(|slot| BTreeSet::from([slot.clone()])).as_ref());
    }
    assert_eq!(told.keys().collect::<Vec<_>>(), live.keys().collect::<Vec<_>>());
    let spans: Vec<_> = told.values().collect();
    let gaps = spans.windows(2).map(|pair| pair[1].1.as_millisecond() - pair[0].2.as_millisecond());
    let mut gaps: Vec<i64> = gaps.collect();
    // One slot's last order lies before the next slot's first.
    assert!(gaps.iter().all(|gap| *gap >= 0), "{gaps:?}");
    gaps.sort_unstable();
    let accepted = orders.iter().filter(|order| order.accepted).count();
    println!(
        "{} cut-overs, {} orders, {accepted} accepted, 0 twice, 0 by a standby; without orders at a cut-over: median {} ms, \
         longest {} ms",
        live.len() - 1,
        orders.len(),
        gaps[gaps.len() / 2],
        gaps[gaps.len() - 1],
    );
}
