//! Releases that must not reach production, or not as they are, and what those who started them are told.

use crate::{
    pipelines::{GATE, Wish},
    registry::Port,
    world::{World, ending, look, run_id},
};
use plimsoll_core::{RunOutcome, Timestamp, config::Profile};
use plimsoll_deploy::{Evidence, Fault};
use plimsoll_steps::{Question, Reply, Verdict, questions};

/// The version that production serves.
fn served(world: &World) -> Option<String> {
    look(&world.production).live.map(|live| live.version)
}

/// `text` must say all of `expected`.
fn says(text: &str, expected: &[&str]) {
    for part in expected {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
}

fn question(world: &World, number: u16) -> Question {
    questions(world.state().run(&run_id(number)).path()).pop().expect("the question is kept")
}

fn yes(question: &Question, approver: &str) -> Reply {
    let (evidence, verdict) = (Evidence::Terminal, Verdict::Approved);
    let (subject, at) = (question.subject.hash(), Timestamp::from_millis(0));
    Reply { subject, approver: approver.to_owned(), evidence, verdict, at }
}

#[tokio::test]
async fn a_yes_given_before_somebody_else_released_is_refused_and_theirs_stays() {
    let port = Port::take();
    let world = World::at(&port).await;
    let mine = Wish::default().release();
    world.start_until(&mine, &run_id(1), GATE).await;
    let theirs = Wish { version: "2.0.0", ..Wish::default() }.release();
    assert_eq!(world.start(&theirs, &run_id(2)).await.outcome, RunOutcome::Succeeded);
    let before = look(&world.production);

    let report = world.resume(&mine, &run_id(1)).await;
    assert_eq!(report.outcome, RunOutcome::Failed);
    says(&ending(&report, "promote[production]"), &["generation 0 was to be replaced, production is at 1"]);
    let after = look(&world.production);
    assert_eq!((after.generation, after.live, after.history), (before.generation, before.live, before.history));
}

#[tokio::test]
async fn somebody_elses_release_at_the_very_cut_over_is_not_overwritten() {
    let port = Port::take();
    let world = World::at(&port).await;
    world.production.fake.break_it(Fault::OvertakenOnce);
    let report = world.start(&Wish::default().release(), &run_id(1)).await;
    assert_eq!(report.outcome, RunOutcome::Failed);
    says(&ending(&report, "promote[production]"), &["production"]);
    assert_eq!(served(&world), None);
    assert!(!world.production.fake.calls().iter().any(|call| call.starts_with("cut_over")));
}

#[tokio::test]
async fn a_yes_that_has_expired_by_the_cut_over_is_refused() {
    let port = Port::take();
    let world = World::at(&port).await;
    let release = Wish { rule: r#"{ expires = "2h" }"#, ..Wish::default() }.release();
    world.start_until(&release, &run_id(1), GATE).await;
    world.later(2);
    let report = world.resume(&release, &run_id(1)).await;
    assert_eq!(report.outcome, RunOutcome::Failed);
    says(&ending(&report, "promote[production]"), &["the approval of 1970-01-01", "expired at"]);
    assert_eq!(served(&world), None);
}

#[tokio::test]
async fn the_digest_that_serves_in_production_is_the_one_that_was_pushed_and_tested() {
    let port = Port::take();
    let world = World::at(&port).await;
    assert_eq!(world.start(&Wish::default().release(), &run_id(1)).await.outcome, RunOutcome::Succeeded);
    let seen = world.seen();
    let (staging, production) = (look(&world.staging), look(&world.production));
    for service in ["api", "feed"] {
        let tag = seen.get(&format!("repositories/kairos/{service}/_tags/1.0.0")).expect("the tag is in the registry");
        let name = service.parse().unwrap();
        for look in [&staging, &production] {
            let slot = look.services[&name].live.as_ref().expect("it serves");
            assert!(tag.contains(slot.digest.hex()), "{tag}: {slot:?}");
        }
        let manifest = format!("repositories/kairos/{service}/_manifests/{}", tag.trim().trim_start_matches("sha256:"));
        assert!(seen.contains_key(&manifest), "{manifest}: {seen:#?}");
    }
}

#[tokio::test]
async fn what_fails_its_smoke_test_in_staging_does_not_reach_production() {
    let port = Port::take();
    let world = World::at(&port).await;
    let release = Wish::default().release();
    world.start_until(&release, &run_id(1), "deploy[staging]").await;
    world.staging.fake.break_it(Fault::Answers500("1.0.0".to_owned()));
    let report = world.resume(&release, &run_id(1)).await;
    assert_eq!(report.outcome, RunOutcome::Failed);
    let expected =
        ["feed at fake://staging/feed", "GET /version", "500", r#"{"service":"feed","version":"1.0.0"}"#, "last words"];
    says(&ending(&report, "smoke[staging]"), &expected);
    assert!(world.production.fake.calls().is_empty() && served(&world).is_none());
}

#[tokio::test]
async fn what_stops_answering_after_its_cut_over_gives_way_to_what_served_before() {
    let port = Port::take();
    let world = World::at(&port).await;
    world.start(&Wish::default().release(), &run_id(1)).await;
    let release = Wish { version: "1.1.0", ..Wish::default() }.release();
    world.start_until(&release, &run_id(2), "promote[production]").await;
    assert_eq!(served(&world).as_deref(), Some("1.1.0"));
    world.production.fake.break_it(Fault::Answers500("1.1.0".to_owned()));
    let report = world.resume(&release, &run_id(2)).await;
    assert_eq!((report.outcome, report.stuck.len()), (RunOutcome::Failed, 0), "{report:?}");
    says(&ending(&report, "smoke[production]"), &["GET /version", "500"]);
    assert_eq!(served(&world).as_deref(), Some("1.0.0"));
    let generation = look(&world.production).generation;
    // Once more changes nothing, though what serves was put there by this very run.
    let again = world.resume(&release, &run_id(2)).await;
    assert!(again.stuck.is_empty(), "{again:?}");
    assert_eq!((served(&world).as_deref(), look(&world.production).generation), (Some("1.0.0"), generation));
}

#[tokio::test]
async fn what_does_not_answer_before_the_cut_over_does_not_reach_staging_either() {
    let port = Port::take();
    let world = World::at(&port).await;
    world.staging.fake.break_it(Fault::Answers500("1.0.0".to_owned()));
    let report = world.start(&Wish::default().release(), &run_id(1)).await;
    assert_eq!(report.outcome, RunOutcome::Failed);
    says(&ending(&report, "deploy[staging]"), &["GET /version", "status 500", "last words"]);
    assert_eq!((look(&world.staging).live, served(&world)), (None, None));
}

#[tokio::test]
async fn the_same_release_once_more_is_found_done_and_changes_nothing() {
    let port = Port::take();
    let world = World::at(&port).await;
    let release = Wish::default().release();
    assert!(world.start(&release, &run_id(1)).await.changed);
    let (before, calls) = (world.seen(), world.production.fake.calls());

    let report = world.start(&release, &run_id(2)).await;
    assert_eq!((report.outcome, report.changed), (RunOutcome::Succeeded, false), "{report:?}");
    for step in ["push", "deploy[staging]", "promote[production]"] {
        assert_eq!(ending(&report, step), "FoundDone", "{step}");
    }
    assert_eq!((world.seen(), world.production.fake.calls()), (before, calls));
}

#[tokio::test]
async fn where_two_must_say_yes_the_run_goes_on_waiting_after_one() {
    let port = Port::take();
    let world = World::at(&port).await;
    let release = Wish { rule: "{ quorum = 2 }", yes: false, ..Wish::default() }.release();
    let report = world.start(&release, &run_id(1)).await;
    says(&ending(&report, GATE), &["parked", "2 of 2 approvals for 1.0.0 in production"]);
    for waiting in [1, 1] {
        world.answer(&run_id(1), GATE, &yes(&question(&world, 1), "bob@x"));
        let report = world.resume(&release, &run_id(1)).await;
        says(&ending(&report, GATE), &["parked", &format!("{waiting} of 2 approvals")]);
        assert_eq!(served(&world), None, "the same person again is no second one");
    }
    world.answer(&run_id(1), GATE, &yes(&question(&world, 1), "cat@x"));
    assert_eq!(world.resume(&release, &run_id(1)).await.outcome, RunOutcome::Succeeded);
    let approval = look(&world.production).live.and_then(|live| live.approval).expect("it serves under an approval");
    assert_eq!(approval.approver, "bob@x, cat@x");
}

#[tokio::test]
async fn an_answer_to_another_runs_question_opens_nothing() {
    let port = Port::take();
    let world = World::at(&port).await;
    let release = Wish { yes: false, ..Wish::default() }.release();
    world.start(&release, &run_id(1)).await;
    world.start(&release, &run_id(2)).await;
    world.answer(&run_id(2), GATE, &yes(&question(&world, 1), "bob@x"));
    let report = world.resume(&release, &run_id(2)).await;
    assert_eq!(report.outcome, RunOutcome::Failed);
    says(&ending(&report, GATE), &["bob@x approved another subject"]);
    assert_eq!(served(&world), None);
}

#[tokio::test]
async fn a_dirty_tree_is_released_to_production_from_a_laptop_alone() {
    for (profile, expected) in [(Profile::Local, Some("1.0.0".to_owned())), (Profile::Github, None)] {
        let port = Port::take();
        let world = World::at(&port).await;
        let report = world.start(&Wish { dirty: true, profile, ..Wish::default() }.release(), &run_id(1)).await;
        assert_eq!(served(&world), expected, "{report:?}");
        if profile == Profile::Github {
            says(&ending(&report, GATE), &["production is not released to from a dirty tree", "commit the changes"]);
            assert!(world.production.fake.calls().is_empty());
        }
    }
}
