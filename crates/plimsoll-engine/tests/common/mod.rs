//! Steps whose behaviour a test writes down as closures, a fake world they change, and a place to run them.

use futures_util::future::BoxFuture;
use plimsoll_core::{ErrorClass, Fingerprint, RetryPolicy, RunId, Timestamp};
use plimsoll_engine::{
    Answer, Cx, Effect, Entry, Finally, Gate, Graph, Handle, Leaf, Pipeline, Pure, Reads, Recorder, Repeat, Report,
    Resources, RunError, Setup, Start, StateDir, Step, StepError, Summary, World, pipeline, read_journal,
};
use plimsoll_process::{Cancel, Environment};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

type Behaviour = Arc<dyn Fn(Cx, Vec<String>) -> BoxFuture<'static, Result<String, StepError>> + Send + Sync>;

/// A world that steps change and tests look at, and what steps do instead of the usual.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) things: Mutex<BTreeMap<String, String>>,
    pub(crate) calls: Mutex<Vec<String>>,
    scripts: Mutex<HashMap<String, Behaviour>>,
}

impl Fake {
    /// Says what happens on `call`, such as `work a`, `look a`, `act a`, `undo a`.
    pub(crate) fn on<F>(&self, call: &str, behaviour: impl Fn(Cx, Vec<String>) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<String, StepError>> + Send + 'static,
    {
        let behaviour: Behaviour = Arc::new(move |cx, input| Box::pin(behaviour(cx, input)));
        self.scripts.lock().unwrap().insert(call.to_owned(), behaviour);
    }

    /// Makes `call` fail.
    pub(crate) fn fail(&self, call: &str, class: ErrorClass) {
        self.on(call, move |_, _| async move { Err(StepError::new(class, "broken on purpose")) });
    }

    /// Makes `call` do the usual again.
    pub(crate) fn mend(&self, call: &str) {
        self.scripts.lock().unwrap().remove(call);
    }

    pub(crate) fn thing(&self, name: &str) -> Option<String> {
        self.things.lock().unwrap().get(name).cloned()
    }

    pub(crate) fn count(&self, thing: &str) {
        let mut things = self.things.lock().unwrap();
        let before: u32 = things.get(thing).map_or(0, |n| n.parse().unwrap());
        things.insert(thing.to_owned(), (before + 1).to_string());
    }

    /// How often `call` was made.
    pub(crate) fn called(&self, call: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|c| *c == call).count()
    }

    async fn script(&self, call: String, cx: &Cx, input: &[String]) -> Option<Result<String, StepError>> {
        self.calls.lock().unwrap().push(call.clone());
        let behaviour = self.scripts.lock().unwrap().get(&call).cloned()?;
        Some(behaviour(cx.clone(), input.to_vec()).await)
    }
}

/// A pure step; its output is its name and its inputs, unless a script says otherwise.
#[derive(Serialize, Clone, Default)]
pub(crate) struct Work {
    pub(crate) name: String,
    pub(crate) version: u32,
    #[serde(skip)]
    pub(crate) files: Vec<PathBuf>,
    /// The file its output stands for.
    #[serde(skip)]
    pub(crate) leaves: Option<PathBuf>,
    #[serde(skip)]
    pub(crate) millis: Option<u64>,
    #[serde(skip)]
    pub(crate) attempts: u32,
    #[serde(skip)]
    pub(crate) exclusive: Option<&'static str>,
    /// Whether machines share its outputs.
    #[serde(skip)]
    pub(crate) shared: bool,
    /// Something that changes by itself.
    #[serde(skip)]
    pub(crate) day: u64,
}

impl Work {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}

fn policy(attempts: u32) -> RetryPolicy {
    RetryPolicy {
        attempts: attempts.max(1),
        base: Duration::ZERO,
        factor: 1.0,
        cap: Duration::ZERO,
        budget: Duration::MAX,
    }
}

impl Step for Work {
    const NAME: &'static str = "work";
    const VERSION: u32 = 1;
    type In = Vec<String>;
    type Out = String;

    fn timeout(&self) -> Duration {
        self.millis.map_or(Duration::from_mins(1), Duration::from_millis)
    }

    fn retry(&self) -> RetryPolicy {
        policy(self.attempts)
    }

