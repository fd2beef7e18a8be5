//! The `kubernetes` target: a namespace in which every service has two slots, and a Service that points at one of them.
//!
//! One path leads to the cluster, whatever objects come from (typed builders, `helm template`, `kubectl kustomize`):
//!
//! ```text
//! Object, Object, …  ──in_slot──>  what both slots share │ what stands in this slot │ the Service
//!                                          server-side apply                          │ JSON patch at the cut-over
//! ```
//!
//! - [`Object`]: a Kubernetes object as plain data;
//! - [`names`]: what things are called in the cluster, and by which labels they are found again;
//! - [`manifest`]: typed builders that refuse nonsense;
//! - [`in_slot`]: the objects of a service as they are in one slot. Pure;
//! - [`Adoption`]: which of somebody else's Deployments can be the first slot, and why others cannot;
//! - [`KubernetesTarget`]: the verbs of [`plimsoll_deploy::Target`] for one namespace.
//!
//! The record of what is live lies in the namespace itself: a ConfigMap for the environment, one for each release, and
//! annotations of the Services. A Lease is the lock; it keeps people from waiting for nothing, and the generation is
//! what fences. Nothing runs in the cluster for Plimsoll's sake.

mod adopt;
mod autoscalers;
mod changes;
mod claim;
mod cluster;
mod compare;
mod copying;
mod cut_over;
mod drain;
mod dropped;
mod endpoints;
mod events;
mod gateway;
mod hand_over;
mod identity;
mod job;
mod lease;
mod logs;
mod metrics;
mod object;
mod observe;
mod pods;
mod prober;
mod record;
mod render;
mod revive;
mod route;
mod share;
mod slot;
mod target;
mod usage;
mod watching;
mod workload;
mod world;

pub mod manifest;
pub mod names;

pub use adopt::{AdoptError, Adopted, Adoption};
pub use cluster::Access;
pub use object::{Object, ObjectError};
pub use render::{PartitionError, RenderError, Source, by_service, render};
pub use slot::{Place, SlotError, Slotted, WorkloadName, in_slot};
pub use target::{KubernetesTarget, Render};

/// The wall clock: what is recorded is read on other machines.
fn now() -> plimsoll_core::Timestamp {
    std::time::SystemTime::now().into()
}
