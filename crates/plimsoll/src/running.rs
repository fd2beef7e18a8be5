//! Starting a run and going on with one: the same reporting, signals and exit codes for both.

use crate::{
    cli_error::CliError,
    interrupt, masking,
    report::{self, RunReporter},
    seam,
    session::Session,
};
use plimsoll_core::{Ending, ErrorClass, RunId, RunOutcome, Timestamp};
use plimsoll_engine::{Pipeline, Report, Setup, Start, system_clock};
use plimsoll_process::Cancel;
use plimsoll_steps::{Inputs, Workspace};
use std::{
    hash::{BuildHasher, Hasher, RandomState},
    process::ExitCode,
    sync::Arc,
};
use tokio::runtime::Runtime;

/// The exit code of a run that parked: `EX_TEMPFAIL` of sysexits.h, try again later.
pub(crate) const PARKED: u8 = 75;

/// The runtime in which a verb's work is done.
pub(crate) fn runtime() -> Result<Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| CliError::Io { what: "start the runtime".to_owned(), source })
}

/// A number nobody can foresee: the standard library seeds its hash maps from the system's randomness.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Everything a run needs besides its graph.
pub(crate) async fn setup(
    session: &Session,
    inputs: &Inputs,
    workspace: Workspace,
    reporter: &Arc<RunReporter>,
) -> Result<Setup, CliError> {
    let resources = seam::resources(session, inputs, &workspace, reporter).await?.with(Arc::new(workspace));
    Ok(Setup {
        state: session.state.clone(),
        cache: session.cache.clone(),
        root: session.root.clone(),
        environment: Arc::clone(&session.environment),
        resources,
        observer: Arc::<RunReporter>::clone(reporter),
        redactor: masking::redactor(session, inputs.config())?,
        clock: system_clock(),
        jobs: session.global.jobs.map_or_else(processors, usize::from),
        fail_fast: session.global.fail_fast,
        use_cache: !session.global.no_cache && !inputs.options.afresh,
    })
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// A name for a run that begins now.
pub(crate) fn run_id(now: Timestamp) -> RunId {
    RunId::new(now, u16::try_from(random() & 0xffff).expect("sixteen bits are kept"))
}

/// Starts a run and reports how it went; gives the report too.
pub(crate) async fn start(
    session: &Session,
    pipeline: &Pipeline,
    inputs: &Inputs,
    workspace: Workspace,
) -> Result<(ExitCode, Report), CliError> {
    let reporter = Arc::new(RunReporter::new(session));
    let setup = setup(session, inputs, workspace, &reporter).await?;
    let id = run_id((setup.clock)());
    let start = Start {
        inputs: serde_json::to_value(inputs).expect("inputs are plain data"),
        actor: inputs.actor.clone(),
        executable: keep_own_executable(session)?,
        engine: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let cancel = Cancel::new();
    interrupt::watch(cancel.clone());
    let report = setup.start(pipeline, &id, start, cancel).await?;
    Ok((finish(session, &reporter, &inputs.source.version, &report), report))
}

/// Goes on with a run whose inputs were read back.
pub(crate) async fn resume(
    session: &Session,
    pipeline: &Pipeline,
    run: &RunId,
    inputs: &Inputs,
) -> Result<ExitCode, CliError> {
    let reporter = Arc::new(RunReporter::new(session));
    let load = Workspace::load(&session.root, &session.cache, &session.environment);
    let (workspace, actor) = tokio::join!(load, session.actor());
    let setup = setup(session, inputs, workspace?, &reporter).await?;
    let cancel = Cancel::new();
    interrupt::watch(cancel.clone());
    let report = setup.resume(pipeline, run, &actor, cancel).await;
    Ok(finish(session, &reporter, &inputs.source.version, &report?))
}

fn keep_own_executable(session: &Session) -> Result<String, CliError> {
    let kept = std::env::current_exe().and_then(|own| session.state.keep_executable(&own));
    let what = || format!("keep this executable in {}, from where the run is resumed", session.state.path().display());
    kept.map(|print| print.to_string()).map_err(|source| CliError::Io { what: what(), source })
}

fn finish(session: &Session, reporter: &RunReporter, version: &str, report: &Report) -> ExitCode {
    reporter.close();
    let run_dir = session.state.run(&report.run).path().to_owned();
    let outputs = report.steps.iter().filter_map(|step| Some((&*step.name, step.output.as_deref()?)));
    let picked = report::runs::picked_version(outputs);
    report::ended(session, picked.as_deref().unwrap_or(version), report, &run_dir);
    ExitCode::from(exit_code(report))
}

/// The exit code of a run.
fn exit_code(report: &Report) -> u8 {
    let first_failure = report.steps.iter().find_map(|step| match &step.ending {
        Ending::Failed { class, .. } => Some(*class),
        _ => None,
    });
    match report.outcome {
        RunOutcome::Succeeded => 0,
        RunOutcome::Parked => PARKED,
        RunOutcome::Interrupted | RunOutcome::Running => interrupt::INTERRUPTED,
        // A run that is only being taken back has no failed step of its own: what it could not do lies outside.
        RunOutcome::Failed => first_failure.unwrap_or(ErrorClass::External).exit_code(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_engine::StepReport;

    fn check(outcome: RunOutcome, failures: &[ErrorClass], expected: u8) {
        let failed = |class: &ErrorClass| StepReport {
            name: "step".into(),
            ending: Ending::Failed { class: *class, error: "e".into(), detail: Vec::new() },
            output: None,
            millis: 0,
        };
        let report = Report {
            run: "20260101-000000-0000".parse().unwrap(),
            outcome,
            steps: failures.iter().map(failed).collect(),
            stuck: Vec::new(),
            changed: false,
            millis: 0,
        };
        assert_eq!(exit_code(&report), expected, "{outcome:?} {failures:?}");
    }

    #[test]
    fn the_exit_code_tells_how_the_run_ended_and_whose_fault_a_failure_was() {
        check(RunOutcome::Succeeded, &[], 0);
        check(RunOutcome::Parked, &[], 75);
        check(RunOutcome::Interrupted, &[], 130);
        check(RunOutcome::Failed, &[ErrorClass::CheckFailed, ErrorClass::External], 1);
        check(RunOutcome::Failed, &[ErrorClass::User], 2);
        check(RunOutcome::Failed, &[ErrorClass::External], 3);
        check(RunOutcome::Failed, &[ErrorClass::Internal], 70);
        check(RunOutcome::Failed, &[], 3);
    }

    #[test]
    fn two_random_numbers_differ() {
        assert_ne!(random(), random());
    }
}
