//! `resume`: a run goes on in the executable that began it, with the inputs it recorded.

use crate::{cli_error::CliError, form, project::Project, running, session::Session, verbs::runs};
use plimsoll_core::{Fingerprint, RunId, RunOutcome};
use plimsoll_engine::{Record, RunError};
use plimsoll_steps::Inputs;
use std::{ffi::OsString, process::ExitCode};

/// `resume [RUN]`: starts the kept executable if that is another one than this.
pub(crate) fn resume(
    session: &Session,
    project: &Project,
    run: Option<&str>,
    args: &[OsString],
) -> Result<ExitCode, CliError> {
    let run = match run {
        Some(text) => runs::find(session, text)?,
        None => newest_unfinished(session)?,
    };
    let recorded = recorded(session, &run)?;
    let own = std::env::current_exe().ok().and_then(|own| session.state.keep_executable(&own).ok());
    let kept = Fingerprint::try_from(recorded.executable.clone()).ok();
    if let Some(kept) = kept.filter(|kept| Some(kept) != own.as_ref())
        && let Some(path) = session.state.executable(&kept)
    {
        return Err(become_kept(session, &path, &run));
    }
    // What it was started with is gone or is this one: if this one has the pipeline, the plan hash decides.
    if !form::FULL && !project.has(&recorded.pipeline) {
        crate::verbs::announce_full(session, project);
        return Err(form::become_full(project, args, &session.environment));
    }
    go_on(session, project, &run, recorded)
}

/// The options go along, so that the kept executable reports as this one was asked to.
fn become_kept(session: &Session, path: &std::path::Path, run: &RunId) -> CliError {
    let global = &session.global;
    let jobs = global.jobs.map(|jobs| jobs.to_string());
    let mut args: Vec<&str> = vec!["__resume", run.as_str()];
    let flags = [
        (global.fail_fast, "--fail-fast"),
        (global.no_cache, "--no-cache"),
        (global.json, "--json"),
        (global.yes, "--yes"),
        (global.quiet, "--quiet"),
        (global.no_color, "--no-color"),
    ];
    args.extend(flags.iter().filter(|(given, _)| *given).map(|(_, flag)| *flag));
    if let Some(jobs) = &jobs {
        args.extend(["--jobs", jobs]);
    }
    form::become_kept(path, &args, &session.environment)
}

/// `__resume RUN`: goes on in this executable, whatever it is.
pub(crate) fn here(session: &Session, project: &Project, run: &str) -> Result<ExitCode, CliError> {
    let run = runs::find(session, run)?;
    let recorded = recorded(session, &run)?;
    go_on(session, project, &run, recorded)
}

fn go_on(session: &Session, project: &Project, run: &RunId, recorded: Recorded) -> Result<ExitCode, CliError> {
    let mut inputs: Inputs = serde_json::from_value(recorded.inputs)
        .map_err(|source| CliError::ForeignInputs { run: run.clone(), source })?;
    inputs.parse()?;
    let pipeline = project.build(&inputs)?;
    running::runtime()?.block_on(running::resume(session, &pipeline, run, &inputs))
}

/// What a journal's first record says of how to go on.
struct Recorded {
    pipeline: String,
    inputs: serde_json::Value,
    executable: String,
}

fn recorded(session: &Session, run: &RunId) -> Result<Recorded, CliError> {
    let (read, _) = session.state.run(run).read()?;
    match read.entries.into_iter().next().map(|entry| entry.record) {
        Some(Record::Started { pipeline, inputs, executable, .. }) => Ok(Recorded { pipeline, inputs, executable }),
        _ => Err(RunError::NeverBegan { run: run.clone() }.into()),
    }
}

/// The newest run that can go on. One whose journal cannot be believed is passed over: it is named when it is asked for.
fn newest_unfinished(session: &Session) -> Result<RunId, CliError> {
    let what = || format!("list the runs in {}", session.state.path().display());
    let runs = session.state.runs().map_err(|source| CliError::Io { what: what(), source })?;
    let open = |run: &RunId| {
        session.state.run(run).read().is_ok_and(|(read, outcome)| {
            let resumable = matches!(outcome, RunOutcome::Failed | RunOutcome::Parked | RunOutcome::Interrupted);
            resumable && !read.entries.is_empty()
        })
    };
    runs.into_iter().find(open).ok_or(CliError::NothingToResume)
}
