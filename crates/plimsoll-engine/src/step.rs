//! The traits a step implements: what it is, and whether it is pure, an effect, a gate or a finally-step.

use crate::{context::Cx, error::StepError, output::Output, reads::Reads, sharing::Leaf};
use plimsoll_core::{RetryPolicy, RunOutcome};
use serde::Serialize;
use std::{future::Future, sync::Arc, time::Duration};

/// One unit of work: a struct of plain parameters. Its inputs are handles given beside it, never fields.
///
/// The parameters are serialised to make its fingerprint and to print it, and are never read back.
pub trait Step: Serialize + Send + Sync + 'static {
    /// The kind of step, a verb: `compile`, `push`.
    const NAME: &'static str;
    /// Raised when the same inputs begin to give another output.
    const VERSION: u32;
    /// What it gets from the steps it is wired to.
    type In: Clone + Send + Sync + 'static;
    /// What it makes.
    type Out: Output;

    /// How long one attempt may take before its whole process tree is ended.
    fn timeout(&self) -> Duration {
        Duration::from_mins(30)
    }

    /// How often an attempt that failed for an *external* reason is repeated.
    fn retry(&self) -> RetryPolicy {
        RetryPolicy::once()
    }

    /// The name of something only one step of a run may use at a time, such as cargo's build directory.
    fn exclusive(&self) -> Option<&'static str> {
        None
    }
}

/// A step whose output depends on its fingerprint alone, and so is cached.
pub trait Pure: Step {
    /// Everything outside its parameters and inputs that its output depends on.
    fn reads(&self, cx: &Cx) -> Result<Reads, StepError>;

    /// Does the work.
    fn run(&self, cx: &Cx, input: Self::In) -> impl Future<Output = Result<Self::Out, StepError>> + Send;

    /// Whether a cached output can still be used: that the files it names are there.
    fn usable(&self, cx: &Cx, output: &Self::Out) -> bool {
        let _ = (cx, output);
        true
    }

    /// Whether other machines may have its outputs, and it theirs.
    fn is_shared(&self) -> bool {
        false
    }

    /// What an output stands for and what lies outside of it; nothing if this one must not be shared. Asked of shared steps.
    fn leaves(&self, cx: &Cx, output: &Self::Out) -> Option<Vec<Leaf>> {
        let _ = (cx, output);
        Some(Vec::new())
    }
}

/// What the world shows of an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum World<T> {
    /// Nothing of it.
    NotDone,
    /// All of it; this is its output.
    Done(T),
    /// A part: `act` may start from there.
    Half,
}

/// Whether the world can be asked if an effect was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repeat {
    /// The world shows whether its key was done.
    Reconcilable,
    /// It cannot be asked. An intent without an outcome is reported as unknown and never repeated, by a retry as little as
    /// by a resume: also where `act` returned an error, because an error does not say that nothing was done.
    AtMostOnce,
}

/// A step that changes the world outside the workspace. Journaled: intent before, outcome after.
pub trait Effect: Step {
    /// Whether the world can be asked.
    const REPEAT: Repeat = Repeat::Reconcilable;

    /// Looks at the world and changes nothing; runs before every [`Effect::act`].
    fn reconcile(&self, cx: &Cx, input: &Self::In) -> impl Future<Output = Result<World<Self::Out>, StepError>> + Send;

    /// Changes the world; may start from [`World::Half`].
    fn act(&self, cx: &Cx, input: Self::In) -> impl Future<Output = Result<Self::Out, StepError>> + Send;

    /// Whether a failure later in the run undoes this effect.
    fn undone_on_failure(&self) -> bool {
        false
    }

    /// Takes the effect back; must bear being repeated.
    fn undo(&self, cx: &Cx, input: Self::In, output: Self::Out) -> impl Future<Output = Result<(), StepError>> + Send {
        let _ = (cx, input, output);
        async { Ok(()) }
    }
}

/// A gate's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    /// Open, with the proof.
    Yes(T),
    /// Nobody has answered: the run parks. The text says what it waits for and how to answer.
    Waiting(String),
    /// Somebody said no, or the answer does not hold.
    No(StepError),
}

/// A step that waits for a person. A run whose gate waits parks: it ends, and goes on when it is resumed.
pub trait Gate: Step {
    /// Asks; must come back soon with [`Answer::Waiting`] rather than wait.
    fn ask(&self, cx: &Cx, input: Self::In) -> impl Future<Output = Result<Answer<Self::Out>, StepError>> + Send;
}

/// A step that runs when all others have ended, however they ended. Its failure is reported and changes no outcome.
pub trait Finally: Step<In = (), Out = ()> {
    /// Does the work, knowing how the run went.
    fn run(&self, cx: &Cx, summary: Arc<Summary>) -> impl Future<Output = Result<(), StepError>> + Send;
}

/// How a run went, as a finally-step sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// How the steps before it ended as a whole.
    pub outcome: RunOutcome,
    /// Whether any effect changed the world.
    pub changed: bool,
    /// Each step: name, how it ended in one word, its recorded output if it has one, its error if it failed.
    pub steps: Vec<StepSummary>,
}

/// One step within a [`Summary`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepSummary {
    /// Its name in the plan.
    pub name: Arc<str>,
    /// How it ended, in one word.
    pub outcome: &'static str,
    /// Its recorded output.
    pub output: Option<Arc<str>>,
    /// Its error, with causes.
    pub error: Option<String>,
    /// What it waits for, if it parked.
    pub waiting: Option<String>,
}
