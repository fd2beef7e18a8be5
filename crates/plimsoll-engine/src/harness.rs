//! The harness every effect is held to: killed at each record and resumed, and done twice.
//!
//! A test describes a [`Scene`]: a fresh world, a pipeline that works on it, and what an observer sees of it. The harness
//! runs the scene once undisturbed, then again in a fresh world for each record of its journal, stopped before and
//! stopped after that record, and compares where both arrive. It is no fault injection within an act: how the outside
//! world misbehaves is up to the scene's fakes.

use crate::{
    Crash, Faults, Pipeline, Prior, ReadJournal, Record, Repeat, Resources, RunDir, RunError, Setup, Silent, Start,
    StateDir, read_journal, run::answer_with,
};
use plimsoll_core::{RunId, RunOutcome, Timestamp};
use plimsoll_process::{Cancel, Environment};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};
use tempfile::TempDir;

/// What an observer sees of the world: things and their state. Things that count (a notice sent) hold how often.
pub type Seen = BTreeMap<String, String>;

/// How many processes may work on one run: one per gate and a few. More means that a run does not come to its end.
const PROCESSES: usize = 16;

/// A fresh world and a pipeline that works on it.
pub struct Scene {
    pipeline: Box<dyn Fn() -> Pipeline>,
    world: Box<dyn Fn() -> Seen>,
    resources: Resources,
    root: Option<PathBuf>,
    answers: Vec<(String, serde_json::Value)>,
}

impl Scene {
    /// A scene whose pipeline is built by `pipeline`, once per process, and whose world is seen through `world`.
    pub fn new(pipeline: impl Fn() -> Pipeline + 'static, world: impl Fn() -> Seen + 'static) -> Self {
        let (pipeline, world) = (Box::new(pipeline), Box::new(world));
        Self { pipeline, world, resources: Resources::new(), root: None, answers: Vec::new() }
    }

    /// Hands in resources.
    #[must_use]
    pub fn resources(mut self, resources: Resources) -> Self {
        self.resources = resources;
        self
    }

    /// Sets the workspace's root; without it, an empty directory.
    #[must_use]
    pub fn root(mut self, root: impl Into<PathBuf>) -> Self {
        self.root = Some(root.into());
        self
    }

    /// Answers `gate` when the run has parked there.
    #[must_use]
    pub fn answer(mut self, gate: &str, answer: serde_json::Value) -> Self {
        self.answers.push((gate.to_owned(), answer));
        self
    }
}

/// What a sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// At how many points a process was stopped.
    pub points: usize,
    /// The steps that have a record, and so were stopped before and after it.
    pub covered: BTreeSet<String>,
}

impl Swept {
    /// Adds what another sweep, of another scene of the same pipeline, did.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.points += other.points;
        self.covered.extend(other.covered);
        self
    }

    /// Panics unless every step of `pipeline` was covered.
    #[track_caller]
    pub fn assert_covers(&self, pipeline: &Pipeline) {
        let left: Vec<String> = pipeline.step_names().into_iter().filter(|n| !self.covered.contains(n)).collect();
        assert!(left.is_empty(), "no sweep reached {left:?}");
    }
}

/// [`crash_sweep`] and [`do_twice`], and every step of the pipeline must be covered.
///
/// # Panics
/// When a promise is broken, as all functions of this module do.
pub async fn check_effect(fresh: impl AsyncFn() -> Scene) -> Swept {
    let swept = crash_sweep(&fresh).await;
    do_twice(&fresh).await;
    swept.assert_covers(&(fresh().await.pipeline)());
    swept
}

/// Stops a process before and after each record of the undisturbed run, resumes, and compares.
pub async fn crash_sweep(fresh: impl AsyncFn() -> Scene) -> Swept {
    let undisturbed = Stage::undisturbed(fresh().await, Faults::default()).await;
    let records = undisturbed.read().entries.len() as u64;
    for record in 0..records {
        for crash in [Crash::Before(record), Crash::After(record)] {
            let stage = Stage::new(fresh().await);
            let stopped = stage.travel(Faults { crash: Some(crash), twice: false }).await;
            assert!(stopped.is_err(), "{crash:?}: the run went on");
            let expected = if crash == Crash::Before(record) { record } else { record + 1 };
            let left = stage.read();
            assert_eq!(left.entries.len() as u64, expected, "{crash:?}: it did not stop where it should: {stopped:?}");
            stage.arrive(crash, &Prior::of(&left.entries), &undisturbed).await;
        }
    }
    let covered = undisturbed.read().entries.iter().filter_map(|e| subject(&e.record)).collect();
    Swept { points: usize::try_from(records).expect("records are in memory") * 2, covered }
}

/// Runs with every undo, and every act the world can be asked about, done twice, and compares with a run that did them once.
pub async fn do_twice(fresh: impl AsyncFn() -> Scene) {
    let once = Stage::undisturbed(fresh().await, Faults::default()).await;
    let twice = Stage::undisturbed(fresh().await, Faults { crash: None, twice: true }).await;
    assert_eq!(twice.seen(), once.seen(), "the world after everything was done twice");
    assert_eq!(twice.result(), once.result(), "the outcome after everything was done twice");
}

/// The step a record is about.
fn subject(record: &Record) -> Option<String> {
    match record {
        Record::Intent { step }
        | Record::Outcome { step, .. }
        | Record::Failed { step, .. }
        | Record::Parked { step, .. }
        | Record::UndoIntent { step }
        | Record::Undone { step }
        | Record::UndoFailed { step, .. } => Some(without_outcome(step).to_owned()),
        _ => None,
    }
}