    fn exclusive(&self) -> Option<&'static str> {
        self.exclusive
    }
}

impl Pure for Work {
    fn reads(&self, cx: &Cx) -> Result<Reads, StepError> {
        let mut reads = Reads::nothing();
        reads.files(cx.root(), self.files.clone())?;
        reads.add_volatile("day", Fingerprint::of(&self.day.to_le_bytes()));
        Ok(reads)
    }

    async fn run(&self, cx: &Cx, input: Vec<String>) -> Result<String, StepError> {
        let fake = cx.resource::<Fake>()?;
        match fake.script(format!("work {}", self.name), cx, &input).await {
            Some(result) => result,
            None => Ok(format!("{}({})", self.name, input.join(","))),
        }
    }

    fn is_shared(&self) -> bool {
        self.shared
    }

    fn leaves(&self, _: &Cx, _: &String) -> Option<Vec<Leaf>> {
        Some(self.leaves.iter().cloned().map(Leaf::File).collect())
    }

    fn usable(&self, cx: &Cx, _: &String) -> bool {
        self.leaves.as_ref().is_none_or(|file| cx.root().join(file).exists())
    }
}

/// An effect the world can be asked about: puts its input under its name.
#[derive(Serialize, Clone, Default)]
pub(crate) struct Deed {
    pub(crate) name: String,
    pub(crate) undone: bool,
    #[serde(skip)]
    pub(crate) attempts: u32,
}

impl Deed {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), undone: false, attempts: 1 }
    }

    pub(crate) fn undone(name: &str) -> Self {
        Self { undone: true, ..Self::new(name) }
    }
}

impl Step for Deed {
    const NAME: &'static str = "deed";
    const VERSION: u32 = 1;
    type In = Vec<String>;
    type Out = String;

    fn retry(&self) -> RetryPolicy {
        policy(self.attempts)
    }
}

impl Effect for Deed {
    async fn reconcile(&self, cx: &Cx, input: &Vec<String>) -> Result<World<String>, StepError> {
        let fake = cx.resource::<Fake>()?;
        if let Some(result) = fake.script(format!("look {}", self.name), cx, input).await {
            return Ok(if result? == "half" { World::Half } else { World::NotDone });
        }
        Ok(fake.thing(&self.name).map_or(World::NotDone, World::Done))
    }

    async fn act(&self, cx: &Cx, input: Vec<String>) -> Result<String, StepError> {
        let fake = cx.resource::<Fake>()?;
        if let Some(result) = fake.script(format!("act {}", self.name), cx, &input).await {
            return result;
        }
        let value = input.join(",");
        fake.things.lock().unwrap().insert(self.name.clone(), value.clone());
        Ok(value)
    }

    fn undone_on_failure(&self) -> bool {
        self.undone
    }

    async fn undo(&self, cx: &Cx, input: Vec<String>, _: String) -> Result<(), StepError> {
        let fake = cx.resource::<Fake>()?;
        if let Some(result) = fake.script(format!("undo {}", self.name), cx, &input).await {
            return result.map(drop);
        }
        fake.things.lock().unwrap().remove(&self.name);
        Ok(())
    }
}

/// An effect the world cannot be asked about: counts.
#[derive(Serialize, Clone)]
pub(crate) struct Notice {
    pub(crate) name: String,
}

impl Step for Notice {
    const NAME: &'static str = "notice";
    const VERSION: u32 = 1;
    type In = Vec<String>;
    type Out = ();

    fn retry(&self) -> RetryPolicy {
        policy(3)
    }
}

impl Effect for Notice {
    const REPEAT: Repeat = Repeat::AtMostOnce;

    async fn reconcile(&self, _: &Cx, _: &Vec<String>) -> Result<World<()>, StepError> {
        Ok(World::NotDone)
    }

    async fn act(&self, cx: &Cx, input: Vec<String>) -> Result<(), StepError> {
        let fake = cx.resource::<Fake>()?;
        fake.count(&format!("notice {}", self.name));
        fake.script(format!("act {}", self.name), cx, &input).await.unwrap_or_else(|| Ok(String::new())).map(drop)
    }
}

/// A gate that any answer opens.
#[derive(Serialize, Clone)]
pub(crate) struct Question;

