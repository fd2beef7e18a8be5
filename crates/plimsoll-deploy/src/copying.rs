//! Whether the state of a service may be copied, or a copy put in its place, and by which commands. Pure: every target asks
//! it first.

use crate::{observation::Observation, spec::ServiceSpec, target::TargetError};
use plimsoll_core::{BackupCommands, Generation, ServiceName, Slot};

/// The state of a service: where it is worked on, and how it is copied.
#[derive(Debug, Clone, Copy)]
pub struct Stateful<'a> {
    /// The slot that serves, or did until the environment was stopped.
    pub slot: Slot,
    /// What runs there.
    pub spec: &'a ServiceSpec,
    /// Its commands.
    pub commands: &'a BackupCommands,
}

/// What is copied, or why nothing is: nothing serves, or it has no commands for that.
pub fn admit_backup<'a>(seen: &'a Observation, service: &ServiceName) -> Result<Stateful<'a>, TargetError> {
    admit(seen, service, &format!("copy the state of {service} in {}", seen.environment))
}

/// What is replaced, or why nothing is: besides, a stale generation, and an environment that is not stopped.
pub fn admit_restore<'a>(
    seen: &'a Observation,
    from: Generation,
    service: &ServiceName,
) -> Result<Stateful<'a>, TargetError> {
    let (environment, current) = (&seen.environment, seen.generation);
    if from != current {
        return Err(TargetError::Stale { environment: environment.clone(), expected: from, current });
    }
    let what = format!("replace the state of {service} in {environment}");
    if !seen.stopped {
        let reason = format!("it is at work; stop it first: cargo xtask stop {environment}");
        return Err(TargetError::Refused { what, reason });
    }
    admit(seen, service, &what)
}

fn admit<'a>(seen: &'a Observation, service: &ServiceName, what: &str) -> Result<Stateful<'a>, TargetError> {
    let refused = |reason: &str| TargetError::Refused { what: what.to_owned(), reason: reason.to_owned() };
    let record = seen.live.as_ref().and_then(|live| live.services.get(service));
    let record = record.ok_or_else(|| refused("it never served here"))?;
    let commands = record.spec.backup.as_ref();
    let commands = commands.ok_or_else(|| refused("what serves was released without `backup` commands"))?;
    Ok(Stateful { slot: record.slot, spec: &record.spec, commands })
}
