//! What a notice says, made of the inputs and the summary of a run. Pure; every text in it is one line of bounded length
//! without control characters, whatever a branch, a version or an error holds.

use crate::inputs::Inputs;
use plimsoll_core::{RunId, RunOutcome, config::NoticeEvent};
use plimsoll_engine::{StepSummary, Summary};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeSet, fmt::Write as _};

/// The name of the step that tells of the beginning.
pub(super) const STARTED: &str = "started";
/// The words by which a failure says that the former release serves again: those of [`plimsoll_deploy::DriveError`].
const PUT_BACK: &str = "was live and the former release was put back";
/// Longest name, version or branch shown, in characters.
const NAME_LENGTH: usize = 120;
/// Longest cause shown: beyond that, a log is the place to read.
const CAUSE_LENGTH: usize = 1000;
/// Gates and cut-overs told of: more than pipelines have environments, and few enough for Slack's ten fields.
const MOST: usize = 4;

/// What is known of a run before it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct About {
    project: String,
    pipeline: String,
    /// For a rollback, the version asked for: the checkout's version says nothing about what is put back.
    version: Option<String>,
    revision: Option<String>,
    branch: Option<String>,
    actor: String,
    environment: Option<String>,
    environments: BTreeSet<String>,
}

impl About {
    pub(super) fn of(inputs: &Inputs) -> Self {
        let (options, source) = (&inputs.options, &inputs.source);
        let rollback = inputs.pipeline == "rollback";
        let version = if rollback { options.to.as_deref() } else { Some(&*source.version) };
        Self {
            project: name(inputs.config().project.name.as_str()),
            pipeline: name(&inputs.pipeline),
            version: version.map(name),
            revision: (!rollback).then(|| name(&source.revision())),
            branch: source.branch.as_deref().filter(|_| !rollback).map(name),
            actor: name(&inputs.actor),
            environment: options.environment.as_ref().map(ToString::to_string),
            environments: inputs.config().environments.keys().map(ToString::to_string).collect(),
        }
    }

    fn is_rollback(&self) -> bool {
        self.pipeline == "rollback"
    }

    /// The environment a step's label names: `promote[production]`.
    fn environment_of(&self, step: &str) -> Option<String> {
        let label = step.split_once('[')?.1.strip_suffix(']')?;
        self.environments.contains(label).then(|| label.to_owned())
    }
}

/// One notice. Its JSON form is what a webhook gets, and is stable: `format` is raised when a field changes or goes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Notice {
    /// 1.
    pub format: u8,
    /// What is told, in the configuration's words: `started`, `succeeded`, `failed`, `approval-wanted`, `rolled-back`.
    pub event: NoticeEvent,
    /// The project.
    pub project: String,
    /// The pipeline.
    pub pipeline: String,
    /// The run's id.
    pub run: String,
    /// The version that is released or was put back; null for a rollback that has not picked one.
    pub version: Option<String>,
    /// Its commit, with `-dirty` behind it when the tree was; null like the version.
    pub revision: Option<String>,
    /// The branch, if one was checked out.
    pub branch: Option<String>,
    /// The environment it is about, if it is about one.
    pub environment: Option<String>,
    /// Who started the run.
    pub actor: String,
    /// How the run stands: `running`, `succeeded`, `failed`, `parked`.
    pub outcome: &'static str,
    /// The first failure, if the run failed.
    pub failure: Option<Failure>,
    /// The gates that wait, at most four.
    pub waiting: Vec<Waiting>,
    /// The commands to go on with, in their order.
    pub commands: Vec<String>,
    /// The cut-overs of the run, at most four.
    pub cut_overs: Vec<CutOverFigures>,
    /// What a person has to say, in a notice that a person sends to try the channels; not there otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A step that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Its name in the plan.
    pub step: String,
    /// Its error with its causes, outermost first.
    pub cause: String,
    /// How many further steps failed.
    pub others: usize,
}

/// A gate that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// Its name in the plan.
    pub step: String,
    /// What it waits for.
    pub what: String,
}

/// What a client would have seen of a cut-over.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CutOverFigures {
    /// Where, if the step's label says so.
    pub environment: Option<String>,
    /// Probe requests sent.
    pub sent: u64,
    /// Of those, without the declared answer.
    pub failed: u64,
    /// Their 99th percentile, in milliseconds.
    pub p99_ms: u64,
    /// From the decision until all new requests went to the new slots, in milliseconds.
    pub switch_ms: Option<f64>,
}

