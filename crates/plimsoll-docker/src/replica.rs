//! A container as the supervisor watches it.

use crate::{EngineError, container::PORT, ending, engine::Engine, error::status};
use bollard::{
    errors::Error,
    models::{ContainerInspectResponse, ContainerState},
    query_parameters::{InspectContainerOptions, KillContainerOptionsBuilder, WaitContainerOptions},
};
use futures_util::StreamExt as _;
use plimsoll_deploy::ServiceSpec;
use plimsoll_local::supervisor::{Container, Doing, Instance, Running, RuntimeError, SecretValues};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::time::{sleep, timeout};

/// How long a container may take to end after SIGKILL: the engine unmounts and disconnects first.
const KILLED: Duration = Duration::from_secs(20);

/// Between two questions to an engine that is being started again.
const PAUSE: Duration = Duration::from_millis(500);

/// A container that was started, with what was seen of it then.
#[derive(Debug)]
pub(crate) struct Replica {
    engine: Engine,
    name: String,
    container: Container,
    env: Vec<String>,
}

impl Replica {
    /// The container that an inspection shows, whether it still runs or not.
    pub(crate) fn of(engine: &Engine, name: &str, seen: ContainerInspectResponse) -> Result<Self, EngineError> {
        let id = seen.id.ok_or_else(|| EngineError::Lacks { what: format!("id of {name}") })?;
        let networks = seen.network_settings.and_then(|s| s.networks).unwrap_or_default();
        let address = networks.values().find_map(|n| n.ip_address.as_ref()?.parse::<Ipv4Addr>().ok());
        // One that has ended has no address any more; nothing is routed to it.
        let address = SocketAddr::new(IpAddr::V4(address.unwrap_or(Ipv4Addr::UNSPECIFIED)), PORT);
        let pid = seen.state.and_then(|s| s.pid).and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default();
        let env = seen.config.and_then(|c| c.env).unwrap_or_default();
        let container = Container { id, pid, address };
        Ok(Self { engine: engine.clone(), name: name.to_owned(), container, env })
    }

    /// What it does now; nothing when it was removed.
    async fn state(&self) -> Result<Option<ContainerState>, EngineError> {
        let looked = self.engine.api.inspect_container(&self.container.id, None::<InspectContainerOptions>).await;
        let seen = self.engine.found(&format!("look at the container {}", self.name), looked)?;
        Ok(seen.map(|seen| seen.state.unwrap_or_default()))
    }

    async fn until_ended(&self) -> String {
        // Ends when the container has: each round waits for that, and a broken wait is followed by a look.
        loop {
            let mut wait =
                std::pin::pin!(self.engine.api.wait_container(&self.container.id, None::<WaitContainerOptions>));
            let waited = wait.next().await;
            match self.state().await {
                Ok(Some(state)) if ending::runs(&state) => {}
                Ok(Some(state)) => return ending::words(&state),
                Ok(None) => return "somebody removed it".to_owned(),
                // An engine that is started again may leave its containers running.
                Err(error) => tracing::debug!(%error, ?waited, name = self.name, "the engine does not answer"),
            }
            sleep(PAUSE).await;
        }
    }

    /// Sends a signal; one that does not run needs none.
    async fn signal(&self, signal: &str) -> Result<(), EngineError> {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        match self.engine.api.kill_container(&self.container.id, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if is_over(&error) => Ok(()),
            Err(error) => Err(self.engine.failed(format!("send {signal} to the container {}", self.name), error)),
        }
    }

    async fn end_within(&self, grace: Duration) -> Result<(), EngineError> {
        if !grace.is_zero() {
            self.signal("SIGTERM").await?;
            if timeout(grace, self.until_ended()).await.is_ok() {
                return Ok(());
            }
        }
        self.signal("SIGKILL").await?;
        let late = |_| EngineError::Late { what: format!("end {}", self.name), seconds: KILLED.as_secs() };
        timeout(KILLED, self.until_ended()).await.map(drop).map_err(late)
    }
}

/// Whether a container is gone, or does not run.
fn is_over(error: &Error) -> bool {
    matches!(status(error), Some(404 | 409))
}

impl Running for Replica {
    fn instance(&self) -> Instance {
        Instance::Container(self.container.clone())
    }

    fn pid(&self) -> u32 {
        self.container.pid
    }

    fn address(&self) -> SocketAddr {
        self.container.address
    }

    /// An address of the environment's network is one container's at a time, and it is ours while it runs.
    fn answers(&self) -> Doing<'_, bool> {
        Box::pin(async { self.state().await.is_ok_and(|state| state.as_ref().is_some_and(ending::runs)) })
    }

    fn ended(&self) -> Doing<'_, String> {
        Box::pin(self.until_ended())
    }

    fn end(&self, grace: Duration) -> Doing<'_, Result<(), RuntimeError>> {
        Box::pin(async move { self.end_within(grace).await.map_err(|e| RuntimeError::Engine(Box::new(e))) })
    }

    fn secrets(&self, spec: &ServiceSpec) -> SecretValues {
        let pairs = self.env.iter().filter_map(|pair| pair.split_once('='));
        let secret = pairs.filter(|(name, _)| spec.secret_env.contains_key(*name));
        SecretValues(secret.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}
