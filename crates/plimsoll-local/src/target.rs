//! The local target: the verbs of [`Target`], asked of the supervisor, which is started when none answers.

mod client;

use crate::{
    images::{ImageSource, Payload},
    supervisor::{
        self, Hello, Launch, LocalPaths, Login,
        protocol::{Answer, Request, SecretValues, StandUp, Verb, broken, refused},
    },
};
use client::Client;
use plimsoll_core::{EnvironmentName, Generation, Platform, ServiceName, Slot};
use plimsoll_deploy::{
    CutOver, CutOverDone, DrainReport, Fut, LockOutcome, LockOwner, Observation, Release, SecretSource, ServiceSpec,
    SlotView, Target, TargetError, TargetKind, Traffic, Weights, admit_backup, admit_restore,
};
use plimsoll_oci::{Credentials, RegistryClient};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// One environment made of processes of this machine, or of its containers.
#[derive(Clone)]
pub struct LocalTarget {
    environment: EnvironmentName,
    client: Client,
    images: Images,
    secrets: SecretSource,
}

/// Who fetches the images, and thereby what a replica is.
#[derive(Clone)]
enum Images {
    /// This command; a replica is a process.
    Unpacked(Arc<dyn ImageSource>),
    /// The container engine with this socket, with a login from here; a replica is a container.
    Engine(PathBuf, RegistryClient),
}

impl LocalTarget {
    /// The environment in the state directory of `paths`. `supervisor` is how the supervisor is started when none
    /// answers; images come from `images`.
    pub fn new(
        paths: LocalPaths,
        environment: EnvironmentName,
        supervisor: Launch,
        images: Arc<dyn ImageSource>,
        secrets: SecretSource,
    ) -> Self {
        Self { environment, client: Client::new(paths, supervisor), images: Images::Unpacked(images), secrets }
    }

    /// The same with containers instead of processes, run by the engine that listens on the socket `engine`, which pulls with
    /// what `registry` logs in with where the image lies. The supervisor must have been given [`supervisor::Options::containers`].
    pub fn in_containers(
        paths: LocalPaths,
        environment: EnvironmentName,
        supervisor: Launch,
        engine: PathBuf,
        registry: RegistryClient,
        secrets: SecretSource,
    ) -> Self {
        Self { environment, client: Client::new(paths, supervisor), images: Images::Engine(engine, registry), secrets }
    }

    /// Who the supervisor is; starts one when none answers.
    pub async fn hello(&self) -> Result<Hello, TargetError> {
        match self.client.ask(&Request::Hello).await? {
            Answer::Hello(hello) => Ok(hello),
            other => Err(unexpected(&other)),
        }
    }

    /// The base URL of the embedded registry; starts it by `registry` unless it runs. Its port never changes.
    pub async fn ensure_registry(&self, registry: Launch) -> Result<String, TargetError> {
        let Launch { program, args } = registry;
        match self.client.ask(&Request::EnsureRegistry { program, args }).await? {
            Answer::Url(url) => Ok(url),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends all processes of all environments, the registry, the proxy and the supervisor. The state stays: the next
    /// command starts everything again. Nothing happens when nothing runs.
    pub async fn down(&self) -> Result<(), TargetError> {
        self.client.end(&Request::Down, true).await
    }

    /// Ends the supervisor alone: services and proxy go on, and the next supervisor finds them again.
    pub async fn shutdown_supervisor(&self) -> Result<(), TargetError> {
        self.client.end(&Request::Shutdown, false).await
    }

    async fn verb(&self, verb: Verb) -> Result<Answer, TargetError> {
        self.client.ask(&Request::In(self.environment.clone(), verb)).await
    }

    fn secrets_of(&self, spec: &ServiceSpec) -> Result<SecretValues, TargetError> {
        let mut values = BTreeMap::new();
        for (variable, source) in &spec.secret_env {
            let value = (self.secrets)(source)
                .map_err(|reason| refused(format!("resolve the secret `{source}` of {}", spec.name), reason))?;
            values.insert(variable.clone(), value.expose().to_owned());
        }
        Ok(SecretValues(values))
    }
}

impl std::fmt::Debug for LocalTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalTarget").field("environment", &self.environment).finish_non_exhaustive()
    }
}

fn unexpected(answer: &Answer) -> TargetError {
    broken("talk to the supervisor", format!("it answered something else: {answer:?}"))
}

