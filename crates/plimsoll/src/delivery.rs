//! Delivery: what the full executable adds to the thin one. Resources for runs that ship, the verbs that look at or change
//! environments, and the long-lived processes of the local target.

mod adopt;
mod approve;
mod backup;
mod cache;
mod daemons;
mod diff;
mod doctor;
mod drill;
mod environments;
mod images;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod notify;
mod rebuilt;
mod registries;
mod registry;
mod resources;
mod restore;
mod rightsize;
mod rollback;
mod signing;
mod status;
mod terminal;
#[cfg(test)]
mod testing;
mod verify;

pub(crate) use daemons::hidden;
pub(crate) use doctor::doctor;
pub(crate) use images::images;
#[cfg(feature = "kubernetes")]
pub(crate) use kubernetes::rendered;
pub(crate) use resources::resources;

use crate::{
    cli::{Command, Drill, cache::Cache},
    cli_error::CliError,
    running,
    session::Session,
};
use std::process::ExitCode;

/// Does a verb of delivery; `None` if it is none of its verbs.
pub(crate) fn verb(session: &Session, command: &Command) -> Result<Option<ExitCode>, CliError> {
    let runtime = running::runtime()?;
    let code = match command {
        Command::Status => runtime.block_on(status::status(session))?,
        Command::Diff { env } => runtime.block_on(diff::diff(session, env))?,
        Command::Adopt(args) => runtime.block_on(adopt::adopt(session, args))?,
        Command::Rightsize { env, length } => runtime.block_on(rightsize::rightsize(session, env, *length))?,
        Command::Approve(args) => runtime.block_on(approve::approve(session, args))?,
        Command::Smoke { env } => runtime.block_on(environments::smoke(session, env))?,
        Command::Rollback(args) if args.dry_run => runtime.block_on(rollback::dry_run(session, args))?,
        Command::Notify { message } => runtime.block_on(notify::notify(session, message.as_deref()))?,
        Command::Stop { env, reason } => runtime.block_on(environments::stop(session, env, reason.as_deref()))?,
        Command::Start { env, as_it_is } => runtime.block_on(environments::start(session, env, *as_it_is))?,
        Command::Backup(args) => runtime.block_on(backup::backup(session, args))?,
        Command::Restore(args) => runtime.block_on(restore::restore(session, args))?,
        Command::Drill(Drill::Failover(args)) => runtime.block_on(drill::failover(session, args))?,
        Command::Registry(verb) => runtime.block_on(registry::registry(session, verb))?,
        Command::Verify(args) => runtime.block_on(verify::verify(session, args))?,
        Command::Cache(Cache::Prune { dry_run }) => runtime.block_on(cache::prune_shared(session, *dry_run))?,
        Command::Down => runtime.block_on(environments::down(session))?,
        _ => return Ok(None),
    };
    Ok(Some(code))
}
