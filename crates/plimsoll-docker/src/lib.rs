//! The docker target: replicas as containers of the Docker Engine of this machine.
//!
//! What makes a cut-over safe (state file, lock, generation, proxy, drain, health, hand-over) is the supervisor's of
//! `plimsoll-local` and the same for processes. This crate is its [`Runtime`](plimsoll_local::supervisor::Runtime) for
//! containers: it pulls an image by digest, starts a container from it, finds it again, says how it ended and ends it.
//! Only the supervisor talks to the engine.
//!
//! The proxy reaches a container at its address in the environment's bridge network, without a port of this machine between
//! the two; containers reach the proxy at the network's gateway, which is this machine. So the engine's networks must be
//! this machine's own: a remote engine, a rootless one or one in a virtual machine is refused in a sentence.
//!
//! Beside the target, and without the supervisor, an engine builds images of Dockerfiles: [`build`] and [`export`].

mod build;
mod container;
mod ending;
mod engine;
mod error;
mod image;
mod job;
mod labels;
mod network;
mod replica;
mod runtime;
mod socket;

pub use build::{Build, build, export, load};
pub use engine::version;
pub use error::EngineError;
pub use runtime::Containers;
pub use socket::{DEFAULT_SOCKET, socket};
