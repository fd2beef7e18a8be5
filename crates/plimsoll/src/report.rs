//! All that the command says: renderings as pure functions from values to text, and the one place that prints them.

pub(crate) mod console;
pub(crate) mod doctor;
pub(crate) mod github;
mod lines;
mod live;
mod mode;
pub(crate) mod plan;
mod reporter;
pub(crate) mod runs;
#[cfg(test)]
pub(crate) mod schema;
mod summary;
pub(crate) mod text;

pub(crate) use console::Console;
pub(crate) use doctor::Finding;
pub(crate) use mode::{Mode, Style};
pub(crate) use reporter::RunReporter;
pub(crate) use summary::{ended, failure};
