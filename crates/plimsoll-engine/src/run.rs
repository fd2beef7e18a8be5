//! Planning, starting and resuming runs.

use crate::{
    cache::Cache,
    context::{Clock, Cx, Resources, Shared, lock},
    error::StepError,
    execute::{Ended, Execution, Limits, discovered_holds},
    fault::Faults,
    graph::{Pipeline, StepPrint, plan_differences},
    journal::{Journal, JournalError, Record},
    node::{Kind, Node},
    observer::Observer,
    plan::{self, Facts, Known, Plan, PlannedStep},
    prior::Prior,
    reads::{Reads, differences},
    step::Summary,
    store::{RunLock, StateDir},
    turn::{self, Holder, NoTurn, Turn},
};
use plimsoll_core::{Classify, Ending, ErrorClass, Event, Fingerprint, RunId, RunOutcome};
use plimsoll_process::{Cancel, Environment, Redactor};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Instant,
};

/// Everything a run needs besides its graph.
#[derive(Clone)]
pub struct Setup {
    /// Where runs and executables are kept.
    pub state: StateDir,
    /// Where the cache lies.
    pub cache: PathBuf,
    /// The workspace's root.
    pub root: PathBuf,
    /// The environment variables this process was started with.
    pub environment: Arc<Environment>,
    /// Clients, targets and the like.
    pub resources: Resources,
    /// Who is told what happens.
    pub observer: Arc<dyn Observer>,
    /// What must not appear in a log.
    pub redactor: Option<Arc<Redactor>>,
    /// The wall clock.
    pub clock: Clock,
    /// How many steps may work at once; at least 1.
    pub jobs: usize,
    /// Whether the first failure stops everything instead of only what depends on it.
    pub fail_fast: bool,
    /// Whether recorded outputs may be used.
    pub use_cache: bool,
}

/// What a new run records about itself.
#[derive(Debug, Clone)]
pub struct Start {
    /// All that the graph is built from.
    pub inputs: serde_json::Value,
    /// Who starts it.
    pub actor: String,
    /// The fingerprint of the kept executable, or a word for a run that has none.
    pub executable: String,
    /// Plimsoll's version.
    pub engine: String,
}

/// How a run went.
#[derive(Debug, Clone)]
pub struct Report {
    /// The run.
    pub run: RunId,
    /// How it ended.
    pub outcome: RunOutcome,
    /// Each step's ending, in the plan's order; steps that did not come to an end are left out.
    pub steps: Vec<StepReport>,
    /// Effects that could not be taken back, with the error: a person must look.
    pub stuck: Vec<(String, StepError)>,
    /// Whether anything in the world was changed.
    pub changed: bool,
    /// How long this process worked on it, in milliseconds.
    pub millis: u64,
}

