//! A world to release into: a registry, two environments, and a clock; and the runs that work on it.

use crate::{
    pipelines::{Production, Staging},
    placed::{Asker, Placed},
    registry::{self, Port},
};
use plimsoll_attest::{Builder, SigningKey};
use plimsoll_core::{Ending, RetryPolicy, RunId, Timestamp};
use plimsoll_deploy::{Observation, SlotView, Target};
use plimsoll_engine::{
    Crash, Faults, Pipeline, ReadJournal, Report, Resources, RunError, Setup, Silent, Start, StateDir, harness::Seen,
    read_journal,
};
use plimsoll_http::{Client, ClientOptions};
use plimsoll_oci::{BlobStore, RegistryClient, RegistryOptions};
use plimsoll_process::{Cancel, Environment as Variables};
use plimsoll_steps::{Asking, Environment, Registry, RegistryAddress, Targets, Trust};
use std::{
    collections::BTreeMap,
    future::Future,
    path::PathBuf,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll, Waker},
};
use tempfile::TempDir;

/// One world, gone with this value.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) staging: Arc<Placed>,
    pub(crate) production: Arc<Placed>,
    pub(crate) resources: Resources,
    millis: Arc<AtomicI64>,
}

/// The `number`-th run of a test; the harness's own is 1.
pub(crate) fn run_id(number: u16) -> RunId {
    RunId::new(Timestamp::from_millis(0), number)
}

impl World {
    /// A world in which nothing has happened, with its registry at `port`.
    pub(crate) async fn at(port: &Port) -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        port.serve(dir.path().join("registry")).await;
        let (staging, production) = (Placed::new(&Staging::name()), Placed::new(&Production::name()));
        let (staging, production) = (Arc::new(staging), Arc::new(production));
        let targets: BTreeMap<_, Arc<dyn Target>> =
            BTreeMap::from([(Staging::name(), staging.clone() as _), (Production::name(), production.clone() as _)]);
        let prober = Arc::new(Asker(vec![staging.clone(), production.clone()]));
        let address = RegistryAddress { host: port.address().to_string(), prefix: "kairos".to_owned() };
        let registry = Registry(Box::new(move || Box::pin(std::future::ready(Ok(address.clone())))));
        let resources = Resources::new()
            .with(Arc::new(Targets::new(targets, prober)))
            .with(Arc::new(registry))
            .with(Arc::new(client()))
            .with(Arc::new(BlobStore::open(dir.path().join("store")).unwrap()))
            .with(Arc::new(trust(7)))
            .with(Arc::new(Asking::default()));
        Arc::new(Self { dir, staging, production, resources, millis: Arc::default() })
    }

    /// What everybody can see: tags, manifests, and what each environment serves. Not when, and not by which run.
    pub(crate) fn seen(&self) -> Seen {
        let mut seen = registry::contents(&self.registry());
        for placed in [&self.staging, &self.production] {
            let look = look(placed);
            seen.insert(look.environment.to_string(), environment(&look));
        }
        seen
    }

    /// The images that were made and not pushed yet.
    pub(crate) fn store(&self) -> BlobStore {
        BlobStore::open(self.dir.path().join("store")).unwrap()
    }

    pub(crate) fn registry(&self) -> PathBuf {
        self.dir.path().join("registry")
    }

    /// Lets so many hours go by.
    pub(crate) fn later(&self, hours: i64) {
        self.millis.fetch_add(hours * 3_600_000, Ordering::Relaxed);
    }

    pub(crate) fn state(&self) -> StateDir {
        StateDir::new(self.dir.path().join("state"))
    }

    fn setup(&self, crash: Option<Crash>) -> Setup {
        let millis = Arc::clone(&self.millis);
        Setup {
            state: self.state(),
            cache: self.dir.path().join("cache"),
            root: self.dir.path().to_owned(),
            environment: Arc::new(Variables::default()),
            resources: self.resources.clone().with(Arc::new(Faults { crash, twice: false })),
            observer: Arc::new(Silent),
            redactor: None,
            clock: Arc::new(move || Timestamp::from_millis(millis.load(Ordering::Relaxed))),
            jobs: 1,
            fail_fast: false,
            use_cache: true,
        }
    }

    /// Starts a run.
    pub(crate) async fn start(&self, pipeline: &Pipeline, run: &RunId) -> Report {
        self.begin(pipeline, run, None).await.unwrap()
    }

    /// Starts a run whose process ends when `step` has its outcome.
    pub(crate) async fn start_until(&self, pipeline: &Pipeline, run: &RunId, step: &str) {
        // The outcome's place in the journal is that of the same run in another world.
        let port = Port::take();
        let pilot = Self::at(&port).await;
        pilot.start(pipeline, run).await;
        let done = pilot
            .journal(run)
            .entries
            .iter()
            .position(|e| matches!(&e.record, plimsoll_engine::Record::Outcome { step: s, .. } if s == step));
        let crash = Crash::After(done.expect("the step comes to its outcome") as u64);
        assert!(self.begin(pipeline, run, Some(crash)).await.is_err(), "the process went on");
    }

    async fn begin(&self, pipeline: &Pipeline, run: &RunId, crash: Option<Crash>) -> Result<Report, RunError> {
        let (actor, executable, engine) = ("ann@x".to_owned(), "none".to_owned(), "0".to_owned());
        let start = Start { inputs: serde_json::Value::Null, actor, executable, engine };
        self.setup(crash).start(pipeline, run, start, Cancel::new()).await
    }

    /// Goes on with a run.
    pub(crate) async fn resume(&self, pipeline: &Pipeline, run: &RunId) -> Report {
        self.setup(None).resume(pipeline, run, "ann@x", Cancel::new()).await.unwrap()
    }

    /// Answers the gate of a run that waits.
    pub(crate) fn answer(&self, run: &RunId, gate: &str, reply: &plimsoll_steps::Reply) {
        let answer = serde_json::to_value(reply).unwrap();
        plimsoll_engine::answer(&self.state(), run, gate, answer, self.setup(None).clock).unwrap();
    }

    pub(crate) fn journal(&self, run: &RunId) -> ReadJournal {
        read_journal(&self.state().run(run).journal(), run).unwrap()
    }
}

