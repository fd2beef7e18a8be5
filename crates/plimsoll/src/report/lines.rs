//! A run's events as lines of text, for CI, files and pipes. Pure.

use super::{
    Mode,
    text::{Tone, count, duration, one_line, paint, tone},
};
use plimsoll_core::{Ending, Event};

/// The line for an event, without its end; `None` for what is not worth one.
pub(crate) fn line(event: &Event, mode: Mode) -> Option<String> {
    match event {
        Event::RunStarted { run, pipeline, steps, resumed } => {
            let verb = if *resumed { "resumed" } else { "started" };
            (!mode.quiet).then(|| format!("{verb} {pipeline}, run {run}, {}", count(*steps, "step")))
        }
        Event::StepStarted { step, expected_millis } => {
            let expected =
                expected_millis.map(|millis| format!(" (last time {})", duration(millis))).unwrap_or_default();
            (!mode.quiet).then(|| format!("  {:>10}  {step}{expected}", "begins"))
        }
        Event::StepWaiting { step, what } => {
            (!mode.quiet).then(|| format!("  {:>10}  {step}: for {}", "waits", one_line(what)))
        }
        Event::StepNoted { step, note } => {
            let word = paint(mode.color, Tone::Look, &format!("{:>10}", "note"));
            Some(format!("  {word}  {step}: {}", one_line(note)))
        }
        Event::StepRetried { step, attempt, error, pause_millis } => Some(format!(
            "  {:>10}  {step}: attempt {attempt} failed, next in {}: {}",
            "retries",
            duration(*pause_millis),
            one_line(error)
        )),
        Event::StepEnded { step, ending, millis } => ended(step, ending, *millis, mode),
        // A line for each would fill a log.
        Event::StepProgress { .. } | Event::StepLine { .. } | Event::RunEnded { .. } => None,
    }
}

/// The line of a step that ended.
pub(crate) fn ended(step: &str, ending: &Ending, millis: u64, mode: Mode) -> Option<String> {
    let word = paint(mode.color, tone(ending), &format!("{:>10}", ending.word()));
    let rest = match ending {
        Ending::Done => format!(" ({})", duration(millis)),
        Ending::Cached | Ending::Replayed | Ending::FoundDone | Ending::Cancelled => String::new(),
        Ending::Skipped { reason } => format!(": {}", one_line(reason)),
        Ending::Parked { waiting } => format!(": {}", one_line(waiting.lines().next().unwrap_or_default())),
        Ending::Failed { error, .. } => format!(" ({}): {}", duration(millis), one_line(error)),
    };
    let shown = !mode.quiet || matches!(ending, Ending::Failed { .. } | Ending::Parked { .. } | Ending::Skipped { .. });
    shown.then(|| format!("  {word}  {step}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Style;
    use plimsoll_core::ErrorClass;

    const PLAIN: Mode = Mode { style: Style::Plain, color: false, quiet: false };

    fn check(event: &Event, expected: Option<&str>) {
        assert_eq!(line(event, PLAIN).as_deref(), expected);
    }

    #[test]
    fn each_event_is_one_line_and_log_lines_are_none() {
        let run = || "20260101-000000-0000".parse().unwrap();
        check(
            &Event::RunStarted { run: run(), pipeline: "ci".into(), steps: 1, resumed: true },
            Some("resumed ci, run 20260101-000000-0000, 1 step"),
        );
        check(
            &Event::StepStarted { step: "fmt".into(), expected_millis: Some(1_200) },
            Some("      begins  fmt (last time 1.2 s)"),
        );
        check(
            &Event::StepEnded { step: "fmt".into(), ending: Ending::Done, millis: 5 },
            Some("        done  fmt (5 ms)"),
        );
        let skipped = Ending::Skipped { reason: "no\nscanner".into() };
        check(
            &Event::StepEnded { step: "scan".into(), ending: skipped, millis: 0 },
            Some("     skipped  scan: no\u{fffd}scanner"),
        );
        let noted = Event::StepNoted { step: "compile".into(), note: "arm64 is left out".into() };
        check(&noted, Some("        note  compile: arm64 is left out"));
        check(&Event::StepLine { step: "fmt".into(), line: "x".into() }, None);
    }

    #[test]
    fn a_quiet_run_still_says_what_failed_and_what_was_left_out() {
        let quiet = Mode { quiet: true, ..PLAIN };
        assert_eq!(ended("fmt", &Ending::Done, 5, quiet), None);
        assert!(ended("scan", &Ending::Skipped { reason: "no scanner".into() }, 0, quiet).is_some());
        let failed = Ending::Failed { class: ErrorClass::CheckFailed, error: "bad".into(), detail: Vec::new() };
        assert_eq!(ended("fmt", &failed, 5, quiet).as_deref(), Some("      failed  fmt (5 ms): bad"));
    }
}
