//! Typed steps in a graph: plan, cache, journal, run, resume.
//!
//! A pipeline is a function that adds steps to a [`Graph`]. A step is a struct of plain parameters; it is [`Pure`] (cached by
//! fingerprint), an [`Effect`] (journaled, reconciled with the world), a [`Gate`] (waits for a person) or a [`Finally`]
//! (runs at the end). Its inputs are [`Handle`]s given beside it, so a pipeline that wires the wrong output, or an output of
//! another graph, does not compile; and a proof type, whose only makers are its step and the engine's [`Replay`], cannot be
//! had without the step that makes it.
//!
//! [`Setup::plan`] says what would run and why. [`Setup::start`] and [`Setup::resume`] run it: pure outputs come from the cache
//! where nothing they read changed, effects write an intent before they act and an outcome after, and a killed run goes on
//! from its journal. What a step may use while it works is its [`Cx`].
//!
//! This crate knows nothing of cargo, images or deployments.

mod attempt;
mod cache;
mod closing;
mod context;
mod error;
mod executables;
mod execute;
mod fault;
mod graph;
#[cfg(feature = "testkit")]
pub mod harness;
mod journal;
mod node;
mod observer;
mod output;
mod plan;
mod prior;
mod reads;
mod run;
mod sharing;
mod step;
mod store;
mod turn;
mod wire;

pub use cache::{Cache, Hit};
pub use context::{Clock, Cx, Resources, log_path, system_clock};
pub use error::StepError;
pub use fault::{Crash, Faults};
pub use graph::{Graph, Pipeline, StepPrint, pipeline, plan_differences, plan_hash, try_pipeline};
pub use journal::{
    Entry, FORMAT, Journal, JournalError, Landing, Ledger, ReadJournal, Record, check_anchor, read as read_journal,
};
pub use node::Kind;
pub use observer::{Observer, Recorder, Silent};
pub use output::{Output, Replay};
pub use plan::{Decision, Plan, PlannedStep};
pub use prior::{Prior, PriorOutcome};
pub use reads::{Component, Reads, differences, hash_file};
pub use run::{Report, RunError, Setup, Start, StepReport, answer};
pub use sharing::{Found, Kept, Leaf, SharedCache, Sharing};
pub use step::{Answer, Effect, Finally, Gate, Pure, Repeat, Step, StepSummary, Summary, World};
pub use store::{RunDir, RunLock, StateDir, write_atomically};
pub use turn::Holder;
pub use wire::{Handle, Take, Values, Wire};
