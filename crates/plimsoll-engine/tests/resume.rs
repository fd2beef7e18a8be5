//! Going on with a run: what is taken from its journal, what is done again, what is refused.
#![expect(dead_code, reason = "each test file uses its part of the common steps")]

mod common;

use common::{Close, Deed, Notice, Place, Question, Work, error_of, nothing, words, work, works};
use plimsoll_core::{Ending, ErrorClass, RunOutcome};
use plimsoll_engine::{Cache, Crash, Faults, Journal, Landing, Pipeline, Record, RunError, answer, pipeline};
use std::{fs, sync::Arc};

fn gated() -> Pipeline {
    pipeline("gated", |g| {
        let built = work(g, "build", vec![]);
        let pushed = g.effect("push", Deed::new("push"), vec![built]);
        let yes = g.gate("", Question, vec![pushed]);
        g.effect("ship", Deed::new("ship"), vec![yes]);
        g.finally("", Close);
    })
}

#[tokio::test]
async fn a_parked_run_goes_on_with_the_same_plan_when_it_is_answered_and_redoes_nothing() {
    let place = Place::new();
    let report = place.start(&gated()).await.unwrap();
    assert_eq!(report.outcome, RunOutcome::Parked);
    assert_eq!(words(&report)["question"], "parked");
    assert_eq!(words(&report)["deed[ship]"], "skipped");
    assert_eq!(place.fake.thing("closed parked").as_deref(), Some("1"));
    // Still nobody: it parks again, and the same is not told twice.
    assert_eq!(place.resume(&gated()).await.unwrap().outcome, RunOutcome::Parked);
    assert_eq!(place.fake.thing("closed parked").as_deref(), Some("1"));
    let clock = Arc::clone(&place.setup.clock);
    answer(&place.setup.state, &place.run, "question", "yes".into(), clock).unwrap();
    let report = place.resume(&gated()).await.unwrap();
    assert_eq!(report.outcome, RunOutcome::Succeeded);
    assert_eq!(words(&report)["work[build]"], "replayed");
    assert_eq!(words(&report)["deed[push]"], "replayed");
    assert_eq!(place.fake.thing("ship").as_deref(), Some("\"yes\""));
    assert_eq!((place.fake.called("work build"), place.fake.called("act push")), (1, 1));
    assert_eq!(place.fake.thing("closed succeeded").as_deref(), Some("1"));
    assert!(matches!(place.resume(&gated()).await, Err(RunError::Over { .. })));
}

#[tokio::test]
async fn a_failed_step_is_tried_again_and_never_skipped() {
    let place = Place::new();
    place.fake.fail("act push", ErrorClass::CheckFailed);
    let report = place.start(&gated()).await.unwrap();
    assert_eq!((report.outcome, words(&report)["deed[push]"]), (RunOutcome::Failed, "failed"));
    assert_eq!(place.resume(&gated()).await.unwrap().outcome, RunOutcome::Failed);
    assert_eq!(place.fake.called("act push"), 2);
    assert_eq!(place.fake.thing("closed failed").as_deref(), Some("1"), "the same outcome is told once");
    place.fake.mend("act push");
    assert_eq!(place.resume(&gated()).await.unwrap().outcome, RunOutcome::Parked);
    assert_eq!(place.fake.called("act push"), 3);
}

#[tokio::test]
async fn work_that_was_left_out_is_shown_with_its_reason_is_kept_nowhere_and_is_tried_again() {
    let mut place = Place::new();
    place.fake.on("work build", |cx, _| async move {
        cx.skip("no compiler");
        Ok("nothing".to_owned())
    });
    let report = place.start(&gated()).await.unwrap();
    assert_eq!((words(&report)["work[build]"], words(&report)["deed[push]"]), ("skipped", "done"));
    let ending = &report.steps.iter().find(|step| &*step.name == "work[build]").unwrap().ending;
    assert_eq!(*ending, Ending::Skipped { reason: "no compiler".to_owned() });
    // What depends on it got its output, and is not done again as long as that is the same.
    let report = place.resume(&gated()).await.unwrap();
    assert_eq!((words(&report)["work[build]"], words(&report)["deed[push]"]), ("skipped", "replayed"));
    assert_eq!(words(&place.start_another(&gated(), 2).await)["work[build]"], "skipped");
    place.fake.mend("work build");
    assert_eq!(words(&place.start_another(&gated(), 3).await)["work[build]"], "done");
    assert_eq!(words(&place.start_another(&gated(), 4).await)["work[build]"], "cached");
}