/// A deployment's recorded outcome, as far as a notice tells of it.
#[derive(Deserialize)]
struct Recorded {
    changed: bool,
    live: Served,
    switch_micros: Option<u64>,
    probes: Probes,
}

#[derive(Deserialize)]
struct Served {
    version: String,
    revision: String,
}

#[derive(Deserialize)]
struct Probes {
    sent: u64,
    failed: u64,
    p99_ms: u64,
}

impl Notice {
    /// That a run begins.
    pub(super) fn started(about: &About, run: &RunId) -> Self {
        Self {
            format: 1,
            event: NoticeEvent::Started,
            project: about.project.clone(),
            pipeline: about.pipeline.clone(),
            run: run.to_string(),
            version: about.version.clone(),
            revision: about.revision.clone(),
            branch: about.branch.clone(),
            environment: about.environment.clone(),
            actor: about.actor.clone(),
            outcome: RunOutcome::Running.word(),
            failure: None,
            waiting: Vec::new(),
            commands: Vec::new(),
            cut_overs: Vec::new(),
            message: None,
        }
    }

    /// What a person says to try the channels.
    pub(super) fn said(about: &About, run: &RunId, message: &str) -> Self {
        Self { message: Some(one_line(message, 300)), ..Self::started(about, run) }
    }

    /// How the run went; `None` when nothing is to be told. `redact` takes out what must not be shown.
    pub(super) fn of(about: &About, run: &RunId, summary: &Summary, redact: &dyn Fn(&str) -> String) -> Option<Self> {
        let cut_overs = cut_overs(about, summary);
        let event = event(about, summary)?;
        let failure = failure(summary, redact);
        let waiting: Vec<Waiting> = summary.steps.iter().filter_map(|s| waiting(s, redact)).take(MOST).collect();
        let told = failure.as_ref().map(|f| &f.step).or_else(|| waiting.first().map(|w| &w.step));
        let environment = told
            .and_then(|step| about.environment_of(step))
            .or_else(|| about.environment.clone())
            .or_else(|| cut_overs.last().filter(|_| told.is_none())?.environment.clone());
        let served = about.is_rollback().then(|| put_back(summary)).flatten();
        let (version, revision) = match served {
            Some(served) => (Some(name(&served.version)), Some(name(&served.revision))),
            None => (about.version.clone(), about.revision.clone()),
        };
        let commands = commands(event, run);
        let outcome = summary.outcome.word();
        let begun = Self::started(about, run);
        Some(Self { event, version, revision, environment, outcome, failure, waiting, commands, cut_overs, ..begun })
    }

    /// Whether somebody who wants to hear of `events` wants this: a release that failed and was put back is both.
    pub(super) fn concerns(&self, events: &[NoticeEvent]) -> bool {
        let also = match self.outcome {
            "failed" => Some(NoticeEvent::Failed),
            "succeeded" => Some(NoticeEvent::Succeeded),
            _ => None,
        };
        events.iter().any(|e| *e == self.event || Some(*e) == also)
    }

    /// What happened, in a few words.
    pub fn headline(&self) -> String {
        if let Some(message) = &self.message {
            return format!("{}: {message}", self.project);
        }
        let mut text = format!("{}: {}", self.project, self.pipeline);
        let join = if self.pipeline == "rollback" { "to" } else { "of" };
        if let Some(version) = &self.version {
            let _ = write!(text, " {join} {version}");
        }
        match (self.event, &self.failure) {
            (NoticeEvent::Started, _) => text.push_str(" started"),
            (NoticeEvent::ApprovalWanted, _) => text.push_str(" waits for a person"),
            (NoticeEvent::RolledBack, Some(_)) => text.push_str(" failed, the former release was put back"),
            (NoticeEvent::Failed, Some(failure)) => {
                let _ = write!(text, " failed at {}", failure.step);
            }
            (NoticeEvent::Failed, None) => text.push_str(" failed"),
            (NoticeEvent::Succeeded | NoticeEvent::RolledBack, _) => text.push_str(" succeeded"),
        }
        text
    }

