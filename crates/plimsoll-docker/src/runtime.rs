//! The supervisor's runtime for containers.

use crate::{
    EngineError,
    container::{self, Sources},
    ending,
    engine::Engine,
    error::status,
    image::{self, Image},
    job, labels, network,
    replica::Replica,
};
use bollard::{
    container::LogOutput,
    models::{ContainerCreateBody, ContainerInspectResponse},
    query_parameters::{
        CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder, LogsOptionsBuilder,
        RemoveContainerOptionsBuilder, StartContainerOptions,
    },
};
use futures_util::StreamExt as _;
use plimsoll_core::{Classify as _, EnvironmentName, ErrorClass, ImageRef};
use plimsoll_deploy::{ServiceSpec, TargetError};
use plimsoll_local::{
    Payload,
    supervisor::{
        Doing, Instance, Job, JobKind, Keep, LocalPaths, Login, Order, Place, Running, Runtime, RuntimeError,
    },
};
use std::{
    collections::BTreeMap,
    fs::Permissions,
    io,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};

/// The most bytes of a log that are read for its last lines.
const TAIL_BYTES: usize = 1 << 20;

/// How long an engine may take to show them. It reads a log under the container's own lock, which may be held.
const TAIL: Duration = Duration::from_secs(10);

/// How often a removal is asked for again while another one is under way, and how long is waited in between: ten seconds in
/// all, which unmounting takes at worst.
const REMOVALS: u32 = 100;
const REMOVAL_PAUSE: Duration = Duration::from_millis(100);

/// Containers of the engines of this machine, each known by its socket.
#[derive(Debug, Default)]
pub struct Containers {
    engines: Mutex<BTreeMap<PathBuf, Engine>>,
    /// Held while a network is looked for and made.
    networks: Mutex<()>,
}

impl Containers {
    async fn engine(&self, socket: &Path) -> Result<Engine, EngineError> {
        let mut engines = self.engines.lock().await;
        if let Some(engine) = engines.get(socket) {
            return Ok(engine.clone());
        }
        let engine = Engine::connect(socket).await?;
        engines.insert(socket.to_owned(), engine.clone());
        Ok(engine)
    }

    /// Makes a container of an order, in the place of one of its name: like those of replicas, but for what `change` says.
    async fn make(
        &self,
        order: &Order,
        name: &str,
        change: impl FnOnce(ContainerCreateBody) -> ContainerCreateBody,
    ) -> Result<(Engine, Image), RuntimeError> {
        order.check_secrets()?;
        let (socket, wanted) = containers(&order.place.payload)?;
        let sources = Sources { identity: order.identity(), state: order.state_directory()? };
        open_to_others(&sources).map_err(RuntimeError::Prepare)?;
        let engine = self.engine(socket).await.map_err(wrong)?;
        let image = image::ensure(&engine, wanted, None).await.map_err(wrong)?;
        remove(&engine, name).await.map_err(wrong)?;
        let network = network::name(&order.place.paths, &order.place.key.slot.environment);
        let body = change(container::body(order, &image, &network, &sources));
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let created = engine.api.create_container(Some(options), body).await;
        created.map_err(|e| wrong(engine.failed(format!("make the container {name}"), e)))?;
        Ok((engine, image))
    }

    async fn start_container(&self, order: &Order) -> Result<Replica, RuntimeError> {
        let (_, wanted) = containers(&order.place.payload)?;
        let name = order.place.name();
        let (engine, image) = self.make(order, &name, |body| body).await?;
        let started = engine.api.start_container(&name, None::<StartContainerOptions>).await;
        started.map_err(|e| wrong(engine.failed(format!("start the container {name}"), e)))?;
        let seen = inspect(&engine, &name).await.map_err(wrong)?.ok_or(RuntimeError::Gone)?;
        if seen.image.as_ref() != Some(&image.id) {
            remove(&engine, &name).await.map_err(wrong)?;
            let found = seen.image.unwrap_or_default();
            return Err(wrong(EngineError::OtherImage { name, found, wanted: wanted.to_string() }));
        }
        Replica::of(&engine, &name, seen).map_err(wrong)
    }

