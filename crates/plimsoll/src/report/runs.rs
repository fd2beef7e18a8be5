//! Runs as they are listed: read out of their journals, rendered as a table or as JSON (`docs/runs.schema.json`). Pure.

use super::text::{Tone, duration, one_line, paint, table};
use plimsoll_core::{RunId, RunOutcome};
use plimsoll_engine::{Entry, JournalError, Landing, Record};
use serde::Serialize;
use std::collections::HashMap;

/// What `runs --json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Runs {
    pub(crate) runs: Vec<Listed>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Listed {
    pub(crate) id: RunId,
    pub(crate) pipeline: String,
    /// How it ended, or `unreadable` where its journal cannot be believed.
    pub(crate) outcome: &'static str,
    pub(crate) version: String,
    pub(crate) started_at: String,
    pub(crate) actor: String,
    pub(crate) steps: Vec<ListedStep>,
    /// How long processes worked on it; one that was killed did not come to say so.
    #[serde(skip)]
    pub(crate) worked_millis: u64,
    /// Why its journal cannot be believed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// One step of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ListedStep {
    pub(crate) name: String,
    pub(crate) outcome: &'static str,
    pub(crate) cached: bool,
    pub(crate) millis: u64,
}

impl Listed {
    /// A run as its journal has it; `None` where there is not even a first record.
    pub(crate) fn of(id: &RunId, entries: &[Entry], outcome: RunOutcome) -> Option<Self> {
        let first = entries.first()?;
        let Record::Started { pipeline, inputs, steps, actor, .. } = &first.record else { return None };
        let ends = step_ends(entries);
        let listed = |name: &str| {
            let (outcome, cached, millis) = ends.get(name).copied().unwrap_or(("not-run", false, 0));
            ListedStep { name: name.to_owned(), outcome, cached, millis }
        };
        let built = inputs.pointer("/source/version").and_then(|v| v.as_str()).unwrap_or_default();
        let outputs = entries.iter().filter_map(|entry| match &entry.record {
            Record::Outcome { step, output, .. } => Some((step.as_str(), output.as_str())),
            _ => None,
        });
        let worked = entries.iter().map(|entry| match entry.record {
            Record::Ended { millis, .. } => millis,
            _ => 0,
        });
        let version = picked_version(outputs).unwrap_or_else(|| built.to_owned());
        Some(Self {
            id: id.clone(),
            pipeline: pipeline.clone(),
            outcome: outcome.word(),
            version,
            started_at: first.at.to_string(),
            actor: actor.clone(),
            steps: steps.iter().map(|print| listed(&print.name)).collect(),
            worked_millis: worked.sum(),
            error: None,
        })
    }

    /// A run whose journal cannot be believed.
    pub(crate) fn unreadable(id: &RunId, error: &JournalError) -> Self {
        Self {
            id: id.clone(),
            pipeline: String::new(),
            outcome: "unreadable",
            version: String::new(),
            started_at: String::new(),
            actor: String::new(),
            steps: Vec::new(),
            worked_millis: 0,
            error: Some(error.to_string()),
        }
    }
}

/// The version that a rollback picked, out of the outputs of a run's steps: what is in the checkout says nothing about it.
pub(crate) fn picked_version<'a>(outputs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<String> {
    let (_, output) = outputs.into_iter().find(|(step, _)| step.starts_with("pick["))?;
    let record: serde_json::Value = serde_json::from_str(output).ok()?;
    Some(record.get("version")?.as_str()?.to_owned())
}

/// How each step stands after the last record about it: word, whether its output was taken from elsewhere, milliseconds.
fn step_ends(entries: &[Entry]) -> HashMap<&str, (&'static str, bool, u64)> {
    let mut ends = HashMap::new();
    for entry in entries {
        match &entry.record {
            Record::Outcome { step, landing, millis, .. } => {
                let (word, cached) = match landing {
                    Landing::Done => ("done", false),
                    Landing::Cached => ("cached", true),
                    Landing::FoundDone => ("found-done", false),
                };
                ends.insert(step.as_str(), (word, cached, *millis));
            }
            Record::Failed { step, millis, .. } => drop(ends.insert(step, ("failed", false, *millis))),
            Record::Skipped { step, .. } => drop(ends.insert(step, ("skipped", false, 0))),
            Record::Parked { step, .. } => drop(ends.insert(step, ("parked", false, 0))),
            Record::Intent { step } => drop(ends.insert(step, ("begun", false, 0))),
            Record::Undone { step } => drop(ends.insert(step, ("undone", false, 0))),
            Record::UndoFailed { step, .. } => drop(ends.insert(step, ("undo-failed", false, 0))),
            Record::Started { .. }
            | Record::Resumed { .. }
            | Record::Answered { .. }
            | Record::UndoIntent { .. }
            | Record::Ended { .. } => {}
        }
    }
    ends
}

