//! Every effect of a release and of a rollback: killed at each record of its journal and resumed, done twice, and refused
//! where it must be.
//!
//! Images go to a real registry on loopback, releases to targets in memory.

#[path = "effects/measured.rs"]
mod measured;
#[path = "effects/pipelines.rs"]
mod pipelines;
#[path = "effects/placed.rs"]
mod placed;
#[path = "effects/policy.rs"]
mod policy;
#[path = "effects/refusals.rs"]
mod refusals;
#[path = "effects/registry.rs"]
mod registry;
#[path = "effects/sweeps.rs"]
mod sweeps;
#[path = "effects/world.rs"]
mod world;