    async fn run_beside(&self, order: Order, job: &Job) -> Result<(), RuntimeError> {
        let name = job.kind.name(&order.place);
        let command = |body| container::command(body, &job.command, job.input.is_some());
        let (engine, _) = self.make(&order, &name, command).await?;
        let done = job::run(&engine, &name, job).await;
        match (done, remove(&engine, &name).await) {
            // The state is what it should be; what is left of the container has ended, and is removed with the next.
            (Ok(()), Err(error)) => {
                tracing::warn!(error = plimsoll_core::chain(&error), name, "a container that has ended is not removed");
                Ok(())
            }
            // Whoever starts services now must know that nothing works on the state any more.
            (Err(_), Err(error)) => Err(wrong(error)),
            (done, Ok(())) => done,
        }
    }

    /// The container that the state names, when it still runs and is what its slot is to run.
    async fn find_container(&self, place: &Place, known: Option<&Instance>) -> Result<Option<Replica>, RuntimeError> {
        let (socket, wanted) = containers(&place.payload)?;
        let engine = self.engine(socket).await.map_err(wrong)?;
        let name = place.name();
        let Some(seen) = inspect(&engine, &name).await.map_err(wrong)? else { return Ok(None) };
        let is_known = matches!(known, Some(Instance::Container(c)) if Some(&c.id) == seen.id.as_ref());
        let runs = seen.state.as_ref().is_some_and(ending::runs);
        let named = seen.config.as_ref().and_then(|c| c.labels.as_ref()?.get(labels::DIGEST));
        // An image that was removed meanwhile cannot be compared; the label was written by us.
        let image = image::look(&engine, wanted).await.map_err(wrong)?;
        let same = named.map(String::as_str) == wanted.digest.as_ref().map(plimsoll_core::Digest::as_str)
            && image.is_none_or(|image| seen.image.as_ref() == Some(&image.id));
        if !(is_known && runs && same) {
            return Ok(None);
        }
        Replica::of(&engine, &name, seen).map(Some).map_err(wrong)
    }

    async fn last_lines(&self, place: &Place, lines: usize) -> Result<Vec<String>, RuntimeError> {
        let (socket, _) = containers(&place.payload)?;
        let engine = self.engine(socket).await.map_err(wrong)?;
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(&lines.to_string()).build();
        let name = place.name();
        let mut stream = std::pin::pin!(engine.api.logs(&name, Some(options)));
        let mut bytes = Vec::new();
        let read = async {
            // Ends with the log, or at the bound.
            while let Some(Ok(piece)) = stream.next().await {
                bytes.extend_from_slice(&LogOutput::into_bytes(piece));
                if bytes.len() >= TAIL_BYTES {
                    break;
                }
            }
        };
        if timeout(TAIL, read).await.is_err() {
            tracing::warn!(name, "the engine does not show a log within {TAIL:?}");
        }
        Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
    }

    async fn remove_others(&self, paths: &LocalPaths, socket: &Path, keep: &Keep) -> Result<(), EngineError> {
        let engine = self.engine(socket).await?;
        let options = ListContainersOptionsBuilder::new().all(true).filters(&labels::all_of(paths)).build();
        let listed = engine.api.list_containers(Some(options)).await;
        for container in listed.map_err(|e| engine.failed("list its containers", e))? {
            let names = container.names.unwrap_or_default();
            if !names.iter().any(|name| keep.replicas.contains(name.trim_start_matches('/'))) {
                tracing::info!(?names, "a container that belongs nowhere is removed");
                remove(&engine, &container.id.unwrap_or_default()).await?;
            }
        }
        network::tidy(&engine, paths, keep).await
    }
}

/// What a payload of this runtime is.
fn containers(payload: &Payload) -> Result<(&Path, &ImageRef), RuntimeError> {
    match payload {
        Payload::Image { engine, image } => Ok((engine, image)),
        Payload::Rootfs(_) => Err(RuntimeError::NoContainers),
    }
}

fn wrong(error: EngineError) -> RuntimeError {
    RuntimeError::Engine(Box::new(error))
}

/// Lets the users of containers, who are none of this machine's, use what is mounted. The state directory above is for its
/// owner alone, so nobody else gets here.
fn open_to_others(sources: &Sources) -> io::Result<()> {
    if let Some(directory) = sources.identity.parent() {
        std::fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    }
    match &sources.state {
        Some(state) => std::fs::set_permissions(state, Permissions::from_mode(0o777)),
        None => Ok(()),
    }
}

async fn inspect(engine: &Engine, name: &str) -> Result<Option<ContainerInspectResponse>, EngineError> {
    let looked = engine.api.inspect_container(name, None::<InspectContainerOptions>).await;
    engine.found(&format!("look at the container {name}"), looked)
}

