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
    /// Whether it shows bytes.
    moving: bool,
}

/// A step that works.
const SPINNING: &str = "  {spinner}  {prefix}  {elapsed} {wide_msg}";
/// A step that moves bytes.
const MOVING: &str = "  {spinner}  {prefix}  {elapsed} [{bar:24}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}  {wide_msg}";

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are well-formed")
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
            Event::StepProgress { step, what, bytes, of } => self.move_on(step, &one_line(what), *bytes, *of),
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
        bar.set_style(style(SPINNING));
        bar.set_prefix(step.to_string());
        let expected = expected_millis.map(|millis| format!("of about {}  ", duration(millis))).unwrap_or_default();
        bar.set_message(expected.clone());
        if self.held.is_none() {
            bar.enable_steady_tick(TICK);
        }
        self.working.insert(Arc::clone(step), Working { bar, expected, moving: false });
    }

    /// Shows a bar in bytes, until the step says something else.
    fn move_on(&mut self, step: &Arc<str>, what: &str, bytes: u64, of: u64) {
        let Some(working) = self.working.get_mut(step) else { return };
        if !std::mem::replace(&mut working.moving, true) {
            working.bar.set_style(style(MOVING));
        }
        working.bar.set_length(of.max(bytes));
        working.bar.set_position(bytes);
        working.bar.set_message(what.to_owned());
    }

    fn say(&mut self, step: &Arc<str>, what: &str) {
        if let Some(working) = self.working.get_mut(step) {
            if std::mem::take(&mut working.moving) {
                working.bar.set_style(style(SPINNING));
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Style;
    use indicatif::InMemoryTerm;

    #[test]
    fn a_step_that_moves_bytes_shows_how_many_of_how_many_until_it_says_something_else() {
        let mut live = Live::new(Mode { style: Style::Live, color: false, quiet: false });
        let screen = InMemoryTerm::new(5, 100);
        live.bars.set_draw_target(ProgressDrawTarget::term_like_with_hz(Box::new(screen.clone()), 20));
        let step: Arc<str> = "push".into();
        live.event(&Event::StepStarted { step: Arc::clone(&step), expected_millis: None });
        let (bytes, of) = (512 * 1024, 2 * 1024 * 1024);
        live.event(&Event::StepProgress { step: Arc::clone(&step), what: "web".into(), bytes, of });
        live.working[&step].bar.force_draw();
        let shown = screen.contents();
        assert!(shown.contains("push") && shown.contains("512.00 KiB of 2.00 MiB") && shown.contains("web"), "{shown}");
        live.event(&Event::StepWaiting { step: Arc::clone(&step), what: "the registry".into() });
        live.working[&step].bar.force_draw();
        let shown = screen.contents();
        assert!(shown.contains("waiting for the registry") && !shown.contains("KiB"), "{shown}");
    }
}
