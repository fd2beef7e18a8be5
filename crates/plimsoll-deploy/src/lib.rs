//! Blue-green deployment: what to do next is decided by a pure machine, and done through one [`Target`] trait.
//!
//! The pieces, in reading order:
//!
//! - [`ServiceSpec`] and [`Release`]: what is to serve;
//! - [`Observation`]: what the target says is there, the truth about the world;
//! - [`Target`]: the verbs every target has, each safe to repeat;
//! - [`Goal`] and [`next`]: the machine, pure and model-checked;
//! - [`Canary`] and [`judge`]: a share of the traffic first, and whether it grows;
//! - [`drive`]: doing what the machine says, under the environment's lock;
//! - [`Prober`] and [`ProbeLoad`]: what clients see of it.
//!
//! A slot belongs to one service of one environment. A release moves only the services whose digest or configuration
//! changed; the generation counts every change of the environment, and a change that names a stale one is refused.

mod admission;
mod ask_error;
mod canary;
mod capacity;
mod compat;
#[cfg(any(test, feature = "testkit"))]
mod conformance;
mod copying;
mod diff;
mod drive;
#[cfg(any(test, feature = "testkit"))]
mod fake;
mod goal;
mod load;
mod meter;
mod metrics;
#[cfg(test)]
mod model;
mod object_diff;
mod observation;
mod plan;
mod policy;
mod probe;
mod prometheus;
mod rightsize;
#[cfg(any(test, feature = "testkit"))]
mod sample;
mod spec;
mod target;
#[cfg(test)]
mod testing;
mod traffic;

pub use admission::{Beside, admit, admit_shares};
pub use canary::{Answers, Canary, CanaryStep, Compared, Judgement, Trial, bounds, judge};
pub use capacity::{Access, Autoscale, Resources, Storage};
pub use compat::{Unreadable, unreadable};
#[cfg(any(test, feature = "testkit"))]
pub use conformance::{Fixture, conformance};
pub use copying::{Stateful, admit_backup, admit_restore};
pub use diff::{ConfigChange, ReleaseDiff, ServiceDiff};
pub use drive::{Drive, DriveError, DriveEvent, DriveObserver, Gate, Outcome, WaitingFor, drive};
#[cfg(any(test, feature = "testkit"))]
pub use fake::{FakeTarget, Fault};
pub use goal::{Goal, Reached, reconcile};
pub use load::{MAX_PER_SECOND, ProbeLoad, ProbeReport, ProbeTarget};
pub use meter::Meter;
pub use metrics::Metrics;
pub use object_diff::{ObjectChange, ObjectDiff};
pub use plan::{Action, Failure, Progress, Refusal, SlotOf, Verdict, next};
pub use policy::Policy;
pub use probe::{
    ASK_TIMEOUT, Answer, PROBE_HEADER, Prober, SmokeError, SmokeFailure, SmokeReport, ask, check, run_smoke,
    smoke_environment,
};

pub use observation::{
    ADOPTED, Drift, LockView, Observation, RESTORING, ReleaseRecord, ServiceRecord, ServiceView, SlotView, Switched,
};
pub use prometheus::{Prometheus, Queries};
pub use rightsize::{MIN_SAMPLES, Usage, UsageSample, rightsize};
#[cfg(any(test, feature = "testkit"))]
pub use sample::sample;
pub use spec::{Activation, ApprovalRecord, Evidence, Health, Release, ServiceSpec, SmokeRequest, StatePolicy};
pub use target::{
    Change, CutOver, CutOverDone, DrainReport, Fut, LockOutcome, LockOwner, Move, STATE_COMMAND, SecretSource, Target,
    TargetError, TargetKind, Weights,
};
pub use traffic::{Histogram, Probed, SlotTraffic, Traffic};