/// The runs as a table.
pub(crate) fn list(runs: &Runs, color: bool) -> String {
    if runs.runs.is_empty() {
        return "no runs yet\n".to_owned();
    }
    let row = |run: &Listed| {
        if let Some(error) = &run.error {
            return vec![run.id.to_string(), run.outcome.to_owned(), one_line(error)];
        }
        vec![
            run.id.to_string(),
            run.outcome.to_owned(),
            run.pipeline.clone(),
            one_line(&run.version),
            one_line(&run.actor),
            duration(run.worked_millis),
        ]
    };
    let text = table(&runs.runs.iter().map(row).collect::<Vec<_>>());
    let tone = |run: &Listed| match run.outcome {
        "succeeded" => Tone::Good,
        "failed" | "unreadable" => Tone::Bad,
        _ => Tone::Look,
    };
    let lines: Vec<String> = text.lines().zip(&runs.runs).map(|(line, run)| paint(color, tone(run), line)).collect();
    lines.join("\n") + "\n"
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use plimsoll_core::{ErrorClass, Fingerprint, Timestamp};
    use plimsoll_engine::StepPrint;

    const RUN: &str = "20260101-000000-0000";

    fn entries(rest: Vec<Record>) -> Vec<Entry> {
        let print = |name: &str| StepPrint { name: name.into(), print: Fingerprint::of(name.as_bytes()) };
        let started = Record::Started {
            format: 1,
            run: RUN.parse().unwrap(),
            pipeline: "ci".into(),
            inputs: serde_json::json!({ "source": { "version": "1.2.3" } }),
            plan: Fingerprint::of(b""),
            steps: vec![print("fmt"), print("clippy"), print("docs")],
            reads: vec![None, None, None],
            executable: "none".into(),
            engine: "0".into(),
            actor: "ada@example.org".into(),
            previous: None,
        };
        let at = Timestamp::from_millis(1_767_225_600_000);
        std::iter::once(started).chain(rest).map(|record| Entry { at, record }).collect()
    }

    fn outcome(step: &str, landing: Landing) -> Record {
        let inputs = Fingerprint::of(b"");
        Record::Outcome { step: step.into(), landing, inputs, output: "null".into(), millis: 1_500 }
    }

    fn failed(step: &str) -> Record {
        Record::Failed { step: step.into(), class: ErrorClass::CheckFailed, error: "bad".into(), millis: 20 }
    }

    /// A list with every kind of run in it.
    pub(crate) fn sample() -> Runs {
        let id: RunId = RUN.parse().unwrap();
        let records = vec![outcome("fmt", Landing::Cached), failed("clippy")];
        let run = Listed::of(&id, &entries(records), RunOutcome::Failed).unwrap();
        let error = JournalError::Tampered { path: "/j".into(), offset: 7, seq: 1, reason: "hash".into() };
        Runs { runs: vec![run, Listed::unreadable(&id, &error)] }
    }

    #[test]
    fn a_rollback_is_of_the_version_it_picked() {
        let picked = |outputs: &[(&str, &str)]| picked_version(outputs.iter().copied());
        assert_eq!(picked(&[("pick[production]", r#"{"version":"1.0.0"}"#)]).as_deref(), Some("1.0.0"));
        assert_eq!(picked(&[("push", r#"{"version":"2.0.0"}"#), ("pick[production]", "garbage")]), None);
    }

    #[test]
    fn a_step_stands_as_its_last_record_says() {
        let id = RUN.parse().unwrap();
        let run = |records| Listed::of(&id, &entries(records), RunOutcome::Running).unwrap();
        let words = |run: &Listed| run.steps.iter().map(|s| s.outcome).collect::<Vec<_>>().join(" ");
        assert_eq!(words(&run(vec![])), "not-run not-run not-run");
        assert_eq!(words(&run(vec![failed("fmt"), outcome("fmt", Landing::Done)])), "done not-run not-run");
        assert_eq!(words(&run(vec![Record::Intent { step: "docs".into() }])), "not-run not-run begun");
        assert_eq!((run(vec![]).version.as_str(), run(vec![]).outcome), ("1.2.3", "running"));
        assert!(Listed::of(&id, &[], RunOutcome::Interrupted).is_none());
    }

    #[test]
    fn a_tampered_journal_is_shown_and_hides_no_other() {
        let text = list(&sample(), false);
        assert!(text.contains("failed      ci"), "{text}");
        assert!(text.contains("unreadable  the journal /j was tampered with at byte 7"), "{text}");
    }
}