/// A finally-step's records name the outcome behind its name.
fn without_outcome(step: &str) -> &str {
    step.split_once('@').map_or(step, |(name, _)| name)
}

/// A scene with the directories of its run.
struct Stage {
    scene: Scene,
    home: TempDir,
    run: RunId,
}

/// How a run ended according to its journal, and the outputs that stand.
type Outcome = (Option<RunOutcome>, BTreeMap<String, String>, BTreeSet<String>);

impl Stage {
    fn new(scene: Scene) -> Self {
        let home = tempfile::tempdir().expect("a directory for the run");
        Self { scene, home, run: RunId::new(Timestamp::from_millis(0), 1) }
    }

    async fn undisturbed(scene: Scene, faults: Faults) -> Self {
        let stage = Self::new(scene);
        stage.travel(faults).await.expect("the undisturbed run comes to its end");
        stage
    }

    fn dir(&self) -> RunDir {
        StateDir::new(self.home.path().join("state")).run(&self.run)
    }

    fn read(&self) -> ReadJournal {
        read_journal(&self.dir().journal(), &self.run).expect("the journal can be read")
    }

    fn seen(&self) -> Seen {
        (self.scene.world)()
    }

    fn result(&self) -> Outcome {
        let prior = Prior::of(&self.read().entries);
        let outputs = prior.outcomes.iter().map(|(step, o)| (step.clone(), o.output.clone())).collect();
        (prior.ended, outputs, prior.stuck.into_keys().collect())
    }

    fn setup(&self, faults: Faults) -> Setup {
        Setup {
            state: StateDir::new(self.home.path().join("state")),
            cache: self.home.path().join("cache"),
            root: self.scene.root.clone().unwrap_or_else(|| self.home.path().to_owned()),
            environment: Arc::new(Environment::default()),
            resources: self.scene.resources.clone().with(Arc::new(faults)),
            observer: Arc::new(Silent),
            redactor: None,
            clock: Arc::new(|| Timestamp::from_millis(0)),
            jobs: 1,
            fail_fast: false,
            use_cache: true,
        }
    }

    /// Starts, or goes on, until the run has ended or waits for what the scene does not answer.
    async fn travel(&self, faults: Faults) -> Result<(), RunError> {
        let (setup, dir) = (self.setup(faults), self.dir());
        let mut answered = None;
        for _ in 0..PROCESSES {
            let pipeline = (self.scene.pipeline)();
            if !dir.journal().exists() {
                let (actor, executable, engine) = ("harness".to_owned(), "none".to_owned(), "harness".to_owned());
                let start = Start { inputs: serde_json::Value::Null, actor, executable, engine };
                setup.start(&pipeline, &self.run, start, Cancel::new()).await?;
            }
            let prior = Prior::of(&read_journal(&dir.journal(), &self.run)?.entries);
            match prior.ended {
                Some(RunOutcome::Succeeded | RunOutcome::Failed) => return Ok(()),
                Some(RunOutcome::Parked) => {
                    let open = |gate: &str| prior.waiting.contains_key(gate) && prior.answer(gate).is_none();
                    for (gate, answer) in self.scene.answers.iter().filter(|(gate, _)| open(gate)) {
                        answer_with(&setup.state, &self.run, gate, answer.clone(), setup.clock.clone(), faults)?;
                    }
                    let now = Prior::of(&read_journal(&dir.journal(), &self.run)?.entries).answers.len();
                    if answered.replace(now) == Some(now) || now == 0 {
                        return Ok(());
                    }
                }
                _ => {}
            }
            setup.resume(&pipeline, &self.run, "harness", Cancel::new()).await?;
        }
        panic!("the run did not end within {PROCESSES} processes");
    }

    /// Goes on after a crash and compares where that leads with where the undisturbed run went.
    async fn arrive(&self, crash: Crash, left: &Prior, undisturbed: &Self) {
        let resumed = self.travel(Faults::default()).await;
        if crash == Crash::Before(0) {
            assert!(matches!(resumed, Err(RunError::NeverBegan { .. })), "{crash:?}: {resumed:?}");
            return;
        }
        resumed.unwrap_or_else(|e| panic!("{crash:?}: it cannot be resumed: {e}"));
        let unknown = self.unknown(left);
        if unknown.is_empty() {
            assert_eq!(self.seen(), undisturbed.seen(), "{crash:?}: the world");
            assert_eq!(self.result(), undisturbed.result(), "{crash:?}: the outcome");
            return;
        }
        // Done once or not at all: what both worlds hold is in the same state, so nothing that counts was counted twice. What
        // only this one holds comes from its failing, such as a notice of that.
        let seen = self.seen();
        for (thing, state) in undisturbed.seen() {
            let here = seen.get(&thing).unwrap_or(&state);
            assert_eq!(*here, state, "{crash:?}: {thing}, after {unknown:?} became unknown");
        }
        let failures = Prior::of(&self.read().entries).failures;
        for step in unknown.iter().filter(|s| !s.contains('@')) {
            assert!(failures.contains_key(step), "{crash:?}: {step} is unknown, and the run does not say so");
        }
    }

    /// The at-most-once steps that were begun and have no outcome.
    fn unknown(&self, left: &Prior) -> Vec<String> {
        let pipeline = (self.scene.pipeline)();
        let once: BTreeSet<&str> =
            pipeline.nodes.iter().filter(|n| n.repeat == Some(Repeat::AtMostOnce)).map(|n| &*n.name).collect();
        let is_once = |step: &&String| once.contains(without_outcome(step));
        left.intents.iter().filter(is_once).filter(|s| !left.failures.contains_key(*s)).cloned().collect()
    }
}
