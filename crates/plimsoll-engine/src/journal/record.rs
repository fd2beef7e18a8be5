//! What a journal holds: one record per decision and per effect on the world.

use crate::graph::StepPrint;
use plimsoll_core::{ErrorClass, Fingerprint, RunId, RunOutcome};
use serde::{Deserialize, Serialize};

/// One record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Record {
    /// The run begins. Always the first.
    Started {
        /// The line format.
        format: u32,
        /// The run's id, again.
        run: RunId,
        /// The pipeline.
        pipeline: String,
        /// All that the pipeline's graph is built from: what `resume` builds it from again.
        inputs: serde_json::Value,
        /// The plan hash.
        plan: Fingerprint,
        /// Each step's share of it.
        steps: Vec<StepPrint>,
        /// For each pure step, the hash of what it read when the run began.
        reads: Vec<Option<Fingerprint>>,
        /// The digest of the executable that runs it.
        executable: String,
        /// Plimsoll's version.
        engine: String,
        /// Who started it.
        actor: String,
        /// The head of the previous run's journal.
        previous: Option<Fingerprint>,
    },
    /// The run goes on in a new process.
    Resumed {
        /// Who resumed it.
        actor: String,
    },
    /// An effect is about to change the world.
    Intent {
        /// The step.
        step: String,
    },
    /// A step has its output.
    Outcome {
        /// The step.
        step: String,
        /// How it came to it.
        landing: Landing,
        /// The hash of the recorded inputs it was made from.
        inputs: Fingerprint,
        /// The recorded output.
        output: String,
        /// How long it took, in milliseconds.
        millis: u64,
    },
    /// A step failed; a resume tries it again.
    Failed {
        /// The step.
        step: String,
        /// Whose fault it was.
        class: ErrorClass,
        /// The error with its causes.
        error: String,
        /// How long it took, in milliseconds.
        millis: u64,
    },
    /// A step was not run.
    Skipped {
        /// The step.
        step: String,
        /// Why.
        reason: String,
    },
    /// A gate waits for a person.
    Parked {
        /// The step.
        step: String,
        /// What it waits for.
        waiting: String,
    },
    /// Somebody answered a gate.
    Answered {
        /// The gate.
        step: String,
        /// The answer, as the gate's step writes and reads it.
        answer: serde_json::Value,
    },
    /// An effect is about to be taken back.
    UndoIntent {
        /// The step.
        step: String,
    },
    /// An effect was taken back.
    Undone {
        /// The step.
        step: String,
    },
    /// An effect could not be taken back: a person must look.
    UndoFailed {
        /// The step.
        step: String,
        /// Why.
        error: String,
    },
    /// The process's work on the run is over. A parked or failed run may be resumed after it.
    Ended {
        /// How.
        outcome: RunOutcome,
        /// How long this process worked on it, in milliseconds.
        millis: u64,
    },
}

/// How a step came to its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Landing {
    /// It did its work.
    Done,
    /// From the cache.
    Cached,
    /// The world showed it done.
    FoundDone,
}
