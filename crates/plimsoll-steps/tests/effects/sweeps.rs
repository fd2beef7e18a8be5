//! The harness itself: stopped before and after every record of the journal, resumed, and every act done twice.

use crate::{
    pipelines::{GATE, Wish, regretted, rollback},
    registry::Port,
    world::{World, run_id},
};
use plimsoll_core::{RunOutcome, Timestamp};
use plimsoll_deploy::Evidence;
use plimsoll_engine::harness::{Scene, crash_sweep, do_twice};
use plimsoll_steps::{Reply, Verdict, questions};
use std::sync::Arc;

/// A release under `--yes` into a fresh world.
async fn release(port: &Port) -> Scene {
    let world = World::at(port).await;
    let resources = world.resources.clone();
    Scene::new(|| Wish::default().release(), move || world.seen()).resources(resources)
}

#[tokio::test]
async fn a_release_killed_at_any_record_arrives_where_an_undisturbed_one_does() {
    let port = Port::take();
    let swept = crash_sweep(async || release(&port).await).await;
    swept.assert_covers(&Wish::default().release());
}

#[tokio::test]
async fn a_release_whose_acts_are_done_twice_arrives_where_one_that_did_them_once_does() {
    let port = Port::take();
    do_twice(async || release(&port).await).await;
}

/// The same with a run that parks and is answered through its journal, the answering killed as well.
#[tokio::test]
async fn a_release_that_is_approved_through_its_journal_and_killed_anywhere_arrives_all_the_same() {
    let asked = || Wish { yes: false, ..Wish::default() }.release();
    let port = Port::take();
    // What a yes covers is the same in every world: digests, configuration, plan, generation and run are.
    let subject = {
        let pilot = World::at(&port).await;
        let report = pilot.start(&asked(), &run_id(1)).await;
        assert_eq!(report.outcome, RunOutcome::Parked);
        questions(pilot.state().run(&run_id(1)).path()).pop().expect("the question is kept").subject.hash()
    };
    let reply = Reply {
        subject,
        approver: "bob@x".to_owned(),
        evidence: Evidence::Terminal,
        verdict: Verdict::Approved,
        at: Timestamp::from_millis(0),
    };
    let scene = async || {
        let world = World::at(&port).await;
        let resources = world.resources.clone();
        Scene::new(asked, move || world.seen()).resources(resources).answer(GATE, serde_json::to_value(&reply).unwrap())
    };
    let swept = crash_sweep(scene).await;
    swept.assert_covers(&asked());
    do_twice(scene).await;
}

#[tokio::test]
async fn a_release_that_is_regretted_and_killed_at_any_record_gives_way_to_the_one_before_it() {
    let port = Port::take();
    let wish = || Wish { version: "1.1.0", ..Wish::default() };
    let scene = async || {
        let world = World::at(&port).await;
        world.start(&Wish::default().release(), &run_id(10)).await;
        let (resources, seen) = (world.resources.clone(), Arc::clone(&world));
        Scene::new(move || regretted(&wish().inputs("release")), move || seen.seen()).resources(resources)
    };
    let swept = crash_sweep(scene).await;
    swept.assert_covers(&regretted(&wish().inputs("release")));
    do_twice(scene).await;

    let world = World::at(&port).await;
    world.start(&Wish::default().release(), &run_id(10)).await;
    let report = world.start(&regretted(&wish().inputs("release")), &run_id(11)).await;
    assert!(report.outcome == RunOutcome::Failed && report.stuck.is_empty(), "{report:?}");
    let seen = crate::world::look(&world.production);
    assert_eq!(seen.live.unwrap().version, "1.0.0");
    assert!(seen.services.values().all(|s| s.standby.is_none()), "what was regretted stands no more");
}

#[tokio::test]
async fn a_rollback_killed_at_any_record_puts_back_the_release_that_was_picked_first() {
    let port = Port::take();
    let back = || rollback(&Wish::default().inputs("rollback"));
    let scene = async || {
        let world = World::at(&port).await;
        for (version, run) in [("1.0.0", run_id(10)), ("1.1.0", run_id(11))] {
            let report = world.start(&Wish { version, ..Wish::default() }.release(), &run).await;
            assert_eq!(report.outcome, RunOutcome::Succeeded, "{report:?}");
        }
        let (resources, seen) = (world.resources.clone(), Arc::clone(&world));
        Scene::new(back, move || seen.seen()).resources(resources)
    };
    let swept = crash_sweep(scene).await;
    swept.assert_covers(&back());
    do_twice(scene).await;
}
