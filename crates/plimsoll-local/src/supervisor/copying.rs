//! Copying a service's state and putting a copy back: a command of the image that serves, beside the state.

use crate::supervisor::{
    core::Supervisor,
    place::SlotKey,
    protocol::{SecretValues, broken},
    runtime::{Job, JobKind, RuntimeError},
    view,
};
use plimsoll_core::{EnvironmentName, Generation, ServiceName};
use plimsoll_deploy::{Stateful, TargetError, admit_backup, admit_restore};
use std::path::PathBuf;

/// Copies a state into `to`, while it is worked on.
pub(crate) async fn backup(
    supervisor: &Supervisor,
    name: &EnvironmentName,
    service: &ServiceName,
    to: PathBuf,
    secrets: SecretValues,
) -> Result<(), TargetError> {
    let seen = view::observe(supervisor, name).await;
    let of = admit_backup(&seen, service)?;
    let job = Job { kind: JobKind::Save, command: of.commands.save.clone(), input: None, output: Some(to) };
    run(supervisor, name, &of, &job, secrets).await
}

/// Puts `copy` in the place of a state that nobody works on.
pub(crate) async fn restore(
    supervisor: &Supervisor,
    name: &EnvironmentName,
    from: Generation,
    service: &ServiceName,
    copy: PathBuf,
    secrets: SecretValues,
) -> Result<(), TargetError> {
    let seen = view::observe(supervisor, name).await;
    let of = admit_restore(&seen, from, service)?;
    let job = Job { kind: JobKind::Load, command: of.commands.load.clone(), input: Some(copy), output: None };
    run(supervisor, name, &of, &job, secrets).await
}

async fn run(
    supervisor: &Supervisor,
    name: &EnvironmentName,
    of: &Stateful<'_>,
    job: &Job,
    secrets: SecretValues,
) -> Result<(), TargetError> {
    let (service, slot) = (of.spec.name.clone(), of.slot);
    let key = SlotKey { environment: name.clone(), service: service.clone(), slot };
    supervisor.remember_secrets(&key, secrets);
    let command = job.command.join(" ");
    supervisor.run_beside(&key, job).await.map_err(|error| match error {
        RuntimeError::Command { how, said } => {
            TargetError::Slot { service, slot, reason: format!("`{command}`: {how}"), log_tail: said }
        }
        error => broken(format!("run `{command}` beside the state of {service}"), error),
    })
}
