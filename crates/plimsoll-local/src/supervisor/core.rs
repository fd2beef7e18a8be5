//! The supervisor's memory: the durable state, and beside it what lives only while this process does.
//!
//! Lock order: an environment's turn, then a slot's gate, then the state; the `std` mutexes inside are held for a few
//! instructions and never over an await.

use crate::{
    proxy::{Door, ListenerKey},
    supervisor::{
        LocalPaths, Options,
        place::{ReplicaKey, SlotKey},
        ports,
        protocol::{SecretValues, broken, refused},
        registry::Registry,
        replica::{Begin, Replica, Status},
        router::Router,
        state::{self, EnvironmentState, SlotState, State},
    },
};
use plimsoll_core::{EnvironmentName, Generation, ServiceName, Timestamp};
use plimsoll_deploy::{Health, ServiceSpec, TargetError};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::watch;

/// The generation an exclusive slot holds now; held locked while a replica is told.
pub(crate) type Gate = Arc<tokio::sync::Mutex<Option<Generation>>>;

/// What lives beside a slot's durable state.
#[derive(Debug, Default)]
struct SlotRuntime {
    gate: Gate,
    secrets: SecretValues,
    replicas: Vec<Replica>,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) paths: LocalPaths,
    pub(crate) options: Options,
    pub(crate) started: Timestamp,
    pub(crate) router: Router,
    pub(crate) registry: Registry,
    /// Set once nothing is to be started or kept any more.
    pub(crate) ending: watch::Sender<bool>,
    /// Set once the last command has its answer: the process is to end.
    pub(crate) leaving: watch::Sender<bool>,
    state: tokio::sync::Mutex<State>,
    slots: Mutex<BTreeMap<SlotKey, SlotRuntime>>,
    listeners: Mutex<BTreeMap<Door, TcpListener>>,
    turns: Mutex<BTreeMap<EnvironmentName, Arc<tokio::sync::Mutex<()>>>>,
    leases: Mutex<BTreeMap<EnvironmentName, Instant>>,
}

/// Nothing here is left half-changed by a panic: each critical section is one insertion or one look.
pub(crate) fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The wall clock, for records; deadlines use the monotonic one.
pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}

impl Supervisor {
    pub(crate) fn new(paths: LocalPaths, options: Options, state: State) -> Arc<Self> {
        Arc::new(Self {
            paths,
            options,
            started: now(),
            router: Router::default(),
            registry: Registry::default(),
            ending: watch::Sender::new(false),
            leaving: watch::Sender::new(false),
            state: tokio::sync::Mutex::new(state),
            slots: Mutex::default(),
            listeners: Mutex::default(),
            turns: Mutex::default(),
            leases: Mutex::default(),
        })
    }

    /// A copy of the durable state.
    pub(crate) async fn state(&self) -> State {
        self.state.lock().await.clone()
    }

    /// Changes the durable state: on the disk first, then in memory. When `edit` or the disk refuses, nothing changed.
    pub(crate) async fn change<T>(
        &self,
        edit: impl FnOnce(&mut State) -> Result<T, TargetError>,
    ) -> Result<T, TargetError> {
        let mut state = self.state.lock().await;
        let mut next = state.clone();
        let value = edit(&mut next)?;
        if next == *state {
            return Ok(value);
        }
        let path = self.paths.state_file();
        let (next, saved) = tokio::task::spawn_blocking(move || {
            let saved = state::save(&path, &next);
            (next, saved)
        })
        .await
        .map_err(|e| broken("write the state file", e))?;
        if let Err(error) = saved {
            tracing::error!(%error, path = %self.paths.state_file().display(), "the state is not durable: change refused");
            return Err(broken(format!("cannot write `{}`", self.paths.state_file().display()), error));
        }
        *state = next;
        Ok(value)
    }

