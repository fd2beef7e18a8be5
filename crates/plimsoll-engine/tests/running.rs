//! How steps run: in parallel, retried, timed out, cancelled, cached.
#![expect(dead_code, reason = "each test file uses its part of the common steps")]

mod common;

use common::{Deed, Place, Work, error_of, nothing, words, works};
use plimsoll_core::{ErrorClass, Event, RunOutcome};
use plimsoll_engine::{Cx, Reads, StepError, hash_file, pipeline};
use plimsoll_process::Cmd;
use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

#[tokio::test]
async fn only_external_failures_are_retried_and_as_often_as_the_policy_says() {
    for (class, tries) in [(ErrorClass::External, 3), (ErrorClass::CheckFailed, 1), (ErrorClass::Internal, 1)] {
        let place = Place::new();
        place.fake.fail("work a", class);
        let one = pipeline("one", |g| {
            g.pure("", Work { attempts: 3, ..Work::new("a") }, nothing());
        });
        assert_eq!(place.start(&one).await.unwrap().outcome, RunOutcome::Failed);
        assert_eq!(place.fake.called("work a"), tries, "{class:?}");
        let told = place.recorder.events().iter().filter(|e| matches!(e, Event::StepRetried { .. })).count();
        assert_eq!(told, tries - 1);
    }
}

#[tokio::test]
async fn a_secret_in_an_error_a_log_or_a_note_reaches_no_event_and_no_journal() {
    const SECRET: &str = "correct-horse-battery";
    let mut place = Place::new();
    place.setup.redactor = Some(Arc::new(plimsoll_process::Redactor::new(&[SECRET.as_bytes()]).unwrap()));
    let leak = |cx: Cx, _| async move {
        cx.log(&format!("log {SECRET}"));
        cx.note(format!("note {SECRET}"));
        cx.waiting(format!("waiting {SECRET}"));
        let (error, cause) = (StepError::external(format!("message {SECRET}")), std::io::Error::other(SECRET));
        let detail = cx.log_tail().into_iter().chain([format!("detail {SECRET}")]);
        Err(error.caused_by(&cause).with_detail(detail).with_hint(format!("hint {SECRET}")))
    };
    place.fake.on("work a", leak);
    place.fake.on("work panics", |_, _| async { panic!("{SECRET}") });
    place.fake.on("undo switch", leak);
    let three = pipeline("three", |g| {
        g.effect("switch", Deed::undone("switch"), nothing());
        g.pure("a", Work { attempts: 2, ..Work::new("a") }, nothing());
        g.pure("panics", Work::new("panics"), nothing());
    });
    let report = place.start(&three).await.unwrap();
    assert_eq!((report.outcome, report.stuck.len()), (RunOutcome::Failed, 1));
    let journal = fs::read_to_string(place.setup.state.run(&place.run).journal()).unwrap();
    let told = format!("{:?}", place.recorder.events());
    for text in [&journal, &told, &format!("{report:?}")] {
        assert!(text.contains("message ") && !text.contains(SECRET), "{text}");
    }
    assert!(["note ", "waiting ", "detail ", "hint "].iter().all(|part| told.contains(part)), "{told}");
}

/// Starts a shell that ignores SIGTERM and has a child that does, and notes the child's pid.
async fn stubborn(cx: Cx) -> Result<String, StepError> {
    let script = "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > pid; while :; do sleep 1; done' & wait; wait";
    let cmd = Cmd::new("/bin/sh").args(["-c", script]).inherit_base(cx.environment()).cwd(cx.root());
    cx.command(cmd.grace(Duration::from_millis(100))).await?.check()?;
    Ok(String::new())
}

fn pid_in(dir: &Path) -> Option<String> {
    fs::read_to_string(dir.join("pid")).ok().map(|t| t.trim().to_owned()).filter(|t| !t.is_empty())
}

fn is_gone(pid: &str) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat"));
    state.map_or(true, |s| s.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
}

#[tokio::test]
async fn a_timeout_ends_the_attempt_and_a_tree_that_ignores_sigterm() {
    let place = Place::new();
    place.fake.on("work a", |cx, _| stubborn(cx));
    let one = pipeline("one", |g| {
        g.pure("", Work { millis: Some(1500), ..Work::new("a") }, nothing());
    });
    let report = place.start(&one).await.unwrap();
    assert!(error_of(&report, "work").contains("took longer"), "{:?}", report.steps);
    assert!(is_gone(&pid_in(place.dir.path()).expect("the grandchild ran")));
}