/// One step of a [`Report`].
#[derive(Debug, Clone)]
pub struct StepReport {
    /// Its name.
    pub name: Arc<str>,
    /// How it ended.
    pub ending: Ending,
    /// Its recorded output.
    pub output: Option<Arc<str>>,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// Why a run could not be started, planned or resumed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state directory cannot be used.
    #[error("cannot write the state of run {run} in {}", place.display())]
    State {
        /// Which run.
        run: RunId,
        /// The directory all such state is in.
        place: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What a step reads cannot be read.
    #[error("cannot tell what step {step} reads")]
    Reads {
        /// Which step.
        step: String,
        /// Why.
        #[source]
        source: Box<StepError>,
    },
    /// Another process works on the run.
    #[error("run {run} is being worked on by another process")]
    Busy {
        /// Which run.
        run: RunId,
    },
    /// Another run of the pipeline works: two at once would undo each other.
    #[error("another {pipeline} is running: {}", holder(.by.as_ref()))]
    Turn {
        /// Which pipeline.
        pipeline: String,
        /// Who works on it, where that is known already.
        by: Option<Holder>,
    },
    /// Its process was killed before it had written its first record: there is nothing to go on with.
    #[error("run {run} was stopped before it began: start a new one")]
    NeverBegan {
        /// Which run.
        run: RunId,
    },
    /// Nobody is asked there.
    #[error("run {run} does not wait at {gate}: it was answered already, or was never asked")]
    NotWaiting {
        /// Which run.
        run: RunId,
        /// The gate.
        gate: String,
    },
    /// The run is over.
    #[error("run {run} has ended: it {}", outcome.word())]
    Over {
        /// Which run.
        run: RunId,
        /// How.
        outcome: RunOutcome,
    },
    /// Its graph is not the one it was started with.
    #[error("run {run} was started with plan {}, this executable makes plan {}: {}", started.short(), now.short(), differences.join(", "))]
    PlanChanged {
        /// Which run.
        run: RunId,
        /// The plan hash in the journal.
        started: Fingerprint,
        /// The plan hash now.
        now: Fingerprint,
        /// The steps that differ.
        differences: Vec<String>,
    },
    /// The sources are not those it was started with.
    #[error("run {run} cannot go on: what {step} reads has changed since it was started ({})", differences.join(", "))]
    SourcesChanged {
        /// Which run.
        run: RunId,
        /// A step that is still to run.
        step: String,
        /// What changed, if the cache still knows; at most five.
        differences: Vec<String>,
    },
}

fn holder(by: Option<&Holder>) -> String {
    by.map_or_else(|| "it has only just begun".to_owned(), Holder::to_string)
}

impl Classify for RunError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::State { .. } | Self::Busy { .. } | Self::Turn { .. } => ErrorClass::External,
            Self::Journal(error) => error.class(),
            Self::Reads { source, .. } => source.class,
            Self::NeverBegan { .. }
            | Self::NotWaiting { .. }
            | Self::Over { .. }
            | Self::PlanChanged { .. }
            | Self::SourcesChanged { .. } => ErrorClass::User,
        }
    }
}

/// The recorded output of each step that has one, in the plan's order.
type Outputs = Vec<Option<Arc<str>>>;

impl Setup {
    /// Decides each step without running anything. The decisions are those a run would begin with.
    pub fn plan(&self, pipeline: &Pipeline, run: &RunId) -> Result<Plan, RunError> {
        self.decide(pipeline, run).map(|(plan, _)| plan)
    }

    /// The recorded outputs that a run would take instead of doing the work, by step.
    pub fn recorded(&self, pipeline: &Pipeline, run: &RunId) -> Result<BTreeMap<Arc<str>, Arc<str>>, RunError> {
        let (plan, outputs) = self.decide(pipeline, run)?;
        let recorded = plan.steps.into_iter().zip(outputs);
        Ok(recorded.filter_map(|(step, output)| Some((step.name, output?))).collect())
    }

    fn decide(&self, pipeline: &Pipeline, run: &RunId) -> Result<(Plan, Outputs), RunError> {
        let shared = self.shared(run, pipeline.plan_hash(), &Prior::default());
        let reads = read_all(&pipeline.nodes, &shared)?;
        let cache = Cache::open(&self.cache).map_err(|source| unwritten(run, &self.cache, source))?;
        let prior = Prior::default();
        let facts: Vec<Facts<'_>> = pipeline
            .nodes
            .iter()
            .zip(&reads)
            .map(|(node, reads)| Facts {
                name: Arc::clone(&node.name),
                kind: node.kind,
                needs: &node.needs,
                print: node.print,
                reads: reads.as_ref().map(Reads::components),
            })
            .collect();
        let known = Looked {
            nodes: &pipeline.nodes,
            reads: &reads,
            cache: &cache,
            prior: &prior,
            shared: &shared,
            use_cache: self.use_cache,
        };
        let (decisions, outputs) = plan::decide(&facts, &known);
        let name = |n: &usize| Arc::clone(&pipeline.nodes[*n].name);
        let named = |reads: &Reads| reads.components().iter().map(|component| component.name.clone()).collect();
        let step = |((node, decision), reads): ((&Node, _), &Option<Reads>)| PlannedStep {
            name: Arc::clone(&node.name),
            kind: node.kind,
            needs: node.needs.iter().map(name).collect(),
            decision,
            repeat: node.repeat,
            params: node.params.clone(),
            reads: reads.as_ref().map(named).unwrap_or_default(),
            expected_millis: cache.expected_millis(&node.name),
        };
        let steps = pipeline.nodes.iter().zip(decisions).zip(&reads).map(step).collect();
        Ok((Plan { pipeline: pipeline.name.clone(), hash: pipeline.plan_hash(), steps }, outputs))
    }

