//! Cut-overs on each target, ten, or as many as `PLIMSOLL_CUT_OVERS` says, while a strategy trades and a client places orders
//! all the time: an order is placed once, and by the strategy's live slot only; what a client was told to be placed is there
//! in the end.

use crate::{
    load,
    market::{Market, docker_answers},
    orders::{Order, Told, each_is_there_once, read_on},
    place::Place,
    scene::{Cluster, Scene},
    world::eventually,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

const CUT_OVERS: usize = 10;
/// The first of so many cut-overs is a release; the others go back to what was live before it, and forth.
const RELEASE_EVERY: usize = 25;
/// For what depends on how much else this machine does; it bounds a test that hangs.
const PATIENCE: Duration = Duration::from_mins(1);
const STRATEGY: &str = "strategy-orchestrator";

fn cut_overs() -> usize {
    std::env::var("PLIMSOLL_CUT_OVERS").map_or(CUT_OVERS, |text| text.parse().expect("a number of cut-overs"))
}

/// By generation, what the strategy's own logs say of its orders: the slots that placed any, the first and the last.
type ByGeneration = BTreeMap<u64, (BTreeSet<String>, jiff::Timestamp, jiff::Timestamp)>;

/// Adds what the strategy's own logs tell now: a release ends the processes of the slot it stands up anew.
fn listen(market: &Market<'_>, place: &Place, told: &mut ByGeneration) {
    for (slot, text) in market.logs(place, STRATEGY) {
        for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            if line["message"] != "order placed" {
                continue;
            }
            let at: jiff::Timestamp = line["timestamp"].as_str().unwrap().parse().unwrap();
            let generation = line["generation"].as_u64().unwrap();
            let (slots, first, last) = told.entry(generation).or_insert_with(|| (BTreeSet::new(), at, at));
            slots.insert(slot.clone());
            (*first, *last) = ((*first).min(at), (*last).max(at));
        }
    }
}

/// Production after its cut-overs.
struct Day {
    /// By generation, the strategy's live slot.
    live: BTreeMap<u64, String>,
    orders: Vec<Order>,
    told: ByGeneration,
    client: Told,
    took: Duration,
}

fn trade(market: &Market<'_>, place: &Place) -> Day {
    place.run(&["release", "--yes"]).expect(0);
    let url = market.gateway(place);
    let get = |path: &str| market.get(&url, path);
    let (mut live, mut orders, mut told) = (BTreeMap::new(), Vec::new(), ByGeneration::new());
    let (client, began) = (market.client(&url), Instant::now());
    eventually("the client's orders are placed", PATIENCE, || client.placed() > 0);
    for cut_over in 0..=cut_overs() {
        if cut_over % RELEASE_EVERY == 1 {
            listen(market, place, &mut told);
            place.change(cut_over + 1);
            place.run(&["release", "--yes"]).expect(0);
        } else if cut_over > 0 {
            place.run(&["rollback", "production", "--yes"]).expect(0);
        }
        let (generation, production) = place.production();
        let slot = production.services[STRATEGY].slot.clone();
        assert_eq!(live.insert(generation, slot), None, "generation {generation} was live twice");
        let placed = client.placed();
        eventually("the live slot and the client trade", PATIENCE, || {
            read_on(&get, &mut orders);
            let last = orders.iter().rev().find(|order| order.placer == STRATEGY);
            last.is_some_and(|order| order.generation == Some(generation) && order.accepted) && client.placed() > placed
        });
    }
    let took = began.elapsed();
    let client = client.stop();
    listen(market, place, &mut told);
    read_on(&get, &mut orders);
    Day { live, orders, told, client, took }
}

impl Day {
    fn is_sound(&self) {
        let slots: Vec<&String> = self.live.values().collect();
        assert_eq!(slots.len(), cut_overs() + 1);
        assert!(slots.windows(2).all(|pair| pair[0] != pair[1]), "not every cut-over moved it: {:?}", self.live);
        each_is_there_once(&self.orders, &self.client);
        let ours: Vec<&Order> = self.orders.iter().filter(|order| order.placer == STRATEGY).collect();
        for pair in ours.windows(2) {
            assert!(pair[0].generation <= pair[1].generation, "out of their turn: {pair:?}");
        }
        for order in ours {
            let slot = order.generation.and_then(|generation| self.live.get(&generation));
            assert_eq!(slot, Some(&order.placed_by), "placed by a standby: {order:?}");
        }
        // The strategy's own logs tell the same as the risk manager's record.
        for (generation, (slots, ..)) in &self.told {
            assert_eq!(Some(slots), self.live.get(generation).map(|slot| BTreeSet::from([slot.clone()])).as_ref());
        }
        assert_eq!(self.told.keys().collect::<Vec<_>>(), self.live.keys().collect::<Vec<_>>());
    }

    fn print(&self, target: &str) {
        let spans: Vec<_> = self.told.values().collect();
        let gaps = spans.windows(2).map(|pair| pair[1].1.as_millisecond() - pair[0].2.as_millisecond());
        let mut gaps: Vec<i64> = gaps.collect();
        // One slot's last order lies before the next slot's first.
        assert!(gaps.iter().all(|gap| *gap >= 0), "{gaps:?}");
        gaps.sort_unstable();
        let ours = self.orders.iter().filter(|order| order.placer == STRATEGY).count();
        println!(
            "{target}: {} cut-overs in {} s, {ours} orders of the strategy, {} of the client ({} sent again), 0 twice, 0 by a \
             standby, 0 lost; without orders of the strategy at a cut-over: median {} ms, longest {} ms",
            self.live.len() - 1,
            self.took.as_secs(),
            self.client.placed,
            self.client.again,
            gaps[gaps.len() / 2],
            gaps[gaps.len() - 1],
        );
        let Told { refused: (refused, example), errors, .. } = &self.client;
        println!(
            "{target}: the client had {refused} answers without a decision, the last {example:?}; errors {errors:?}"
        );
    }
}

fn a_hundred_cut_overs(market: &Market<'_>) {
    if !load::available() {
        return;
    }
    let place = market.place();
    let day = trade(market, &place);
    day.print(market.name());
    day.is_sound();
    place.down();
}

#[test]
fn a_hundred_cut_overs_between_processes_place_no_order_twice_and_none_from_a_standby() {
    a_hundred_cut_overs(&Market::Local);
}

#[test]
fn a_hundred_cut_overs_between_containers_place_no_order_twice_and_none_from_a_standby() {
    if docker_answers() {
        a_hundred_cut_overs(&Market::Docker);
    }
}

#[test]
fn a_hundred_cut_overs_in_a_cluster_place_no_order_twice_and_none_from_a_standby() {
    let Some(cluster) = Cluster::find() else { return };
    a_hundred_cut_overs(&Market::Cluster(&Scene::new(&cluster, "trading")));
}