impl Step for Question {
    const NAME: &'static str = "question";
    const VERSION: u32 = 1;
    type In = Vec<String>;
    type Out = String;
}

impl Gate for Question {
    async fn ask(&self, cx: &Cx, _: Vec<String>) -> Result<Answer<String>, StepError> {
        Ok(match cx.answers().last() {
            Some((_, answer)) => Answer::Yes(answer.to_string()),
            None => Answer::Waiting("somebody".to_owned()),
        })
    }
}

/// A finally-step that counts, per outcome.
#[derive(Serialize, Clone)]
pub(crate) struct Close;

impl Step for Close {
    const NAME: &'static str = "close";
    const VERSION: u32 = 1;
    type In = ();
    type Out = ();
}

impl Finally for Close {
    async fn run(&self, cx: &Cx, summary: Arc<Summary>) -> Result<(), StepError> {
        cx.resource::<Fake>()?.count(&format!("closed {}", summary.outcome.word()));
        Ok(())
    }
}

/// A place to run pipelines, thrown away at the end of the test.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) fake: Arc<Fake>,
    pub(crate) setup: Setup,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) run: RunId,
    pub(crate) cancel: Cancel,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (fake, recorder) = (Arc::new(Fake::default()), Arc::new(Recorder::default()));
        let setup = Setup {
            state: StateDir::new(dir.path().join("state")),
            cache: dir.path().join("cache"),
            root: dir.path().to_owned(),
            environment: Arc::new(Environment::of([("PATH", "/usr/bin:/bin")])),
            resources: Resources::new().with(Arc::clone(&fake)),
            observer: recorder.clone(),
            redactor: None,
            clock: Arc::new(|| Timestamp::from_millis(1)),
            jobs: 4,
            fail_fast: false,
            use_cache: true,
        };
        Self { dir, fake, setup, recorder, run: RunId::new(Timestamp::from_millis(0), 1), cancel: Cancel::new() }
    }

    pub(crate) async fn start(&self, pipeline: &Pipeline) -> Result<Report, RunError> {
        let (actor, executable, engine) = ("ann".to_owned(), "none".to_owned(), "0".to_owned());
        let start = Start { inputs: serde_json::Value::Null, actor, executable, engine };
        self.setup.start(pipeline, &self.run, start, self.cancel.clone()).await
    }

    pub(crate) async fn resume(&self, pipeline: &Pipeline) -> Result<Report, RunError> {
        self.setup.resume(pipeline, &self.run, "ann", self.cancel.clone()).await
    }

    /// Starts a further run in the same place.
    pub(crate) async fn start_another(&mut self, pipeline: &Pipeline, number: u16) -> Report {
        self.run = RunId::new(Timestamp::from_millis(0), number);
        self.start(pipeline).await.unwrap()
    }

    pub(crate) fn journal(&self) -> Vec<Entry> {
        read_journal(&self.setup.state.run(&self.run).journal(), &self.run).unwrap().entries
    }
}

/// How each step ended, in one word.
pub(crate) fn words(report: &Report) -> BTreeMap<String, &'static str> {
    report.steps.iter().map(|s| (s.name.to_string(), s.ending.word())).collect()
}

/// The error of a failed step.
pub(crate) fn error_of(report: &Report, step: &str) -> String {
    match &report.steps.iter().find(|s| &*s.name == step).unwrap().ending {
        plimsoll_core::Ending::Failed { error, detail, .. } => format!("{error}\n{}", detail.join("\n")),
        other => panic!("{step} ended as {other:?}"),
    }
}

/// A pipeline of `work` steps: name, and the names of those it takes.
pub(crate) fn works(steps: &[(&str, &[&str])]) -> Pipeline {
    pipeline("works", |g| {
        let mut made = HashMap::new();
        for (name, needs) in steps {
            let wire: Vec<_> = needs.iter().map(|n| made[n]).collect();
            made.insert(*name, work(g, name, wire));
        }
    })
}

pub(crate) fn work<'g>(g: &mut Graph<'g>, name: &str, wire: Vec<Handle<'g, String>>) -> Handle<'g, String> {
    g.pure(name, Work::new(name), wire)
}

/// No inputs.
pub(crate) fn nothing<'g>() -> Vec<Handle<'g, String>> {
    Vec::new()
}
