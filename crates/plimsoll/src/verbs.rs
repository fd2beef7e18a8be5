//! What each verb does, one file per group. Verbs of delivery are on the other side of [`crate::seam`].

pub(crate) mod cache;
pub(crate) mod doctor;
pub(crate) mod plan;
pub(crate) mod resume;
pub(crate) mod runs;

use crate::{
    cli::{Command, Wanted, cache::Cache},
    cli_error::CliError,
    form,
    project::Project,
    running, seam,
    session::Session,
};
use std::{ffi::OsString, process::ExitCode};

#[cfg(feature = "delivery")]
pub(crate) use runs::find as find_run;

/// Does a verb.
pub(crate) fn run(
    session: &Session,
    project: &Project,
    command: &Command,
    args: &[OsString],
) -> Result<ExitCode, CliError> {
    if let Some(wanted) = command.wanted() {
        return start(session, project, command, wanted);
    }
    match command {
        Command::Resume { run } => resume::resume(session, project, run.as_deref(), args),
        Command::ResumeHere { run } => resume::here(session, project, run),
        Command::Runs => runs::list(session),
        Command::Logs { run, step } => runs::logs(session, run, step.as_deref()),
        Command::Plan { pipeline, format } => plan::plan(session, project, pipeline, *format),
        Command::Explain { step, pipeline } => plan::explain(session, project, step, pipeline.as_deref()),
        Command::Cache(Cache::Verify(args)) => cache::verify(session, project, args),
        other => match seam::verb(session, other)? {
            Some(code) => Ok(code),
            None => Err(CliError::NotHere { verb: other.verb().to_owned() }),
        },
    }
}

fn start(session: &Session, project: &Project, command: &Command, wanted: Wanted) -> Result<ExitCode, CliError> {
    running::runtime()?.block_on(async {
        let (inputs, workspace) = session.inputs(wanted).await?;
        let pipeline = project.build(&inputs)?;
        let (code, report) = running::start(session, &pipeline, &inputs, workspace).await?;
        match command {
            Command::Image(args) if code == ExitCode::SUCCESS => {
                seam::images(session, args, &inputs.source.version, &report).await
            }
            _ => Ok(code),
        }
    })
}

/// Says that the full executable is built first, when that will take a while.
pub(crate) fn announce_full(session: &Session, project: &Project) {
    if !form::is_built(project.package()) && !session.global.quiet {
        session.console.err("building the delivery verbs: this takes a few minutes the first time\n");
    }
}
