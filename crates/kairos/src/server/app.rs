//! What every part of a process shares.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::watch;

use super::connections::Connections;
use crate::config::{Config, Live, Sources};
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::reload::Reload;
use crate::telemetry;

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

/// What every part of a process shares.
pub(crate) struct App {
    /// What stays as it is until the end.
    pub(crate) config: Config,
    /// What follows its file while the process runs.
    pub(crate) reload: Reload,
    pub(crate) metrics: Metrics,
    /// The services this one calls.
    pub(crate) peers: Peers,
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
}

impl App {
    pub(super) fn new(config: Config, sources: Sources, values: BTreeMap<String, String>) -> Self {
        let metrics = Metrics::default();
        Self {
            reload: Reload::new(&config, sources, values, metrics.clone()),
            peers: Peers::new(&config, &metrics),
            metrics,
            phase: watch::Sender::new(Phase::Starting),
            sockets: watch::Sender::new(0),
            connections: Connections::default(),
            sent_away: watch::Sender::new(false),
            read_only: AtomicBool::new(config.read_only),
            started: Instant::now(),
            started_at: telemetry::now(),
            config,
        }
    }

    /// What may change, as it is now. Whoever uses two values of it takes them from one answer.
    pub(crate) fn live(&self) -> Arc<Live> {
        self.reload.live()
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
