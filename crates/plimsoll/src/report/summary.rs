//! What is said last: how a run went, and what to do now.

use super::{
    Style, github,
    text::{Tone, count, duration, lines_of, one_line, paint, table, tone},
};
use crate::{cli_error::CliError, session::Session};
use plimsoll_core::{Classify, Ending, ErrorClass, RunOutcome};
use plimsoll_engine::{Report, log_path};
use std::{fmt::Write, io::Write as _, path::Path};

/// What a bug asks for.
const REPORT: &str = "this is a bug in Plimsoll: please report it, with this message and the log";

/// Reports a run that ended or parked.
pub(crate) fn ended(session: &Session, version: &str, report: &Report, run_dir: &Path) {
    let mode = session.mode;
    match mode.style {
        Style::Json => {}
        Style::Github | Style::Plain | Style::Live => {
            session.console.out(&summary(version, report, run_dir, mode.color, mode.quiet));
        }
    }
    if let Some(path) = &session.settings.step_summary {
        let text = github::step_summary(version, report);
        let file = std::fs::File::options().create(true).append(true).open(path);
        if let Err(error) = file.and_then(|mut file| file.write_all(text.as_bytes())) {
            session.console.err(&format!("the job's summary could not be written: {error}\n"));
        }
    }
}

/// The summary of a run: a table, and last of all what went wrong and the command that goes on.
pub(crate) fn summary(version: &str, report: &Report, run_dir: &Path, color: bool, quiet: bool) -> String {
    let mut out = String::new();
    let succeeded = report.outcome == RunOutcome::Succeeded;
    if !(quiet && succeeded) {
        out.push('\n');
        if !quiet {
            out.push_str(&steps_table(report, color));
        }
        let _ = writeln!(out, "{}", headline(version, report, color));
    }
    match report.outcome {
        RunOutcome::Succeeded | RunOutcome::Running => {}
        RunOutcome::Parked => out.push_str(&parked(report)),
        RunOutcome::Interrupted => {
            let _ = writeln!(out, "go on with it: cargo xtask resume {}", report.run);
        }
        RunOutcome::Failed => out.push_str(&failed(report, run_dir, color)),
    }
    out
}

/// Steps that were cached or replayed are counted, not listed: what is listed was done now or needs a look.
fn steps_table(report: &Report, color: bool) -> String {
    let listed = |ending: &Ending| !matches!(ending, Ending::Cached | Ending::Replayed);
    let rows: Vec<Vec<String>> = report
        .steps
        .iter()
        .filter(|step| listed(&step.ending))
        .map(|step| {
            let note = match &step.ending {
                Ending::Skipped { reason } => one_line(reason),
                _ => String::new(),
            };
            vec![format!("  {}", step.name), step.ending.word().to_owned(), duration(step.millis), note]
        })
        .collect();
    let text = table(&rows);
    if !color {
        return text;
    }
    let tones = report.steps.iter().filter(|s| listed(&s.ending)).map(|s| tone(&s.ending));
    text.lines().zip(tones).flat_map(|(line, tone)| [paint(true, tone, line), "\n".to_owned()]).collect()
}

fn headline(version: &str, report: &Report, color: bool) -> String {
    let kept = report.steps.iter().filter(|s| matches!(s.ending, Ending::Cached | Ending::Replayed)).count();
    let tone = match report.outcome {
        RunOutcome::Succeeded => Tone::Good,
        RunOutcome::Failed => Tone::Bad,
        _ => Tone::Look,
    };
    let word = paint(color, tone, report.outcome.word());
    let kept = if kept == 0 { String::new() } else { format!(", {kept} of them cached") };
    let steps = count(report.steps.len(), "step");
    format!("run {} {word}: version {version}, {steps}{kept}, {}", report.run, duration(report.millis))
}

fn parked(report: &Report) -> String {
    let mut out = String::new();
    for step in &report.steps {
        if let Ending::Parked { waiting } = &step.ending {
            let _ = writeln!(out, "\n{} waits: {}", step.name, lines_of(waiting));
        }
    }
    let run = &report.run;
    let _ = writeln!(out, "answer: cargo xtask approve {run}   (or: approve {run} --deny --reason \"…\")");
    let _ = writeln!(out, "then:   cargo xtask resume {run}");
    out
}