/// How `step` ended, in one text with all that was said about it.
pub(crate) fn ending(report: &Report, step: &str) -> String {
    let found = report.steps.iter().find(|s| &*s.name == step);
    match &found.unwrap_or_else(|| panic!("{step} did not end: {report:?}")).ending {
        Ending::Failed { error, detail, .. } => format!("failed: {error} {}", detail.join(" ")),
        Ending::Parked { waiting } => format!("parked: {waiting}"),
        other => format!("{other:?}"),
    }
}

/// One look at a target in memory, which answers at once.
pub(crate) fn look(placed: &Placed) -> Observation {
    let mut observe = pin!(placed.observe());
    match observe.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(seen) => seen.unwrap(),
        Poll::Pending => unreachable!("a target in memory does not wait"),
    }
}

fn environment(seen: &Observation) -> String {
    let live = seen.live.as_ref().map(|l| (&l.version, &l.revision, l.approval.is_some()));
    let slot = |s: &SlotView| format!("{} {} {} ready {} {:?}", s.slot, s.digest, s.version, s.ready, s.active);
    let services = seen.services.iter().map(|(name, view)| {
        let (live, standby) = (view.live.as_ref().map(slot), view.standby.as_ref().map(slot));
        format!("{name}: live {live:?}, standby {standby:?}")
    });
    let services: Vec<String> = services.collect();
    let (generation, history) = (seen.generation, seen.history.len());
    format!("{live:?}, generation {generation}, {history} before, locked {}, {services:#?}", seen.lock.is_some())
}

/// A client that tries everything once.
pub(crate) fn client() -> RegistryClient {
    let options = ClientOptions { no_proxy: true, ..ClientOptions::default() };
    let quick = RegistryOptions { policy: RetryPolicy::once(), ..RegistryOptions::default() };
    RegistryClient::new(Client::new(&options).unwrap(), quick)
}

/// The key of this number.
pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::of_random(&[number; 32]).unwrap()
}

/// Whoever has the key of this number signs, and is believed.
fn trust(number: u8) -> Trust {
    let key = key(number);
    Trust::new(Box::new(move || Ok(key.clone())), Box::new(|| Ok(Vec::new())), Builder::local())
}