    /// Starts a new run and works on it until it ends or parks.
    pub async fn start(
        &self,
        pipeline: &Pipeline,
        run: &RunId,
        start: Start,
        cancel: Cancel,
    ) -> Result<Report, RunError> {
        let state = |source| unwritten(run, self.state.path(), source);
        let turn = self.turn(pipeline, run, &start.actor)?;
        let dir = self.state.run(run);
        dir.create().map_err(state)?;
        let guard = dir.lock().map_err(state)?.ok_or_else(|| RunError::Busy { run: run.clone() })?;
        let shared = self.shared(run, pipeline.plan_hash(), &Prior::default());
        let reads = read_all(&pipeline.nodes, &shared)?;
        let mut journal = Journal::create(&dir.journal(), run, Arc::clone(&self.clock)).map_err(state)?;
        let record = Record::Started {
            format: crate::journal::FORMAT,
            run: run.clone(),
            pipeline: pipeline.name.clone(),
            inputs: start.inputs,
            plan: pipeline.plan_hash(),
            steps: pipeline.prints(),
            reads: reads.iter().map(|r| r.as_ref().map(reads_hash)).collect(),
            executable: start.executable,
            engine: start.engine,
            actor: start.actor,
            previous: self.state.head(),
        };
        journal.fail_at(Faults::among(&self.resources).crash);
        journal.append_synced(&record).map_err(state)?;
        self.work(pipeline, shared, reads, journal, &Prior::default(), (guard, turn), cancel).await
    }

    /// Goes on with a run from its journal. The pipeline must have been built from the inputs recorded there.
    pub async fn resume(
        &self,
        pipeline: &Pipeline,
        run: &RunId,
        actor: &str,
        cancel: Cancel,
    ) -> Result<Report, RunError> {
        let state = |source| unwritten(run, self.state.path(), source);
        let dir = self.state.run(run);
        // Read before the directory is touched: a run that is not there is not made by asking for it.
        crate::journal::read(&dir.journal(), run)?;
        let guard = dir.lock().map_err(state)?.ok_or_else(|| RunError::Busy { run: run.clone() })?;
        let turn = self.turn(pipeline, run, actor)?;
        let (mut journal, read) = Journal::open(&dir.journal(), run, Arc::clone(&self.clock))?;
        let mut prior = Prior::of(&read.entries);
        if let Some(outcome @ RunOutcome::Succeeded) = prior.ended {
            return Err(RunError::Over { run: run.clone(), outcome });
        }
        let shared = self.shared(run, pipeline.plan_hash(), &prior);
        let reads = read_all(&pipeline.nodes, &shared)?;
        let Some(Record::Started { plan, steps, reads: then, .. }) = read.entries.first().map(|e| &e.record) else {
            return Err(RunError::NeverBegan { run: run.clone() });
        };
        same_plan(pipeline, run, plan, steps)?;
        forget_lost(&pipeline.nodes, &shared, &mut prior);
        self.same_sources(pipeline, run, then, &reads, &prior)?;
        journal.fail_at(Faults::among(&self.resources).crash);
        journal.append_synced(&Record::Resumed { actor: actor.to_owned() }).map_err(state)?;
        self.work(pipeline, shared, reads, journal, &prior, (guard, turn), cancel).await
    }