    /// Labels and values, at most ten: what a table of this notice holds.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let some = |label, value: &Option<String>| value.clone().map(|v| (label, v));
        let mut facts: Vec<(&'static str, String)> = [
            some("Version", &self.version),
            some("Environment", &self.environment),
            some("Commit", &self.revision.as_deref().map(short)),
            some("Branch", &self.branch),
            Some(("Started by", self.actor.clone())),
        ]
        .into_iter()
        .flatten()
        .collect();
        facts.extend(self.cut_overs.iter().take(MOST).map(|c| ("Cut-over", c.text())));
        facts
    }

    /// The notice in one line, for a terminal.
    pub fn plain(&self) -> String {
        let mut text = self.headline();
        let place = self.environment.as_ref().map(|e| format!("{e}, ")).unwrap_or_default();
        let _ = write!(text, " ({place}started by {}, run {})", self.actor, self.run);
        if let Some(failure) = &self.failure {
            let _ = write!(text, ": {}", failure.text());
        }
        for waiting in &self.waiting {
            let _ = write!(text, "; {} waits for {}", waiting.step, waiting.what);
        }
        for figures in &self.cut_overs {
            let _ = write!(text, "; {}", figures.text());
        }
        if !self.commands.is_empty() {
            let _ = write!(text, "; go on with {}", self.commands.join(", then "));
        }
        text
    }
}

impl Failure {
    /// The cause, and how much else failed.
    pub(super) fn text(&self) -> String {
        match self.others {
            0 => self.cause.clone(),
            1 => format!("{} (and one more step failed)", self.cause),
            more => format!("{} (and {more} more steps failed)", self.cause),
        }
    }
}

impl CutOverFigures {
    /// The figures in words.
    pub(super) fn text(&self) -> String {
        let mut text = self.environment.as_ref().map(|e| format!("{e}: ")).unwrap_or_default();
        let _ = write!(text, "{} probes, {} failed, p99 {} ms", self.sent, self.failed, self.p99_ms);
        if let Some(switch) = self.switch_ms {
            let _ = write!(text, ", switched in {switch:.1} ms");
        }
        text
    }
}

/// What is to be told, if anything.
fn event(about: &About, summary: &Summary) -> Option<NoticeEvent> {
    match summary.outcome {
        RunOutcome::Succeeded if !changed(summary) => None,
        RunOutcome::Succeeded if about.is_rollback() => Some(NoticeEvent::RolledBack),
        RunOutcome::Succeeded => Some(NoticeEvent::Succeeded),
        RunOutcome::Failed if errors(summary).any(|e| e.contains(PUT_BACK)) => Some(NoticeEvent::RolledBack),
        RunOutcome::Failed => Some(NoticeEvent::Failed),
        RunOutcome::Parked => Some(NoticeEvent::ApprovalWanted),
        RunOutcome::Interrupted | RunOutcome::Running => None,
    }
}

/// Whether anything but the notice of the beginning changed the world.
fn changed(summary: &Summary) -> bool {
    let told = summary.steps.iter().any(|s| kind(&s.name) == STARTED && s.output.is_some());
    // With that step the summary's own word is yes in any case, and the deployments' outcomes decide.
    if told { outcomes(summary).any(|(_, outcome)| outcome.changed) } else { summary.changed }
}

fn errors(summary: &Summary) -> impl Iterator<Item = &str> {
    summary.steps.iter().filter_map(|s| s.error.as_deref())
}

fn failure(summary: &Summary, redact: &dyn Fn(&str) -> String) -> Option<Failure> {
    let first = summary.steps.iter().find(|s| s.error.is_some())?;
    let cause = one_line(&redact(first.error.as_deref()?), CAUSE_LENGTH);
    Some(Failure { step: name(&first.name), cause, others: errors(summary).count() - 1 })
}

fn waiting(step: &StepSummary, redact: &dyn Fn(&str) -> String) -> Option<Waiting> {
    let what = one_line(&redact(step.waiting.as_deref()?), CAUSE_LENGTH);
    Some(Waiting { step: name(&step.name), what })
}

