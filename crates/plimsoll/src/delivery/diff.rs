//! `diff`: what a release of the present checkout would change of what is live, without building or changing anything.

mod difference;

use super::environments::target;
use crate::{cli::Wanted, cli_error::CliError, session::Session, verbs::runs::json};
use difference::Difference;
use plimsoll_core::{EnvironmentName, RunId, ServiceName};
use plimsoll_deploy::{ObjectDiff, Release, TargetKind};
use plimsoll_engine::{StepError, system_clock};
use plimsoll_steps::preview;
use std::{collections::BTreeMap, process::ExitCode};

/// Says what a release would change.
pub(crate) async fn diff(session: &Session, name: &str) -> Result<ExitCode, CliError> {
    let target = target(session, name)?;
    let wanted = Wanted { pipeline: "release", environment: Some(name.to_owned()), ..Wanted::default() };
    let (inputs, _) = session.inputs(wanted).await?;
    let seen = target.peek().await.map_err(|e| StepError::of(&e))?;
    let live = seen.as_ref().and_then(|seen| seen.live.as_ref());
    // No run is begun; objects that are made for one want a name for it.
    let next = preview(&inputs, target.environment(), live, &RunId::new(system_clock()(), 0))?;
    let objects = match target.kind() {
        TargetKind::Kubernetes => objects(session, target.environment(), &next).await?,
        TargetKind::Local | TargetKind::Docker => BTreeMap::new(),
    };
    let difference = Difference::new(target.kind(), seen.as_ref(), &next, objects);
    session.console.out(&if session.global.json { json(&difference) } else { difference.to_string() });
    Ok(ExitCode::SUCCESS)
}

#[cfg(feature = "kubernetes")]
async fn objects(
    session: &Session,
    environment: &EnvironmentName,
    next: &Release,
) -> Result<BTreeMap<ServiceName, Vec<ObjectDiff>>, StepError> {
    let target = super::kubernetes::target_of(session, environment);
    Box::pin(target.changes(next)).await.map_err(|e| StepError::of(&e))
}

#[cfg(not(feature = "kubernetes"))]
#[expect(clippy::unused_async, reason = "the other form awaits")]
async fn objects(
    _: &Session,
    environment: &EnvironmentName,
    _: &Release,
) -> Result<BTreeMap<ServiceName, Vec<ObjectDiff>>, StepError> {
    Err(super::resources::without("kubernetes", environment))
}
