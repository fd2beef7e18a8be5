//! `promote`: an approved release into its environment, by a measured cut-over that checks the approval once more inside, after the
//! policy had its look at what is to serve.
//! When a later step of the run fails, what served before is put back.

use crate::{
    approve::{Subject, still_holds},
    deploying,
    environment::{Approval, Deployed, Environment},
    inputs::Inputs,
    policy::Policy,
    release::Rendered,
    targets::Targets,
};
use plimsoll_deploy::{Change, Goal, ReleaseRecord};
use plimsoll_engine::{Cx, Effect, Step, StepError, World};
use serde::Serialize;
use std::{marker::PhantomData, time::Duration};

/// Promotes to `E`.
#[derive(Debug, Serialize)]
pub struct Promote<E> {
    rendered: Rendered,
    policy: Policy,
    #[serde(skip)]
    of: PhantomData<fn() -> E>,
}

impl<E: Environment<Gate = Approval<E>>> Promote<E> {
    /// The step for the configuration of `E`.
    pub fn new(inputs: &Inputs) -> Result<Self, StepError> {
        Ok(Self { rendered: Rendered::of::<E>(inputs)?, policy: Policy::of(inputs), of: PhantomData })
    }
}

impl<E: Environment<Gate = Approval<E>>> Step for Promote<E> {
    const NAME: &'static str = "promote";
    const VERSION: u32 = 2;
    type In = E::Gate;
    type Out = Deployed<E>;

    fn timeout(&self) -> Duration {
        self.rendered.timeout()
    }
}

impl<E: Environment<Gate = Approval<E>>> Promote<E> {
    fn goal(&self, cx: &Cx, approval: &Approval<E>) -> Result<Goal, StepError> {
        let record = Some(approval.record().clone());
        Ok(Goal::Deploy(self.rendered.release(approval.pushed(), cx.run(), record)?))
    }
}

impl<E: Environment<Gate = Approval<E>>> Effect for Promote<E> {
    async fn reconcile(&self, cx: &Cx, approval: &Approval<E>) -> Result<World<Deployed<E>>, StepError> {
        Ok(match deploying::look(cx, &E::name(), &self.goal(cx, approval)?).await? {
            World::Done(outcome) => World::Done(Deployed::prove(
                approval.pushed().clone(),
                approval.signer().clone(),
                Some(approval.record().clone()),
                outcome,
            )),
            World::NotDone => World::NotDone,
            World::Half => World::Half,
        })
    }

    async fn act(&self, cx: &Cx, approval: Approval<E>) -> Result<Deployed<E>, StepError> {
        let goal = self.goal(cx, &approval)?;
        let (record, pushed) = (approval.record().clone(), approval.pushed());
        self.policy.admit(cx, pushed, approval.signer()).await?;
        let gate = |seen: &_, release: &_| {
            let subject = Subject::of(cx, pushed, release, approval.replaces());
            still_holds(&record, &subject, release, seen, cx.now())
        };
        let outcome = deploying::reach(cx, &E::name(), &goal, &self.rendered.policy, &gate).await?;
        Ok(Deployed::prove(approval.pushed().clone(), approval.signer().clone(), Some(record), outcome))
    }

    fn undone_on_failure(&self) -> bool {
        true
    }

    async fn undo(&self, cx: &Cx, approval: Approval<E>, _: Deployed<E>) -> Result<(), StepError> {
        let goal = self.goal(cx, &approval)?;
        let target = cx.resource::<Targets>()?.get(&E::name())?;
        let seen = target.observe().await.map_err(|e| StepError::of(&e))?;
        let by_us = |record: &ReleaseRecord| record.run == *cx.run();
        // What another run has put there since stays.
        if !seen.live.is_some_and(|live| by_us(&live) && goal.is_served_by(&live)) {
            return Ok(());
        }
        let Some(record) = seen.history.into_iter().find(|record| !by_us(record)) else {
            cx.note(format!("{} stays: nothing served in {} before it", self.rendered.version, E::NAME));
            return Ok(());
        };
        cx.note(format!("{} goes back to {}", E::NAME, record.version));
        let back = Goal::PutBack { record, change: Change::AutomaticReturn, by: goal.owner() };
        let policy = self.rendered.policy.without_watch();
        deploying::reach(cx, &E::name(), &back, &policy, &|_, _| Ok(())).await?;
        // What failed is no release to go back to: nothing of it stays warm.
        let seen = target.observe().await.map_err(|e| StepError::of(&e))?;
        for spec in goal.services() {
            let standby = seen.services.get(&spec.name).and_then(|view| view.standby.as_ref());
            if let Some(slot) = standby.filter(|slot| slot.runs(spec)) {
                target.retire(&spec.name, slot.slot).await.map_err(|e| StepError::of(&e))?;
            }
        }
        Ok(())
    }
}
