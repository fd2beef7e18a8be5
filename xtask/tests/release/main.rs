//! Whole releases of a small shop, from the command line to what its users get: with real processes, a real registry and a
//! real repository, and with the full executable as a person has it.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "the executable is started as a person does, and what was measured is printed"
)]

mod canary;
mod consumers;
mod disk;
mod docs;
#[path = "../support/executable.rs"]
mod executable;
mod faults;
mod fixture;
mod gate;
mod input;
mod journals;
mod migration;
mod place;
mod plain;
mod platforms;
mod shared_cache;
mod supply_chain;
mod sweep;
mod terminal;
mod world;