/// The path as the supervisor can use it, which works elsewhere.
fn absolute(path: &Path) -> Result<PathBuf, TargetError> {
    std::path::absolute(path).map_err(|e| broken(format!("find {}", path.display()), e))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Unwraps the one kind of answer that fits the question.
macro_rules! expect {
    ($answer:expr, $kind:ident) => {
        match $answer {
            Answer::$kind(value) => Ok(value),
            other => Err(unexpected(&other)),
        }
    };
}

impl Target for LocalTarget {
    fn kind(&self) -> TargetKind {
        match self.images {
            Images::Unpacked(_) => TargetKind::Local,
            Images::Engine(..) => TargetKind::Docker,
        }
    }

    fn environment(&self) -> &EnvironmentName {
        &self.environment
    }

    fn observe(&self) -> Fut<'_, Observation> {
        Box::pin(async move { expect!(self.verb(Verb::Observe).await?, Observation).map(|o| *o) })
    }

    /// Where no supervisor runs, the state file is read, and processes that go on without one are asked for their health.
    /// What does not run has `ready` 0, and says in `failing` how it comes back.
    fn peek(&self) -> Fut<'_, Option<Observation>> {
        Box::pin(async move {
            let question = Request::In(self.environment.clone(), Verb::Observe);
            match self.client.ask_running(&question).await? {
                Some(Answer::Observation(seen)) => Ok(Some(*seen).filter(Observation::has_record)),
                Some(other) => Err(unexpected(&other)),
                None => supervisor::peek(self.client.paths(), &self.environment).await,
            }
        })
    }

    fn lock<'a>(&'a self, owner: &'a LockOwner, lease: Duration) -> Fut<'a, LockOutcome> {
        Box::pin(async move {
            expect!(self.verb(Verb::Lock { owner: owner.clone(), lease_ms: millis(lease) }).await?, Lock)
        })
    }

    fn unlock<'a>(&'a self, owner: &'a LockOwner) -> Fut<'a, ()> {
        Box::pin(async move { self.verb(Verb::Unlock { owner: owner.clone() }).await.map(drop) })
    }

    fn stand_up<'a>(&'a self, spec: &'a ServiceSpec, slot: Slot, release: &'a Release) -> Fut<'a, SlotView> {
        Box::pin(async move {
            let platform = Platform::host().ok_or_else(|| {
                refused(format!("run {}", spec.name), "this machine is neither linux/amd64 nor linux/arm64")
            })?;
            let secrets = self.secrets_of(spec)?;
            let (payload, login) = match &self.images {
                Images::Unpacked(images) => {
                    (Payload::Rootfs(images.fetch(&spec.image, &spec.digest, platform).await?), None)
                }
                Images::Engine(engine, registry) => {
                    let found = registry.credentials(&spec.image.registry).await;
                    let found = found.map_err(|e| broken(format!("log in to {}", spec.image.registry), e))?;
                    let login = found.map(|Credentials { username, password }| {
                        let password = password.expose().to_owned();
                        Login { username, password }
                    });
                    (Payload::Image { engine: engine.clone(), image: spec.image.at(spec.digest.clone()) }, login)
                }
            };
            let wish = StandUp { spec: spec.clone(), slot, release: release.clone(), payload, secrets, login };
            expect!(self.verb(Verb::StandUp(Box::new(wish))).await?, Slot).map(|view| *view)
        })
    }

    fn endpoints<'a>(&'a self, service: &'a ServiceName, slot: Slot) -> Fut<'a, Vec<String>> {
        Box::pin(async move { expect!(self.verb(Verb::Endpoints { service: service.clone(), slot }).await?, Lines) })
    }

    fn weigh<'a>(&'a self, weights: &'a Weights) -> Fut<'a, ()> {
        Box::pin(async move { self.verb(Verb::Weigh(weights.clone())).await.map(drop) })
    }

    fn cut_over<'a>(&'a self, cut_over: &'a CutOver) -> Fut<'a, CutOverDone> {
        Box::pin(async move {
            expect!(self.verb(Verb::CutOver(Box::new(cut_over.clone()))).await?, CutOver).map(|done| *done)
        })
    }

    fn drain<'a>(&'a self, service: &'a ServiceName, slot: Slot, deadline: Duration) -> Fut<'a, DrainReport> {
        Box::pin(async move {
            let verb = Verb::Drain { service: service.clone(), slot, deadline_ms: millis(deadline) };
            expect!(self.verb(verb).await?, Drained)
        })
    }

    fn retire<'a>(&'a self, service: &'a ServiceName, slot: Slot) -> Fut<'a, ()> {
        Box::pin(async move { self.verb(Verb::Retire { service: service.clone(), slot }).await.map(drop) })
    }

    fn stop<'a>(&'a self, from: Generation, actor: &'a str, reason: Option<&'a str>) -> Fut<'a, Generation> {
        Box::pin(async move {
            let verb = Verb::Stop { from, actor: actor.to_owned(), reason: reason.map(str::to_owned) };
            expect!(self.verb(verb).await?, Generation)
        })
    }

    fn start<'a>(&'a self, from: Generation, actor: &'a str) -> Fut<'a, Generation> {
        Box::pin(async move {
            let mut secrets = BTreeMap::new();
            for (name, record) in self.observe().await?.live.iter().flat_map(|live| &live.services) {
                secrets.insert(name.clone(), self.secrets_of(&record.spec)?);
            }
            expect!(self.verb(Verb::Start { from, actor: actor.to_owned(), secrets }).await?, Generation)
        })
    }

    fn backup<'a>(&'a self, service: &'a ServiceName, to: &'a Path) -> Fut<'a, ()> {
        Box::pin(async move {
            let seen = self.observe().await?;
            let secrets = self.secrets_of(admit_backup(&seen, service)?.spec)?;
            let verb = Verb::Backup { service: service.clone(), to: absolute(to)?, secrets };
            self.verb(verb).await.map(drop)
        })
    }

    fn restore<'a>(&'a self, from: Generation, service: &'a ServiceName, copy: &'a Path) -> Fut<'a, ()> {
        Box::pin(async move {
            let seen = self.observe().await?;
            let secrets = self.secrets_of(admit_restore(&seen, from, service)?.spec)?;
            let verb = Verb::Restore { from, service: service.clone(), copy: absolute(copy)?, secrets };
            self.verb(verb).await.map(drop)
        })
    }

    fn traffic<'a>(&'a self, service: &'a ServiceName, slot: Slot) -> Fut<'a, Traffic> {
        Box::pin(async move {
            expect!(self.verb(Verb::Traffic { service: service.clone(), slot }).await?, Traffic).map(|t| *t)
        })
    }

    fn logs<'a>(&'a self, service: &'a ServiceName, slot: Slot, lines: usize) -> Fut<'a, Vec<String>> {
        Box::pin(async move { expect!(self.verb(Verb::Logs { service: service.clone(), slot, lines }).await?, Lines) })
    }
}