    /// The right to work on a run of this pipeline; checks alone get in nobody's way.
    fn turn(&self, pipeline: &Pipeline, run: &RunId, actor: &str) -> Result<Option<Turn>, RunError> {
        if pipeline.nodes.iter().all(|node| node.kind != Kind::Effect) {
            return Ok(None);
        }
        let (actor, since) = (actor.to_owned(), (self.clock)());
        let holder = Holder { run: run.clone(), actor, pid: std::process::id(), since };
        turn::take(&self.state, &pipeline.name, &holder).map(Some).map_err(|no| match no {
            NoTurn::Held(by) => RunError::Turn { pipeline: pipeline.name.clone(), by },
            NoTurn::Io(source) => unwritten(run, self.state.path(), source),
        })
    }

    fn same_sources(
        &self,
        pipeline: &Pipeline,
        run: &RunId,
        then: &[Option<Fingerprint>],
        now: &[Option<Reads>],
        prior: &Prior,
    ) -> Result<(), RunError> {
        let changed = |(index, node): &(usize, &Node)| {
            let same = then.get(*index).copied().flatten() == now[*index].as_ref().map(reads_hash);
            node.kind == Kind::Pure && !prior.outcomes.contains_key(&*node.name) && !same
        };
        let Some((index, node)) = pipeline.nodes.iter().enumerate().find(changed) else { return Ok(()) };
        let old = Cache::open(&self.cache).ok().and_then(|c| c.components(&node.name)).unwrap_or_default();
        let mut differences = differences(&old, now[index].as_ref().map_or(&[], Reads::components));
        differences.truncate(5);
        Err(RunError::SourcesChanged { run: run.clone(), step: node.name.to_string(), differences })
    }

    #[expect(clippy::too_many_arguments, reason = "the two callers differ only in where these come from")]
    async fn work(
        &self,
        pipeline: &Pipeline,
        shared: Arc<Shared>,
        reads: Vec<Option<Reads>>,
        journal: Journal,
        prior: &Prior,
        guards: (RunLock, Option<Turn>),
        cancel: Cancel,
    ) -> Result<Report, RunError> {
        let run = shared.run.clone();
        let state = |source| unwritten(&run, self.state.path(), source);
        let begun = Instant::now();
        let cache = Cache::open(&self.cache).map_err(|source| unwritten(&run, &self.cache, source))?;
        self.observer.event(&Event::RunStarted {
            run: run.clone(),
            pipeline: pipeline.name.clone(),
            steps: pipeline.nodes.len(),
            resumed: *prior != Prior::default(),
        });
        let limits = Limits {
            jobs: self.jobs.max(1),
            fail_fast: self.fail_fast,
            use_cache: self.use_cache,
            twice: Faults::among(&self.resources).twice,
            unwind: prior.unwinding,
        };
        let journal = Arc::new(Mutex::new(journal));
        let mut execution =
            Execution::new(&pipeline.nodes, reads, shared, Arc::clone(&journal), cache, prior, limits, cancel.child());
        execution.run().await.map_err(state)?;
        let outcome = outcome(&execution.ended, limits.unwind, &cancel);
        let stuck = if outcome == RunOutcome::Failed { execution.undo().await.map_err(state)? } else { Vec::new() };
        let changed = execution.ended.iter().flatten().any(|e| e.changed);
        let summary = Summary { outcome, changed, steps: execution.summaries() };
        execution.close(&pipeline.closing, summary).await.map_err(state)?;
        let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let head = {
            let mut journal = lock(&journal);
            journal.append_synced(&Record::Ended { outcome, millis }).map_err(state)?;
            journal.head()
        };
        self.state.set_head(head, &run).map_err(state)?;
        drop(guards);
        // Nobody waits for this any more but whoever gave the command; where something went wrong, not even they.
        let well = matches!(outcome, RunOutcome::Succeeded | RunOutcome::Parked);
        execution.giving.end(well && !cancel.is_cancelled()).await;
        self.observer.event(&Event::RunEnded { run: run.clone(), outcome, millis });
        Ok(Report { run, outcome, steps: step_reports(&pipeline.nodes, execution.ended), stuck, changed, millis })
    }