#[tokio::test]
async fn what_changes_by_itself_decides_about_the_cache_and_keeps_no_run_from_going_on() {
    let of_day = |day: u64| {
        pipeline("day", move |g| {
            g.pure("build", Work { day, ..Work::new("build") }, nothing());
        })
    };
    let mut place = Place::new();
    place.fake.fail("work build", ErrorClass::CheckFailed);
    assert_eq!(place.start(&of_day(1)).await.unwrap().outcome, RunOutcome::Failed);
    place.fake.mend("work build");
    assert_eq!(words(&place.resume(&of_day(2)).await.unwrap())["work[build]"], "done");
    assert_eq!(words(&place.start_another(&of_day(2), 2).await)["work[build]"], "cached");
    assert_eq!(words(&place.start_another(&of_day(3), 3).await)["work[build]"], "done");
}

#[tokio::test]
async fn a_changed_plan_is_refused_with_both_hashes_and_the_steps_that_differ() {
    let place = Place::new();
    place.fake.fail("work b", ErrorClass::CheckFailed);
    let old = works(&[("a", &[]), ("b", &["a"]), ("c", &[])]);
    let new = works(&[("a", &[]), ("b", &[]), ("d", &[])]);
    place.start(&old).await.unwrap();
    let refusal = place.resume(&new).await.unwrap_err().to_string();
    for part in
        [&*old.plan_hash().short(), &*new.plan_hash().short(), "work[b] differs", "work[c] is gone", "work[d] is new"]
    {
        assert!(refusal.contains(part), "{part} is not in {refusal}");
    }
}

