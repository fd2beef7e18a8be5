//! What all of the proxy's tasks share: the table in effect, the targets it names, the listeners and the counters.

use super::{
    ProxyOptions,
    control::Drained,
    door::Door,
    stats::{Counters, SlotStats},
    table::{Backend, ListenerKey, Pause, Route, RoutingTable, Verdict, is_canary},
    target::{Phase, Target},
};
use arc_swap::ArcSwap;
use plimsoll_core::Slot;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// After a deadline, what is in flight only has to notice it; longer than this it takes on no machine that still works.
const END_LIMIT: Duration = Duration::from_secs(2);

/// A table with its targets.
#[derive(Default)]
pub(crate) struct Resolved {
    pub(crate) table: RoutingTable,
    pub(crate) routes: HashMap<ListenerKey, Arc<ResolvedRoute>>,
}

/// A route with its targets.
pub(crate) struct ResolvedRoute {
    pub(crate) live: Option<Arc<Target>>,
    standby: Option<Arc<Target>>,
    canary_percent: u8,
    pub(crate) paused: Option<Pause>,
    pub(crate) queued: AtomicUsize,
    pub(crate) max_body_bytes: u64,
    pub(crate) timeout: Duration,
    turn: AtomicU64,
}

impl ResolvedRoute {
    /// The target for the next request.
    pub(crate) fn pick(&self) -> Option<&Arc<Target>> {
        let canary =
            self.canary_percent > 0 && is_canary(self.turn.fetch_add(1, Ordering::Relaxed), self.canary_percent);
        self.standby.as_ref().filter(|_| canary).or(self.live.as_ref())
    }

    fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.live.iter().chain(&self.standby)
    }
}

/// How far the proxy's own end has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// It serves.
    Serving,
    /// It accepts nothing new and closes each client's connection after the next answer.
    Retiring,
    /// The grace is over: connections are closed.
    Closing,
}

pub(crate) struct Listening {
    pub(crate) listener: Arc<TcpListener>,
    pub(crate) accepting: JoinHandle<()>,
}

