//! One scenario's surroundings: a state directory, a target, a client; and the end of everything afterwards. Which target it is,
//! and what it runs, says `crate::target`.

use crate::target;
use plimsoll_core::{Fingerprint, Generation, RunId, ServiceName, Slot, Timestamp};
use plimsoll_deploy::{
    Activation, Change, CutOver, CutOverDone, Move, Release, ServiceSpec, StatePolicy, Target as _, TargetError, sample,
};
use plimsoll_local::{LocalPaths, LocalTarget};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::{
    fs,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// How long a scenario may take: on a busy machine some take a minute. One that hangs is told by its name.
const SCENARIO: Duration = Duration::from_mins(5);

/// How long one answer may take. A connection to something that is gone may hear of that from nobody.
const ANSWER: Duration = Duration::from_secs(30);

/// How long a fact is waited for: containers on a busy machine take seconds.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) type Scenario = fn(Arc<World>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) target: LocalTarget,
}

/// Runs a scenario, and ends what it started.
pub(crate) fn run(scenario: Scenario) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        let world = Arc::new(World::new());
        let mut playing = tokio::spawn(scenario(world.clone()));
        let played = within(&mut playing).await.and_then(|ended| ended.map_err(|e| e.to_string()));
        playing.abort();
        let down = within(world.target.down()).await.and_then(|down| down.map_err(|e| format!("{e:?}")));
        let paths = world.paths();
        let [supervisor, proxy] =
            [paths.supervisor_log(), paths.proxy_log()].map(|log| fs::read_to_string(log).unwrap_or_default());
        let left = within(target::left(&paths, played.is_ok() && down.is_ok())).await.and_then(|left| left);
        let outcome = played.and(down).and(left);
        outcome.map_err(|reason| format!("{reason}\n--- supervisor\n{supervisor}\n--- proxy\n{proxy}"))
    });
    // What hangs is not waited for once more.
    runtime.shutdown_background();
    outcome
}

async fn within<T>(doing: impl Future<Output = T>) -> Result<T, String> {
    timeout(SCENARIO, doing).await.map_err(|_| format!("it did not end within {SCENARIO:?}"))
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let target = target::new(directory.path(), "staging");
        Self { directory, target }
    }

    /// Another environment under the same supervisor.
    pub(crate) fn environment(&self, name: &str) -> LocalTarget {
        target::new(self.directory.path(), name)
    }

    pub(crate) fn paths(&self) -> LocalPaths {
        LocalPaths::new(self.directory.path())
    }

    /// Stands a release up in one slot of each service and cuts over to it.
    pub(crate) async fn release(&self, release: &Release, slot: Slot) -> Result<CutOverDone, TargetError> {
        for spec in &release.services {
            self.target.stand_up(spec, slot, release).await?;
        }
        for spec in &release.services {
            self.ready(&spec.name, slot).await;
        }
        let seen = self.target.observe().await?;
        self.target.cut_over(&moving(release, slot, seen.generation)).await
    }

    pub(crate) async fn ready(&self, service: &ServiceName, slot: Slot) {
        eventually("the slot is ready", || async {
            let seen = self.target.observe().await.unwrap();
            let of = &seen.services[service];
            of.live.iter().chain(&of.standby).any(|s| s.slot == slot && s.ready == s.replicas)
        })
        .await;
    }

    pub(crate) async fn port(&self, service: &str) -> u16 {
        let seen = self.target.observe().await.unwrap();
        let url = seen.services[&service.parse::<ServiceName>().unwrap()].url.clone().unwrap();
        url.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// What a client gets: the body of a 200.
    pub(crate) async fn get(&self, service: &str, path: &str) -> String {
        let (status, body) = get(self.port(service).await, path).await.unwrap();
        assert_eq!(status, 200, "{service}{path}: {body}");
        body
    }
}

/// A client that follows no redirect, as drivers need it.
pub(crate) fn client() -> plimsoll_http::Client {
    let options = plimsoll_http::ClientOptions {
        follow_redirects: false,
        no_proxy: true,
        plain_http: true,
        ..plimsoll_http::ClientOptions::default()
    };
    plimsoll_http::Client::new(&options).unwrap()
}

pub(crate) fn spec(name: &str, env: &[(&str, &str)]) -> ServiceSpec {
    let config = format!("{name}{env:?}");
    ServiceSpec {
        image: target::image(),
        digest: target::digest(1),
        env: env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        health: target::health(),
        stop_grace_ms: 500,
        config_hash: Fingerprint::of(config.as_bytes()),
        ..sample(name)
    }
}

pub(crate) fn worker(env: &[(&str, &str)]) -> ServiceSpec {
    ServiceSpec { activation: Activation::Exclusive, state: StatePolicy::Shared, ..spec("worker", env) }
}

pub(crate) fn release(version: &str, services: Vec<ServiceSpec>) -> Release {
    Release {
        environment: "staging".parse().unwrap(),
        version: version.to_owned(),
        revision: "abc".to_owned(),
        run: RunId::new(Timestamp::from_millis(1_700_000_000_000), 1),
        actor: "ann".to_owned(),
        services,
        approval: None,
    }
}

/// All services of a release to one slot, from the other unless this is the first.
pub(crate) fn moving(release: &Release, to: Slot, from: Generation) -> CutOver {
    let old = (from > Generation(0)).then(|| to.other());
    let moves = release.services.iter().map(|s| Move { service: s.name.clone(), from: old, to }).collect();
    CutOver { from, moves, release: release.clone(), change: Change::Promote }
}

/// One request on one connection.
pub(crate) async fn get(port: u16, path: &str) -> io::Result<(u16, String)> {
    ask(([127, 0, 0, 1], port).into(), path).await
}

/// The same of any address.
pub(crate) async fn ask(at: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    timeout(ANSWER, ask_at_leisure(at, path)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn ask_at_leisure(at: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(at).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "no answer"))?;
    Ok((status, answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned())))
}

/// Waits for a fact.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, fact: impl Fn() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !fact().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
}

pub(crate) fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let zombie = stat.rsplit_once(')').is_none_or(|(_, rest)| rest.starts_with(" Z"));
    !zombie && test_kill_process(Pid::from_raw(pid.cast_signed()).unwrap()).is_ok()
}