    fn shared(&self, run: &RunId, plan: Fingerprint, prior: &Prior) -> Arc<Shared> {
        Arc::new(Shared {
            run: run.clone(),
            root: self.root.clone(),
            run_dir: self.state.run(run).path().to_owned(),
            environment: Arc::clone(&self.environment),
            resources: self.resources.clone(),
            observer: Arc::clone(&self.observer),
            redactor: self.redactor.clone(),
            clock: Arc::clone(&self.clock),
            plan,
            answers: prior.answers.clone(),
        })
    }
}

fn unwritten(run: &RunId, place: &Path, source: io::Error) -> RunError {
    RunError::State { run: run.clone(), place: place.to_owned(), source }
}

fn same_plan(pipeline: &Pipeline, run: &RunId, plan: &Fingerprint, steps: &[StepPrint]) -> Result<(), RunError> {
    let now = pipeline.plan_hash();
    if now == *plan {
        return Ok(());
    }
    let differences = plan_differences(steps, &pipeline.prints());
    Err(RunError::PlanChanged { run: run.clone(), started: *plan, now, differences })
}

/// Forgets the outcomes of pure steps that something still to run needs and whose files are gone: they are run again. One
/// that only steps which are done have used stays, and so does all that says how to take a run back.
fn forget_lost(nodes: &[Node], shared: &Arc<Shared>, prior: &mut Prior) {
    if prior.unwinding {
        return;
    }
    let mut used = vec![false; nodes.len()];
    let mut open = vec![false; nodes.len()];
    // Each step comes after those it needs.
    for (index, node) in nodes.iter().enumerate().rev() {
        let usable = |text: &str| {
            let cx = Cx::new(Arc::clone(shared), Arc::clone(&node.name), Cancel::new());
            node.action.decode(text).is_ok_and(|finished| node.action.usable(&cx, &finished))
        };
        // A step that nothing uses was run for what it leaves.
        let wanted = node.kind == Kind::Pure && (open[index] || !used[index]);
        if wanted && prior.outcomes.get(&*node.name).is_some_and(|outcome| !usable(&outcome.output)) {
            prior.outcomes.remove(&*node.name);
        }
        let runs = !prior.outcomes.contains_key(&*node.name);
        for need in &node.needs {
            used[*need] = true;
            open[*need] |= runs;
        }
    }
}

fn outcome(ended: &[Option<Ended>], unwinding: bool, cancel: &Cancel) -> RunOutcome {
    let any = |what: fn(&Ending) -> bool| ended.iter().flatten().any(|e| what(&e.ending));
    if unwinding || any(|e| matches!(e, Ending::Failed { .. })) {
        RunOutcome::Failed
    } else if cancel.is_cancelled() || any(|e| matches!(e, Ending::Cancelled)) {
        RunOutcome::Interrupted
    } else if any(|e| matches!(e, Ending::Parked { .. })) {
        RunOutcome::Parked
    } else {
        RunOutcome::Succeeded
    }
}

fn step_reports(nodes: &[Node], ended: Vec<Option<Ended>>) -> Vec<StepReport> {
    let report = |(node, ended): (&Node, Option<Ended>)| {
        let Ended { ending, millis, output, .. } = ended?;
        Some(StepReport { name: Arc::clone(&node.name), ending, output, millis })
    };
    nodes.iter().zip(ended).filter_map(report).collect()
}

fn read_all(nodes: &[Node], shared: &Arc<Shared>) -> Result<Vec<Option<Reads>>, RunError> {
    let read = |node: &Node| {
        if node.kind != Kind::Pure {
            return Ok(None);
        }
        let cx = Cx::new(Arc::clone(shared), Arc::clone(&node.name), Cancel::new());
        let reads = node.action.reads(&cx);
        reads.map(Some).map_err(|source| RunError::Reads { step: node.name.to_string(), source: Box::new(source) })
    };
    nodes.iter().map(read).collect()
}

