//! What the supervisor asks of the runtime of a replica: where it is to be, what runs there, what it is started from.

use crate::{
    images::Payload,
    supervisor::{
        core::{Supervisor, now},
        place::{ReplicaKey, SlotKey},
        processes::Processes,
        protocol::broken,
        runtime::{Job, Keep, Order, Place, Running, Runtime, RuntimeError},
        state::{EnvironmentState, SlotState},
    },
};
use plimsoll_core::{EnvironmentName, ServiceName, chain};
use plimsoll_deploy::TargetError;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

impl Supervisor {
    /// Who runs such a thing.
    pub(crate) fn runtime(&self, payload: &Payload) -> Result<Arc<dyn Runtime>, RuntimeError> {
        match payload {
            Payload::Rootfs(_) => Ok(Arc::new(Processes)),
            Payload::Image { .. } => self.options.containers.clone().ok_or(RuntimeError::NoContainers),
        }
    }

    /// A replica's place and its runtime, by what the state says its slot runs.
    async fn place(&self, key: &ReplicaKey) -> Result<(Place, Arc<dyn Runtime>), RuntimeError> {
        let SlotKey { environment, service, slot } = &key.slot;
        let state = self.state().await;
        let payload = state.slot(environment, service, *slot).ok_or(RuntimeError::Gone)?.payload.clone();
        let runtime = self.runtime(&payload)?;
        Ok((Place { paths: self.paths.clone(), key: key.clone(), payload }, runtime))
    }

    /// Starts one replica.
    pub(crate) async fn start_replica(&self, key: &ReplicaKey) -> Result<Arc<dyn Running>, RuntimeError> {
        let (place, runtime) = self.place(key).await?;
        let gateway = self.open_doors(&key.slot.environment, &place.payload).await?;
        runtime.start(self.order(place, gateway).await?).await
    }

    /// The replica that runs in a place, as far as the state and its runtime know.
    pub(crate) async fn find_replica(&self, key: &ReplicaKey) -> Result<Option<Arc<dyn Running>>, RuntimeError> {
        let (place, runtime) = self.place(key).await?;
        let SlotKey { environment, service, slot } = &key.slot;
        let state = self.state().await;
        let stands = state.slot(environment, service, *slot).ok_or(RuntimeError::Gone)?;
        let known = stands.replicas.get(usize::from(key.n));
        let found = runtime.find(&place, known.and_then(|r| r.instance.as_ref()), known.map_or(0, |r| r.port)).await?;
        if found.is_some() {
            self.open_doors(environment, &place.payload).await?;
        }
        Ok(found)
    }

