//! The executor: independent steps in parallel, each when its inputs are there, every decision journaled.

use crate::{
    attempt::attempts,
    cache::{Cache, Hit},
    context::{Cx, Shared, lock},
    error::StepError,
    journal::{Journal, Landing, Ledger, Record},
    node::{Bound, Kind, Landed, Node},
    plan,
    prior::Prior,
    reads::Reads,
    sharing::{self, Giving, Sharing},
    step::StepSummary,
    wire::{Finished, Values},
};
use plimsoll_core::{Ending, Event, Fingerprint};
use plimsoll_process::Cancel;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};
use tokio::task::JoinSet;

/// How a step ended, with what it left.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) ending: Ending,
    pub(crate) millis: u64,
    pub(crate) output: Option<Arc<str>>,
    /// Whether it changed the world now or in an earlier process of this run.
    pub(crate) changed: bool,
}

/// What a spawned step hands back.
struct Attempted {
    node: usize,
    landed: Result<Landed, StepError>,
    /// What a pure step that is done reads now.
    reads: Option<Reads>,
    cx: Cx,
}

/// What is kept of a step while it works.
struct Started {
    at: Instant,
    print: Option<Fingerprint>,
    inputs: Fingerprint,
    /// Whether the run holds its intent.
    intended: Arc<AtomicBool>,
}

/// The limits of one execution.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own, set from outside")]
pub(crate) struct Limits {
    pub(crate) jobs: usize,
    pub(crate) fail_fast: bool,
    pub(crate) use_cache: bool,
    /// Do twice what must bear it.
    pub(crate) twice: bool,
    /// Only take what is recorded: an earlier process began to take the run back, and that comes first.
    pub(crate) unwind: bool,
}

pub(crate) struct Execution<'a> {
    pub(crate) nodes: &'a [Node],
    pub(crate) reads: Vec<Option<Reads>>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) journal: Arc<Mutex<Journal>>,
    pub(crate) cache: Cache,
    pub(crate) prior: &'a Prior,
    pub(crate) limits: Limits,
    pub(crate) cancel: Cancel,
    pub(crate) values: Values,
    pub(crate) ended: Vec<Option<Ended>>,
    /// Effects whose intent this process wrote.
    pub(crate) begun: HashSet<usize>,
    pub(crate) bound: HashMap<usize, Arc<dyn Bound>>,
    missing: Vec<usize>,
    dependents: Vec<Vec<usize>>,
    ready: BTreeSet<usize>,
    running: JoinSet<Attempted>,
    started: HashMap<usize, Started>,
    tasks: HashMap<tokio::task::Id, usize>,
    busy: HashSet<&'static str>,
    pub(crate) giving: Giving,
}

impl<'a> Execution<'a> {
    #[expect(clippy::too_many_arguments, reason = "one call site; a struct for the arguments would repeat the fields")]
    pub(crate) fn new(
        nodes: &'a [Node],
        reads: Vec<Option<Reads>>,
        shared: Arc<Shared>,
        journal: Arc<Mutex<Journal>>,
        cache: Cache,
        prior: &'a Prior,
        limits: Limits,
        cancel: Cancel,
    ) -> Self {
        let mut dependents = vec![Vec::new(); nodes.len()];
        let mut missing = vec![0; nodes.len()];
        for (index, node) in nodes.iter().enumerate() {
            let distinct: BTreeSet<usize> = node.needs.iter().copied().collect();
            missing[index] = distinct.len();
            for need in distinct {
                dependents[need].push(index);
            }
        }
        let startable = (0..nodes.len()).filter(|n| missing[*n] == 0 && nodes[*n].kind != Kind::Finally).collect();
        Self {
            reads,
            shared,
            journal,
            cache,
            prior,
            limits,
            cancel,
            values: Values(vec![None; nodes.len()]),
            ended: vec![None; nodes.len()],
            begun: HashSet::new(),
            bound: HashMap::new(),
            missing,
            dependents,
            ready: startable,
            running: JoinSet::new(),
            started: HashMap::new(),
            tasks: HashMap::new(),
            busy: HashSet::new(),
            giving: Giving::default(),
            nodes,
        }
    }

    /// Runs every step that can run. An error means that the journal can no longer be written: nothing new was begun
    /// after it, and what was under way was told to stop and waited for.
    pub(crate) async fn run(&mut self) -> io::Result<()> {
        let result = self.drive().await;
        if result.is_err() {
            self.cancel.cancel();
            while self.running.join_next().await.is_some() {}
        }
        result
    }

