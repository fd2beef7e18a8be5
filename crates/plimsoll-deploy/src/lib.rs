//! Blue-green deployment: what to do next is decided by a pure machine, and done through one [`Target`] trait.
//!
//! The pieces, in reading order:
//!
//! - [`ServiceSpec`] and [`Release`]: what is to serve;
//! - [`Observation`]: what the target says is there, the truth about the world;
//! - [`Target`]: the verbs every target has, each safe to repeat.
//!
//! A slot belongs to one service of one environment. A release moves only the services whose digest or configuration
//! changed; the generation counts every change of the environment, and a change that names a stale one is refused.

mod observation;
mod spec;
mod target;

pub use observation::{LockView, Observation, ReleaseRecord, ServiceRecord, ServiceView, SlotView};
pub use spec::{Activation, ApprovalRecord, Evidence, Health, Release, ServiceSpec, SmokeRequest, StatePolicy};
pub use target::{
    Change, CutOver, CutOverDone, DrainReport, Fut, Histogram, LockOutcome, LockOwner, Move, Probed, SlotTraffic,
    Target, TargetError, TargetKind,
};
