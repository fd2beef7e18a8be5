//! What an earlier process of the same run left in the journal: the state that a resume begins with.

use crate::journal::{Entry, Landing, Record};
use plimsoll_core::{ErrorClass, Fingerprint, RunOutcome, Timestamp};
use std::collections::{BTreeSet, HashMap};

/// A recorded outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct PriorOutcome {
    /// How the step came to it.
    pub landing: Landing,
    /// The hash of the inputs it was made from.
    pub inputs: Fingerprint,
    /// The recorded output.
    pub output: String,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// The state of a run according to its journal.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prior {
    /// Steps that have their output, undone ones left out.
    pub outcomes: HashMap<String, PriorOutcome>,
    /// Effects that were begun and have neither outcome nor failure recorded since.
    pub intents: BTreeSet<String>,
    /// Effects that were begun at any time and not undone: what they did is this run's doing.
    pub begun: BTreeSet<String>,
    /// Effects whose undoing was begun and not finished.
    pub undoing: BTreeSet<String>,
    /// Whether the last process had begun to take the run back and did not come to its end.
    pub unwinding: bool,
    /// Effects that could not be undone, with the error.
    pub stuck: HashMap<String, String>,
    /// Steps that failed last time they were tried, with the error.
    pub failures: HashMap<String, String>,
    /// The class of each of these errors.
    pub classes: HashMap<String, ErrorClass>,
    /// Gates that wait, with what for.
    pub waiting: HashMap<String, String>,
    /// Answers to gates, in order.
    pub answers: Vec<(String, Timestamp, serde_json::Value)>,
    /// How the last process ended, if it said so.
    pub ended: Option<RunOutcome>,
}

impl Prior {
    /// Folds a journal into its state. Two reads of one journal give the same state.
    pub fn of(entries: &[Entry]) -> Self {
        let mut this = Self::default();
        for entry in entries {
            this.take(entry);
        }
        this
    }

    fn take(&mut self, entry: &Entry) {
        self.ended = None;
        match entry.record.clone() {
            Record::Started { .. } | Record::Resumed { .. } | Record::Skipped { .. } => {}
            Record::Intent { step } => {
                self.begun.insert(step.clone());
                self.intents.insert(step);
            }
            Record::Outcome { step, landing, inputs, output, millis } => {
                self.intents.remove(&step);
                self.failures.remove(&step);
                self.waiting.remove(&step);
                self.outcomes.insert(step, PriorOutcome { landing, inputs, output, millis });
            }
            // The intent stays: a failed act may have changed the world, so an at-most-once effect is not repeated.
            Record::Failed { step, error, class, .. } => {
                self.classes.insert(step.clone(), class);
                self.failures.insert(step, error);
            }
            Record::Parked { step, waiting } => {
                self.waiting.insert(step, waiting);
            }
            Record::Answered { step, answer } => self.answers.push((step, entry.at, answer)),
            Record::UndoIntent { step } => {
                self.unwinding = true;
                self.undoing.insert(step);
            }
            Record::Undone { step } => {
                self.undoing.remove(&step);
                self.stuck.remove(&step);
                self.outcomes.remove(&step);
                self.intents.remove(&step);
                self.begun.remove(&step);
            }
            Record::UndoFailed { step, error } => {
                self.undoing.remove(&step);
                self.stuck.insert(step, error);
            }
            Record::Ended { outcome, .. } => {
                self.unwinding = false;
                self.ended = Some(outcome);
            }
        }
    }

    /// The last answer given to `gate`.
    pub fn answer(&self, gate: &str) -> Option<&serde_json::Value> {
        self.answers.iter().rev().find(|(step, ..)| step == gate).map(|(.., answer)| answer)
    }
}