    async fn drive(&mut self) -> io::Result<()> {
        loop {
            while self.running.len() < self.limits.jobs {
                let Some(node) = self.next_ready() else { break };
                self.begin(node)?;
            }
            match self.running.join_next_with_id().await {
                None => return Ok(()),
                Some(Ok((id, attempted))) => {
                    self.tasks.remove(&id);
                    self.end(attempted)?;
                }
                Some(Err(error)) => {
                    let node = self.tasks.remove(&error.id()).expect("every task was noted when it was spawned");
                    let landed = Err(StepError::internal("the step panicked").caused_by(&error));
                    self.end(Attempted { node, landed, reads: None, cx: self.cx(node) })?;
                }
            }
        }
    }

    /// The first ready step that needs nothing another one is using. Steps that cannot start any more are ended here.
    fn next_ready(&mut self) -> Option<usize> {
        if self.cancel.is_cancelled() {
            for node in std::mem::take(&mut self.ready) {
                self.leave(node, Ending::Cancelled, 0);
            }
            return None;
        }
        let free = |n: &&usize| self.nodes[**n].action.exclusive().is_none_or(|name| !self.busy.contains(name));
        let node = *self.ready.iter().find(free)?;
        self.ready.remove(&node);
        Some(node)
    }

    fn cx(&self, node: usize) -> Cx {
        Cx::new(Arc::clone(&self.shared), Arc::clone(&self.nodes[node].name), self.cancel.clone())
    }

    fn begin(&mut self, index: usize) -> io::Result<()> {
        let node = &self.nodes[index];
        let needed = node.needs.iter().map(|n| self.values.0[*n].as_ref().expect("a ready step has its inputs"));
        let inputs = plan::inputs_hash(needed.map(|f| &*f.encoded));
        if let Some(outcome) = self.prior.outcomes.get(&*node.name).filter(|o| o.inputs == inputs)
            && let Ok(finished) = node.action.decode(&outcome.output)
        {
            // Also what was found done, when it was this run that had begun it.
            let changed = node.kind == Kind::Effect && self.prior.begun.contains(&*node.name);
            if node.kind == Kind::Effect {
                self.bound.insert(index, Arc::clone(&node.action).bind(&self.values.of(&node.needs)));
            }
            self.finish(index, Ending::Replayed, finished, outcome.millis, changed);
            return Ok(());
        }
        if self.limits.unwind {
            if node.kind == Kind::Effect {
                self.bound.insert(index, Arc::clone(&node.action).bind(&self.values.of(&node.needs)));
            }
            let ending = self.not_run(index, "the run is being taken back");
            self.leave(index, ending, 0);
            return Ok(());
        }
        let cx = self.cx(index);
        let print = self.reads[index].as_ref().map(|r| plan::fingerprint(&node.print, r.components(), &inputs));
        if let Some(finished) = self.look_up(index, print.as_ref(), &cx) {
            self.record_outcome(index, Landing::Cached, inputs, &finished, 0, false)?;
            self.finish(index, Ending::Cached, finished, 0, false);
            return Ok(());
        }
        self.spawn(index, cx, print, inputs);
        Ok(())
    }

    fn spawn(&mut self, index: usize, cx: Cx, print: Option<Fingerprint>, inputs: Fingerprint) {
        let node = &self.nodes[index];
        let bound = Arc::clone(&node.action).bind(&self.values.of(&node.needs));
        if node.kind == Kind::Effect {
            self.bound.insert(index, Arc::clone(&bound));
        }
        let ledger = Ledger {
            journal: Arc::clone(&self.journal),
            step: Arc::clone(&node.name),
            intended: Arc::new(AtomicBool::new(self.prior.begun.contains(&*node.name))),
            twice: self.limits.twice,
        };
        if let Some(name) = node.action.exclusive() {
            self.busy.insert(name);
        }
        let started = Started { at: Instant::now(), print, inputs, intended: Arc::clone(&ledger.intended) };
        self.started.insert(index, started);
        self.shared.observer.event(&Event::StepStarted {
            step: Arc::clone(&node.name),
            expected_millis: self.cache.expected_millis(&node.name),
        });
        let (action, kind, repeat) = (Arc::clone(&node.action), node.kind, node.repeat);
        let shared = print.filter(|_| self.limits.use_cache).zip(cx.optional::<Sharing>());
        let task = self.running.spawn(async move {
            if let Some((print, sharing)) = &shared
                && let Some((finished, hit, millis)) = sharing::take(sharing, &action, &cx, print).await
            {
                let landed = Ok(Landed::Taken(finished, hit, millis));
                return Attempted { node: index, landed, reads: None, cx };
            }
            let (timeout, retry) = (action.timeout(), action.retry());
            let landed = attempts(bound, cx.clone(), ledger, timeout, retry, repeat).await;
            let done = kind == Kind::Pure && matches!(landed, Ok(Landed::Done(_)));
            let reads = if done { action.reads(&cx).ok() } else { None };
            Attempted { node: index, landed, reads, cx }
        });
        self.tasks.insert(task.id(), index);
    }