    /// One environment's state; an empty one when it is not known yet.
    pub(crate) async fn environment(&self, name: &EnvironmentName) -> EnvironmentState {
        self.state.lock().await.environments.get(name).cloned().unwrap_or_default()
    }

    /// The lock that serialises the changes of one environment.
    pub(crate) fn turn(&self, name: &EnvironmentName) -> Arc<tokio::sync::Mutex<()>> {
        unpoisoned(&self.turns).entry(name.clone()).or_default().clone()
    }

    /// The slot's gate.
    pub(crate) fn gate(&self, key: &SlotKey) -> Gate {
        unpoisoned(&self.slots).entry(key.clone()).or_default().gate.clone()
    }

    /// Keeps a slot's secrets for as long as this process lives.
    pub(crate) fn remember_secrets(&self, key: &SlotKey, secrets: SecretValues) {
        unpoisoned(&self.slots).entry(key.clone()).or_default().secrets = secrets;
    }

    /// Whether a lock's lease is over by the monotonic clock; unknown to a supervisor that did not see it begin.
    pub(crate) fn lease_over(&self, name: &EnvironmentName) -> Option<bool> {
        unpoisoned(&self.leases).get(name).map(|end| *end <= Instant::now())
    }

    /// Notes when a lease ends; `None` when the lock was given back.
    pub(crate) fn note_lease(&self, name: &EnvironmentName, lease: Option<Duration>) {
        let mut leases = unpoisoned(&self.leases);
        match lease.and_then(|lease| Instant::now().checked_add(lease)) {
            Some(end) => leases.insert(name.clone(), end),
            None => leases.remove(name),
        };
    }

    /// A slot's secrets.
    pub(crate) fn secrets(&self, key: &SlotKey) -> SecretValues {
        unpoisoned(&self.slots).get(key).map(|s| s.secrets.clone()).unwrap_or_default()
    }

    /// What the keepers of a slot know.
    pub(crate) fn statuses(&self, key: &SlotKey) -> Vec<Status> {
        unpoisoned(&self.slots).get(key).map(|s| s.replicas.iter().map(Replica::now).collect()).unwrap_or_default()
    }

    /// Changes of what the keepers of a slot know, to wait for.
    pub(crate) fn watches(&self, key: &SlotKey) -> Vec<watch::Receiver<Status>> {
        unpoisoned(&self.slots)
            .get(key)
            .map(|s| s.replicas.iter().map(|r| r.status.subscribe()).collect())
            .unwrap_or_default()
    }

    /// Notes that no replica of a slot holds the environment.
    pub(crate) fn none_active(&self, key: &SlotKey) {
        for replica in unpoisoned(&self.slots).get(key).iter().flat_map(|s| &s.replicas) {
            replica.status.send_modify(|s| s.active = None);
        }
    }

    /// Notes that one replica accepted a generation, unless another process stands in its place by now.
    pub(crate) fn is_active(&self, key: &SlotKey, n: usize, pid: Option<u32>, generation: Generation) {
        let slots = unpoisoned(&self.slots);
        if let Some(replica) = slots.get(key).and_then(|s| s.replicas.get(n)) {
            replica.status.send_modify(|s| {
                if s.pid == pid {
                    s.active = Some(generation);
                }
            });
        }
    }

    /// Starts a keeper per replica of a slot that has none.
    pub(crate) fn keep(self: &Arc<Self>, key: &SlotKey, begins: Vec<Begin>) {
        let keepers = begins
            .into_iter()
            .zip(0..)
            .map(|(begin, n)| Replica::keep(self, ReplicaKey { slot: key.clone(), n }, begin));
        let replicas: Vec<Replica> = keepers.collect();
        unpoisoned(&self.slots).entry(key.clone()).or_default().replicas = replicas;
    }

