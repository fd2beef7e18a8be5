//! The reverse proxy of the local target: it decides for each request which backend answers.
//!
//! It runs as a process of its own, a child of the supervisor, and has no configuration: a control connection brings
//! its listeners and one [`RoutingTable`] for all services. A new table takes effect at the next request of every
//! connection, so a cut-over closes none. What is in flight on the old slot is let finish by a drain.
//!
//! It does not start, watch or stop services, holds no state on disk, and never decides by itself to route elsewhere.
//!
//! Requests are HTTP/1.1. A request is sent a second time only when not a byte of it was written, or when it is GET,
//! HEAD or OPTIONS without a body and no response head has come; the second time it goes to what is live by then.

mod accept;
mod body;
mod client;
mod control;
mod door;
mod forward;
mod frames;
mod head;
mod listener_set;
mod pool;
mod reply;
mod serve;
mod state;
mod stats;
mod table;
mod target;
mod upgrade;
mod wire;

pub use client::{ProxyClient, ProxyClientError};
pub use control::{Drained, FromProxy, Hello, ToProxy};
pub use door::{Door, DoorError};
pub use listener_set::{ListenError, ListenerSet};
pub use serve::{ProxyError, ProxyOptions, serve};
pub use stats::{BUCKETS, Histogram, SlotStats, upper_bound_us};
pub use table::{Backend, ListenerKey, ListenerKeyError, Pause, Route, RoutingTable};
pub use wire::WireError;
