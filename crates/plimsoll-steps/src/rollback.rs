//! `rollback`: a release that served before is put back. First it is picked, then put back: a resume puts back what was picked, not
//! what would be picked by then.

use crate::{deploying, environment::Environment, inputs::Inputs, release::Rendered, targets::Targets};
use plimsoll_core::config::Gate as GateKind;
use plimsoll_deploy::{Change, Goal, LockOwner, Observation, Outcome, Policy, ReleaseRecord};
use plimsoll_engine::{Cx, Effect, Step, StepError, World};
use serde::Serialize;
use std::{marker::PhantomData, time::Duration};

/// Picks the release to put back: the last one before the present, or the one of the version asked for.
#[derive(Debug, Serialize)]
pub struct Pick<E> {
    to: Option<String>,
    gated: bool,
    #[serde(skip)]
    of: PhantomData<fn() -> E>,
}

/// Puts the picked release back.
#[derive(Debug, Serialize)]
pub struct Rollback<E> {
    rendered: Rendered,
    #[serde(skip)]
    of: PhantomData<fn() -> E>,
}

impl<E: Environment> Pick<E> {
    /// The step for what the command line asked for.
    pub fn new(inputs: &Inputs) -> Self {
        let environment = inputs.config().environments.get(&E::name());
        let gated = environment.is_some_and(|e| e.gate == Some(GateKind::Approval));
        Self { to: inputs.options.to.clone(), gated, of: PhantomData }
    }
}

impl<E: Environment> Rollback<E> {
    /// The step for the configuration of `E`.
    pub fn new(inputs: &Inputs) -> Result<Self, StepError> {
        Ok(Self { rendered: Rendered::of::<E>(inputs)?, of: PhantomData })
    }
}

/// The release to put back, out of those that served. Pure.
pub fn pick(seen: &Observation, to: Option<&str>, gated: bool) -> Result<ReleaseRecord, StepError> {
    let environment = &seen.environment;
    let known = || seen.history.iter().map(|r| r.version.as_str()).collect::<Vec<_>>().join(", ");
    let live = seen.live.as_ref().map(|l| l.generation);
    let mut former = seen.history.iter().filter(|r| Some(r.generation) != live);
    let found = match to {
        Some(version) => former.find(|r| r.version == version).ok_or_else(|| {
            StepError::user(format!("{environment} never served {version}")).with_hint(if seen.history.is_empty() {
                "it has no former release".to_owned()
            } else {
                format!("it served {}", known())
            })
        })?,
        None => former
            .next()
            .ok_or_else(|| StepError::user(format!("{environment} has no former release to go back to")))?,
    };
    if gated && found.approval.is_none() {
        return Err(StepError::check(format!("{} served in {environment} without an approval", found.version)));
    }
    Ok(found.clone())
}

impl<E: Environment> Step for Pick<E> {
    const NAME: &'static str = "pick";
    const VERSION: u32 = 1;
    type In = ();
    type Out = ReleaseRecord;
}

impl<E: Environment> Effect for Pick<E> {
    async fn reconcile(&self, cx: &Cx, (): &()) -> Result<World<ReleaseRecord>, StepError> {
        let target = cx.resource::<Targets>()?.get(&E::name())?;
        let seen = target.observe().await.map_err(|e| StepError::of(&e))?;
        let record = pick(&seen, self.to.as_deref(), self.gated)?;
        let live = seen.live.as_ref().map_or("nothing", |l| l.version.as_str());
        cx.note(format!("{} goes back from {live} to {}", E::NAME, record.version));
        Ok(World::Done(record))
    }

    async fn act(&self, _: &Cx, (): ()) -> Result<ReleaseRecord, StepError> {
        Err(StepError::internal("picking is all looking: there is nothing to do"))
    }
}

impl<E: Environment> Rollback<E> {
    fn goal(&self, cx: &Cx, record: &ReleaseRecord) -> Goal {
        let by = LockOwner { run: cx.run().clone(), actor: self.rendered.actor.clone() };
        Goal::PutBack { record: record.clone(), change: Change::Rollback, by }
    }
}

impl<E: Environment> Step for Rollback<E> {
    const NAME: &'static str = "rollback";
    const VERSION: u32 = 1;
    type In = ReleaseRecord;
    type Out = Outcome;
}

impl<E: Environment> Effect for Rollback<E> {
    async fn reconcile(&self, cx: &Cx, record: &ReleaseRecord) -> Result<World<Outcome>, StepError> {
        deploying::look(cx, &E::name(), &self.goal(cx, record)).await
    }

    async fn act(&self, cx: &Cx, record: ReleaseRecord) -> Result<Outcome, StepError> {
        // Whoever rolls back is in a hurry, and the release served well before: it is not watched first.
        let policy = Policy { watch: Duration::ZERO, ..self.rendered.policy.clone() };
        deploying::reach(cx, &E::name(), &self.goal(cx, &record), &policy, &|_, _| Ok(())).await
    }
}