#[tokio::test]
async fn cancelling_a_run_reaches_grandchildren_and_leaves_it_to_be_resumed() {
    let place = Place::new();
    place.fake.on("work a", |cx, _| stubborn(cx));
    let two = works(&[("a", &[]), ("b", &["a"])]);
    let (cancel, dir) = (place.cancel.clone(), place.dir.path().to_owned());
    let watcher = tokio::spawn(async move {
        let deadline = Instant::now() + Duration::from_secs(20);
        while pid_in(&dir).is_none() && Instant::now() < deadline {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    });
    let report = place.start(&two).await.unwrap();
    watcher.await.unwrap();
    assert_eq!(report.outcome, RunOutcome::Interrupted);
    assert_eq!(words(&report)["work[a]"], "cancelled");
    assert!(is_gone(&pid_in(place.dir.path()).unwrap()));
}

#[tokio::test]
async fn a_failure_stops_what_depends_on_it_and_with_fail_fast_everything() {
    let steps = works(&[("a", &[]), ("b", &["a"]), ("c", &[]), ("d", &["c"])]);
    for (fail_fast, d) in [(false, "done"), (true, "cancelled")] {
        let mut place = Place::new();
        (place.setup.jobs, place.setup.fail_fast) = (1, fail_fast);
        place.fake.fail("work a", ErrorClass::CheckFailed);
        let report = place.start(&steps).await.unwrap();
        let words = words(&report);
        assert_eq!((report.outcome, words["work[a]"], words["work[b]"]), (RunOutcome::Failed, "failed", "skipped"));
        assert_eq!(words["work[c]"], d);
        assert!(!place.cancel.is_cancelled(), "the caller's token is the caller's");
    }
}

#[tokio::test]
async fn steps_that_want_the_same_thing_never_overlap() {
    let place = Place::new();
    let busy = Arc::new(AtomicUsize::new(0));
    for name in ["a", "b", "c", "d"] {
        let busy = Arc::clone(&busy);
        place.fake.on(&format!("work {name}"), move |_, _| {
            let busy = Arc::clone(&busy);
            async move {
                assert_eq!(busy.fetch_add(1, Ordering::SeqCst), 0);
                for _ in 0..50 {
                    tokio::task::yield_now().await;
                }
                busy.fetch_sub(1, Ordering::SeqCst);
                Ok(String::new())
            }
        });
    }
    let four = pipeline("four", |g| {
        for name in ["a", "b", "c", "d"] {
            g.pure(name, Work { exclusive: Some("the build directory"), ..Work::new(name) }, nothing());
        }
    });
    assert_eq!(place.start(&four).await.unwrap().outcome, RunOutcome::Succeeded);
}

#[tokio::test]
async fn a_panic_in_a_step_is_an_internal_error_and_the_others_go_on() {
    let place = Place::new();
    place.fake.on("work a", |_, _| async { panic!("on purpose") });
    let report = place.start(&works(&[("a", &[]), ("b", &[])])).await.unwrap();
    assert!(error_of(&report, "work[a]").contains("on purpose"));
    assert_eq!(words(&report)["work[b]"], "done");
}

#[tokio::test]
async fn a_read_that_only_the_work_could_find_makes_its_output_stale_when_it_changes() {
    let mut place = Place::new();
    let header = place.dir.path().join("header");
    fs::write(&header, "1").unwrap();
    place.fake.on("work a", |cx, _| async move {
        let mut found = Reads::nothing();
        found.add_hashed("file header", hash_file(&cx.root().join("header")).unwrap());
        cx.discover(&found);
        Ok(String::new())
    });
    let one = works(&[("a", &[])]);
    place.start(&one).await.unwrap();
    assert_eq!(words(&place.start_another(&one, 2).await)["work[a]"], "cached");
    fs::write(&header, "2").unwrap();
    assert_eq!(words(&place.start_another(&one, 3).await)["work[a]"], "done");
}

#[tokio::test]
async fn an_output_is_not_kept_when_what_the_step_reads_changed_while_it_worked() {
    let mut place = Place::new();
    fs::write(place.dir.path().join("source"), "1").unwrap();
    place.fake.on("work a", |cx, _| async move {
        fs::write(cx.root().join("source"), "2").unwrap();
        Ok(String::new())
    });
    let one = pipeline("one", |g| {
        g.pure("", Work { files: vec!["source".into()], ..Work::new("a") }, nothing());
    });
    place.start(&one).await.unwrap();
    fs::write(place.dir.path().join("source"), "1").unwrap();
    assert_eq!(words(&place.start_another(&one, 2).await)["work"], "done");
}
