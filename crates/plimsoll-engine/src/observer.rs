//! Who is told what happens during a run.

use plimsoll_core::Event;
use std::sync::Mutex;

/// Takes the events of a run, in the order in which they happen. Must return soon: the run waits for it.
pub trait Observer: Send + Sync {
    /// Takes one event.
    fn event(&self, event: &Event);
}

/// An observer that listens to nothing.
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _: &Event) {}
}

/// An observer that keeps everything, for tests and for JSON at the end.
#[derive(Default)]
pub struct Recorder(Mutex<Vec<Event>>);

impl Recorder {
    /// The events so far.
    pub fn events(&self) -> Vec<Event> {
        crate::context::lock(&self.0).clone()
    }
}

impl Observer for Recorder {
    fn event(&self, event: &Event) {
        crate::context::lock(&self.0).push(event.clone());
    }
}
