//! The replicas of one service, and the tower service that asks one of them per attempt.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Serialize;
use tower::timeout::TimeoutLayer;
use tower::timeout::error::Elapsed;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};

use super::breaker::{Breaker, OpenCircuit, State};
use super::choice::{Candidate, Condition, choose};
use super::retry::Attempt;
use crate::client::{Answer, Call, Client, ClientError, TIMEOUT};
use crate::config::Address;
use crate::metrics::Metrics;

/// Heartbeats in a row without an answer that eject a replica: one may be lost on a busy machine.
const MISSED: u32 = 2;

/// One replica: where it is, how it is, and how it is called.
pub(super) struct Replica {
    address: Address,
    near: bool,
    breaker: Breaker,
    heart: Mutex<Heart>,
    stack: BoxCloneSyncService<Call, Answer, BoxError>,
}

#[derive(Debug, Default)]
struct Heart {
    missed: u32,
    latency: Option<Duration>,
}

/// What is told of a replica.
#[derive(Debug, Serialize)]
pub(super) struct View {
    pub(super) url: String,
    pub(super) zone: Option<String>,
    /// False when its heartbeats have ejected it.
    pub(super) healthy: bool,
    /// Of its last heartbeat, if it was answered.
    pub(super) latency_ms: Option<u64>,
    pub(super) circuit: State,
}

impl Replica {
    pub(super) fn new(address: &Address, zone: Option<&str>, client: &Client, metrics: &Metrics) -> Arc<Self> {
        let breaker = Breaker::new(metrics);
        let (client, base) = (client.clone(), address.url.clone());
        let send = service_fn(move |call: Call| {
            let (client, base) = (client.clone(), base.clone());
            async move { client.send(&base, &call).await }
        });
        let stack = ServiceBuilder::new().layer(breaker.clone()).layer(TimeoutLayer::new(TIMEOUT)).service(send);
        Arc::new(Self {
            address: address.clone(),
            near: zone.is_some() && address.zone.as_deref() == zone,
            breaker,
            heart: Mutex::default(),
            stack: BoxCloneSyncService::new(stack),
        })
    }

    pub(super) fn url(&self) -> &str {
        &self.address.url
    }

    fn heart(&self) -> MutexGuard<'_, Heart> {
        // Every change is complete before the next call that could panic.
        self.heart.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a heartbeat into account: how long its answer took, if there was one.
    pub(super) fn heard(&self, latency: Option<Duration>) {
        let mut heart = self.heart();
        let was_healthy = heart.missed < MISSED;
        heart.missed = if latency.is_some() { 0 } else { heart.missed.saturating_add(1) };
        heart.latency = latency;
        if latency.is_some() {
            self.breaker.heard();
        }
        match (was_healthy, heart.missed < MISSED) {
            (true, false) => tracing::warn!(url = self.url(), "ejected: its heartbeats are not answered"),
            (false, true) => tracing::info!(url = self.url(), "taken back"),
            _ => {}
        }
    }

    fn candidate(&self, tried: bool) -> Candidate {
        let condition = match (self.breaker.allows(), self.heart().missed < MISSED) {
            (false, _) => Condition::Open,
            (true, false) => Condition::Silent,
            (true, true) => Condition::Works,
        };
        Candidate { condition, near: self.near, tried }
    }

    pub(super) fn view(&self) -> View {
        let heart = self.heart();
        View {
            url: self.address.url.clone(),
            zone: self.address.zone.clone(),
            healthy: heart.missed < MISSED,
            latency_ms: heart.latency.map(|latency| u64::try_from(latency.as_millis()).unwrap_or(u64::MAX)),
            circuit: self.breaker.state(),
        }
    }

    async fn ask(&self, call: Call) -> Result<Answer, ClientError> {
        let url = || self.address.url.clone();
        self.stack.clone().oneshot(call).await.map_err(|error| match error.downcast::<ClientError>() {
            Ok(error) => *error,
            Err(error) if error.is::<OpenCircuit>() => ClientError::Open { url: url() },
            Err(error) if error.is::<Elapsed>() => ClientError::Timeout { url: url() },
            Err(source) => ClientError::Call { url: url(), source },
        })
    }
}

/// All replicas of one service; clones share them.
#[derive(Clone)]
pub(super) struct Balance {
    replicas: Arc<[Arc<Replica>]>,
    turn: Arc<AtomicUsize>,
}

impl Balance {
    pub(super) fn new(replicas: Vec<Arc<Replica>>) -> Self {
        Self { replicas: replicas.into(), turn: Arc::default() }
    }

    pub(super) fn replicas(&self) -> impl Iterator<Item = &Arc<Replica>> {
        self.replicas.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.replicas.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.replicas.is_empty()
    }
}

impl Service<Attempt> for Balance {
    type Response = Answer;
    type Error = ClientError;
    type Future = BoxFuture<'static, Result<Answer, ClientError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let candidates = self.replicas.iter().enumerate();
        let candidates: Vec<_> = candidates.map(|(index, one)| one.candidate(attempt.has_tried(index))).collect();
        let chosen = choose(&candidates, self.turn.fetch_add(1, Ordering::Relaxed));
        let chosen = chosen.expect("a service without replicas is not called");
        attempt.try_on(chosen);
        let replica = Arc::clone(&self.replicas[chosen]);
        Box::pin(async move { replica.ask(attempt.call).await })
    }
}
