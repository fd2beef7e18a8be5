//! `rollback --dry-run`: which release would be put back, and what that changes.

use super::environments::target;
use crate::{cli::RollbackArgs, cli_error::CliError, session::Session};
use plimsoll_core::config::Gate;
use plimsoll_deploy::{Goal, LockOwner, ReleaseDiff};
use plimsoll_engine::StepError;
use plimsoll_steps::pick;
use std::process::ExitCode;

/// Says what `rollback` would do.
pub(crate) async fn dry_run(session: &Session, args: &RollbackArgs) -> Result<ExitCode, CliError> {
    let target = target(session, &args.env)?;
    let seen = target.peek().await.map_err(|e| StepError::of(&e))?;
    let seen = seen.ok_or_else(|| StepError::user(format!("{} never served anything", args.env)))?;
    let gated = session.config.environments.get(target.environment()).is_some_and(|e| e.gate == Some(Gate::Approval));
    let record = pick(&seen, args.to.as_deref(), gated)?;
    let by = LockOwner { run: record.run.clone(), actor: session.actor().await };
    let goal = Goal::PutBack { record: record.clone(), change: plimsoll_deploy::Change::Rollback, by };
    let diff = ReleaseDiff::between(seen.live.as_ref(), &goal.release(target.environment()));
    let live = seen.live.as_ref().map_or("nothing", |l| l.version.as_str());
    session.console.out(&format!("{} would go back from {live} to {}\n{diff}\n", args.env, record.version));
    Ok(ExitCode::SUCCESS)
}
