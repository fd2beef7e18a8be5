//! `notify`: says how a run went, on the console, in Slack and to a webhook.
//!
//! [`Notify`] runs when all other steps have ended and tells of a success that changed something, a failure, an approval
//! that is wanted, and a former release that was put back. [`Started`] tells that a run begins. A notice that cannot be
//! sent is a note: it fails no release. What is said is decided in `message`, without I/O; how it gets there is `channel`'s.

mod channel;
mod message;
mod slack;
#[cfg(test)]
mod tests;

pub use message::{CutOverFigures, Failure, Notice, Waiting};

use crate::inputs::Inputs;
use message::About;
use plimsoll_core::config;
use plimsoll_engine::{Cx, Effect, Finally, Repeat, Step, StepError, Summary, World, write_atomically};
use serde::Serialize;
use std::{path::PathBuf, sync::Arc, time::Duration};

/// Longer than all channels together may take, and still short for a person who waits for the run's end.
const TIMEOUT: Duration = Duration::from_secs(40);

/// Tells how a run went. Added once per pipeline: `g.finally("", Notify::new(inputs))`.
#[derive(Debug, Serialize)]
pub struct Notify {
    about: About,
    channels: config::Notify,
}

/// Tells that a run begins: `g.effect("", Started::new(inputs), ())`. It never fails, and nothing need depend on it.
#[derive(Debug, Serialize)]
pub struct Started {
    about: About,
    channels: config::Notify,
}

impl Notify {
    /// The step for the channels that are configured. It knows where secrets come from, not what they are.
    pub fn new(inputs: &Inputs) -> Self {
        Self { about: About::of(inputs), channels: inputs.config().notify.clone() }
    }
}

impl Step for Notify {
    const NAME: &'static str = "notify";
    const VERSION: u32 = 1;
    type In = ();
    type Out = ();

    fn timeout(&self) -> Duration {
        TIMEOUT
    }
}

impl Finally for Notify {
    async fn run(&self, cx: &Cx, summary: Arc<Summary>) -> Result<(), StepError> {
        match Notice::of(&self.about, cx.run(), &summary, &|text| redacted(cx, text)) {
            Some(notice) => channel::tell(cx, &self.channels, &notice).await,
            None if summary.outcome == plimsoll_core::RunOutcome::Succeeded => cx.log("unchanged: nobody is told"),
            None => cx.log(&format!("{}: nobody is told", summary.outcome.word())),
        }
        Ok(())
    }
}

/// `text` without the values that must not be shown. The step's log is where they are taken out: what it keeps may leave
/// the machine, and what leaves the machine is in the log.
fn redacted(cx: &Cx, text: &str) -> String {
    cx.log(text);
    cx.log_tail().pop().expect("a line was just written to the log")
}

impl Started {
    /// The step for the channels that are configured.
    pub fn new(inputs: &Inputs) -> Self {
        Self { about: About::of(inputs), channels: inputs.config().notify.clone() }
    }

    /// What shows that the notice was begun.
    fn mark(cx: &Cx) -> PathBuf {
        cx.run_dir().join("started-was-told")
    }
}

impl Step for Started {
    const NAME: &'static str = message::STARTED;
    const VERSION: u32 = 1;
    type In = ();
    type Out = ();

    fn timeout(&self) -> Duration {
        TIMEOUT
    }
}

/// The notice goes out at most once, by its mark and not by [`Repeat::AtMostOnce`]: with that, a run killed while it sends
/// would fail when it is resumed, and a notice must fail no run.
impl Effect for Started {
    const REPEAT: Repeat = Repeat::Reconcilable;

    async fn reconcile(&self, cx: &Cx, (): &()) -> Result<World<()>, StepError> {
        Ok(if Self::mark(cx).exists() { World::Done(()) } else { World::NotDone })
    }

    async fn act(&self, cx: &Cx, (): ()) -> Result<(), StepError> {
        let mark = Self::mark(cx);
        if mark.exists() {
            return Ok(());
        }
        if let Err(error) = write_atomically(&mark, b"") {
            cx.note(format!("nobody is told that the run began: it cannot be kept that they were: {error}"));
            return Ok(());
        }
        channel::tell(cx, &self.channels, &Notice::started(&self.about, cx.run())).await;
        Ok(())
    }
}

/// Sends what a person says to every channel, to see that they work. Here a channel that fails is a failure.
#[derive(Debug, Serialize)]
pub struct Say {
    about: About,
    channels: config::Notify,
    message: String,
}

impl Say {
    /// The step for the configured channels.
    pub fn new(inputs: &Inputs, message: &str) -> Self {
        Self { about: About::of(inputs), channels: inputs.config().notify.clone(), message: message.to_owned() }
    }
}

impl Step for Say {
    const NAME: &'static str = "say";
    const VERSION: u32 = 1;
    type In = ();
    type Out = ();

    fn timeout(&self) -> Duration {
        TIMEOUT
    }
}

impl Effect for Say {
    const REPEAT: Repeat = Repeat::AtMostOnce;

    async fn reconcile(&self, _: &Cx, (): &()) -> Result<World<()>, StepError> {
        Ok(World::NotDone)
    }

    async fn act(&self, cx: &Cx, (): ()) -> Result<(), StepError> {
        let wrong = channel::tell_all(cx, &self.channels, &Notice::said(&self.about, cx.run(), &self.message)).await;
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(StepError::external("not every channel was told").with_detail(wrong))
        }
    }
}
