//! What every part of a process shares, and the heartbeat that keeps it up to date about the others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;

use super::connections::Connections;
use crate::client::Client;
use crate::config::{Config, Live, Service, Sources};
use crate::reload::Reload;
use crate::telemetry::{self, Metrics};

/// How far the process's life is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    Serving,
    /// Told to end: a lame duck, which still takes connections.
    Leaving,
    /// No new connections.
    Stopping,
}

/// The last heartbeat of a dependency.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Dependency {
    url: Option<String>,
    reachable: bool,
    latency_ms: Option<u64>,
}

/// What every part of a process shares.
pub(crate) struct App {
    /// What stays as it is until the end.
    pub(crate) config: Config,
    /// What follows its file while the process runs.
    pub(crate) reload: Reload,
    pub(crate) metrics: Metrics,
    pub(crate) client: Client,
    pub(crate) phase: watch::Sender<Phase>,
    /// Open web sockets, waited for at the end.
    pub(crate) sockets: watch::Sender<u32>,
    /// Open connections.
    pub(crate) connections: Connections,
    /// Whether the deployment has made this process a lame duck.
    pub(crate) sent_away: watch::Sender<bool>,
    /// Whether no new order is taken.
    pub(super) read_only: AtomicBool,
    pub(crate) started: Instant,
    pub(crate) started_at: String,
    dependencies: Mutex<BTreeMap<&'static str, Dependency>>,
}

impl App {
    pub(super) fn new(config: Config, sources: Sources, values: BTreeMap<String, String>) -> Self {
        let unknown = |service: &Service| Dependency {
            url: config.peers.get(service).cloned(),
            reachable: false,
            latency_ms: None,
        };
        let dependencies = config.service.dependencies().iter().map(|s| (s.name(), unknown(s))).collect();
        let metrics = Metrics::default();
        Self {
            reload: Reload::new(&config, sources, values, metrics.clone()),
            metrics,
            client: Client::new(),
            phase: watch::Sender::new(Phase::Starting),
            sockets: watch::Sender::new(0),
            connections: Connections::default(),
            sent_away: watch::Sender::new(false),
            read_only: AtomicBool::new(config.read_only),
            started: Instant::now(),
            started_at: telemetry::now(),
            dependencies: Mutex::new(dependencies),
            config,
        }
    }

    /// What may change, as it is now. Whoever uses two values of it takes them from one answer.
    pub(crate) fn live(&self) -> Arc<Live> {
        self.reload.live()
    }

    /// The last heartbeats.
    pub(crate) fn dependencies(&self) -> BTreeMap<&'static str, Dependency> {
        self.dependencies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the beginning of the end.
    pub(crate) async fn stopping(&self) {
        // The sender is a field of `self`, so waiting for it cannot fail.
        let _ = self.phase.subscribe().wait_for(|phase| *phase == Phase::Stopping).await;
    }

    /// Whether orders that are not decided yet are refused.
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::SeqCst)
    }

    /// Whether clients are asked to go elsewhere: told to by the deployment, or because the process ends.
    pub(crate) fn is_lame_duck(&self) -> bool {
        *self.sent_away.borrow() || matches!(*self.phase.borrow(), Phase::Leaving | Phase::Stopping)
    }

    /// Waits until clients are asked to go elsewhere.
    pub(crate) async fn lame_duck(&self) {
        let (mut sent_away, mut phase) = (self.sent_away.subscribe(), self.phase.subscribe());
        // Both senders are fields of `self`, so waiting for them cannot fail.
        tokio::select! {
            _ = sent_away.wait_for(|on| *on) => {}
            _ = phase.wait_for(|phase| matches!(phase, Phase::Leaving | Phase::Stopping)) => {}
        }
    }
}

/// Asks each dependency for its health every second, for as long as the process lives.
pub(super) async fn heartbeat(app: Arc<App>) {
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        for service in app.config.service.dependencies() {
            let Some(url) = app.config.peers.get(service) else { continue };
            let begun = Instant::now();
            let answer = app.client.get(&format!("{url}/health")).await;
            let reachable = answer.is_ok_and(|answer| answer.status.is_success());
            let latency_ms = reachable.then(|| u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
            let beat = Dependency { url: Some(url.clone()), reachable, latency_ms };
            app.dependencies.lock().unwrap_or_else(PoisonError::into_inner).insert(service.name(), beat);
        }
    }
}
