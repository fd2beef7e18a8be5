//! Steps that measure, held to what they do: the figures in their outputs differ from run to run and are blanked in the
//! recorded form, which the harness compares. Their time is tokio's paused one, as they work on targets in memory.

use plimsoll_core::{RetryPolicy, Timestamp};
use plimsoll_engine::{Cx, Effect, Handle, Output, Repeat, Replay, Step, StepError, Take, Values, Wire, World};
use serde::Serialize;
use serde_json::Value;
use std::{cell::Cell, time::Duration};

/// What a cut-over measures, and whether this very process did it: after a kill, the resumed one finds it done.
const FIGURES: [(&str, &str); 8] = [
    ("changed", "false"),
    ("moved", "[]"),
    ("previous", "null"),
    ("switch_micros", "null"),
    ("handover", "[]"),
    ("probes", r#"{"sent":0,"failed":0,"first_failures":[],"p50_ms":0,"p99_ms":0,"max_ms":0}"#),
    ("drain", "{}"),
    ("millis", "0"),
];

/// A value whose recorded form has no figures.
#[derive(Clone)]
pub(crate) struct Even<T>(T);

impl<T: Output> Output for Even<T> {
    fn encode(&self) -> String {
        let mut value = serde_json::from_str(&self.0.encode()).expect("outputs are JSON");
        blank(&mut value);
        value.to_string()
    }

    fn decode(text: &str, replay: &Replay) -> Result<Self, String> {
        T::decode(text, replay).map(Self)
    }
}

/// Blanks the figures in `value` and in the texts within it that are JSON themselves, as those of a proof are.
fn blank(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.contains_key("switch_micros") {
                for (name, empty) in FIGURES {
                    fields.insert(name.to_owned(), serde_json::from_str(empty).expect("it is JSON"));
                }
            }
            if let Some(since) = fields.get_mut("since") {
                *since = serde_json::to_value(Timestamp::from_millis(0)).expect("a time is plain data");
            }
            fields.values_mut().for_each(blank);
        }
        Value::Array(items) => items.iter_mut().for_each(blank),
        Value::String(text) if text.starts_with(['{', '[']) => {
            if let Ok(mut inner) = serde_json::from_str(text) {
                blank(&mut inner);
                *text = inner.to_string();
            }
        }
        _ => {}
    }
}

/// The step itself, but for the recorded form of its output and the clock.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Measured<S>(pub(crate) S);

impl<S: Step> Step for Measured<S> {
    const NAME: &'static str = S::NAME;
    const VERSION: u32 = S::VERSION;
    type In = S::In;
    type Out = Even<S::Out>;

    fn timeout(&self) -> Duration {
        self.0.timeout()
    }

    fn retry(&self) -> RetryPolicy {
        self.0.retry()
    }

    fn exclusive(&self) -> Option<&'static str> {
        self.0.exclusive()
    }
}

impl<S: Effect> Effect for Measured<S> {
    const REPEAT: Repeat = S::REPEAT;

    async fn reconcile(&self, cx: &Cx, input: &S::In) -> Result<World<Even<S::Out>>, StepError> {
        Ok(match self.0.reconcile(cx, input).await? {
            World::NotDone => World::NotDone,
            World::Done(output) => World::Done(Even(output)),
            World::Half => World::Half,
        })
    }

    async fn act(&self, cx: &Cx, input: S::In) -> Result<Even<S::Out>, StepError> {
        let _paused = Paused::begin();
        self.0.act(cx, input).await.map(Even)
    }

    fn undone_on_failure(&self) -> bool {
        self.0.undone_on_failure()
    }

    async fn undo(&self, cx: &Cx, input: S::In, output: Even<S::Out>) -> Result<(), StepError> {
        self.0.undo(cx, input, output.0).await
    }
}

/// How waits pass in what a thread does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    AsEver,
    /// As ever, until the target is asked for something: what comes before it is about the registry, which is a real one.
    TakeNoTimeSoon,
    TakeNoTime,
}

thread_local! {
    static WAITS: Cell<Waits> = const { Cell::new(Waits::AsEver) };
}

/// Waits take no time from the first question to the target on, while this lives.
struct Paused;

impl Paused {
    fn begin() -> Self {
        WAITS.set(Waits::TakeNoTimeSoon);
        Self
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        if WAITS.replace(Waits::AsEver) == Waits::TakeNoTime {
            tokio::time::resume();
        }
    }
}

/// The target is asked for something.
pub(crate) fn asked() {
    if WAITS.get() == Waits::TakeNoTimeSoon {
        WAITS.set(Waits::TakeNoTime);
        tokio::time::pause();
    }
}

/// The wire from a measured step to one that takes its output as it is.
pub(crate) struct Plain<'g, T>(pub(crate) Handle<'g, Even<T>>);

/// [`Take`] of it.
pub(crate) struct TakePlain<T>(T);

impl<'g, T: Output> Wire<'g> for Plain<'g, T> {
    type Value = T;
    type Take = TakePlain<<Handle<'g, Even<T>> as Wire<'g>>::Take>;

    fn connect(self, needs: &mut Vec<usize>) -> Self::Take {
        TakePlain(self.0.connect(needs))
    }
}

impl<T: Output, W: Take<Value = Even<T>>> Take for TakePlain<W> {
    type Value = T;

    fn take(&self, values: &Values) -> T {
        self.0.take(values).0
    }
}