/// Removes a container, running or not, with the volumes that its image made.
async fn remove(engine: &Engine, name: &str) -> Result<(), EngineError> {
    let what = format!("remove the container {name}");
    for _ in 0..REMOVALS {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match engine.api.remove_container(name, Some(options)).await {
            Err(error) if status(&error) == Some(409) => sleep(REMOVAL_PAUSE).await,
            removed => return engine.found(&what, removed).map(drop),
        }
    }
    Err(EngineError::Late { what, seconds: (REMOVAL_PAUSE * REMOVALS).as_secs() })
}

impl Runtime for Containers {
    fn prepare<'a>(
        &'a self,
        spec: &'a ServiceSpec,
        payload: &'a Payload,
        login: Option<&'a Login>,
    ) -> Doing<'a, Result<(), TargetError>> {
        Box::pin(async move {
            let what = format!("fetch {}", spec.image);
            let prepared = async {
                let (socket, wanted) = containers(payload)
                    .map_err(|e| TargetError::Unreachable { what: what.clone(), source: Box::new(e) })?;
                let engine = self.engine(socket).await.map_err(|e| told(&what, e))?;
                image::ensure(&engine, wanted, login).await.map_err(|e| told(&what, e))
            };
            prepared.await.map(drop)
        })
    }

    fn gateway<'a>(
        &'a self,
        paths: &'a LocalPaths,
        environment: &'a EnvironmentName,
        payload: &'a Payload,
    ) -> Doing<'a, Result<Ipv4Addr, RuntimeError>> {
        Box::pin(async move {
            let (socket, _) = containers(payload)?;
            let engine = self.engine(socket).await.map_err(wrong)?;
            let _making = self.networks.lock().await;
            network::ensure(&engine, paths, environment).await.map_err(wrong)
        })
    }

    fn start(&self, order: Order) -> Doing<'_, Result<Arc<dyn Running>, RuntimeError>> {
        Box::pin(async move { Ok(Arc::new(self.start_container(&order).await?) as Arc<dyn Running>) })
    }

    fn find<'a>(
        &'a self,
        place: &'a Place,
        known: Option<&'a Instance>,
        _: u16,
    ) -> Doing<'a, Result<Option<Arc<dyn Running>>, RuntimeError>> {
        Box::pin(async move {
            Ok(self.find_container(place, known).await?.map(|replica| Arc::new(replica) as Arc<dyn Running>))
        })
    }

    fn sweep<'a>(&'a self, place: &'a Place) -> Doing<'a, Result<(), RuntimeError>> {
        Box::pin(async move {
            let (socket, _) = containers(&place.payload)?;
            let engine = self.engine(socket).await.map_err(wrong)?;
            remove(&engine, &place.name()).await.map_err(wrong)
        })
    }

    fn sweep_jobs<'a>(&'a self, place: &'a Place) -> Doing<'a, Result<(), RuntimeError>> {
        Box::pin(async move {
            let (socket, _) = containers(&place.payload)?;
            let engine = self.engine(socket).await.map_err(wrong)?;
            for kind in [JobKind::Save, JobKind::Load] {
                remove(&engine, &kind.name(place)).await.map_err(wrong)?;
            }
            Ok(())
        })
    }

    fn tail<'a>(&'a self, place: &'a Place, lines: usize) -> Doing<'a, Vec<String>> {
        Box::pin(async move { self.last_lines(place, lines).await.unwrap_or_default() })
    }

    fn beside<'a>(&'a self, order: Order, job: &'a Job) -> Doing<'a, Result<(), RuntimeError>> {
        Box::pin(self.run_beside(order, job))
    }

    fn tidy<'a>(
        &'a self,
        paths: &'a LocalPaths,
        engine: &'a Path,
        keep: &'a Keep,
    ) -> Doing<'a, Result<(), RuntimeError>> {
        Box::pin(async move { self.remove_others(paths, engine, keep).await.map_err(wrong) })
    }
}

/// An engine's error as the target tells it.
fn told(what: &str, error: EngineError) -> TargetError {
    match error.class() {
        ErrorClass::User => TargetError::Refused { what: what.to_owned(), reason: error.to_string() },
        _ => TargetError::Unreachable { what: what.to_owned(), source: Box::new(error) },
    }
}
