//! Plimsoll: lint, test, image build, push, staging, smoke tests, approval, blue-green promotion and notices as *typed Rust
//! steps* in a graph, run by `cargo xtask` on a laptop and in CI alike.
//!
//! An adopter writes pipelines (functions that add steps to a [`Graph`](prelude::Graph)) and hands them to [`main`]:
//!
//! ```no_run
//! use plimsoll::prelude::*;
//!
//! fn ci(g: &mut Graph<'_>, _: &Inputs) -> Result<(), StepError> {
//!     g.pure("", Fmt, ());
//!     g.pure("", Clippy { packages: Vec::new() }, ());
//!     Ok(())
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     plimsoll::main(plimsoll::Project::new(env!("CARGO_PKG_NAME")).pipeline("ci", ci))
//! }
//! ```
//!
//! Without the feature `delivery` an executable has the checks only, and compiles in seconds. A verb that needs more replaces it by
//! `cargo run --package PKG --features delivery --bin PKG-delivery`, the same program with everything in it.
//!
//! This crate is the command line: what a step does is in `plimsoll-steps`, how steps are run in `plimsoll-engine`.

#[cfg(all(doctest, feature = "delivery"))]
#[doc = include_str!("../../../docs/book/adopting.md")]
mod adopting {}

mod cli;
mod cli_error;
#[cfg(feature = "delivery")]
mod delivery;
mod entry;
mod form;
mod interrupt;
mod masking;
pub mod prelude;
mod project;
mod report;
mod running;
mod seam;
mod select;
mod session;
mod settings;
mod verbs;

pub use entry::main;
pub use project::{Build, Project};
