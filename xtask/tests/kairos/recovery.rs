//! Kairos' orders are lost, or its place is: what a backup brings back, what a damaged one does not touch, and how another
//! environment takes over.

use crate::{
    market::{Market, docker_answers},
    orders::{Order, read_on},
    place::Place,
    scene::{Cluster, Scene},
    world::eventually,
};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path, time::Duration};

/// For what depends on how much else this machine does; it bounds a test that hangs.
const PATIENCE: Duration = Duration::from_mins(1);
/// More than a strategy places in the seconds that a copy takes.
const SOME: usize = 20;

/// Another environment beside production, configured as that is, whose strategy does not trade.
fn with_recovery(market: &Market<'_>, text: &str) -> String {
    let (_, production) = text.split_once("[environments.production]\n").unwrap();
    let own = production.lines().take_while(|line| !line.starts_with('['));
    let own = own.filter(|line| !["gate", "approval", "branch"].iter().any(|key| line.starts_with(key)));
    let own: Vec<&str> = own.collect();
    let own = own.join("\n").replace("ENABLE_TRADING = \"true\"", "ENABLE_TRADING = \"false\"");
    let own = match market {
        Market::Cluster(scene) => own.replace(&scene.namespace("production"), &scene.namespace("recovery")),
        Market::Local | Market::Docker => own,
    };
    format!("{text}\n[environments.recovery]\n{own}\n")
}

fn orders(market: &Market<'_>, url: &str) -> Vec<Order> {
    let mut orders = Vec::new();
    read_on(&|path| market.get(url, path), &mut orders);
    orders
}

/// Waits until there are `more` orders than `than`.
fn traded(market: &Market<'_>, url: &str, than: usize, more: usize) {
    eventually("the strategy trades", PATIENCE, || orders(market, url).len() >= than + more);
}

fn ids(orders: &[Order]) -> Vec<&str> {
    orders.iter().map(|order| order.id.as_str()).collect()
}

fn files(directory: &Path) -> Vec<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn lost_and_found(market: &Market<'_>) {
    let place = market.place_with(|text| with_recovery(market, text));
    place.run(&["release", "--yes"]).expect(0);
    let url = market.gateway(&place);
    traded(market, &url, 0, SOME);
    let backup = place.state().join("a-backup");
    let directory = backup.to_str().unwrap();
    let before = orders(market, &url);
    let made = place.json(&["backup", "production", "--to", directory, "--json"]);
    let after = orders(market, &url);
    assert_eq!(files(&backup).len(), 2, "one state and the manifest");
    assert_eq!(made["services"]["risk-manager"]["schema"]["readable_from"], 2);
    traded(market, &url, after.len(), SOME);
    let late = orders(market, &url);

    // One byte of it is another one: nothing is stopped for that.
    let copy = backup.join("risk-manager.state");
    let whole = fs::read(&copy).unwrap();
    let mut damaged = whole.clone();
    damaged[600] ^= 1;
    fs::write(&copy, &damaged).unwrap();
    let (generation, _) = place.production();
    let refused = place.run(&["restore", "production", "--from", directory]).expect(1);
    assert!(refused.text().contains("the copy of risk-manager is damaged:"), "{}", refused.text());
    assert_eq!(place.production().0, generation, "it was not touched");
    fs::write(&copy, &whole).unwrap();

    drill(market, &place, directory);
    assert_eq!(place.production().0, generation, "a drill does not touch it");
    assert!(orders(market, &url).len() >= late.len(), "nor its orders");

    let restored = place.run(&["restore", "production", "--from", directory]).expect(0);
    println!("{}: {}", market.name(), restored.out.trim());
    let url = market.gateway(&place);
    let back = orders(market, &url);
    // The backup is of a moment between the two looks.
    assert!(ids(&back).starts_with(&ids(&before)), "what was acknowledged before the backup is there");
    // The prices go on where they were, so no later order has the id of one that was lost.
    let there: BTreeSet<&str> = ids(&back).into_iter().collect();
    let lost: Vec<&str> = ids(&late)[after.len()..].to_vec();
    let kept: Vec<&&str> = lost.iter().filter(|id| there.contains(*id)).collect();
    assert!(kept.is_empty(), "of what was placed after it there is {kept:?}");
    traded(market, &url, back.len(), SOME);
    place.down();
}

/// Recovery takes over with what the backup has.
fn drill(market: &Market<'_>, place: &Place, directory: &str) {
    let drill = ["drill", "failover", "production", "--to", "recovery", "--from", directory, "--json"];
    let told = place.json(&drill);
    println!("{}: drill {told}", market.name());
    assert_eq!(told["version"], place.production().1.version.as_str());
    assert!(told["smoke_requests"].as_u64().unwrap() >= 4 && told["outage_ms"].as_u64().unwrap() > 0);
    let status = place.status();
    let recovery = environment(&status, "recovery");
    assert_eq!(recovery["stopped"], true, "it is stopped again");
    // The next one finds it stopped, and is kept: its orders are those of the backup.
    let again = [&drill[..], &["--keep"]].concat();
    assert_eq!(place.json(&again)["kept"], true);
    let url = market.gateway_of(place, "recovery");
    let orders = orders(market, &url);
    assert!(orders.len() >= SOME, "{} orders", orders.len());
    place.run(&["stop", "recovery"]).expect(0);
}

fn environment(status: &Value, name: &str) -> Value {
    let all = status["environments"].as_array().unwrap();
    all.iter().find(|environment| environment["name"] == name).cloned().unwrap_or_else(|| panic!("{status}"))
}

#[test]
fn lost_orders_come_back_from_a_backup_and_another_environment_takes_over_as_processes() {
    lost_and_found(&Market::Local);
}

#[test]
fn lost_orders_come_back_from_a_backup_and_another_environment_takes_over_in_containers() {
    if docker_answers() {
        lost_and_found(&Market::Docker);
    }
}

#[test]
fn lost_orders_come_back_from_a_backup_and_another_environment_takes_over_in_a_cluster() {
    let Some(cluster) = Cluster::find() else { return };
    lost_and_found(&Market::Cluster(&Scene::new(&cluster, "recovery")));
}