fn commands(event: NoticeEvent, run: &RunId) -> Vec<String> {
    let resume = format!("cargo xtask resume {run}");
    match event {
        NoticeEvent::ApprovalWanted => vec![format!("cargo xtask approve {run}"), resume],
        NoticeEvent::Failed => vec![resume],
        NoticeEvent::Started | NoticeEvent::Succeeded | NoticeEvent::RolledBack => Vec::new(),
    }
}

fn cut_overs(about: &About, summary: &Summary) -> Vec<CutOverFigures> {
    let figures = |(step, outcome): (&str, Recorded)| CutOverFigures {
        environment: about.environment_of(step).or_else(|| about.environment.clone()),
        sent: outcome.probes.sent,
        failed: outcome.probes.failed,
        p99_ms: outcome.probes.p99_ms,
        switch_ms: outcome.switch_micros.map(millis),
    };
    outcomes(summary).filter(|(_, outcome)| outcome.changed).map(figures).take(MOST).collect()
}

/// What a rollback put back, or picked.
fn put_back(summary: &Summary) -> Option<Served> {
    let done = outcomes(summary).last().map(|(_, outcome)| outcome.live);
    done.or_else(|| {
        let pick = summary.steps.iter().find(|s| kind(&s.name) == "pick")?;
        serde_json::from_str(pick.output.as_deref()?).ok()
    })
}

/// The recorded outcomes of the steps that deploy, in the plan's order. What cannot be read is left out: a notice is no audit.
fn outcomes(summary: &Summary) -> impl Iterator<Item = (&str, Recorded)> {
    let deploying = |s: &&StepSummary| matches!(kind(&s.name), "deploy" | "promote" | "rollback");
    let steps = summary.steps.iter().filter(deploying);
    steps.filter_map(|s| Some((&*s.name, recorded(s.output.as_deref()?)?)))
}

/// An outcome by itself, or within a proof: the environment's name and the fields, each in its own recorded form.
fn recorded(output: &str) -> Option<Recorded> {
    serde_json::from_str(output).ok().or_else(|| {
        let (_, fields): (Option<String>, Vec<String>) = serde_json::from_str(output).ok()?;
        fields.iter().rev().find_map(|field| serde_json::from_str(field).ok())
    })
}

#[expect(clippy::cast_precision_loss, reason = "for people, to a tenth of a millisecond")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// The kind of a step: its name without its label.
fn kind(step: &str) -> &str {
    step.split('[').next().unwrap_or(step)
}

/// A commit as people write it.
fn short(revision: &str) -> String {
    let (hash, dirt) = revision.split_once('-').map_or((revision, ""), |(hash, _)| (hash, "-dirty"));
    format!("{}{dirt}", hash.chars().take(12).collect::<String>())
}

fn name(text: &str) -> String {
    one_line(text, NAME_LENGTH)
}

/// `text` as one line of at most `most` characters. Whatever could move a cursor, colour a terminal, turn the direction of
/// reading or hide becomes a space.
pub(super) fn one_line(text: &str, most: usize) -> String {
    let text = without_escapes(text);
    let mut words = String::new();
    // A bound on what is looked at as well: an error may hold a whole log.
    for c in text.chars().take(most * 4) {
        if !c.is_whitespace() && !is_invisible(c) {
            words.push(c);
        } else if !words.is_empty() && !words.ends_with(' ') {
            words.push(' ');
        }
    }
    let words = words.trim_end();
    if words.chars().count() <= most {
        return words.to_owned();
    }
    words.chars().take(most - 1).chain(['…']).collect()
}

fn is_invisible(c: char) -> bool {
    let ranges = ['\u{200b}'..='\u{200f}', '\u{2028}'..='\u{202e}', '\u{2060}'..='\u{206f}', '\u{feff}'..='\u{feff}'];
    c.is_control() || ranges.iter().any(|range| range.contains(&c))
}

/// Takes out terminal control sequences (ECMA-48: `ESC [`, parameters, one final byte); what is left of others is text.
fn without_escapes(text: &str) -> Cow<'_, str> {
    if !text.contains("\u{1b}[") {
        return Cow::Borrowed(text);
    }
    let mut parts = text.split("\u{1b}[");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| ('\u{20}'..='\u{3f}').contains(&c));
        clean.push_str(rest.strip_prefix(|c: char| ('\u{40}'..='\u{7e}').contains(&c)).unwrap_or(rest));
    }
    Cow::Owned(clean)
}
