//! `smoke`: the declared requests of every service, sent to where its users reach it, in dependency order.

use crate::{
    environment::{Deployed, Environment, Smoked},
    inputs::Inputs,
    release::Rendered,
    targets::Targets,
};
use plimsoll_core::ServiceName;
use plimsoll_deploy::{SmokeError, Target, smoke_environment};
use plimsoll_engine::{Cx, Effect, Step, StepError, World};
use serde::Serialize;
use std::{collections::BTreeMap, marker::PhantomData};

/// Smoke-tests what was deployed to `E`. It looks at the world and changes nothing, so all of it is reconciling: a smoke test
/// is never remembered.
#[derive(Debug, Serialize)]
pub struct Smoke<E> {
    rendered: Rendered,
    #[serde(skip)]
    of: PhantomData<fn() -> E>,
}

impl<E: Environment> Smoke<E> {
    /// The step for the configuration of `E`.
    pub fn new(inputs: &Inputs) -> Result<Self, StepError> {
        Ok(Self { rendered: Rendered::of::<E>(inputs)?, of: PhantomData })
    }

    async fn look(&self, cx: &Cx, deployed: &Deployed<E>) -> Result<Smoked<E>, StepError> {
        let targets = cx.resource::<Targets>()?;
        let target = targets.get(&E::name())?;
        let mut services = self.rendered.release(deployed.pushed(), cx.run(), None)?.services;
        // Whatever the configuration expects of `/version`, it must be the version that was deployed.
        let told = told(&*target).await?;
        for service in &mut services {
            let version = told.get(&service.name).unwrap_or(&self.rendered.version);
            for request in service.smoke.iter_mut().filter(|r| r.path == "/version") {
                request.json.insert("/version".to_owned(), version.clone().into());
            }
        }
        match smoke_environment(&*target, &services, target.prober().unwrap_or(&**targets.prober())).await {
            Ok(report) => Ok(Smoked::prove(deployed.pushed().clone(), deployed.signer().clone(), report)),
            Err(error) => {
                let failed = StepError::check("the smoke test failed").caused_by(&error);
                Err(failed.with_detail(log_tail(&*target, &error).await))
            }
        }
    }
}

/// The versions that services tell although another release serves: those of the releases that stood them up.
async fn told(target: &dyn Target) -> Result<BTreeMap<ServiceName, String>, StepError> {
    if target.kind().tells_every_release() {
        return Ok(BTreeMap::new());
    }
    let seen = target.observe().await.map_err(|e| StepError::of(&e))?;
    Ok(seen.services.into_iter().filter_map(|(name, view)| Some((name, view.live?.version))).collect())
}

/// The last lines of the service that did not answer as it should; none if they cannot be had.
async fn log_tail(target: &dyn Target, error: &SmokeError) -> Vec<String> {
    let SmokeError::Failed { service, .. } = error else { return Vec::new() };
    let seen = target.observe().await.ok();
    let Some(slot) = seen.and_then(|s| Some(s.services.get(service)?.live.as_ref()?.slot)) else { return Vec::new() };
    target.logs(service, slot, LOG_LINES).await.unwrap_or_default()
}

/// As many lines of a service's log as fit a screen beside the error.
const LOG_LINES: usize = 15;

impl<E: Environment> Step for Smoke<E> {
    const NAME: &'static str = "smoke";
    const VERSION: u32 = 1;
    type In = Deployed<E>;
    type Out = Smoked<E>;
}

impl<E: Environment> Effect for Smoke<E> {
    async fn reconcile(&self, cx: &Cx, deployed: &Deployed<E>) -> Result<World<Smoked<E>>, StepError> {
        self.look(cx, deployed).await.map(World::Done)
    }

    async fn act(&self, cx: &Cx, deployed: Deployed<E>) -> Result<Smoked<E>, StepError> {
        self.look(cx, &deployed).await
    }
}