    /// Ends whatever runs in a place.
    pub(crate) async fn sweep_replica(&self, key: &ReplicaKey) -> Result<(), RuntimeError> {
        match self.place(key).await {
            Ok((place, runtime)) => runtime.sweep(&place).await,
            // A slot that is gone was swept before it went.
            Err(RuntimeError::Gone) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The last lines that a replica wrote.
    pub(crate) async fn tail_replica(&self, key: &ReplicaKey, lines: usize) -> Vec<String> {
        match self.place(key).await {
            Ok((place, runtime)) => runtime.tail(&place, lines).await,
            Err(_) => Vec::new(),
        }
    }

    /// Ends whatever is left of a slot after its keepers have ended, or says what cannot be.
    pub(crate) async fn sweep_slot(&self, key: &SlotKey, replicas: usize) -> Result<(), TargetError> {
        for n in (0..).take(replicas) {
            let key = ReplicaKey { slot: key.clone(), n };
            let swept = self.sweep_replica(&key).await;
            swept.map_err(|e| broken(format!("end {}", key.name(&self.paths)), e))?;
        }
        Ok(())
    }

    /// Runs a command beside the state of a slot.
    pub(crate) async fn run_beside(&self, key: &SlotKey, job: &Job) -> Result<(), RuntimeError> {
        let (place, runtime) = self.place(&ReplicaKey { slot: key.clone(), n: 0 }).await?;
        let gateway = runtime.gateway(&self.paths, &key.environment, &place.payload).await?;
        let order = self.order(place, gateway).await?;
        runtime.beside(order, job).await
    }

    /// Ends whatever works beside the state of a slot: nothing may be started there meanwhile.
    pub(crate) async fn sweep_jobs(&self, key: &SlotKey) -> Result<(), TargetError> {
        let what = || format!("end the commands beside the state of {}", key.service);
        match self.place(&ReplicaKey { slot: key.clone(), n: 0 }).await {
            Ok((place, runtime)) => runtime.sweep_jobs(&place).await.map_err(|e| broken(what(), e)),
            Err(RuntimeError::Gone) => Ok(()),
            Err(error) => Err(broken(what(), error)),
        }
    }

    /// What something of a slot is started from; the environment's services are reached through `gateway`.
    async fn order(&self, place: Place, gateway: Ipv4Addr) -> Result<Order, RuntimeError> {
        let SlotKey { environment, service, slot } = &place.key.slot;
        let state = self.state().await;
        let SlotState { spec, stamp, .. } = state.slot(environment, service, *slot).ok_or(RuntimeError::Gone)?.clone();
        let known = state.environments.get(environment);
        let generation = known.map(|e| e.generation).unwrap_or_default();
        let (urls, secrets) = (urls(known, gateway), self.secrets(&place.key.slot));
        Ok(Order { place, spec, version: stamp.version, generation, urls, secrets })
    }

    /// Listens for the replicas of an environment where they reach this machine, and says where that is.
    async fn open_doors(&self, name: &EnvironmentName, payload: &Payload) -> Result<Ipv4Addr, RuntimeError> {
        let gateway = self.runtime(payload)?.gateway(&self.paths, name, payload).await?;
        if gateway.is_loopback() {
            return Ok(gateway);
        }
        for (service, of) in self.environment(name).await.services {
            let Some(port) = of.public_port else { continue };
            self.bind(name, &service, gateway, port).map_err(|e| RuntimeError::Engine(e.into()))?;
        }
        self.router.kick();
        Ok(gateway)
    }

    /// Removes what engines hold of this project beyond what the state names.
    pub(crate) async fn tidy_engines(&self) -> Result<(), RuntimeError> {
        let state = self.state().await;
        let Some(containers) = &self.options.containers else { return Ok(()) };
        for engine in &state.engines {
            let mut keep = Keep::default();
            for (name, environment) in state.environments.iter().filter(|(_, e)| !e.stopped) {
                keep.add(&self.paths, engine, name, environment);
            }
            containers.tidy(&self.paths, engine, &keep).await?;
        }
        Ok(())
    }

    /// Removes everything that engines hold of this project.
    pub(crate) async fn clear_engines(&self) -> Result<(), TargetError> {
        let Some(containers) = &self.options.containers else { return Ok(()) };
        for engine in &self.state().await.engines {
            let cleared = containers.tidy(&self.paths, engine, &Keep::default()).await;
            cleared.map_err(|e| broken(format!("end what runs on the engine at `{}`", engine.display()), e))?;
        }
        Ok(())
    }

    /// Writes down what a replica is now. One that could not be written down goes on: it is found by its name when this
    /// process is gone.
    pub(crate) async fn record_instance(&self, key: &ReplicaKey, running: Option<&dyn Running>) {
        let recorded = self
            .change(|state| {
                let slot = state.slot_mut(&key.slot.environment, &key.slot.service, key.slot.slot);
                if let Some(replica) = slot.and_then(|s| s.replicas.get_mut(usize::from(key.n))) {
                    replica.instance = running.map(Running::instance);
                    if let Some(running) = running {
                        replica.port = running.address().port();
                        replica.started_at = Some(now());
                    } else {
                        replica.crashes += 1;
                    }
                }
                Ok(())
            })
            .await;
        if let Err(error) = recorded {
            tracing::error!(error = chain(&error), key = ?key, "a replica's process is not in the state file");
        }
    }

    /// Keeps the secrets that a replica found again was started with.
    pub(crate) fn recall_secrets(&self, key: &SlotKey, stands: &SlotState, running: &dyn Running) {
        self.remember_secrets(key, running.secrets(&stands.spec));
    }
}

impl Keep {
    fn add(
        &mut self,
        paths: &crate::supervisor::LocalPaths,
        engine: &std::path::Path,
        name: &EnvironmentName,
        environment: &EnvironmentState,
    ) {
        for (service, of) in &environment.services {
            for (slot, stands) in &of.slots {
                if !matches!(&stands.payload, Payload::Image { engine: at, .. } if at == engine) {
                    continue;
                }
                self.environments.insert(name.clone());
                let slot = SlotKey { environment: name.clone(), service: service.clone(), slot: *slot };
                let keys = (0..).take(stands.replicas.len()).map(|n| ReplicaKey { slot: slot.clone(), n });
                self.replicas.extend(keys.map(|key| key.name(paths)));
            }
        }
    }
}

/// Where the services of an environment are reached by clients that see this machine at `host`.
fn urls(environment: Option<&EnvironmentState>, host: Ipv4Addr) -> BTreeMap<ServiceName, String> {
    let services = environment.into_iter().flat_map(|e| &e.services);
    services
        .filter_map(|(name, s)| Some((name.clone(), format!("http://{}", SocketAddr::from((host, s.public_port?))))))
        .collect()
}
