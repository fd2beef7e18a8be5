//! A backend while the proxy routes to it: what is in flight on it, its idle connections, and how it is emptied.
//!
//! A target lives from the table that brings it until its last request ends. A slot that is drained and later routed
//! to again gets a new target, with the slot's old counters.

use super::{
    pool::{Idle, Pooled},
    stats::Counters,
    table::{Backend, ListenerKey},
};
use hyper::header::HeaderValue;
use plimsoll_core::Slot;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, futures::OwnedNotified};

/// How far the emptying of a target has got. Only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Requests come and go.
    Serving = 0,
    /// No new requests; `WebSocket` connections are told to go.
    Draining = 1,
    /// The deadline has passed: what is in flight is ended, with an answer where that is possible.
    Ended = 2,
    /// Connections are cut without an answer: what happens without draining.
    Cut = 3,
}

/// One replica's address and the connections to it that wait for a request.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) address: SocketAddr,
    pub(crate) idle: Idle,
}

/// How many of what was in flight when the drain began ended in which way.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) finished: AtomicU64,
    pub(crate) aborted: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    pub(crate) websockets_closed: AtomicU64,
}

/// A backend in use.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) key: ListenerKey,
    pub(crate) backend: Backend,
    pub(crate) release: HeaderValue,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) tally: Tally,
    next_replica: AtomicUsize,
    in_flight: AtomicU64,
    phase: AtomicU8,
    changed: Arc<Notify>,
    unrouted: AtomicBool,
}

impl Target {
    pub(crate) fn new(key: ListenerKey, backend: Backend, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self {
            key,
            release: HeaderValue::from_str(&backend.release).expect("the table's releases were checked"),
            replicas: backend.replicas.iter().map(|a| Replica { address: *a, idle: Idle::default() }).collect(),
            backend,
            counters,
            tally: Tally::default(),
            next_replica: AtomicUsize::new(0),
            in_flight: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Serving as u8),
            changed: Arc::new(Notify::new()),
            unrouted: AtomicBool::new(false),
        })
    }

    pub(crate) fn slot(&self) -> Slot {
        self.backend.slot
    }

    /// The replica to begin with; each call gives the next one.
    pub(crate) fn first_replica(&self) -> usize {
        match self.replicas.len() {
            0 | 1 => 0,
            n => self.next_replica.fetch_add(1, Ordering::Relaxed) % n,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Serving,
            1 => Phase::Draining,
            2 => Phase::Ended,
            _ => Phase::Cut,
        }
    }

    pub(crate) fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Resolves when the target has reached `phase`.
    pub(crate) async fn reached(&self, phase: Phase) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.phase() >= phase {
                return;
            }
            changed.await;
        }
    }

    /// Resolves at the next change of phase, or when the last request has ended.
    pub(crate) fn next_change(&self) -> OwnedNotified {
        Arc::clone(&self.changed).notified_owned()
    }

    /// Resolves when nothing is in flight.
    pub(crate) async fn empty(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.in_flight.load(Ordering::SeqCst) == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Counts a request as in flight, unless the target is being emptied.
    pub(crate) fn enter(self: &Arc<Self>, probe: bool) -> Option<InFlight> {
        // Count first, look second: a drain looks at the count after it has set the phase, so either it sees this
        // request or this request sees the drain.
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        self.counters.in_flight.fetch_add(1, Ordering::Relaxed);
        let flight =
            InFlight { target: Arc::clone(self), begun: Instant::now(), head: None, end: End::ClientGone, probe };
        if self.phase() == Phase::Serving {
            Some(flight)
        } else {
            flight.moved();
            None
        }
    }

    /// The target is in no table any more: its idle connections are closed, and none is kept from now on.
    pub(crate) fn unroute(&self) {
        self.unrouted.store(true, Ordering::SeqCst);
        self.close_idle();
    }

    pub(crate) fn close_idle(&self) {
        self.replicas.iter().for_each(|r| r.idle.clear());
    }

    /// Keeps a connection for the next request.
    pub(crate) fn keep(&self, replica: usize, pooled: Pooled) {
        if self.phase() == Phase::Serving && !self.unrouted.load(Ordering::SeqCst) {
            self.replicas[replica].idle.put(pooled);
            if self.unrouted.load(Ordering::SeqCst) {
                self.close_idle();
            }
        }
    }
}

/// How a request left its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Before it ended, its client went away. What is true when nobody says otherwise.
    ClientGone,
    /// It was answered in full, or with an error of the proxy's own.
    Answered,
    /// It got 504 because of a drain's deadline.
    TimedOut,
    /// Its response was broken off.
    Aborted,
    /// It was an upgraded connection that was told to go.
    ToldToGo,
    /// It was sent elsewhere and is not this target's any more.
    Moved,
}

/// One request, or upgraded connection, in flight on a target. Counts itself out when dropped.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) target: Arc<Target>,
    begun: Instant,
    head: Option<(u16, Duration)>,
    end: End,
    probe: bool,
}

impl InFlight {
    /// The head of the response is known: this is the moment that latency is measured to.
    pub(crate) fn head(&mut self, status: u16) {
        self.head = Some((status, self.begun.elapsed()));
    }

    pub(crate) fn finish(mut self, end: End) {
        self.end = end;
    }

    /// Ends it with a response of the proxy's own.
    pub(crate) fn answered(mut self, status: u16) {
        self.head(status);
        self.end = End::Answered;
    }

    pub(crate) fn probe(&self) -> bool {
        self.probe
    }

    pub(crate) fn moved(self) {
        self.finish(End::Moved);
    }

    pub(crate) fn upgraded(&self) {
        self.target.counters.upgraded.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let (target, counters) = (&self.target, &self.target.counters);
        if self.head.is_some_and(|(status, _)| status == 101) {
            counters.upgraded.fetch_sub(1, Ordering::Relaxed);
        }
        match (self.end, self.head) {
            (End::Moved, _) => {}
            (End::ClientGone, None) => counters.ended(499, self.probe, self.begun.elapsed()),
            // A client may leave an upgraded connection or a stream whenever it likes.
            (End::ClientGone, Some((status, latency))) => {
                counters.ended(if status == 101 { 101 } else { 499 }, self.probe, latency);
            }
            (_, head) => {
                let (status, latency) = head.unwrap_or_else(|| (504, self.begun.elapsed()));
                counters.ended(status, self.probe, latency);
            }
        }
        if self.end == End::Aborted {
            counters.aborted.fetch_add(1, Ordering::Relaxed);
        }
        if target.phase() != Phase::Serving {
            let tally = match self.end {
                End::ClientGone | End::Answered => Some(&target.tally.finished),
                End::TimedOut => Some(&target.tally.timed_out),
                End::Aborted => Some(&target.tally.aborted),
                End::ToldToGo => Some(&target.tally.websockets_closed),
                End::Moved => None,
            };
            tally.inspect(|n| _ = n.fetch_add(1, Ordering::SeqCst));
        }
        counters.in_flight.fetch_sub(1, Ordering::Relaxed);
        if target.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 && target.phase() != Phase::Serving {
            target.changed.notify_waiters();
        }
    }
}
