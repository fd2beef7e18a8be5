//! What a supervisor says to the proxy, and what the proxy answers. Shapes only; `wire` carries them.
//!
//! Messages are JSON, one on each line, in an envelope with a number that the answer repeats. The proxy takes them up
//! in order and answers in order, but for [`ToProxy::Drain`]: its answer comes when the drain has ended, and holds up
//! none that follows, because a supervisor must be able to route back while a slot drains. File descriptors travel
//! with the message that speaks of them (`SCM_RIGHTS`).

use super::{door::Door, stats::SlotStats, table::RoutingTable};
use plimsoll_core::{EnvironmentName, ServiceName, Slot};
use serde::{Deserialize, Serialize};

/// What a supervisor asks of the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum ToProxy {
    /// Who are you, and what do you hold? Answered with [`FromProxy::Hello`].
    Hello,
    /// Accept connections on the listener sent along. Answered with [`FromProxy::Done`].
    Listen {
        /// What the listener is for.
        #[serde(rename = "key")]
        door: Door,
    },
    /// Route by this table from now on. Answered with [`FromProxy::Done`] when every new request sees it, or
    /// [`FromProxy::Refused`].
    Route {
        /// The whole table, for all services.
        table: RoutingTable,
    },
    /// Let what is in flight on a slot finish. Answered with [`FromProxy::Drained`] when nothing is left, or
    /// [`FromProxy::Refused`] while the table in effect sends requests to the slot.
    Drain {
        /// The environment of the service.
        environment: EnvironmentName,
        /// The service.
        service: ServiceName,
        /// The slot to empty.
        slot: Slot,
        /// Milliseconds until what is still in flight is ended.
        deadline_ms: u64,
    },
    /// Answered with [`FromProxy::Stats`].
    Stats,
    /// Answered with [`FromProxy::Listeners`] and one file descriptor for each; the proxy keeps serving.
    TakeListeners,
    /// Stop accepting, finish what is in flight, then end. Answered with [`FromProxy::Done`] at once.
    Retire {
        /// Milliseconds until what is still open is closed.
        grace_ms: u64,
    },
}

/// What the proxy answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum FromProxy {
    /// It was done.
    Done,
    /// It was not done.
    Refused {
        /// Why, in a sentence.
        reason: String,
        /// The version of the table in effect.
        current: u64,
    },
    /// Who the proxy is.
    Hello(Hello),
    /// How a drain ended.
    Drained(Drained),
    /// The counters of every slot that was ever routed to.
    Stats {
        /// One entry for each service and slot.
        slots: Vec<SlotStats>,
    },
    /// The listeners, in the order of the file descriptors sent along.
    Listeners {
        /// What each is for.
        #[serde(rename = "keys")]
        doors: Vec<Door>,
    },
}

/// Who a proxy is and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Its process id.
    pub pid: u32,
    /// What tells it apart from another process with that id: the boot's id and the start time in clock ticks.
    pub start: String,
    /// The version of the table in effect; 0 before the first.
    pub version: u64,
    /// The listeners it accepts on.
    pub listeners: Vec<Door>,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Drained {
    /// Requests that finished by themselves.
    pub finished: u64,
    /// Responses and upgraded connections broken off at the deadline.
    pub aborted: u64,
    /// Requests that had no response head at the deadline and got 504.
    pub timed_out: u64,
    /// `WebSocket` connections that were sent close 1001.
    pub websockets_closed: u64,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// A message with the number that ties an answer to its question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Envelope<T> {
    pub(crate) id: u64,
    pub(crate) body: T,
}

impl ToProxy {
    /// How many file descriptors come with it.
    pub(crate) fn descriptors(&self) -> usize {
        usize::from(matches!(self, Self::Listen { .. }))
    }
}

impl FromProxy {
    /// How many file descriptors come with it.
    pub(crate) fn descriptors(&self) -> usize {
        if let Self::Listeners { doors } = self { doors.len() } else { 0 }
    }
}