fn failed(report: &Report, run_dir: &Path, color: bool) -> String {
    let mut out = String::new();
    let failures: Vec<_> = report
        .steps
        .iter()
        .filter_map(|step| match &step.ending {
            Ending::Failed { class, error, detail } => Some((&step.name, *class, error, detail)),
            _ => None,
        })
        .collect();
    if failures.len() > 1 {
        let names: Vec<&str> = failures[1..].iter().map(|(name, ..)| &***name).collect();
        let _ = writeln!(out, "also failed: {}", names.join(", "));
    }
    for (step, error) in &report.stuck {
        let _ = writeln!(out, "could not be taken back, look for yourself: {step}: {}", one_line(&error.one_line()));
    }
    if let Some((step, class, error, detail)) = failures.first() {
        let _ = writeln!(out, "\n{} {step}: {}", paint(color, Tone::Bad, "failed:"), lines_of(error));
        for line in *detail {
            let _ = writeln!(out, "  {}", lines_of(line));
        }
        if *class == ErrorClass::Internal {
            let _ = writeln!(out, "{REPORT}");
        }
        let _ = writeln!(out, "log:    {}", log_path(run_dir, step).display());
    }
    let _ = writeln!(out, "resume: cargo xtask resume {}", report.run);
    out
}

/// An error that is not a step's: message, causes, more, hint.
pub(crate) fn failure(error: &CliError) -> String {
    let mut out = format!("error: {}\n", lines_of(&error.to_string()));
    for cause in error.causes() {
        let _ = writeln!(out, "  because: {}", lines_of(&cause));
    }
    for line in error.detail() {
        let _ = writeln!(out, "  {}", lines_of(line));
    }
    if let Some(hint) = error.hint() {
        let _ = writeln!(out, "hint: {}", lines_of(&hint));
    }
    if error.class() == ErrorClass::Internal {
        let _ = writeln!(out, "{REPORT}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_engine::{StepError, StepReport};

    fn report(outcome: RunOutcome, steps: &[(&str, Ending, u64)]) -> Report {
        let step = |(name, ending, millis): &(&str, Ending, u64)| StepReport {
            name: (*name).into(),
            ending: ending.clone(),
            output: None,
            millis: *millis,
        };
        Report {
            run: "20260101-000000-0000".parse().unwrap(),
            outcome,
            steps: steps.iter().map(step).collect(),
            stuck: Vec::new(),
            changed: false,
            millis: 2_500,
        }
    }

    fn fail(class: ErrorClass) -> Ending {
        Ending::Failed { class, error: "a test failed: it panicked".into(), detail: vec!["assertion `x`".into()] }
    }

    #[test]
    fn a_failure_ends_with_step_cause_log_and_the_command_that_resumes() {
        let skipped = Ending::Skipped { reason: "no scanner".into() };
        let report = report(
            RunOutcome::Failed,
            &[
                ("fmt", Ending::Cached, 0),
                ("scan", skipped, 0),
                ("test[a]", fail(ErrorClass::CheckFailed), 1_200),
                ("test[b]", fail(ErrorClass::CheckFailed), 10),
            ],
        );
        let text = summary("1.0.0", &report, Path::new("/state/run"), false, false);
        let log = log_path(Path::new("/state/run"), "test[a]");
        let expected = format!(
            "\n  scan     skipped  0 ms   no scanner\n  test[a]  failed   1.2 s\n  test[b]  failed   10 ms\n\
             run 20260101-000000-0000 failed: version 1.0.0, 4 steps, 1 of them cached, 2.5 s\n\
             also failed: test[b]\n\nfailed: test[a]: a test failed: it panicked\n  assertion `x`\nlog:    {}\n\
             resume: cargo xtask resume 20260101-000000-0000\n",
            log.display()
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn a_parked_run_says_how_to_answer_and_how_to_go_on() {
        let parked = Ending::Parked { waiting: "approval of production".into() };
        let text =
            summary("1.0.0", &report(RunOutcome::Parked, &[("approve", parked, 1)]), Path::new("/r"), false, true);
        assert!(text.contains("approve waits: approval of production\n"), "{text}");
        assert!(text.contains("cargo xtask approve 20260101-000000-0000"), "{text}");
        assert!(text.ends_with("cargo xtask resume 20260101-000000-0000\n"), "{text}");
    }

    #[test]
    fn a_quiet_success_says_nothing_and_a_bug_asks_for_a_report() {
        let done = report(RunOutcome::Succeeded, &[("fmt", Ending::Done, 1)]);
        assert_eq!(summary("1.0.0", &done, Path::new("/r"), false, true), "");
        let bug = report(RunOutcome::Failed, &[("x", fail(ErrorClass::Internal), 1)]);
        assert!(summary("1.0.0", &bug, Path::new("/r"), false, false).contains(REPORT));
    }

    #[test]
    fn effects_that_could_not_be_taken_back_are_named() {
        let mut failed = report(RunOutcome::Failed, &[("x", fail(ErrorClass::External), 1)]);
        failed.stuck.push(("push[api]".into(), StepError::external("registry is gone")));
        let text = summary("1.0.0", &failed, Path::new("/r"), false, false);
        assert!(text.contains("look for yourself: push[api]: registry is gone"), "{text}");
    }

    #[test]
    fn an_error_outside_of_steps_shows_causes_and_hint() {
        let error = CliError::from(StepError::user("no such thing").with_hint("look elsewhere"));
        assert_eq!(failure(&error), "error: no such thing\nhint: look elsewhere\n");
    }
}
