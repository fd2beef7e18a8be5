//! A cache that two machines share: what is taken, what is given, and what of it is believed.
#![expect(dead_code, reason = "each test file uses its part of the common steps")]

mod common;

use common::{Place, Work, nothing, words};
use futures_util::future::BoxFuture;
use plimsoll_core::{Fingerprint, RunOutcome};
use plimsoll_engine::{Cx, Found, Kept, Leaf, Pipeline, SharedCache, Sharing, StepError, pipeline};
use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

/// A cache in memory. What an output stands for is copied by its name.
#[derive(Default)]
struct Memory {
    entries: Mutex<BTreeMap<Fingerprint, Entry>>,
    broken: Mutex<bool>,
    /// Nothing that is given arrives.
    slow: Mutex<bool>,
}

#[derive(Clone)]
struct Entry {
    kept: Kept,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Memory {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<Fingerprint, Entry>> {
        self.entries.lock().unwrap()
    }
}

impl Found for Entry {
    fn kept(&self) -> &Kept {
        &self.kept
    }

    fn bring<'a>(&'a self, cx: &'a Cx, leaves: &'a [Leaf]) -> BoxFuture<'a, Result<(), StepError>> {
        Box::pin(async move {
            for leaf in leaves {
                let Leaf::File(path) = leaf else { panic!("{leaf:?}") };
                let bytes = self.files.get(path).ok_or_else(|| StepError::external("a file is missing"))?;
                fs::write(cx.root().join(path), bytes).unwrap();
            }
            Ok(())
        })
    }
}

/// What machines have in common.
struct Hub(Arc<Memory>);

impl SharedCache for Hub {
    fn find<'a>(
        &'a self,
        _: &'a Cx,
        print: &'a Fingerprint,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn Found>>, StepError>> {
        Box::pin(async move {
            if *self.0.broken.lock().unwrap() {
                return Err(StepError::external("the registry is gone"));
            }
            Ok(self.0.entries().get(print).cloned().map(|entry| Arc::new(entry) as Arc<dyn Found>))
        })
    }

    fn give<'a>(
        &'a self,
        cx: &'a Cx,
        print: &'a Fingerprint,
        kept: &'a Kept,
        leaves: &'a [Leaf],
    ) -> BoxFuture<'a, Result<(), StepError>> {
        Box::pin(async move {
            if *self.0.slow.lock().unwrap() {
                std::future::pending::<()>().await;
            }
            let files = leaves.iter().map(|leaf| match leaf {
                Leaf::File(path) => (path.clone(), fs::read(cx.root().join(path)).unwrap()),
                Leaf::Blob(_) => panic!("{leaf:?}"),
            });
            let entry = Entry { kept: kept.clone(), files: files.collect() };
            self.0.entries().insert(*print, entry);
            Ok(())
        })
    }
}

/// A machine that leaves the file `a` when it does the work `a`.
fn machine(hub: &Arc<Memory>) -> Place {
    let mut place = Place::new();
    place.setup.resources = place.setup.resources.clone().with(Arc::new(Sharing(Arc::new(Hub(Arc::clone(hub))))));
    place.fake.on("work a", |cx, _| async move {
        fs::write(cx.root().join("a"), "made").unwrap();
        Ok("a".to_owned())
    });
    fs::write(place.dir.path().join("source"), "1").unwrap();
    place
}

/// `a` is shared, `b` needs it and is not.
fn two() -> Pipeline {
    pipeline("two", |g| {
        let leaves = Some("a".into());
        let shared = Work { files: vec!["source".into()], leaves, shared: true, ..Work::new("a") };
        let a = g.pure("a", shared, nothing());
        g.pure("b", Work::new("b"), vec![a]);
    })
}

#[tokio::test]
async fn what_one_machine_made_another_takes_with_all_that_it_stands_for() {
    let hub = Arc::default();
    let first = machine(&hub);
    assert_eq!(words(&first.start(&two()).await.unwrap())["work[a]"], "done");
    assert_eq!(hub.entries().len(), 1, "`b` is not shared");

    let mut second = machine(&hub);
    let report = second.start(&two()).await.unwrap();
    assert_eq!((words(&report)["work[a]"], words(&report)["work[b]"]), ("cached", "done"));
    assert_eq!((first.fake.called("work a"), second.fake.called("work a")), (1, 0));
    assert_eq!(fs::read_to_string(second.dir.path().join("a")).unwrap(), "made");
    // From now on it has it itself.
    hub.entries().clear();
    assert_eq!(words(&second.start_another(&two(), 2).await)["work[a]"], "cached");
}

#[tokio::test]
async fn other_sources_and_a_run_without_the_cache_do_their_own_work() {
    let hub = Arc::default();
    machine(&hub).start(&two()).await.unwrap();
    let other = machine(&hub);
    fs::write(other.dir.path().join("source"), "2").unwrap();
    assert_eq!(words(&other.start(&two()).await.unwrap())["work[a]"], "done");
    assert_eq!(hub.entries().len(), 2);
    let mut afresh = machine(&hub);
    afresh.setup.use_cache = false;
    assert_eq!(words(&afresh.start(&two()).await.unwrap())["work[a]"], "done");
}

#[tokio::test]
async fn an_entry_that_does_not_fit_and_a_cache_that_does_not_answer_cost_the_work_and_nothing_else() {
    type Harm = fn(&Arc<Memory>);
    let harms: [Harm; 3] = [
        |hub| hub.entries().values_mut().for_each(|entry| entry.files.clear()),
        |hub| hub.entries().values_mut().for_each(|entry| entry.kept.output = "{}".into()),
        |hub| *hub.broken.lock().unwrap() = true,
    ];
    for harm in harms {
        let hub = Arc::default();
        machine(&hub).start(&two()).await.unwrap();
        harm(&hub);
        let second = machine(&hub);
        let report = second.start(&two()).await.unwrap();
        assert_eq!((words(&report)["work[a]"], words(&report)["work[b]"]), ("done", "done"));
        let noted = second
            .recorder
            .events()
            .iter()
            .any(|event| format!("{event:?}").contains("not taken from the shared cache"));
        assert!(noted, "{:?}", second.recorder.events());
    }
}

#[tokio::test]
async fn a_run_that_failed_or_was_stopped_waits_for_nothing_that_is_given_away() {
    for stopped in [false, true] {
        let hub: Arc<Memory> = Arc::default();
        *hub.slow.lock().unwrap() = true;
        let place = machine(&hub);
        let cancel = place.cancel.clone();
        place.fake.on("work b", move |_, _| {
            let cancel = cancel.clone();
            async move {
                if stopped {
                    cancel.cancel();
                }
                Err(StepError::check("broken on purpose"))
            }
        });
        // Much less than the time that a run which went well waits.
        let ended = tokio::time::timeout(Duration::from_secs(20), place.start(&two())).await;
        assert_ne!(ended.expect("it ends").unwrap().outcome, RunOutcome::Succeeded);
    }
}
