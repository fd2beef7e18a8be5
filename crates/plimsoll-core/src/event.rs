//! What happens during a run, as values: rendered elsewhere, apart from the work.

use crate::{ErrorClass, RunId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One thing that happened. Steps are named as in the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A run begins, or goes on.
    RunStarted {
        /// Its id.
        run: RunId,
        /// Its pipeline.
        pipeline: String,
        /// How many steps it has.
        steps: usize,
        /// Whether it goes on from its journal.
        resumed: bool,
    },
    /// A step begins to work; cached steps do not.
    StepStarted {
        /// Which.
        step: Arc<str>,
        /// How long it took last time, in milliseconds, if it ran before.
        expected_millis: Option<u64>,
    },
    /// A step says what it waits for.
    StepWaiting {
        /// Which.
        step: Arc<str>,
        /// For what, in words.
        what: String,
    },
    /// How far a transfer is.
    StepProgress {
        /// Which.
        step: Arc<str>,
        /// What is moved, in words.
        what: String,
        /// Bytes that are there.
        bytes: u64,
        /// Bytes in all.
        of: u64,
    },
    /// A line of a step's log, secrets already redacted.
    StepLine {
        /// Which.
        step: Arc<str>,
        /// The line, without its end.
        line: String,
    },
    /// A step says something everybody should see, such as what it left out and why.
    StepNoted {
        /// Which.
        step: Arc<str>,
        /// What.
        note: String,
    },
    /// A step tries again.
    StepRetried {
        /// Which.
        step: Arc<str>,
        /// The attempt that failed, from 1.
        attempt: u32,
        /// What it failed with.
        error: String,
        /// The pause before the next attempt, in milliseconds.
        pause_millis: u64,
    },
    /// A step ended.
    StepEnded {
        /// Which.
        step: Arc<str>,
        /// How.
        ending: Ending,
        /// How long it took, in milliseconds.
        millis: u64,
    },
    /// The run ended or parked.
    RunEnded {
        /// Its id.
        run: RunId,
        /// How.
        outcome: RunOutcome,
        /// How long this execution took, in milliseconds.
        millis: u64,
    },
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Ending {
    /// It did its work.
    Done,
    /// Its output was taken from the cache.
    Cached,
    /// Its output was taken from the journal of the run that is resumed.
    Replayed,
    /// An effect whose work was found done in the world.
    FoundDone,
    /// It was not run, for a reason that is no error.
    Skipped {
        /// The reason.
        reason: String,
    },
    /// A gate that waits for a person.
    Parked {
        /// What it waits for.
        waiting: String,
    },
    /// It failed.
    Failed {
        /// Whose fault it was.
        class: ErrorClass,
        /// The error and its causes, outermost first.
        error: String,
        /// More lines: the end of a log, a hint.
        detail: Vec<String>,
    },
    /// It was stopped because something else failed or somebody asked for it.
    Cancelled,
}

impl Ending {
    /// The one word that stands for it in tables and JSON.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Cached => "cached",
            Self::Replayed => "replayed",
            Self::FoundDone => "found-done",
            Self::Skipped { .. } => "skipped",
            Self::Parked { .. } => "parked",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How a run ended, or where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunOutcome {
    /// Every step is done.
    Succeeded,
    /// A step failed.
    Failed,
    /// It waits for a person, without a process.
    Parked,
    /// It ended without saying how: its process was killed, or the machine went down.
    Interrupted,
    /// A process works on it now.
    Running,
}

impl RunOutcome {
    /// The word used in `runs --json`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Parked => "parked",
            Self::Interrupted => "interrupted",
            Self::Running => "running",
        }
    }
}
