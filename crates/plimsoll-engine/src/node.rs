//! Steps with their types erased: what the planner and the executor handle.

use crate::{
    cache::Hit,
    context::Cx,
    error::StepError,
    journal::Ledger,
    output::{Output, Replay},
    reads::Reads,
    sharing::Leaf,
    step::{Answer, Effect, Finally, Gate, Pure, Repeat, Step, Summary, World},
    wire::{Finished, Take, Values},
};
use futures_util::future::BoxFuture;
use plimsoll_core::{Fingerprint, RetryPolicy};
use serde::Serialize;
use std::{sync::Arc, time::Duration};

/// What a step is to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Cached by fingerprint.
    Pure,
    /// Journaled, reconciled with the world.
    Effect,
    /// Waits for a person.
    Gate,
    /// Runs when all others have ended.
    Finally,
}

/// How an attempt ended well.
pub(crate) enum Landed {
    Done(Finished),
    /// Taken from the shared cache, with how long it took to make there.
    Taken(Finished, Hit, u64),
    FoundDone(Finished),
    Parked(String),
}

type Attempt = BoxFuture<'static, Result<Landed, StepError>>;

/// A step without its types.
pub(crate) trait Action: Send + Sync {
    fn timeout(&self) -> Duration;
    fn retry(&self) -> RetryPolicy;
    fn exclusive(&self) -> Option<&'static str>;
    fn reads(&self, cx: &Cx) -> Result<Reads, StepError>;
    /// Decodes a recorded output.
    fn decode(&self, text: &str) -> Result<Finished, String>;
    fn usable(&self, cx: &Cx, finished: &Finished) -> bool;
    /// Whether machines share its outputs.
    fn is_shared(&self) -> bool {
        false
    }
    /// What an output stands for; nothing if it must not be shared.
    fn leaves(&self, _: &Cx, _: &Finished) -> Option<Vec<Leaf>> {
        None
    }
    /// Whether it is an effect that is taken back when the run fails.
    fn undone_on_failure(&self) -> bool {
        false
    }
    /// Binds the inputs, so that attempts can be made without the values of other steps.
    fn bind(self: Arc<Self>, values: &Values) -> Arc<dyn Bound>;
}

/// A step with its inputs.
pub(crate) trait Bound: Send + Sync {
    /// One attempt. An effect writes its intent to the ledger between looking and acting.
    fn attempt(self: Arc<Self>, cx: Cx, ledger: Ledger) -> Attempt;
    /// Looks if the effect is done, without doing it; `None` where the world cannot be asked.
    fn look(self: Arc<Self>, _cx: Cx) -> Option<BoxFuture<'static, Result<World<Finished>, StepError>>> {
        None
    }
    /// Takes the effect back, if it asks for that on failure.
    fn undo(self: Arc<Self>, _cx: Cx, _output: Finished) -> Option<BoxFuture<'static, Result<(), StepError>>> {
        None
    }
}

/// A node of the graph.
pub(crate) struct Node {
    pub(crate) name: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) repeat: Option<Repeat>,
    pub(crate) needs: Vec<usize>,
    /// Hash of name, version, kind and parameters: what the plan hash is made of.
    pub(crate) print: Fingerprint,
    pub(crate) params: String,
    pub(crate) action: Arc<dyn Action>,
}

pub(crate) struct PureNode<S, T>(pub(crate) Arc<S>, pub(crate) T);
pub(crate) struct EffectNode<S, T>(pub(crate) Arc<S>, pub(crate) T);
pub(crate) struct GateNode<S, T>(pub(crate) Arc<S>, pub(crate) T);
pub(crate) struct FinallyNode<S>(pub(crate) Arc<S>);

struct With<S: Step>(Arc<S>, S::In);
struct Acting<S: Step>(Arc<S>, S::In);
struct Asking<S: Step>(Arc<S>, S::In);

macro_rules! common {
    () => {
        fn timeout(&self) -> Duration {
            self.0.timeout()
        }

        fn retry(&self) -> RetryPolicy {
            self.0.retry()
        }

        fn exclusive(&self) -> Option<&'static str> {
            self.0.exclusive()
        }

        fn decode(&self, text: &str) -> Result<Finished, String> {
            S::Out::decode(text, &Replay::new()).map(Finished::of)
        }
    };
}

impl<S: Pure, T: Take<Value = S::In>> Action for PureNode<S, T> {
    common!();

    fn reads(&self, cx: &Cx) -> Result<Reads, StepError> {
        self.0.reads(cx)
    }

    fn usable(&self, cx: &Cx, finished: &Finished) -> bool {
        finished.value.downcast_ref::<S::Out>().is_some_and(|output| self.0.usable(cx, output))
    }

    fn is_shared(&self) -> bool {
        self.0.is_shared()
    }

    fn leaves(&self, cx: &Cx, finished: &Finished) -> Option<Vec<Leaf>> {
        finished.value.downcast_ref::<S::Out>().and_then(|output| self.0.leaves(cx, output))
    }

