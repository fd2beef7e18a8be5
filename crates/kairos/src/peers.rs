//! The services this one calls: several replicas each, of which the near and healthy ones are asked.
//!
//! A call goes through tower layers: retries within a budget, then the choice of a replica, then that replica's circuit
//! breaker, then a timeout. A heartbeat ejects a replica that is gone and takes it back; between two beats the breaker
//! does. Only calls that are safe to repeat are repeated: reads, and orders with an id.

mod balance;
mod breaker;
mod choice;
mod retry;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;
use tower::ServiceExt;
use tower::retry::Retry;
use tower::retry::budget::TpsBudget;

use crate::client::{Answer, Call, Client, ClientError};
use crate::config::{Config, Service};
use crate::metrics::{Metrics, ReplicaLabels};
use balance::{Balance, Replica};
use retry::{Attempt, Policy};

/// Between two heartbeats.
const BEAT: Duration = Duration::from_secs(1);
/// Of retries: a fifth of the calls of the last ten seconds, and ten a second besides, for services with few calls.
const BUDGET: (Duration, u32, f32) = (Duration::from_secs(10), 10, 0.2);

/// Why there is no answer of a service.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("{} is not set", .0.url_variable())]
    Unknown(Service),
    #[error("{} is unreachable", service.name())]
    Unreachable {
        service: Service,
        #[source]
        source: ClientError,
    },
}

/// One service with its replicas.
struct Peer {
    balance: Balance,
    budget: Arc<TpsBudget>,
}

/// The services this one calls.
pub(crate) struct Peers {
    all: BTreeMap<Service, Peer>,
    client: Client,
    metrics: Metrics,
}

/// What is told of a service.
#[derive(Debug, Serialize)]
pub(crate) struct View {
    /// Of its first replica; none when it is not configured.
    url: Option<String>,
    /// Whether a replica is ready.
    reachable: bool,
    /// Of the quickest replica's heartbeat.
    latency_ms: Option<u64>,
    replicas: Vec<balance::View>,
}

impl Peers {
    pub(crate) fn new(config: &Config, metrics: &Metrics) -> Self {
        for counter in ["kairos_retries_total", "kairos_retries_refused_total", "kairos_circuit_opened_total"] {
            metrics.add(counter, 0);
        }
        let client = Client::new();
        let peer = |service: &Service| {
            let addresses = config.peers.get(service).map_or(&[][..], Vec::as_slice);
            let replicas =
                addresses.iter().map(|address| Replica::new(address, config.zone.as_deref(), &client, metrics));
            let (ttl, per_second, share) = BUDGET;
            let budget = Arc::new(TpsBudget::new(ttl, per_second, share));
            (*service, Peer { balance: Balance::new(replicas.collect()), budget })
        };
        let all = config.service.dependencies().iter().map(peer).collect();
        Self { all, client, metrics: metrics.clone() }
    }

    /// Asks `service` for what is at `path`.
    pub(crate) async fn get(&self, service: Service, path: &str) -> Result<Answer, PeerError> {
        self.call(service, Call::get(path)).await
    }

    /// Calls `service`. The answer is what a replica answered, whatever its status.
    pub(crate) async fn call(&self, service: Service, call: Call) -> Result<Answer, PeerError> {
        let peer = self.all.get(&service).filter(|peer| !peer.balance.is_empty()).ok_or(PeerError::Unknown(service))?;
        let policy = Policy::new(Arc::clone(&peer.budget), self.metrics.clone(), peer.balance.len() > 1);
        let answer = Retry::new(policy, peer.balance.clone()).oneshot(Attempt::first(call)).await;
        answer.map_err(|source| PeerError::Unreachable { service, source })
    }

    /// Asks each replica every second whether it is ready, for as long as the process lives.
    pub(crate) async fn heartbeat(&self) {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            // One that hangs must not delay what is known of the others.
            let mut asked = JoinSet::new();
            for replica in self.all.values().flat_map(|peer| peer.balance.replicas()) {
                let (replica, client) = (Arc::clone(replica), self.client.clone());
                asked.spawn(async move {
                    let begun = Instant::now();
                    let call = Call::get("/ready");
                    let ready = tokio::time::timeout(BEAT, client.send(replica.url(), &call)).await;
                    let ready = ready.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status.is_success()));
                    replica.heard(ready.then(|| begun.elapsed()));
                });
            }
            asked.join_all().await;
        }
    }

    /// How they are, by name.
    pub(crate) fn view(&self) -> BTreeMap<&'static str, View> {
        let view = |peer: &Peer| {
            let replicas: Vec<balance::View> = peer.balance.replicas().map(|replica| replica.view()).collect();
            View {
                url: replicas.first().map(|replica| replica.url.clone()),
                reachable: replicas.iter().any(|replica| replica.latency_ms.is_some()),
                latency_ms: replicas.iter().filter_map(|replica| replica.latency_ms).min(),
                replicas,
            }
        };
        self.all.iter().map(|(service, peer)| (service.name(), view(peer))).collect()
    }

    /// Puts the same into the metrics.
    pub(crate) fn measure(&self) {
        for (service, view) in self.view() {
            for replica in view.replicas {
                let (service, zone) = (service.to_owned(), replica.zone.unwrap_or_default());
                let labels = ReplicaLabels { service, url: replica.url, zone };
                self.metrics.set_replica(&labels, replica.healthy, replica.circuit.number());
            }
        }
    }
}