    fn look_up(&self, index: usize, print: Option<&Fingerprint>, cx: &Cx) -> Option<Finished> {
        let node = &self.nodes[index];
        let hit = self.cache.get(print.filter(|_| self.limits.use_cache)?)?;
        if !discovered_holds(cx.root(), hit) {
            return None;
        }
        let finished = node.action.decode(&hit.output).ok()?;
        node.action.usable(cx, &finished).then_some(finished)
    }

    fn end(&mut self, attempted: Attempted) -> io::Result<()> {
        let Attempted { node: index, landed, reads, cx } = attempted;
        let node = &self.nodes[index];
        let Started { at, print, inputs, intended } =
            self.started.remove(&index).expect("a step that ends was started");
        if intended.load(Ordering::Acquire) {
            self.begun.insert(index);
        }
        let millis = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let Some(name) = node.action.exclusive() {
            self.busy.remove(name);
        }
        match landed {
            Ok(Landed::Done(finished)) => {
                let effect = node.kind != Kind::Pure;
                if let Some(reason) = cx.take_skipped().filter(|_| !effect) {
                    let record = Record::Skipped { step: node.name.to_string(), reason: reason.clone() };
                    self.append(&record, false)?;
                    self.finish(index, Ending::Skipped { reason }, finished, millis, false);
                    return Ok(());
                }
                self.record_outcome(index, Landing::Done, inputs, &finished, millis, effect)?;
                self.remember(index, print, reads.as_ref(), &finished, millis, &cx);
                self.finish(index, Ending::Done, finished, millis, node.kind == Kind::Effect);
            }
            Ok(Landed::Taken(finished, hit, took)) => {
                self.record_outcome(index, Landing::Cached, inputs, &finished, millis, false)?;
                let kept = match print.zip(self.reads[index].as_ref()) {
                    Some((print, reads)) => self
                        .cache
                        .put(print, &node.name, hit, took)
                        .and_then(|()| self.cache.put_components(&node.name, reads.components())),
                    None => Ok(()),
                };
                if let Err(error) = kept {
                    cx.log(&format!("the cache could not be written: {error}"));
                }
                self.finish(index, Ending::Cached, finished, millis, false);
            }
            Ok(Landed::FoundDone(finished)) => {
                self.record_outcome(index, Landing::FoundDone, inputs, &finished, millis, false)?;
                // An effect that was begun by an earlier process or attempt and is found done was done by this run.
                let changed = intended.load(Ordering::Acquire);
                self.finish(index, Ending::FoundDone, finished, millis, changed);
            }
            Ok(Landed::Parked(waiting)) => {
                let waiting = self.shared.redact(waiting);
                self.append(&Record::Parked { step: node.name.to_string(), waiting: waiting.clone() }, true)?;
                self.leave(index, Ending::Parked { waiting }, millis);
            }
            // Again for what did not come through the attempts: the text of a panic.
            Err(error) => self.fail(index, &self.shared.redact_error(error), millis)?,
        }
        Ok(())
    }

    fn fail(&mut self, index: usize, error: &StepError, millis: u64) -> io::Result<()> {
        let node = &self.nodes[index];
        if self.cancel.is_cancelled() {
            self.leave(index, Ending::Cancelled, millis);
            return Ok(());
        }
        let record =
            Record::Failed { step: node.name.to_string(), class: error.class, error: error.one_line(), millis };
        self.append(&record, node.kind != Kind::Pure)?;
        let mut detail = error.detail.clone();
        detail.extend(error.hint.clone());
        self.leave(index, Ending::Failed { class: error.class, error: error.one_line(), detail }, millis);
        if self.limits.fail_fast {
            self.cancel.cancel();
        }
        Ok(())
    }