    fn bind(self: Arc<Self>, values: &Values) -> Arc<dyn Bound> {
        Arc::new(With(Arc::clone(&self.0), self.1.take(values)))
    }
}

impl<S: Pure> Bound for With<S> {
    fn attempt(self: Arc<Self>, cx: Cx, _: Ledger) -> Attempt {
        Box::pin(async move { self.0.run(&cx, self.1.clone()).await.map(Finished::of).map(Landed::Done) })
    }
}

macro_rules! unread {
    () => {
        fn reads(&self, _: &Cx) -> Result<Reads, StepError> {
            Ok(Reads::nothing())
        }

        fn usable(&self, _: &Cx, _: &Finished) -> bool {
            true
        }
    };
}

impl<S: Effect, T: Take<Value = S::In>> Action for EffectNode<S, T> {
    common!();
    unread!();

    fn undone_on_failure(&self) -> bool {
        self.0.undone_on_failure()
    }

    fn bind(self: Arc<Self>, values: &Values) -> Arc<dyn Bound> {
        Arc::new(Acting(Arc::clone(&self.0), self.1.take(values)))
    }
}

/// What is said of an at-most-once effect that this run began before.
fn unknown() -> StepError {
    StepError::external("this run began it before, and nothing shows whether it was done: it is not repeated")
        .with_hint(UNKNOWN_HINT)
}

/// What a person has to do about an at-most-once effect without an outcome.
pub(crate) const UNKNOWN_HINT: &str =
    "it may have been done, in whole or in part, and cannot be looked up: see for yourself, then start a new run";

impl<S: Effect> Bound for Acting<S> {
    fn attempt(self: Arc<Self>, cx: Cx, ledger: Ledger) -> Attempt {
        Box::pin(async move {
            if S::REPEAT == Repeat::AtMostOnce && ledger.intended() {
                return Err(unknown());
            }
            match self.0.reconcile(&cx, &self.1).await? {
                World::Done(output) => Ok(Landed::FoundDone(Finished::of(output))),
                World::NotDone | World::Half => {
                    ledger.intend().await?;
                    if ledger.twice && S::REPEAT == Repeat::Reconcilable {
                        self.0.act(&cx, self.1.clone()).await?;
                    }
                    self.0.act(&cx, self.1.clone()).await.map(Finished::of).map(Landed::Done)
                }
            }
        })
    }

    fn look(self: Arc<Self>, cx: Cx) -> Option<BoxFuture<'static, Result<World<Finished>, StepError>>> {
        (S::REPEAT == Repeat::Reconcilable).then(|| {
            let future: BoxFuture<'static, _> = Box::pin(async move {
                Ok(match self.0.reconcile(&cx, &self.1).await? {
                    World::Done(output) => World::Done(Finished::of(output)),
                    World::NotDone => World::NotDone,
                    World::Half => World::Half,
                })
            });
            future
        })
    }

    fn undo(self: Arc<Self>, cx: Cx, output: Finished) -> Option<BoxFuture<'static, Result<(), StepError>>> {
        self.0.undone_on_failure().then(|| {
            let future: BoxFuture<'static, _> = Box::pin(async move {
                let output =
                    output.value.downcast_ref::<S::Out>().expect("a node's output is of its step's type").clone();
                self.0.undo(&cx, self.1.clone(), output).await
            });
            future
        })
    }
}

impl<S: Gate, T: Take<Value = S::In>> Action for GateNode<S, T> {
    common!();
    unread!();

    fn bind(self: Arc<Self>, values: &Values) -> Arc<dyn Bound> {
        Arc::new(Asking(Arc::clone(&self.0), self.1.take(values)))
    }
}

impl<S: Gate> Bound for Asking<S> {
    fn attempt(self: Arc<Self>, cx: Cx, _: Ledger) -> Attempt {
        Box::pin(async move {
            match self.0.ask(&cx, self.1.clone()).await? {
                Answer::Yes(output) => Ok(Landed::Done(Finished::of(output))),
                Answer::Waiting(what) => Ok(Landed::Parked(what)),
                Answer::No(error) => Err(error),
            }
        })
    }
}

impl<S: Finally> Action for FinallyNode<S> {
    common!();
    unread!();

    fn bind(self: Arc<Self>, _: &Values) -> Arc<dyn Bound> {
        unreachable!("finally-steps are run with a summary, not bound to inputs")
    }
}

/// A finally-step without its type.
pub(crate) trait Closing: Send + Sync {
    fn close(&self, cx: Cx, summary: Arc<Summary>) -> BoxFuture<'static, Result<(), StepError>>;
}

impl<S: Finally> Closing for FinallyNode<S> {
    fn close(&self, cx: Cx, summary: Arc<Summary>) -> BoxFuture<'static, Result<(), StepError>> {
        let step = Arc::clone(&self.0);
        Box::pin(async move { step.run(&cx, summary).await })
    }
}
