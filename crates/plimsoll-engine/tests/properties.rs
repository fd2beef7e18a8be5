//! Random graphs: what must hold of every one of them.
#![expect(dead_code, reason = "each test file uses its part of the common steps")]

mod common;

use common::{Place, words, works};
use plimsoll_core::{ErrorClass, RunId, Timestamp};
use plimsoll_engine::{Decision, Pipeline};
use proptest::{collection::vec, prelude::*};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// For each step, which earlier ones it needs, and whether it fails.
type Shape = Vec<(BTreeSet<usize>, bool)>;

fn shape() -> impl Strategy<Value = Shape> {
    vec((vec(any::<prop::sample::Index>(), 0..4), prop::bool::weighted(0.15)), 1..14).prop_map(|nodes| {
        let needs = |at: usize, picks: Vec<prop::sample::Index>| match at {
            0 => BTreeSet::new(),
            _ => picks.into_iter().map(|p| p.index(at)).collect(),
        };
        nodes.into_iter().enumerate().map(|(at, (picks, fails))| (needs(at, picks), fails)).collect()
    })
}

fn build(shape: &Shape) -> Pipeline {
    let names: Vec<String> = (0..shape.len()).map(|n| n.to_string()).collect();
    let needs: Vec<Vec<&str>> = shape.iter().map(|(n, _)| n.iter().map(|n| &*names[*n]).collect()).collect();
    let steps: Vec<(&str, &[&str])> = names.iter().zip(&needs).map(|(name, needs)| (&**name, &**needs)).collect();
    works(&steps)
}

/// What ran, in order, and how many worked at once at most.
#[derive(Default)]
struct Watch {
    finished: Mutex<Vec<usize>>,
    working: AtomicUsize,
    most: AtomicUsize,
}

fn watch(place: &Place, shape: &Shape) -> Arc<Watch> {
    let watch = Arc::new(Watch::default());
    for (at, (needs, fails)) in shape.iter().cloned().enumerate() {
        let watch = Arc::clone(&watch);
        place.fake.on(&format!("work {at}"), move |_, _| {
            let (watch, needs) = (Arc::clone(&watch), needs.clone());
            async move {
                let working = watch.working.fetch_add(1, Ordering::SeqCst) + 1;
                watch.most.fetch_max(working, Ordering::SeqCst);
                let before = watch.finished.lock().unwrap().clone();
                assert!(needs.iter().all(|n| before.contains(n)), "{at} began before what it needs");
                tokio::task::yield_now().await;
                watch.working.fetch_sub(1, Ordering::SeqCst);
                if fails {
                    return Err(plimsoll_engine::StepError::new(ErrorClass::CheckFailed, "on purpose"));
                }
                watch.finished.lock().unwrap().push(at);
                Ok(at.to_string())
            }
        });
    }
    watch
}

/// How each step must end: what needs a step without an output, directly or not, is skipped.
fn expected(shape: &Shape) -> BTreeMap<String, &'static str> {
    let mut words: Vec<&'static str> = Vec::new();
    for (needs, fails) in shape {
        let word = match fails {
            _ if needs.iter().any(|n| words[*n] != "done") => "skipped",
            true => "failed",
            false => "done",
        };
        words.push(word);
    }
    words.into_iter().enumerate().map(|(at, word)| (format!("work[{at}]"), word)).collect()
}

async fn check(shape: Shape, jobs: usize) {
    let mut place = Place::new();
    place.setup.jobs = jobs;
    let seen = watch(&place, &shape);
    let pipeline = build(&shape);
    let first = place.start(&pipeline).await.unwrap();
    assert_eq!(words(&first), expected(&shape));
    assert!(seen.most.load(Ordering::SeqCst) <= jobs);
    for at in 0..shape.len() {
        let runs = usize::from(expected(&shape)[&format!("work[{at}]")] != "skipped");
        assert_eq!(place.fake.called(&format!("work {at}")), runs, "step {at}");
    }
    // What is planned then is what happens: cached steps are not begun, those that run are.
    let plan = place.setup.plan(&pipeline, &RunId::new(Timestamp::from_millis(0), 2)).unwrap();
    place.fake.calls.lock().unwrap().clear();
    let second = words(&place.start_another(&pipeline, 2).await);
    for (at, step) in plan.steps.iter().enumerate() {
        let called = place.fake.called(&format!("work {at}"));
        match step.decision {
            Decision::Cached { .. } => assert_eq!((called, second[&*step.name]), (0, "cached")),
            Decision::Runs { .. } => assert_eq!(called, 1, "{}", step.name),
            Decision::DependsOn { .. } => assert!(called <= 1),
            Decision::CheckedWhenRun { .. } => panic!("a pure step is decided when it is planned"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_step_runs_once_after_its_inputs_and_exactly_the_dependants_of_failures_are_skipped(
        shape in shape(),
        jobs in 1_usize..5,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(check(shape, jobs));
    }
}
