//! `adopt`: goes on from Deployments that somebody else made in an environment's namespace. Only in a cluster; what can be
//! adopted is decided there.

#[cfg(feature = "kubernetes")]
mod report;

use crate::{cli::AdoptArgs, cli_error::CliError, session::Session};
use plimsoll_core::{EnvironmentName, config::Target as TargetConfig};
use plimsoll_engine::StepError;
use std::process::ExitCode;

/// Says what would be adopted, and does it unless only that was asked for.
pub(crate) async fn adopt(session: &Session, args: &AdoptArgs) -> Result<ExitCode, CliError> {
    let name = session.environment_name(&args.env)?;
    if session.config.environments[&name].target != TargetConfig::Kubernetes {
        let error = StepError::user(format!("{name} is not in a cluster: there is nothing to adopt"));
        return Err(error.with_hint("adopt is for environments with target = \"kubernetes\"").into());
    }
    Box::pin(in_cluster(session, &name, args.dry_run)).await
}

#[cfg(feature = "kubernetes")]
async fn in_cluster(session: &Session, name: &EnvironmentName, dry_run: bool) -> Result<ExitCode, CliError> {
    use crate::{cli::Wanted, interrupt, running, verbs::runs::json};
    use plimsoll_deploy::{Drive, Goal, Target as _, drive};
    use plimsoll_engine::system_clock;
    use plimsoll_process::Cancel;
    use plimsoll_steps::{drive_failed, policy, preview};
    use report::Report;

    let wanted = Wanted { pipeline: "release", environment: Some(name.to_string()), ..Wanted::default() };
    let (inputs, _) = session.inputs(wanted).await?;
    let wanted = preview(&inputs, name, None, &running::run_id(system_clock()()))?;
    let target = super::kubernetes::target_of(session, name);
    let adoption = Box::pin(target.adoption(&wanted)).await.map_err(|e| StepError::of(&e))?;
    let mut report = Report::new(name, super::kubernetes::place(session, name), &adoption);
    let tell =
        |report: &Report| session.console.out(&if session.global.json { json(report) } else { report.to_string() });
    let Some(release) = adoption.release(&wanted) else {
        tell(&report);
        return Err(StepError::user(format!("nothing of {name} is adopted while a service of it cannot be")).into());
    };
    if dry_run {
        tell(&report);
        return Ok(ExitCode::SUCCESS);
    }
    let policy = policy(&session.config.environments[name]);
    let goal = Goal::Deploy(release);
    let prober = target.prober().expect("a cluster is asked through its API server");
    let gate = |_: &_, _: &_| Ok(());
    let observer = report::Telling(session);
    let with =
        Drive { target: &target, goal: &goal, policy: &policy, prober, meter: None, gate: &gate, observer: &observer };
    let cancel = Cancel::new();
    interrupt::watch(cancel.clone());
    let outcome = Box::pin(drive(&with, cancel.cancelled())).await;
    let outcome = outcome.map_err(|e| drive_failed(&e))?;
    report.done(&outcome.live);
    tell(&report);
    Ok(ExitCode::SUCCESS)
}

#[cfg(not(feature = "kubernetes"))]
#[expect(clippy::unused_async, reason = "the other form awaits")]
async fn in_cluster(_: &Session, name: &EnvironmentName, _: bool) -> Result<ExitCode, CliError> {
    Err(super::resources::without("kubernetes", name).into())
}