#[tokio::test]
async fn changed_sources_of_a_step_that_is_still_to_run_are_refused_and_of_one_that_is_done_are_not() {
    let place = Place::new();
    let file = |name: &str| Work { files: vec![name.into()], ..Work::new(name) };
    let two = pipeline("two", |g| {
        let done = g.pure("done", file("done"), nothing());
        g.pure("open", file("open"), vec![done]);
    });
    fs::write(place.dir.path().join("done"), "1").unwrap();
    fs::write(place.dir.path().join("open"), "1").unwrap();
    place.fake.fail("work open", ErrorClass::CheckFailed);
    place.start(&two).await.unwrap();
    fs::write(place.dir.path().join("done"), "2").unwrap();
    assert_eq!(place.resume(&two).await.unwrap().outcome, RunOutcome::Failed);
    fs::write(place.dir.path().join("open"), "2").unwrap();
    match place.resume(&two).await.unwrap_err() {
        RunError::SourcesChanged { step, .. } => assert_eq!(step, "work[open]"),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn an_at_most_once_effect_whose_act_failed_is_repeated_by_no_retry_and_no_resume() {
    let place = Place::new();
    place.fake.fail("act told", ErrorClass::External);
    let told = pipeline("told", |g| {
        g.effect("", Notice { name: "told".to_owned() }, nothing());
    });
    let report = place.start(&told).await.unwrap();
    let error = error_of(&report, "notice");
    assert!(error.contains("broken on purpose") && error.contains("may have been done"), "{error}");
    place.fake.mend("act told");
    let error = error_of(&place.resume(&told).await.unwrap(), "notice");
    assert!(error.contains("not repeated"), "{error}");
    assert_eq!(place.fake.thing("notice told").as_deref(), Some("1"));
}

#[tokio::test]
async fn an_effect_whose_recorded_output_does_not_fit_any_more_is_looked_up_and_an_at_most_once_one_refused() {
    let place = Place::new();
    let both = || {
        pipeline("both", |g| {
            let built = work(g, "build", vec![]);
            g.effect("push", Deed::new("push"), vec![built]);
            g.effect("", Notice { name: "told".to_owned() }, vec![built]);
            work(g, "broken", vec![built]);
        })
    };
    place.fake.fail("work broken", ErrorClass::CheckFailed);
    place.start(&both()).await.unwrap();
    // As if the step before had come to another output in between.
    let path = place.setup.state.run(&place.run).journal();
    let (mut journal, read) = Journal::open(&path, &place.run, Arc::clone(&place.setup.clock)).unwrap();
    for entry in &read.entries {
        if let Record::Outcome { step, inputs, millis, .. } = &entry.record {
            let output = if step == "work[build]" { "\"other\"" } else { "not JSON" }.to_owned();
            let (step, inputs, millis) = (step.clone(), *inputs, *millis);
            journal.append_synced(&Record::Outcome { step, landing: Landing::Done, inputs, output, millis }).unwrap();
        }
    }
    drop(journal);
    let report = place.resume(&both()).await.unwrap();
    assert_eq!(words(&report)["deed[push]"], "found-done");
    assert!(error_of(&report, "notice").contains("not repeated"));
    assert_eq!(place.fake.called("act push"), 1);
    assert_eq!(place.fake.thing("notice told").as_deref(), Some("1"));
}

/// A step that leaves a file, one that takes it, and one after that.
fn leaving() -> Pipeline {
    pipeline("leaving", |g| {
        let leaving = Work { files: vec!["source".into()], leaves: Some("blob".into()), ..Work::new("build") };
        let built = g.pure("build", leaving, nothing());
        let pushed = g.effect("push", Deed::new("push"), vec![built]);
        g.effect("ship", Deed::new("ship"), vec![pushed]);
    })
}

fn place_of_leaving(broken: &str) -> Place {
    let place = Place::new();
    fs::write(place.dir.path().join("source"), "1").unwrap();
    place.fake.on("work build", |cx, _| async move {
        fs::write(cx.root().join("blob"), "built").unwrap();
        Ok("blob".to_owned())
    });
    place.fake.fail(broken, ErrorClass::CheckFailed);
    place
}

#[tokio::test]
async fn a_recorded_output_whose_file_is_gone_is_made_again_from_the_same_sources_and_no_others() {
    let place = place_of_leaving("act push");
    place.start(&leaving()).await.unwrap();
    fs::remove_file(place.dir.path().join("blob")).unwrap();
    fs::write(place.dir.path().join("source"), "2").unwrap();
    assert!(matches!(place.resume(&leaving()).await, Err(RunError::SourcesChanged { .. })));
    fs::write(place.dir.path().join("source"), "1").unwrap();
    place.fake.mend("act push");
    let report = place.resume(&leaving()).await.unwrap();
    assert_eq!((report.outcome, words(&report)["work[build]"]), (RunOutcome::Succeeded, "done"));
    assert_eq!(place.fake.called("work build"), 2);
}

#[tokio::test]
async fn a_recorded_output_that_nothing_still_to_run_takes_may_be_gone() {
    let place = place_of_leaving("act ship");
    place.start(&leaving()).await.unwrap();
    fs::remove_file(place.dir.path().join("blob")).unwrap();
    fs::write(place.dir.path().join("source"), "2").unwrap();
    place.fake.mend("act ship");
    let report = place.resume(&leaving()).await.unwrap();
    assert_eq!((report.outcome, words(&report)["work[build]"]), (RunOutcome::Succeeded, "replayed"));
}

#[tokio::test]
async fn only_a_gate_that_waits_can_be_answered() {
    let place = Place::new();
    place.fake.fail("act ship", ErrorClass::CheckFailed);
    place.start(&gated()).await.unwrap();
    let tell = |gate: &str| answer(&place.setup.state, &place.run, gate, "yes".into(), Arc::clone(&place.setup.clock));
    assert!(matches!(tell("elsewhere"), Err(RunError::NotWaiting { .. })));
    tell("question").unwrap();
    // Killed when the gate had opened: the journal does not say that the run ended.
    let mut setup = place.setup.clone();
    let gate_open = Crash::After(place.journal().len() as u64 + 1);
    setup.resources = setup.resources.clone().with(Arc::new(Faults { crash: Some(gate_open), twice: false }));
    assert!(setup.resume(&gated(), &place.run, "ann", place.cancel.clone()).await.is_err());
    let before = place.journal().len();
    assert!(matches!(tell("question"), Err(RunError::NotWaiting { .. })));
    assert_eq!(place.journal().len(), before);
}

#[tokio::test]
async fn a_run_that_was_killed_while_it_was_taken_back_takes_no_answer() {
    let place = Place::new();
    let path = place.setup.state.run(&place.run).journal();
    place.start(&gated()).await.unwrap();
    let (mut journal, _) = Journal::open(&path, &place.run, Arc::clone(&place.setup.clock)).unwrap();
    journal.append_synced(&Record::UndoIntent { step: "deed[push]".to_owned() }).unwrap();
    drop(journal);
    let refused = answer(&place.setup.state, &place.run, "question", "yes".into(), Arc::clone(&place.setup.clock));
    assert!(matches!(refused, Err(RunError::NotWaiting { .. })));
    assert!(plimsoll_engine::Prior::of(&place.journal()).unwinding);
}

fn two_to_undo() -> Pipeline {
    pipeline("two", |g| {
        let first = g.effect("first", Deed::undone("first"), nothing());
        let second = g.effect("second", Deed::undone("second"), vec![first]);
        let kept = g.effect("kept", Deed::new("kept"), vec![second]);
        work(g, "broken", vec![kept]);
    })
}

#[tokio::test]
async fn effects_are_undone_last_first_and_one_that_cannot_be_is_listed() {
    let place = Place::new();
    place.fake.fail("work broken", ErrorClass::CheckFailed);
    place.fake.fail("undo first", ErrorClass::External);
    let report = place.start(&two_to_undo()).await.unwrap();
    let undos: Vec<String> =
        place.fake.calls.lock().unwrap().iter().filter(|c| c.starts_with("undo")).cloned().collect();
    assert_eq!(undos, ["undo second", "undo first"]);
    assert_eq!(report.outcome, RunOutcome::Failed);
    assert_eq!(report.stuck.iter().map(|(s, _)| &**s).collect::<Vec<_>>(), ["deed[first]"]);
    assert_eq!((place.fake.thing("second"), place.fake.thing("kept").is_some()), (None, true));
    // Mended and resumed, it fails again and then takes back what was stuck.
    place.fake.mend("undo first");
    assert!(place.resume(&two_to_undo()).await.unwrap().stuck.is_empty());
    assert_eq!(place.fake.thing("first"), None);
}

#[tokio::test]
async fn a_run_killed_between_two_undos_is_taken_back_to_the_end_and_not_forward() {
    let place = Place::new();
    place.fake.fail("work broken", ErrorClass::CheckFailed);
    place.start(&two_to_undo()).await.unwrap();
    let is_undone = |r: &Record| matches!(r, Record::Undone { .. });
    let first_undone = place.journal().iter().position(|e| is_undone(&e.record)).unwrap() as u64;
    let mut second = Place::new();
    second.fake.fail("work broken", ErrorClass::CheckFailed);
    let faults = Faults { crash: Some(Crash::After(first_undone)), twice: false };
    let whole = second.setup.resources.clone();
    second.setup.resources = whole.clone().with(Arc::new(faults));
    assert!(matches!(second.start(&two_to_undo()).await, Err(RunError::State { .. })));
    assert!(second.fake.thing("first").is_some() && second.fake.thing("second").is_none());
    second.setup.resources = whole;
    let report = second.resume(&two_to_undo()).await.unwrap();
    assert_eq!(report.outcome, RunOutcome::Failed);
    assert_eq!(second.fake.thing("first"), None);
    assert_eq!((second.fake.called("act second"), second.fake.called("work broken")), (1, 1));
    place.cancel.cancel();
}

#[tokio::test]
async fn an_effect_whose_act_failed_after_it_was_done_is_looked_up_and_taken_back() {
    let place = Place::new();
    let fake = Arc::clone(&place.fake);
    place.fake.on("act switch", move |_, _| {
        fake.things.lock().unwrap().insert("switch".to_owned(), "green".to_owned());
        async { Err(plimsoll_engine::StepError::external("the answer was lost")) }
    });
    let one = pipeline("one", |g| {
        g.effect("", Deed::undone("switch"), nothing());
    });
    let report = place.start(&one).await.unwrap();
    assert_eq!((report.outcome, report.stuck.len()), (RunOutcome::Failed, 0));
    assert_eq!(place.fake.thing("switch"), None);
}

#[tokio::test]
async fn what_a_retry_finds_done_was_changed_by_this_run() {
    let place = Place::new();
    let fake = Arc::clone(&place.fake);
    place.fake.on("act switch", move |_, _| {
        fake.things.lock().unwrap().insert("switch".to_owned(), "green".to_owned());
        async { Err(plimsoll_engine::StepError::external("the answer was lost")) }
    });
    let one = pipeline("one", |g| {
        g.effect("", Deed { attempts: 2, ..Deed::new("switch") }, nothing());
    });
    let report = place.start(&one).await.unwrap();
    assert_eq!((report.outcome, report.changed), (RunOutcome::Succeeded, true));
    assert_eq!((words(&report)["deed"], place.fake.called("act switch")), ("found-done", 1));
}

#[tokio::test]
async fn an_intent_can_be_read_by_another_process_when_the_act_begins() {
    let place = Place::new();
    let (path, run) = (place.setup.state.run(&place.run).journal(), place.run.clone());
    place.fake.on("act push", move |_, _| {
        let entries = plimsoll_engine::read_journal(&path, &run).unwrap().entries;
        let last = entries.last().map(|e| e.record.clone());
        async move {
            assert_eq!(last, Some(Record::Intent { step: "deed".to_owned() }));
            Ok(String::new())
        }
    });
    let one = pipeline("one", |g| {
        g.effect("", Deed::new("push"), nothing());
    });
    assert_eq!(place.start(&one).await.unwrap().outcome, RunOutcome::Succeeded);
}

#[tokio::test]
async fn a_run_another_process_works_on_is_busy() {
    let place = Place::new();
    place.fake.fail("work a", ErrorClass::CheckFailed);
    place.start(&works(&[("a", &[])])).await.unwrap();
    let lock = place.setup.state.run(&place.run).lock().unwrap();
    assert!(matches!(place.resume(&works(&[("a", &[])])).await, Err(RunError::Busy { .. })));
    drop(lock);
    place.resume(&works(&[("a", &[])])).await.unwrap();
}

#[tokio::test]
async fn after_a_record_that_cannot_be_written_nothing_new_begins() {
    let mut place = Place::new();
    place.setup.jobs = 1;
    let whole = place.setup.resources.clone();
    place.setup.resources = whole.with(Arc::new(Faults { crash: Some(Crash::Before(2)), twice: false }));
    let three = works(&[("a", &[]), ("b", &["a"]), ("c", &["b"])]);
    assert!(matches!(place.start(&three).await, Err(RunError::State { .. })));
    assert_eq!((place.fake.called("work a"), place.fake.called("work b"), place.fake.called("work c")), (1, 1, 0));
}

#[tokio::test]
async fn a_cache_is_shared_by_runs_and_an_undecodable_entry_is_a_miss() {
    let mut place = Place::new();
    let one = works(&[("a", &[])]);
    place.start(&one).await.unwrap();
    assert_eq!(words(&place.start_another(&one, 2).await)["work[a]"], "cached");
    let file = place.setup.cache.join("steps.jsonl");
    let spoiled = fs::read_to_string(&file).unwrap().replace("\\\"a()\\\"", "a()");
    fs::write(&file, spoiled).unwrap();
    assert!(Cache::open(&place.setup.cache).is_ok());
    assert_eq!(words(&place.start_another(&one, 3).await)["work[a]"], "done");
    assert_eq!(place.fake.called("work a"), 2);
}
