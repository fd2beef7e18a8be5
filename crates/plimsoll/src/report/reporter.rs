//! The observer of a run: takes its events and prints them in the session's style.

use super::{Console, Mode, Style, github, lines, live::Live};
use crate::session::Session;
use plimsoll_core::Event;
use plimsoll_engine::Observer;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How many lines of a step's log a group shows: more is in the log's file, and a job's log is read by people.
const GROUP_LINES: usize = 2_000;

/// Reports a run while it works.
pub(crate) struct RunReporter {
    console: Console,
    mode: Mode,
    state: Mutex<State>,
    waits: Mutex<HashMap<Arc<str>, Instant>>,
}

/// In lines, what a step waits for is said again only after this long: enough to tell slow from stuck.
const WAIT_AGAIN: Duration = Duration::from_secs(5);

enum State {
    Json,
    Plain,
    Live(Live),
    Github { token: String, logs: HashMap<Arc<str>, VecDeque<String>> },
}

impl RunReporter {
    pub(crate) fn new(session: &Session) -> Self {
        Self::with(session.console.clone(), session.mode)
    }

    fn with(console: Console, mode: Mode) -> Self {
        let state = match mode.style {
            Style::Json => State::Json,
            Style::Plain => State::Plain,
            Style::Live => State::Live(Live::new(mode)),
            Style::Github => {
                let token = format!("{:016x}{:016x}", crate::running::random(), crate::running::random());
                State::Github { token, logs: HashMap::new() }
            }
        };
        Self { console, mode, state: Mutex::new(state), waits: Mutex::default() }
    }

    /// Ends what moves.
    pub(crate) fn close(&self) {
        if let State::Live(live) = &mut *self.lock() {
            live.close();
        }
    }

    /// Leaves the terminal to a question, until what is returned is dropped.
    #[cfg(feature = "delivery")]
    pub(crate) fn hold(&self) -> Held<'_> {
        if let State::Live(live) = &mut *self.lock() {
            live.hold();
        }
        Held(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What is guarded is only shown: a panic elsewhere leaves it usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an event is worth a line now; all but repeated waiting is.
    fn due(&self, event: &Event, now: Instant) -> bool {
        let Event::StepWaiting { step, .. } = event else { return true };
        if !matches!(self.mode.style, Style::Plain | Style::Github) {
            return true;
        }
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let due = waits.get(step).is_none_or(|last| now.duration_since(*last) >= WAIT_AGAIN);
        if due {
            waits.insert(Arc::clone(step), now);
        }
        due
    }

    /// What an event prints in the styles that print by themselves.
    fn text(state: &mut State, event: &Event, mode: Mode) -> Option<String> {
        match state {
            State::Json => {
                let line = serde_json::to_string(event).expect("an event is plain data");
                Some(format!("{line}\n"))
            }
            State::Plain => lines::line(event, mode).map(|line| format!("{line}\n")),
            State::Live(live) => {
                live.event(event);
                None
            }
            State::Github { token, logs } => github_text(token, logs, event, mode),
        }
    }
}

/// Nothing of the run is shown while this lives.
#[cfg(feature = "delivery")]
pub(crate) struct Held<'r>(&'r RunReporter);

#[cfg(feature = "delivery")]
impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let State::Live(live) = &mut *self.0.lock() {
            live.go_on();
        }
    }
}

fn github_text(
    token: &str,
    logs: &mut HashMap<Arc<str>, VecDeque<String>>,
    event: &Event,
    mode: Mode,
) -> Option<String> {
    match event {
        Event::StepLine { step, line } => {
            let log = logs.entry(Arc::clone(step)).or_default();
            if log.len() == GROUP_LINES {
                log.pop_front();
            }
            log.push_back(line.clone());
            None
        }
        Event::StepEnded { step, ending, millis } => {
            let log: Vec<String> = logs.remove(step).unwrap_or_default().into();
            let headline = lines::ended(step, ending, *millis, Mode { quiet: false, ..mode })?;
            let annotation = github::annotation(step, ending).unwrap_or_default();
            Some(format!("{}{annotation}", github::group(headline.trim_start(), &log, token)))
        }
        Event::StepNoted { step, note } => Some(github::warning_command(step, note)),
        // Lines of others may be in it: the runner obeys only lines that *begin* with `::`, and these begin with ours.
        other => lines::line(other, mode).map(|line| format!("{line}\n")),
    }
}

impl Observer for RunReporter {
    fn event(&self, event: &Event) {
        if !self.due(event, Instant::now()) {
            return;
        }
        let mut state = self.lock();
        if let Some(text) = Self::text(&mut state, event, self.mode) {
            self.console.out(&text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_core::Ending;

    fn texts(style: Style, events: &[Event]) -> Vec<String> {
        let mode = Mode { style, color: false, quiet: false };
        let reporter = RunReporter::with(Console::new(), mode);
        let mut state = reporter.lock();
        if let State::Github { token, .. } = &mut *state {
            "t0k3n".clone_into(token);
        }
        events.iter().filter_map(|event| RunReporter::text(&mut state, event, mode)).collect()
    }

    fn events() -> [Event; 3] {
        [
            Event::StepStarted { step: "fmt".into(), expected_millis: None },
            Event::StepLine { step: "fmt".into(), line: "::error::forged".into() },
            Event::StepEnded { step: "fmt".into(), ending: Ending::Done, millis: 7 },
        ]
    }

    #[test]
    fn waiting_is_said_at_once_and_then_now_and_then() {
        let reporter = |style| RunReporter::with(Console::new(), Mode { style, color: false, quiet: false });
        let waiting = |step: &str| Event::StepWaiting { step: step.into(), what: "that".to_owned() };
        let (plain, now) = (reporter(Style::Plain), Instant::now());
        assert!(plain.due(&waiting("a"), now) && plain.due(&waiting("b"), now));
        assert!(!plain.due(&waiting("a"), now + WAIT_AGAIN / 2));
        assert!(plain.due(&waiting("a"), now + WAIT_AGAIN));
        let json = reporter(Style::Json);
        assert!(json.due(&waiting("a"), now) && json.due(&waiting("a"), now));
    }

    #[test]
    fn json_lines_are_the_events_themselves() {
        let lines = texts(Style::Json, &events());
        let read: Vec<Event> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, events());
        assert!(lines.iter().all(|line| line.matches('\n').count() == 1));
    }

    #[test]
    fn a_group_holds_the_log_of_its_step_where_nothing_in_it_is_obeyed() {
        let text = texts(Style::Github, &events()).concat();
        let expected = "::group::done  fmt (7 ms)\n::stop-commands::t0k3n\n::error::forged\n::t0k3n::\n::endgroup::\n";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn a_group_shows_the_end_of_a_long_log() {
        let many = (0..=GROUP_LINES).map(|n| Event::StepLine { step: "x".into(), line: format!("line {n}") });
        let end = Event::StepEnded { step: "x".into(), ending: Ending::Done, millis: 0 };
        let text = texts(Style::Github, &many.chain([end]).collect::<Vec<_>>()).concat();
        assert!(!text.contains("line 0\n") && text.contains("line 1\n") && text.contains("line 2000\n"));
    }
}
