//! A run on a terminal: a line for each step that works now, moving, with ended steps above.

use super::{
    Mode, lines,
    text::{duration, one_line},
};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use plimsoll_core::Event;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// Often enough to look alive, seldom enough to cost nothing.
const TICK: Duration = Duration::from_millis(120);

/// The moving lines.
pub(crate) struct Live {
    bars: MultiProgress,
    working: HashMap<Arc<str>, Working>,
    /// While something else has the terminal: the lines that are printed once it is given back. Bounded by the run's steps, which
    /// end once each.
    held: Option<Vec<String>>,
    mode: Mode,
}

struct Working {
    bar: ProgressBar,
    expected: String,
}

impl Live {
    pub(crate) fn new(mode: Mode) -> Self {
        Self { bars: MultiProgress::new(), working: HashMap::new(), held: None, mode }
    }

    /// Takes an event.
    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::StepStarted { step, expected_millis } => self.begin(step, *expected_millis),
            Event::StepWaiting { step, what } => self.say(step, &format!("waiting for {}", one_line(what))),
            Event::StepLine { step, line } => self.say(step, &one_line(line)),
            other => {
                if let Event::StepEnded { step, .. } = other
                    && let Some(working) = self.working.remove(step)
                {
                    working.bar.finish_and_clear();
                    self.bars.remove(&working.bar);
                }
                if let Some(line) = lines::line(other, self.mode) {
                    self.print(line);
                }
            }
        }
    }

    fn begin(&mut self, step: &Arc<str>, expected_millis: Option<u64>) {
        let bar = self.bars.add(ProgressBar::new_spinner());
        let template = "  {spinner}  {prefix}  {elapsed} {wide_msg}";
        bar.set_style(ProgressStyle::with_template(template).expect("the template is well-formed"));
        bar.set_prefix(step.to_string());
        let expected = expected_millis.map(|millis| format!("of about {}  ", duration(millis))).unwrap_or_default();
        bar.set_message(expected.clone());
        if self.held.is_none() {
            bar.enable_steady_tick(TICK);
        }
        self.working.insert(Arc::clone(step), Working { bar, expected });
    }

    fn say(&self, step: &Arc<str>, what: &str) {
        if let Some(working) = self.working.get(step) {
            working.bar.set_message(format!("{}{what}", working.expected));
        }
    }

    fn print(&mut self, line: String) {
        match &mut self.held {
            Some(held) => held.push(line),
            // A terminal that cannot be written to any more is not missed.
            None => drop(self.bars.println(line)),
        }
    }

    /// Takes the moving lines away and prints nothing until [`go_on`](Self::go_on): what moves would wipe away a question and what
    /// is typed for an answer.
    #[cfg(feature = "delivery")]
    pub(crate) fn hold(&mut self) {
        for working in self.working.values() {
            working.bar.disable_steady_tick();
        }
        let _ = self.bars.clear();
        self.bars.set_draw_target(ProgressDrawTarget::hidden());
        self.held.get_or_insert_default();
    }

    /// Prints what was held back, and lets the lines move again.
    pub(crate) fn go_on(&mut self) {
        let Some(held) = self.held.take() else { return };
        self.bars.set_draw_target(ProgressDrawTarget::stderr());
        for line in held {
            self.print(line);
        }
        for working in self.working.values() {
            working.bar.enable_steady_tick(TICK);
        }
    }

    /// Takes the moving lines away.
    pub(crate) fn close(&mut self) {
        self.go_on();
        for (_, working) in self.working.drain() {
            working.bar.finish_and_clear();
        }
        let _ = self.bars.clear();
    }
}
