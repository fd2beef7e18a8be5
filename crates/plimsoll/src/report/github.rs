//! What GitHub Actions understands: groups, annotations, the job's summary. Pure.
//!
//! A runner obeys every printed line that begins with `::`. So lines of logs stand between `::stop-commands::TOKEN` and
//! `::TOKEN::`, with a token they cannot know, and what is put into a command is escaped.

use super::text::duration;
use plimsoll_core::{Ending, RunOutcome};
use plimsoll_engine::Report;
use std::fmt::Write;

/// Escapes a command's message: `%`, CR and LF, as the runner takes them back.
pub(crate) fn escape_data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// Escapes a command's property: the message's rules, and `:` and `,`.
pub(crate) fn escape_property(text: &str) -> String {
    escape_data(text).replace(':', "%3A").replace(',', "%2C")
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: String,
    pub(crate) line: u32,
    pub(crate) column: Option<u32>,
}

/// The first place that lines name: rustc's `--> file:line:column` or a line that begins with `file:line:`.
pub(crate) fn place(lines: &[String]) -> Option<Place> {
    lines.iter().find_map(|line| {
        let line = line.trim_start();
        let text = line.strip_prefix("--> ").unwrap_or(line);
        let mut parts = text.split([':', ' ']);
        let file = parts.next().filter(|file| file.contains('.') && !file.is_empty())?;
        let line = parts.next()?.parse().ok()?;
        let column = parts.next().and_then(|column| column.parse().ok());
        Some(Place { file: file.to_owned(), line, column })
    })
}

/// An annotation, with its line end.
pub(crate) fn error_command(title: &str, message: &str, place: Option<&Place>) -> String {
    let mut properties = String::new();
    if let Some(Place { file, line, column }) = place {
        let _ = write!(properties, "file={},line={line},", escape_property(file));
        if let Some(column) = column {
            let _ = write!(properties, "col={column},");
        }
    }
    format!("::error {properties}title={}::{}\n", escape_property(title), escape_data(message))
}

/// A note as an annotation, with its line end.
pub(crate) fn warning_command(title: &str, message: &str) -> String {
    format!("::warning title={}::{}\n", escape_property(title), escape_data(message))
}

/// A step that ended, as a group with its log inside.
pub(crate) fn group(headline: &str, log: &[String], token: &str) -> String {
    let mut out = format!("::group::{}\n", escape_data(headline));
    if !log.is_empty() {
        let _ = writeln!(out, "::stop-commands::{token}");
        for line in log {
            let _ = writeln!(out, "{line}");
        }
        let _ = writeln!(out, "::{token}::");
    }
    out.push_str("::endgroup::\n");
    out
}

/// The annotations of a step that failed.
pub(crate) fn annotation(step: &str, ending: &Ending) -> Option<String> {
    let Ending::Failed { error, detail, .. } = ending else { return None };
    Some(error_command(step, error, place(detail).as_ref()))
}

/// The job's summary, in Markdown.
pub(crate) fn step_summary(version: &str, report: &Report) -> String {
    let mark = match report.outcome {
        RunOutcome::Succeeded => "succeeded",
        other => other.word(),
    };
    let mut out =
        format!("### Run {} {mark}\n\nVersion {}, {}\n\n", report.run, cell(version), duration(report.millis));
    out.push_str("| step | outcome | time | |\n|---|---|---|---|\n");
    for step in &report.steps {
        let note = match &step.ending {
            Ending::Failed { error, .. } => error.as_str(),
            Ending::Skipped { reason } => reason.as_str(),
            Ending::Parked { waiting } => waiting.as_str(),
            _ => "",
        };
        let (name, word) = (cell(&step.name), step.ending.word());
        let _ = writeln!(out, "| {name} | {word} | {} | {} |", duration(step.millis), cell(note));
    }
    out
}

/// Text of others within a table: one line, nothing that Markdown or HTML would act on.
fn cell(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(300) {
        match c {
            '|' | '`' | '*' | '_' | '[' | ']' | '\\' | '!' | '#' | '@' => out.extend(['\\', c]),
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_core::ErrorClass;

    #[test]
    fn a_message_cannot_end_its_command_and_begin_another() {
        let command = error_command("a:b,c", "50% done\n::set-output name=x::y\r", None);
        assert_eq!(command, "::error title=a%3Ab%2Cc::50%25 done%0A::set-output name=x::y%0D\n");
    }

    #[test]
    fn log_lines_stand_where_commands_are_not_obeyed() {
        let text = group("fmt", &["::set-env name=A::b".into()], "t0k3n");
        assert_eq!(text, "::group::fmt\n::stop-commands::t0k3n\n::set-env name=A::b\n::t0k3n::\n::endgroup::\n");
        assert_eq!(group("fmt\n::x", &[], "t"), "::group::fmt%0A::x\n::endgroup::\n");
    }

    #[test]
    fn the_place_of_a_diagnostic_becomes_the_place_of_the_annotation() {
        let check = |line: &str, expected: Option<(&str, u32, Option<u32>)>| {
            let found = place(&["error: bad".to_owned(), line.to_owned()]);
            let found = found.as_ref().map(|p| (p.file.as_str(), p.line, p.column));
            assert_eq!(found, expected, "{line}");
        };
        check("   --> src/lib.rs:3:7", Some(("src/lib.rs", 3, Some(7))));
        check("crates/a/src/x.rs:1 does not begin with `//!`", Some(("crates/a/src/x.rs", 1, None)));
        check("http://x:80", None);
        check("warning: 3 things", None);
        let failed = Ending::Failed {
            class: ErrorClass::CheckFailed,
            error: "bad".into(),
            detail: vec![" --> a.rs:1:2".into()],
        };
        assert_eq!(
            annotation("clippy", &failed).as_deref(),
            Some("::error file=a.rs,line=1,col=2,title=clippy::bad\n")
        );
        assert_eq!(annotation("clippy", &Ending::Done), None);
    }

    #[test]
    fn a_summary_has_a_row_per_step_and_obeys_nobody() {
        let report = Report {
            run: "20260101-000000-0000".parse().unwrap(),
            outcome: RunOutcome::Failed,
            steps: vec![plimsoll_engine::StepReport {
                name: "test[a|b]".into(),
                ending: Ending::Skipped { reason: "<img src=x> @all\nx".into() },
                output: None,
                millis: 1_500,
            }],
            stuck: Vec::new(),
            changed: false,
            millis: 2_000,
        };
        let text = step_summary("1.0.0", &report);
        assert!(text.starts_with("### Run 20260101-000000-0000 failed\n"), "{text}");
        assert!(text.contains("| test\\[a\\|b\\] | skipped | 1.5 s | &lt;img src=x> \\@all x |\n"), "{text}");
    }
}
