//! `backup`: the states of an environment's services, copied while they work.

pub(super) mod set;

use super::environments::target;
use crate::{cli::BackupArgs, cli_error::CliError, session::Session, verbs::runs::json};
use plimsoll_core::{EnvironmentName, ServiceName};
use plimsoll_deploy::{Target, TargetError};
use plimsoll_engine::{StepError, system_clock};
use serde::Serialize;
use set::Manifest;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// A backup that was made.
pub(super) struct Made {
    pub(super) directory: PathBuf,
    pub(super) manifest: Manifest,
}

/// What is reported of it.
#[derive(Serialize)]
struct Report<'a> {
    directory: &'a Path,
    #[serde(flatten)]
    manifest: &'a Manifest,
    removed: &'a [String],
}

/// Copies the states of an environment's services.
pub(crate) async fn backup(session: &Session, args: &BackupArgs) -> Result<ExitCode, CliError> {
    let target = target(session, &args.env)?;
    // The directory beside which others are looked for has a name of its own.
    let to = args.to.as_ref().map(std::path::absolute).transpose();
    let to = to.map_err(|source| CliError::Io { what: "find the working directory".to_owned(), source })?;
    let made = make(session, &*target, to.as_deref()).await?;
    let removed = match (args.keep_days, made.directory.parent()) {
        (Some(days), Some(parent)) => set::prune(parent, &made.manifest, days).map_err(|e| StepError::of(&e))?,
        _ => Vec::new(),
    };
    let (directory, manifest) = (&made.directory, &made.manifest);
    if session.global.json {
        session.console.out(&json(&Report { directory, manifest, removed: &removed }));
        return Ok(ExitCode::SUCCESS);
    }
    for (service, copied) in &manifest.services {
        session.console.out(&format!("{service}: {copied}\n"));
    }
    for date in removed {
        session.console.out(&format!("removed the backup of {date}\n"));
    }
    let path = directory.display();
    session.console.out(&format!(
        "{} at {} is in {path}\nput it back: cargo xtask restore {} --from {path}\n",
        args.env, manifest.release.version, args.env
    ));
    Ok(ExitCode::SUCCESS)
}

/// Where the backups of an environment lie unless somebody says otherwise.
pub(super) fn usual(session: &Session, environment: &EnvironmentName) -> PathBuf {
    session.state.path().join("backups").join(environment.as_str())
}

/// A directory of this name, or of the next one that is free: several may be made in a second.
fn unused(parent: &Path, name: &str) -> PathBuf {
    let names = std::iter::once(name.to_owned()).chain((2..).map(|n| format!("{name}-{n}")));
    let mut all = names.map(|name| parent.join(name));
    all.find(|directory| !directory.exists()).expect("there is a name that nobody has")
}

/// Makes a backup in `to`, else in a directory named after the moment.
pub(super) async fn make(session: &Session, target: &dyn Target, to: Option<&Path>) -> Result<Made, CliError> {
    let environment = target.environment();
    let seen = target.observe().await.map_err(|e| StepError::of(&e))?;
    let live = seen.live.clone();
    let live = live.ok_or_else(|| StepError::user(format!("nothing is live in {environment}")))?;
    let copied = live.services.iter().filter(|(_, record)| record.spec.backup.is_some());
    let copied: BTreeMap<&ServiceName, _> = copied.collect();
    if copied.is_empty() {
        let error = StepError::user(format!("no service that is live in {environment} says how its state is copied"));
        return Err(error
            .with_hint("give one `backup = { save = […], load = […] }` in plimsoll.toml, and release it")
            .into());
    }
    let now = system_clock()();
    let directory = to.map_or_else(|| unused(&usual(session, environment), &now.compact()), Path::to_owned);
    set::begin(&directory).map_err(|e| StepError::of(&e))?;
    let mut manifest = Manifest::new(session.config.project.name.as_str(), &seen, live.clone(), now);
    for (service, record) in copied {
        let file = set::create(&directory, service).map_err(|e| StepError::of(&e))?;
        target.backup(service, &file).await.map_err(|e| told(&e))?;
        let mut sum = set::sum(&file).map_err(|e| StepError::of(&e))?;
        sum.schema = record.spec.schema;
        manifest.services.insert(service.clone(), sum);
    }
    let after = target.observe().await.map_err(|e| StepError::of(&e))?;
    if after.generation != seen.generation {
        let what = format!("{environment} was changed while its states were copied: they may be of two releases");
        return Err(StepError::external(what).with_hint("make the backup again").into());
    }
    set::finish(&directory, &manifest).map_err(|e| StepError::of(&e))?;
    Ok(Made { directory, manifest })
}

/// A target's error with what the command to blame said.
pub(super) fn told(error: &TargetError) -> StepError {
    StepError::of(error).with_detail(error.log_tail().iter().cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backups_of_the_same_second_have_names_of_their_own() {
        let parent = tempfile::tempdir().unwrap();
        for expected in ["20261122-060000", "20261122-060000-2", "20261122-060000-3"] {
            let directory = unused(parent.path(), "20261122-060000");
            assert_eq!(directory, parent.path().join(expected));
            std::fs::create_dir(directory).unwrap();
        }
    }
}
