//! Faults put into a run on purpose: a process that dies at a record, effects that happen twice. Tests hand them in with
//! [`crate::Resources`]; a run that was given none has none.

use std::sync::Arc;

/// Where a run's process stops as if it had been killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// When this record, counted from 0, is about to be written: all that led to it has happened.
    Before(u64),
    /// When this record is on disk: nothing that follows it has happened.
    After(u64),
}

/// What goes wrong in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Where its process stops.
    pub crash: Option<Crash>,
    /// Whether what must bear being repeated is done twice: every undo, and every `act` the world can be asked about.
    pub twice: bool,
}

impl Faults {
    pub(crate) fn among(resources: &crate::Resources) -> Self {
        resources.get::<Self>().map_or_else(Self::default, Arc::unwrap_or_clone)
    }
}