    /// Stores a pure step's output in the cache, unless what it read changed while it worked.
    fn remember(
        &mut self,
        index: usize,
        print: Option<Fingerprint>,
        now: Option<&Reads>,
        finished: &Finished,
        millis: u64,
        cx: &Cx,
    ) {
        let node = &self.nodes[index];
        let before = self.reads[index].as_ref();
        let stored = match (print, before) {
            (Some(print), Some(before)) if now == Some(before) => {
                let hit = Hit { output: Arc::clone(&finished.encoded), discovered: cx.take_discovered() };
                if self.limits.use_cache {
                    self.giving.begin(node, cx.clone(), print, finished, hit.clone(), millis);
                }
                self.cache
                    .put(print, &node.name, hit, millis)
                    .and_then(|()| self.cache.put_components(&node.name, before.components()))
            }
            (Some(_), Some(_)) => {
                cx.log("what this step reads changed while it worked: its output is not cached");
                Ok(())
            }
            _ => self.cache.put_millis(&node.name, millis),
        };
        if let Err(error) = stored {
            cx.log(&format!("the cache could not be written: {error}"));
        }
    }

    fn record_outcome(
        &self,
        index: usize,
        landing: Landing,
        inputs: Fingerprint,
        finished: &Finished,
        millis: u64,
        sync: bool,
    ) -> io::Result<()> {
        let (step, output) = (self.nodes[index].name.to_string(), finished.encoded.to_string());
        self.append(&Record::Outcome { step, landing, inputs, output, millis }, sync)
    }

    pub(crate) fn append(&self, record: &Record, sync: bool) -> io::Result<()> {
        let mut journal = lock(&self.journal);
        if sync { journal.append_synced(record) } else { journal.append(record) }
    }

    fn finish(&mut self, index: usize, ending: Ending, finished: Finished, millis: u64, changed: bool) {
        let output = Some(Arc::clone(&finished.encoded));
        self.values.0[index] = Some(finished);
        for dependent in std::mem::take(&mut self.dependents[index]) {
            self.missing[dependent] -= 1;
            if self.missing[dependent] == 0 && self.ended[dependent].is_none() {
                self.ready.insert(dependent);
            }
        }
        self.conclude(index, Ended { ending, millis, output, changed });
    }

    /// Ends a step that has no output: what depends on it cannot run.
    fn leave(&mut self, index: usize, ending: Ending, millis: u64) {
        let because = match &ending {
            Ending::Parked { .. } => "waits for",
            _ => "needs",
        };
        let reason = format!("{because} {}", self.nodes[index].name);
        self.conclude(index, Ended { ending, millis, output: None, changed: false });
        let mut open = std::mem::take(&mut self.dependents[index]);
        // Bounded by the number of edges: each node's dependents are taken once.
        while let Some(dependent) = open.pop() {
            if self.ended[dependent].is_none() {
                let ending = self.not_run(dependent, &reason);
                self.conclude(dependent, Ended { ending, millis: 0, output: None, changed: false });
                open.append(&mut self.dependents[dependent]);
            }
        }
    }

    /// How a step ends that is not run: when a run is taken back, what failed before is why that is done.
    fn not_run(&self, index: usize, reason: &str) -> Ending {
        let name = &*self.nodes[index].name;
        match self.prior.failures.get(name).zip(self.prior.classes.get(name)).filter(|_| self.limits.unwind) {
            Some((error, class)) => Ending::Failed { class: *class, error: error.clone(), detail: Vec::new() },
            None => Ending::Skipped { reason: reason.to_owned() },
        }
    }

    fn conclude(&mut self, index: usize, ended: Ended) {
        let step = Arc::clone(&self.nodes[index].name);
        let event = Event::StepEnded { step, ending: ended.ending.clone(), millis: ended.millis };
        self.shared.observer.event(&event);
        self.ended[index] = Some(ended);
    }

    /// The steps so far, for finally-steps and reports.
    pub(crate) fn summaries(&self) -> Vec<StepSummary> {
        let summary = |(node, ended): (&Node, &Option<Ended>)| {
            let ended = ended.as_ref()?;
            let (error, waiting) = match &ended.ending {
                Ending::Failed { error, .. } => (Some(error.clone()), None),
                Ending::Parked { waiting } => (None, Some(waiting.clone())),
                _ => (None, None),
            };
            let (name, outcome) = (Arc::clone(&node.name), ended.ending.word());
            Some(StepSummary { name, outcome, output: ended.output.clone(), error, waiting })
        };
        self.nodes.iter().zip(&self.ended).filter_map(summary).collect()
    }
}

/// Whether the files that were found to be read are still as they were.
pub(crate) fn discovered_holds(root: &std::path::Path, hit: &Hit) -> bool {
    hit.discovered.iter().all(|component| {
        let path = component.name.strip_prefix("file ").unwrap_or(&component.name);
        crate::reads::hash_file(&root.join(path)).is_ok_and(|hash| hash == component.hash)
    })
}
