//! A rich pipeline, killed at each of its journal's records; F19 to F21.
#![expect(dead_code, reason = "each test file uses its part of the common steps")]

mod common;

use common::{Close, Deed, Fake, Notice, Question, work};
use plimsoll_core::ErrorClass;
use plimsoll_engine::{
    Pipeline, Resources,
    harness::{Scene, check_effect, crash_sweep, do_twice},
    pipeline,
};
use std::sync::Arc;

fn rich() -> Pipeline {
    pipeline("rich", |g| {
        let top = work(g, "top", vec![]);
        let (left, right) = (work(g, "left", vec![top]), work(g, "right", vec![top]));
        let joined = work(g, "joined", vec![left, right]);
        let pushed = g.effect("push", Deed::new("push"), vec![joined]);
        let cut_over = g.effect("cut-over", Deed::undone("cut-over"), vec![pushed]);
        let answer = g.gate("", Question, vec![cut_over]);
        let after = g.effect("after", Deed::undone("after"), vec![answer]);
        g.effect("told", Notice { name: "told".to_owned() }, vec![after]);
        g.finally("", Close);
    })
}

fn scene(prepare: impl Fn(&Fake)) -> Scene {
    let fake = Arc::new(Fake::default());
    prepare(&fake);
    let resources = Resources::new().with(Arc::clone(&fake));
    Scene::new(rich, move || fake.things.lock().unwrap().clone())
        .resources(resources)
        .answer("question", serde_json::json!("yes"))
}

#[tokio::test]
async fn a_run_killed_at_any_record_arrives_where_an_undisturbed_one_does() {
    let swept = check_effect(async || scene(|_| {})).await;
    assert!(swept.points > 40, "{swept:?}");
}

#[tokio::test]
async fn a_failing_run_killed_at_any_record_is_taken_back_all_the_same() {
    let broken = async || scene(|fake| fake.fail("act told", ErrorClass::CheckFailed));
    let swept = crash_sweep(broken).await;
    assert!(swept.covered.contains("deed[cut-over]") && swept.covered.contains("deed[after]"));
    do_twice(broken).await;
}