fn reads_hash(reads: &Reads) -> Fingerprint {
    let parts = reads
        .components()
        .iter()
        .filter(|c| !c.volatile)
        .flat_map(|c| [c.name.as_bytes(), c.hash.as_bytes().as_slice()]);
    Fingerprint::of_parts(parts)
}

struct Looked<'a> {
    nodes: &'a [Node],
    reads: &'a [Option<Reads>],
    cache: &'a Cache,
    prior: &'a Prior,
    shared: &'a Arc<Shared>,
    use_cache: bool,
}

impl Known for Looked<'_> {
    fn cached(&self, node: usize, print: &Fingerprint) -> Option<Arc<str>> {
        let hit = self.cache.get(print).filter(|_| self.use_cache)?;
        let action = &self.nodes[node].action;
        let finished = action.decode(&hit.output).ok()?;
        let cx = Cx::new(Arc::clone(self.shared), Arc::clone(&self.nodes[node].name), Cancel::new());
        (discovered_holds(&self.shared.root, hit) && action.usable(&cx, &finished)).then(|| Arc::clone(&hit.output))
    }

    fn replayed(&self, node: usize, inputs: &Fingerprint) -> Option<Arc<str>> {
        let outcome = self.prior.outcomes.get(&*self.nodes[node].name)?;
        (outcome.inputs == *inputs).then(|| outcome.output.as_str().into())
    }

    fn miss(&self, node: usize) -> String {
        if !self.use_cache {
            return "the cache is switched off".to_owned();
        }
        let Some(old) = self.cache.components(&self.nodes[node].name) else {
            return "it has no recorded output".to_owned();
        };
        let now = self.reads[node].as_ref().map_or(&[][..], Reads::components);
        let mut differences = differences(&old, now);
        let more = differences.len().saturating_sub(3);
        differences.truncate(3);
        match (differences.is_empty(), more) {
            (true, _) => "its parameters, its inputs or a file it was found to read changed".to_owned(),
            (false, 0) => differences.join(", "),
            (false, more) => format!("{} and {more} more", differences.join(", ")),
        }
    }
}

/// Answers a gate of a parked run: recorded in its journal, taken up by the next resume.
pub fn answer(
    state: &StateDir,
    run: &RunId,
    gate: &str,
    answer: serde_json::Value,
    clock: Clock,
) -> Result<(), RunError> {
    answer_with(state, run, gate, answer, clock, Faults::default())
}

pub(crate) fn answer_with(
    state: &StateDir,
    run: &RunId,
    gate: &str,
    answer: serde_json::Value,
    clock: Clock,
    faults: Faults,
) -> Result<(), RunError> {
    let failed = |source| unwritten(run, state.path(), source);
    let dir = state.run(run);
    crate::journal::read(&dir.journal(), run)?;
    let _guard = dir.lock().map_err(failed)?.ok_or_else(|| RunError::Busy { run: run.clone() })?;
    let (mut journal, read) = Journal::open(&dir.journal(), run, clock)?;
    journal.fail_at(faults.crash);
    let prior = Prior::of(&read.entries);
    match prior.ended {
        Some(RunOutcome::Parked) | None => {}
        Some(outcome) => return Err(RunError::Over { run: run.clone(), outcome }),
    }
    // A gate that was passed is replayed: an answer to it would be heard by nobody.
    if prior.unwinding || !prior.waiting.contains_key(gate) {
        return Err(RunError::NotWaiting { run: run.clone(), gate: gate.to_owned() });
    }
    journal.append_synced(&Record::Answered { step: gate.to_owned(), answer }).map_err(failed)?;
    // The run stays parked: what the last process said of it still holds.
    journal.append_synced(&Record::Ended { outcome: RunOutcome::Parked, millis: 0 }).map_err(failed)
}