pub(crate) struct State {
    pub(crate) options: ProxyOptions,
    pub(crate) table: ArcSwap<Resolved>,
    /// The version of the table; woken for the changes that a waiting request must look at.
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) stage: watch::Sender<Stage>,
    /// Client connections now, upgraded ones included.
    pub(crate) connections: watch::Sender<usize>,
    pub(crate) listeners: Mutex<BTreeMap<Door, Listening>>,
    counters: Mutex<BTreeMap<(ListenerKey, Slot), Arc<Counters>>>,
    /// Every target with requests in flight or a route; taken for the whole of a change of table or phase.
    targets: Mutex<Vec<Weak<Target>>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    pub(crate) fn new(options: ProxyOptions) -> Arc<Self> {
        Arc::new(Self {
            options,
            table: ArcSwap::default(),
            changed: watch::Sender::new(0),
            stage: watch::Sender::new(Stage::Serving),
            connections: watch::Sender::new(0),
            listeners: Mutex::default(),
            counters: Mutex::default(),
            targets: Mutex::default(),
        })
    }

    pub(crate) fn version(&self) -> u64 {
        self.table.load().table.version
    }

    pub(crate) fn retiring(&self) -> bool {
        *self.stage.borrow() > Stage::Serving
    }

    /// Resolves when the proxy's end has got as far as `stage`.
    pub(crate) async fn at(&self, stage: Stage) {
        let mut now = self.stage.subscribe();
        now.wait_for(|now| *now >= stage).await.expect("the state holds the sender");
    }

    /// Puts a table into effect. An error says why it is refused.
    pub(crate) fn route(&self, table: RoutingTable) -> Result<(), String> {
        let mut targets = lock(&self.targets);
        let old = self.table.load_full();
        match old.table.judge(&table) {
            Verdict::Refuse(reason) => return Err(reason),
            Verdict::Same => return Ok(()),
            Verdict::Take => {}
        }
        let mut routes = HashMap::new();
        for (key, route) in &table.routes {
            let before = old.routes.get(key);
            let resolve = |backend: &Option<Backend>| backend.as_ref().map(|b| self.target(key, b, before));
            routes.insert(key.clone(), Arc::new(resolved(route, resolve(&route.live), resolve(&route.standby))));
        }
        let version = table.version;
        let new = Arc::new(Resolved { table, routes });
        self.table.store(Arc::clone(&new));
        self.changed.send_replace(version);
        targets.retain(|t| t.strong_count() > 0);
        let kept = |target: &Arc<Target>| new.routes.values().flat_map(|r| r.targets()).any(|t| Arc::ptr_eq(t, target));
        old.routes.values().flat_map(|r| r.targets()).filter(|t| !kept(t)).for_each(|t| t.unroute());
        for target in new.routes.values().flat_map(|r| r.targets()) {
            let weak = Arc::downgrade(target);
            if !targets.iter().any(|t| t.ptr_eq(&weak)) {
                targets.push(weak);
            }
        }
        Ok(())
    }

    /// The target for a backend: the one in use, unless it was drained.
    fn target(&self, key: &ListenerKey, backend: &Backend, before: Option<&Arc<ResolvedRoute>>) -> Arc<Target> {
        let same = |t: &&Arc<Target>| t.backend == *backend && t.phase() == Phase::Serving;
        if let Some(target) = before.and_then(|route| route.targets().find(same)) {
            return Arc::clone(target);
        }
        let mut counters = lock(&self.counters);
        let counters = counters.entry((key.clone(), backend.slot)).or_default();
        Target::new(key.clone(), backend.clone(), Arc::clone(counters))
    }

    pub(crate) fn stats(&self) -> Vec<SlotStats> {
        lock(&self.counters).iter().map(|((key, slot), counters)| counters.snapshot(key.clone(), *slot)).collect()
    }

    /// Begins to empty a slot, or with a limit of zero cuts off what is in flight. An error says why not; else what returns
    /// waits for the end.
    pub(crate) fn drain(
        &self,
        key: &ListenerKey,
        slot: Slot,
        limit: Duration,
    ) -> Result<impl Future<Output = Drained> + Send + 'static, String> {
        let begun = Instant::now();
        let targets = lock(&self.targets);
        if self.table.load().table.routes.get(key).is_some_and(|route| route.sends_to(slot)) {
            return Err(format!("the table in effect sends requests of {key} to {slot}"));
        }
        let draining: Vec<Arc<Target>> =
            targets.iter().filter_map(Weak::upgrade).filter(|t| t.key == *key && t.slot() == slot).collect();
        drop(targets);
        let first = if limit.is_zero() { Phase::Cut } else { Phase::Draining };
        for target in &draining {
            target.advance(first);
        }
        Ok(async move {
            let empty = async {
                for target in &draining {
                    target.empty().await;
                }
            };
            tokio::pin!(empty);
            let deadline = tokio::time::Instant::from_std(begun) + limit;
            if tokio::time::timeout_at(deadline, &mut empty).await.is_err() {
                for target in &draining {
                    target.advance(Phase::Ended);
                }
                if tokio::time::timeout(END_LIMIT, empty).await.is_err() {
                    tracing::warn!("requests in flight did not end at the deadline of their drain");
                }
            }
            for target in &draining {
                target.close_idle();
            }
            report(&draining, begun)
        })
    }

    /// Closes upstream connections that were not used for long.
    pub(crate) fn prune(&self) {
        let targets: Vec<_> = lock(&self.targets).iter().filter_map(Weak::upgrade).collect();
        targets.iter().flat_map(|t| &t.replicas).for_each(|r| r.idle.prune());
    }
}

fn resolved(route: &Route, live: Option<Arc<Target>>, standby: Option<Arc<Target>>) -> ResolvedRoute {
    ResolvedRoute {
        live,
        standby,
        canary_percent: route.canary_percent,
        paused: route.paused,
        queued: AtomicUsize::new(0),
        max_body_bytes: route.max_body_bytes.unwrap_or(u64::MAX),
        timeout: Duration::from_millis(route.request_timeout_ms),
        turn: AtomicU64::new(0),
    }
}

fn report(drained: &[Arc<Target>], begun: Instant) -> Drained {
    let sum = |count: fn(&Target) -> &AtomicU64| drained.iter().map(|t| count(t).load(Ordering::SeqCst)).sum();
    Drained {
        finished: sum(|t| &t.tally.finished),
        aborted: sum(|t| &t.tally.aborted),
        timed_out: sum(|t| &t.tally.timed_out),
        websockets_closed: sum(|t| &t.tally.websockets_closed),
        millis: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}
