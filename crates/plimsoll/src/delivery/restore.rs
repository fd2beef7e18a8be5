//! `restore`: a backup put in the place of the states of an environment, which is stopped meanwhile.

mod fit;
#[cfg(test)]
mod tests;

pub(super) use fit::{fits, takes};

use super::{
    backup::{
        self,
        set::{self, Manifest},
        told,
    },
    resources::Delivery,
};
use crate::{cli::RestoreArgs, cli_error::CliError, session::Session, verbs::runs::json};
use plimsoll_core::{EnvironmentName, Generation, ServiceName};
use plimsoll_deploy::{
    Observation, Prober, RESTORING, ReleaseRecord, ServiceSpec, SmokeReport, Target, TargetError, smoke_environment,
};
use plimsoll_engine::{StepError, system_clock};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Between two looks at services that are being started.
const PAUSE: Duration = Duration::from_millis(200);

/// What is reported.
#[derive(Serialize)]
struct Report<'a> {
    directory: &'a Path,
    #[serde(flatten)]
    manifest: &'a Manifest,
    started: bool,
}

/// Puts a backup back.
pub(crate) async fn restore(session: &Session, args: &RestoreArgs) -> Result<ExitCode, CliError> {
    let delivery = Delivery::open(session)?;
    let target = delivery.target(session, &args.env)?;
    let (directory, manifest) = found(session, &*target, args)?;
    set::verify(&directory, &manifest).map_err(|e| StepError::of(&e))?;
    let seen = target.observe().await.map_err(|e| StepError::of(&e))?;
    let live = fits(&seen, &manifest, args.partial, system_clock()())?;
    // A restore that did not come to its end stopped it, and nobody else.
    let stays = seen.stopped && !seen.is_being_restored();
    let (path, bytes, created) = (directory.display(), manifest.bytes(), manifest.created.readable());
    if args.dry_run && session.global.json {
        session.console.out(&json(&Report { directory: &directory, manifest: &manifest, started: false }));
        return Ok(ExitCode::SUCCESS);
    }
    if args.dry_run {
        session.console.out(&format!(
            "the backup in {path} is whole: {bytes} bytes of {} services, from {created}\n{} would be stopped, get it, and {}\n",
            manifest.services.len(),
            args.env,
            if stays { "stay stopped, as it is" } else { "be started again" },
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let actor = session.actor().await;
    let generation = put_back(&*target, &seen, &directory, &manifest, &actor).await?;
    let started = !stays;
    if started {
        target.start(generation, &actor).await.map_err(|e| StepError::of(&e))?;
        serves(&*target, live, target.prober().unwrap_or(&delivery.http)).await?;
    }
    if session.global.json {
        session.console.out(&json(&Report { directory: &directory, manifest: &manifest, started }));
        return Ok(ExitCode::SUCCESS);
    }
    session.console.out(&format!("{} has its state of {created} again, {bytes} bytes from {path}\n", args.env));
    session.console.out(&if started {
        format!("it serves {}, and its smoke requests are answered\n", live.version)
    } else {
        format!("it is stopped, as it was; again: cargo xtask start {}\n", args.env)
    });
    Ok(ExitCode::SUCCESS)
}

/// The backup that was asked for, or the newest.
fn found(session: &Session, target: &dyn Target, args: &RestoreArgs) -> Result<(PathBuf, Manifest), StepError> {
    let environment = target.environment();
    let (directory, manifest) = if let Some(directory) = &args.from {
        (directory.clone(), set::read(directory).map_err(|e| StepError::of(&e))?)
    } else {
        let all = set::finished(&backup::usual(session, environment)).map_err(|e| StepError::of(&e))?;
        all.into_iter().next_back().ok_or_else(|| {
            StepError::user(format!("there is no backup of {environment} here"))
                .with_hint("--from names the directory of one that lies elsewhere")
        })?
    };
    if !args.other_environment {
        is_of(&directory, &manifest, environment)
            .map_err(|error| error.with_hint("--other-environment says that this is meant"))?;
    }
    is_ours(session, &directory, &manifest)?;
    Ok((directory, manifest))
}

/// Refuses another project's backup.
pub(super) fn is_ours(session: &Session, directory: &Path, manifest: &Manifest) -> Result<(), StepError> {
    let project = session.config.project.name.as_str();
    if manifest.project == project {
        return Ok(());
    }
    let directory = directory.display();
    Err(StepError::user(format!("{directory} is a backup of the project {}, and this is {project}", manifest.project)))
}

/// Refuses another environment's.
pub(super) fn is_of(directory: &Path, manifest: &Manifest, environment: &EnvironmentName) -> Result<(), StepError> {
    if manifest.environment == *environment {
        return Ok(());
    }
    let directory = directory.display();
    Err(StepError::user(format!("{directory} is a backup of {}, and not of {environment}", manifest.environment)))
}

/// Stops the environment and replaces the states; returns its generation then. It stays stopped, and its record says why.
pub(super) async fn put_back(
    target: &dyn Target,
    seen: &Observation,
    directory: &Path,
    manifest: &Manifest,
    actor: &str,
) -> Result<Generation, StepError> {
    let reason = format!("{RESTORING}{}", manifest.created.readable());
    let generation = if seen.stopped {
        seen.generation
    } else {
        target.stop(seen.generation, actor, Some(&reason)).await.map_err(|e| StepError::of(&e))?
    };
    let mut done: Vec<&ServiceName> = Vec::new();
    for service in manifest.services.keys() {
        match target.restore(generation, service, &set::file(directory, service)).await {
            Ok(()) => done.push(service),
            Err(error) => return Err(not_put_back(target, seen, generation, actor, &done, service, &error).await),
        }
    }
    Ok(generation)
}

/// What to say, and whether what served may serve on: only if it is known that no state was replaced.
async fn not_put_back(
    target: &dyn Target,
    seen: &Observation,
    generation: Generation,
    actor: &str,
    done: &[&ServiceName],
    service: &ServiceName,
    error: &TargetError,
) -> StepError {
    let (environment, failed) = (&seen.environment, told(error));
    let again = format!("{environment} stays stopped: give the same command again, or another backup");
    // A command that ended otherwise than well has replaced nothing, nor has one that was never begun.
    let untouched = matches!(error, TargetError::Slot { .. } | TargetError::Refused { .. });
    if !untouched {
        return failed.with_hint(format!("whether the state of {service} was replaced is not known; {again}"));
    }
    if !done.is_empty() {
        let names: Vec<_> = done.iter().map(|name| name.as_str()).collect();
        return failed.with_hint(format!("replaced: {}; {service} was not; {again}", names.join(", ")));
    }
    if seen.stopped {
        return failed.with_hint(format!("no state was replaced; {environment} is stopped, as it was"));
    }
    match target.start(generation, actor).await {
        Ok(_) => failed.with_hint(format!("no state was replaced, and {environment} was started again")),
        Err(cannot) => failed.with_hint(format!(
            "no state was replaced, but {environment} could not be started again: {}; cargo xtask start {environment} --as-it-is",
            plimsoll_core::chain(&cannot)
        )),
    }
}

/// Waits until everything serves again, and asks whether it works.
pub(super) async fn serves(
    target: &dyn Target,
    live: &ReleaseRecord,
    prober: &dyn Prober,
) -> Result<SmokeReport, StepError> {
    let longest = live.services.values().map(|record| record.spec.health.deadline_ms).max().unwrap_or_default();
    let deadline = Instant::now() + Duration::from_millis(longest);
    // Ends by the deadline of the slowest service.
    loop {
        let seen = target.observe().await.map_err(|e| StepError::of(&e))?;
        let waits = seen.services.iter().find_map(|(name, view)| {
            let slot = view.live.as_ref()?;
            (slot.ready < slot.replicas || slot.replicas == 0).then(|| (name.clone(), slot.failing.clone()))
        });
        let Some((service, failing)) = waits else { break };
        if Instant::now() >= deadline {
            let why = failing.unwrap_or_else(|| "no reason is known".to_owned());
            return Err(StepError::check(format!("{service} is not ready on the restored state: {why}")));
        }
        sleep(PAUSE).await;
    }
    let services: Vec<ServiceSpec> = live.specs().into_iter().cloned().collect();
    let smoked = smoke_environment(target, &services, prober).await;
    smoked.map_err(|e| StepError::check("the services do not work on the restored state").caused_by(&e))
}
