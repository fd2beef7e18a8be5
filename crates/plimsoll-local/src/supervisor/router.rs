//! What the proxy is told: one table for all services, made from the state and from what the keepers know.
//!
//! Only replicas that this supervisor saw answering are routed to.

use crate::{
    proxy::{Backend, Door, ListenerKey, Pause, ProxyClient, Route, RoutingTable},
    supervisor::{
        core::{Supervisor, now},
        place::SlotKey,
        protocol::broken,
        replica::Status,
        state::State,
    },
};
use plimsoll_deploy::TargetError;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};
use tokio::sync::{Mutex, Notify};

/// How long a replica may take to its answer's head before the client gets 504.
const REQUEST_TIMEOUT_MS: u64 = 60_000;

/// When all replicas of a live slot have ended, requests wait this long for one that is started anew, or for the release
/// before it: a start takes tenths of a second, a return after a bad cut-over hardly longer. More than a thousand at a
/// time are told 503, because a service that comes back must not drown.
const WHILE_DOWN: Pause = Pause { max_ms: 2000, max_queued: 1000 };

/// The way to the proxy.
#[derive(Debug, Default)]
pub(crate) struct Router {
    kicked: Notify,
    link: Mutex<Link>,
}

/// The connection with what the other end was told.
#[derive(Debug, Default)]
struct Link {
    client: Option<Arc<ProxyClient>>,
    listening: BTreeSet<Door>,
    table: RoutingTable,
    /// Whether `table` is in effect over there.
    sent: bool,
    /// Nothing is routed before what stands was looked at: an adopted proxy goes on with the table it has.
    open: bool,
}

impl Router {
    /// Says that the table may have changed.
    pub(crate) fn kick(&self) {
        self.kicked.notify_one();
    }

    /// Takes a connection to a proxy that accepts on `listening` by the table of `version`.
    pub(crate) async fn connect(&self, client: Arc<ProxyClient>, listening: BTreeSet<Door>, version: u64) {
        let mut link = self.link.lock().await;
        link.client = Some(client);
        link.listening = listening;
        // A table of ours always follows the one in effect, whoever made that.
        link.table = RoutingTable { version: link.table.version.max(version), ..RoutingTable::default() };
        link.sent = false;
        self.kick();
    }

    /// Forgets a proxy that is gone.
    pub(crate) async fn disconnect(&self) {
        self.link.lock().await.client = None;
    }

    /// The connection, while there is one.
    pub(crate) async fn client(&self) -> Option<Arc<ProxyClient>> {
        self.link.lock().await.client.clone()
    }

    /// Lets tables through from now on.
    pub(crate) async fn open(&self) {
        self.link.lock().await.open = true;
        self.kick();
    }

    /// Passes what is missing at the proxy: the table, then listeners. Returns when every new request sees it; also
    /// when no proxy runs: the next one gets the same.
    pub(crate) async fn push(&self, supervisor: &Supervisor) -> Result<(), TargetError> {
        let mut link = self.link.lock().await;
        let Some(client) = link.client.clone() else { return Ok(()) };
        if !link.open {
            return Ok(());
        }
        let state = supervisor.state().await;
        let routes = routes(&state, &|key| supervisor.statuses(key));
        if !link.sent || routes != link.table.routes {
            // By the clock, so that a supervisor without memory of the last version still goes on above it.
            let version = u64::try_from(now().as_millis()).unwrap_or(0).max(link.table.version + 1);
            let table = RoutingTable { version, routes };
            client.route(table.clone()).await.map_err(|e| broken("pass the routing table", e))?;
            link.table = table;
            link.sent = true;
        }
        // After the table: whoever waits at a listener is accepted to where it leads.
        let listeners = supervisor.listeners().map_err(|e| broken("copy the listeners", e))?;
        for (door, listener) in listeners {
            if !link.listening.contains(&door) {
                let passed = client.listen(door.clone(), &listener).await;
                passed.map_err(|e| broken(format!("pass the listener of {door}"), e))?;
                link.listening.insert(door);
            }
        }
        Ok(())
    }

    /// Pushes whenever something may have changed, until the supervisor ends.
    pub(crate) async fn run(&self, supervisor: &Arc<Supervisor>) {
        let mut ending = supervisor.ending.subscribe();
        loop {
            tokio::select! {
                () = self.kicked.notified() => {}
                _ = ending.wait_for(|e| *e) => return,
            }
            if let Err(error) = self.push(supervisor).await {
                // The proxy is restarted when it is gone, and kicks again.
                tracing::warn!(error = plimsoll_core::chain(&error), "the proxy did not take a table");
            }
        }
    }
}

/// The routes of all services that clients can reach.
fn routes(state: &State, statuses: &dyn Fn(&SlotKey) -> Vec<Status>) -> BTreeMap<ListenerKey, Route> {
    let mut routes = BTreeMap::new();
    for (environment, known) in &state.environments {
        for (service, of) in known.services.iter().filter(|(_, s)| s.public_port.is_some()) {
            let backend = |slot: plimsoll_core::Slot| {
                let stands = of.slots.get(&slot)?;
                let key = SlotKey { environment: environment.clone(), service: service.clone(), slot };
                let replicas = routable(&statuses(&key));
                let release = printable(&stands.stamp.version);
                (!replicas.is_empty()).then_some(Backend { slot, release, replicas })
            };
            let wanted = of.live.filter(|_| !known.stopped);
            let live = wanted.and_then(backend);
            let paused = if wanted.is_some() && live.is_none() { Some(WHILE_DOWN) } else { None };
            let shared = wanted.filter(|_| of.share > 0).and_then(|live| backend(live.other()));
            let key = ListenerKey { environment: environment.clone(), service: service.clone() };
            let route = Route {
                live,
                canary_percent: if shared.is_some() { of.share } else { 0 },
                standby: shared,
                paused,
                max_body_bytes: None,
                request_timeout_ms: REQUEST_TIMEOUT_MS,
            };
            routes.insert(key, route);
        }
    }
    routes
}

/// The replicas to route to: those ready now; when none is, those that were and still run, because an answer from a
/// service that reports itself unwell is better than none.
fn routable(statuses: &[Status]) -> Vec<SocketAddr> {
    let verified = || statuses.iter().filter(|s| s.verified && s.pid.is_some());
    let ready: Vec<SocketAddr> = verified().filter(|s| s.ready).map(|s| s.address).collect();
    if ready.is_empty() { verified().map(|s| s.address).collect() } else { ready }
}

/// A version as a header value can carry it.
fn printable(version: &str) -> String {
    version.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_verified_replicas_are_routed_to_and_ready_ones_first() {
        let at = |port: u16| SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port));
        let status =
            |port, verified, ready| Status { pid: Some(1), address: at(port), verified, ready, ..Status::default() };
        let ports = |statuses: &[Status]| routable(statuses).iter().map(SocketAddr::port).collect::<Vec<_>>();
        assert_eq!(ports(&[status(1, false, false), status(2, true, true), status(3, true, false)]), [2]);
        assert_eq!(ports(&[status(1, false, false), status(3, true, false)]), [3]);
        assert_eq!(ports(&[status(1, false, true), Status { pid: None, ..status(4, true, true) }]), [0_u16; 0]);
    }
}