    /// Ends all replicas of a slot, at the same time. Their keepers are gone when this returns.
    pub(crate) async fn end_replicas(&self, key: &SlotKey) {
        let replicas = {
            let mut slots = unpoisoned(&self.slots);
            slots.get_mut(key).map(|s| std::mem::take(&mut s.replicas)).unwrap_or_default()
        };
        let ends: Vec<_> = replicas.iter().map(|r| r.tell(crate::supervisor::replica::Command::End)).collect();
        futures_util::future::join_all(ends).await;
    }

    /// Kills one replica's process, for its keeper to start another. Whether it is dead.
    pub(crate) async fn kill_replica(&self, key: &SlotKey, n: usize) -> bool {
        let told = {
            let slots = unpoisoned(&self.slots);
            let replica = slots.get(key).and_then(|s| s.replicas.get(n));
            replica.map(|r| r.tell(crate::supervisor::replica::Command::Kill))
        };
        match told {
            Some(told) => told.await,
            None => true,
        }
    }

    /// Forgets what lives beside a slot.
    pub(crate) fn forget(&self, key: &SlotKey) {
        unpoisoned(&self.slots).remove(key);
    }

    /// A slot's stop grace and health rule.
    pub(crate) async fn timings(&self, key: &SlotKey) -> Option<(Duration, Health)> {
        let state = self.state.lock().await;
        let SlotState { spec, .. } = state.slot(&key.environment, &key.service, key.slot)?;
        Some((Duration::from_millis(spec.stop_grace_ms), spec.health.clone()))
    }

    /// Listens for the clients of these services; ports chosen once are kept.
    pub(crate) async fn listen(&self, environment: &EnvironmentName, specs: &[ServiceSpec]) -> Result<(), TargetError> {
        let known = self.environment(environment).await;
        let mut chosen = Vec::new();
        for spec in specs {
            let kept = known.services.get(&spec.name).and_then(|s| s.public_port);
            if let (Some(kept), Some(wanted)) = (kept, spec.public_port)
                && kept != wanted
            {
                let reason = format!("its clients reach it on port {kept}, which it keeps; {wanted} was asked for");
                return Err(refused(format!("move {} to another port", spec.name), reason));
            }
            let port = kept.or(spec.public_port).unwrap_or(0);
            chosen.push((spec.name.clone(), self.bind(environment, &spec.name, Ipv4Addr::LOCALHOST, port)?));
        }
        self.change(|state| {
            let environment = state.environments.entry(environment.clone()).or_default();
            for (service, port) in chosen {
                environment.services.entry(service).or_default().public_port = Some(port);
            }
            Ok(())
        })
        .await
    }

    /// Binds a public port unless it is bound already, and returns it.
    pub(crate) fn bind(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        address: Ipv4Addr,
        port: u16,
    ) -> Result<u16, TargetError> {
        let key = ListenerKey { environment: environment.clone(), service: service.clone() };
        let door = Door { key, address };
        let mut listeners = unpoisoned(&self.listeners);
        let what = || format!("listen on port {port} for {service}");
        if !listeners.contains_key(&door) {
            let listener = ports::listen(address, port).map_err(|e| match e.kind() {
                std::io::ErrorKind::AddrInUse => {
                    refused(what(), format!("{} listens there already", ports::describe_owner(port)))
                }
                _ => broken(what(), e),
            })?;
            listeners.insert(door.clone(), listener);
        }
        listeners[&door].local_addr().map(|a| a.port()).map_err(|e| broken(what(), e))
    }

    /// Takes over a listener that the proxy kept.
    pub(crate) fn take_listener(&self, door: Door, listener: TcpListener) {
        unpoisoned(&self.listeners).insert(door, listener);
    }

    /// Copies of all listeners, to be passed on.
    pub(crate) fn listeners(&self) -> std::io::Result<Vec<(Door, TcpListener)>> {
        unpoisoned(&self.listeners).iter().map(|(door, l)| Ok((door.clone(), l.try_clone()?))).collect()
    }
}

/// A port of this machine as a base URL.
pub(crate) fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}
