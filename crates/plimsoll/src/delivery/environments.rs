//! `smoke`, `stop`, `start`, `down`: asking an environment whether it works, its emergency stop and the end of that, and the
//! end of everything local. The target records who stopped or started it.

use super::resources::Delivery;
use crate::{cli_error::CliError, session::Session};
use plimsoll_deploy::{Observation, ServiceSpec, Target, smoke_environment};
use plimsoll_engine::StepError;
use std::{process::ExitCode, sync::Arc};

pub(crate) fn target(session: &Session, name: &str) -> Result<Arc<dyn Target>, CliError> {
    Delivery::open(session)?.target(session, name)
}

/// Sends the declared smoke requests of what is live to where users reach it.
pub(crate) async fn smoke(session: &Session, name: &str) -> Result<ExitCode, CliError> {
    let delivery = Delivery::open(session)?;
    let target = delivery.target(session, name)?;
    let seen = target.peek().await.map_err(|e| StepError::of(&e))?;
    let live = seen.and_then(|s| s.live).ok_or_else(|| StepError::user(format!("nothing is live in {name}")))?;
    let services: Vec<ServiceSpec> = live.specs().into_iter().cloned().collect();
    match smoke_environment(&*target, &services, target.prober().unwrap_or(&delivery.http)).await {
        Ok(report) => {
            for (service, requests) in &report.requests {
                session.console.out(&format!("{service}: {requests} requests answered as declared\n"));
            }
            session.console.out(&format!("{name} works: {}\n", live.version));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(StepError::check(format!("{name} failed its smoke test")).caused_by(&error).into()),
    }
}

/// Ends all processes of an environment; its record stays.
pub(crate) async fn stop(session: &Session, name: &str, reason: Option<&str>) -> Result<ExitCode, CliError> {
    let target = target(session, name)?;
    let actor = session.actor().await;
    let seen = target.observe().await.map_err(|e| StepError::of(&e))?;
    if seen.live.is_none() {
        return Err(StepError::user(format!("nothing was deployed to {name} yet: there is nothing to stop")).into());
    }
    if seen.stopped && !is_up(&seen) {
        session.console.out(&format!("{name} is stopped already (generation {})\n", seen.generation));
        return Ok(ExitCode::SUCCESS);
    }
    let generation = target.stop(seen.generation, &actor, reason).await.map_err(|e| StepError::of(&e))?;
    session
        .console
        .out(&format!("{name} stopped by {actor} (generation {generation}); again: cargo xtask start {name}\n"));
    Ok(ExitCode::SUCCESS)
}

/// Whether something answers all the same: a stop that was interrupted is not done.
fn is_up(seen: &Observation) -> bool {
    seen.services.values().flat_map(|view| [&view.live, &view.standby]).flatten().any(|slot| slot.ready > 0)
}

/// Whether something that should serve is scaled to nothing: a start that was interrupted is not done.
fn is_down(seen: &Observation) -> bool {
    seen.services.values().filter_map(|view| view.live.as_ref()).any(|slot| slot.replicas == 0)
}

/// Starts a stopped environment as it was.
pub(crate) async fn start(session: &Session, name: &str, as_it_is: bool) -> Result<ExitCode, CliError> {
    let target = target(session, name)?;
    let actor = session.actor().await;
    let seen = target.observe().await.map_err(|e| StepError::of(&e))?;
    if !seen.stopped && !is_down(&seen) {
        session.console.out(&format!("{name} is not stopped (generation {})\n", seen.generation));
        return Ok(ExitCode::SUCCESS);
    }
    if seen.is_being_restored() && !as_it_is {
        let what = format!("{name} was stopped by a restore that has not come to its end: states may be old or new");
        let hint = format!("restore again, or: cargo xtask start {name} --as-it-is");
        return Err(StepError::user(what).with_hint(hint).into());
    }
    let generation = target.start(seen.generation, &actor).await.map_err(|e| StepError::of(&e))?;
    session.console.out(&format!("{name} started by {actor} (generation {generation})\n"));
    Ok(ExitCode::SUCCESS)
}

/// Ends everything that runs on this machine for this project; the state stays.
pub(crate) async fn down(session: &Session) -> Result<ExitCode, CliError> {
    let delivery = Delivery::open(session)?;
    if let Some(target) = &delivery.local {
        target.down().await.map_err(|e| StepError::of(&e))?;
    }
    session.console.out("nothing of this project runs here any more; its state stays\n");
    Ok(ExitCode::SUCCESS)
}
