//! `deploy`: a release into an environment with an open gate, such as staging, by a measured cut-over.

use crate::{
    deploying,
    environment::{Attested, Deployed, Environment, Open},
    inputs::Inputs,
    release::Rendered,
};
use plimsoll_deploy::Goal;
use plimsoll_engine::{Cx, Effect, Step, StepError, World};
use serde::Serialize;
use std::{marker::PhantomData, time::Duration};

/// Deploys to `E`. An environment that asks for approval has no such step: it is promoted to.
#[derive(Debug, Serialize)]
pub struct Deploy<E> {
    rendered: Rendered,
    #[serde(skip)]
    of: PhantomData<fn() -> E>,
}

impl<E: Environment<Gate = Open<E>>> Deploy<E> {
    /// The step for the configuration of `E`.
    pub fn new(inputs: &Inputs) -> Result<Self, StepError> {
        Ok(Self { rendered: Rendered::of::<E>(inputs)?, of: PhantomData })
    }
}

impl<E: Environment> Step for Deploy<E> {
    const NAME: &'static str = "deploy";
    const VERSION: u32 = 2;
    type In = Attested;
    type Out = Deployed<E>;

    fn timeout(&self) -> Duration {
        self.rendered.timeout()
    }
}

impl<E: Environment<Gate = Open<E>>> Effect for Deploy<E> {
    async fn reconcile(&self, cx: &Cx, attested: &Attested) -> Result<World<Deployed<E>>, StepError> {
        let pushed = attested.pushed();
        let goal = Goal::Deploy(self.rendered.release(pushed, cx.run(), None)?);
        Ok(match deploying::look(cx, &E::name(), &goal).await? {
            World::Done(outcome) => {
                World::Done(Deployed::prove(pushed.clone(), attested.signer().clone(), None, outcome))
            }
            World::NotDone => World::NotDone,
            World::Half => World::Half,
        })
    }

    async fn act(&self, cx: &Cx, attested: Attested) -> Result<Deployed<E>, StepError> {
        let pushed = attested.pushed();
        let goal = Goal::Deploy(self.rendered.release(pushed, cx.run(), None)?);
        let outcome = deploying::reach(cx, &E::name(), &goal, &self.rendered.policy, &|_, _| Ok(())).await?;
        Ok(Deployed::prove(pushed.clone(), attested.signer().clone(), None, outcome))
    }
}
