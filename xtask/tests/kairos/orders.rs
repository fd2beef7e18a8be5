//! A client that trades all the time, and what the risk manager has on record in the end.

use crate::load::Load;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// More pages than any test fills.
const PAGES: usize = 1000;
const PAGE: usize = 500;

/// What `wrk` runs as this client.
pub(crate) const SCRIPT: &str = include_str!("orders.lua");

/// One line of the risk manager's orders.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) id: String,
    instrument: String,
    /// Shares, those that are sold below zero.
    shares: i64,
    pub(crate) generation: Option<u64>,
    pub(crate) placed_by: String,
    pub(crate) placer: String,
    pub(crate) accepted: bool,
    position: i64,
}

impl Order {
    fn of(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let quantity = value["quantity"].as_i64().unwrap();
        Self {
            id: text("id"),
            instrument: text("instrument"),
            shares: if value["side"] == "sell" { -quantity } else { quantity },
            generation: value["generation"].as_u64(),
            placed_by: text("placed_by"),
            placer: text("placer"),
            accepted: value["accepted"].as_bool().unwrap(),
            position: value["position"].as_i64().unwrap(),
        }
    }
}

/// Reads what has come since, page by page. `get` asks the gateway.
pub(crate) fn read_on(get: &dyn Fn(&str) -> String, orders: &mut Vec<Order>) {
    for _ in 0..PAGES {
        let body = get(&format!("/orders?since={}&limit={PAGE}", orders.len()));
        let page: Value = serde_json::from_str(&body).unwrap();
        let more = page["orders"].as_array().unwrap();
        orders.extend(more.iter().map(Order::of));
        if more.len() < PAGE {
            return;
        }
    }
    panic!("the orders have no end");
}

/// The client at work.
pub(crate) struct Client(Load);

/// What the client was told.
#[derive(Debug)]
pub(crate) struct Told {
    /// It has an answer to orders 1 to this one.
    pub(crate) placed: u64,
    /// Orders it sent once more because it had no decision.
    pub(crate) again: u64,
    /// Answers that were no decision, and the last of them.
    pub(crate) refused: (u64, String),
    /// What went wrong with its connections.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Client {
    pub(crate) fn new(load: Load) -> Self {
        Self(load)
    }

    pub(crate) fn placed(&self) -> u64 {
        self.0.answered()
    }

    pub(crate) fn stop(self) -> Told {
        let summary = self.0.stop();
        let told = |key: &str| summary.told.get(key).copied().unwrap_or_default();
        let (placed, again, refused) = (told("placed"), told("again"), told("refused"));
        Told { placed, again, refused: (refused, summary.example.clone()), errors: summary.errors }
    }
}

/// No order is on record twice or was filled twice, and each one that the client has an answer to is there.
pub(crate) fn each_is_there_once(orders: &[Order], told: &Told) {
    let ids: BTreeSet<&str> = orders.iter().map(|order| order.id.as_str()).collect();
    assert_eq!(ids.len(), orders.len(), "an order was placed twice");
    let lost: Vec<u64> = (1..=told.placed).filter(|number| !ids.contains(&*format!("client-{number}"))).collect();
    assert_eq!(lost, Vec::<u64>::new(), "acknowledged, and not there: {told:?}");
    let clients = ids.iter().filter(|id| id.starts_with("client-")).count();
    // The last one may have been placed without an answer.
    assert!([told.placed, told.placed + 1].contains(&(clients as u64)), "{clients} of the client: {told:?}");
    let mut positions = BTreeMap::new();
    for order in orders {
        let position = positions.entry(&order.instrument).or_insert(0);
        *position += if order.accepted { order.shares } else { 0 };
        assert_eq!(*position, order.position, "filled twice, or not at all: {order:?}");
    }
}
