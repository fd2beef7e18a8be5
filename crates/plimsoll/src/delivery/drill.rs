//! `drill failover`: whether another environment can take over, with the state, and how long that takes. What serves is
//! copied and not touched.

use super::{
    backup::{self, Made, set},
    resources::Delivery,
    restore,
};
use crate::{
    cli::{FailoverArgs, Wanted},
    cli_error::CliError,
    interrupt, running,
    session::Session,
    verbs::runs::json,
};
use plimsoll_core::config::Gate;
use plimsoll_deploy::{Drive, Goal, Policy, Prober, Release, ReleaseRecord, Target, drive};
use plimsoll_engine::{StepError, system_clock};
use plimsoll_process::Cancel;
use plimsoll_steps::{drive_failed, preview};
use serde::Serialize;
use std::{process::ExitCode, time::Instant};

/// What a drill came to. Times are in milliseconds.
#[derive(Debug, Serialize)]
struct Report {
    environment: String,
    to: String,
    version: String,
    /// How old the state is that it went on with: what is younger would be lost.
    state_age_ms: i64,
    state_bytes: u64,
    /// Making the copy, where one was made.
    backup_ms: Option<u64>,
    stood_up_ms: u64,
    restored_ms: u64,
    /// From the restored state until every smoke request was answered.
    served_ms: u64,
    /// From the decision to the last smoke request, the copy apart: how long nobody would have served.
    outage_ms: u64,
    smoke_requests: u64,
    kept: bool,
}

/// Brings what is live in one environment up in another.
pub(crate) async fn failover(session: &Session, args: &FailoverArgs) -> Result<ExitCode, CliError> {
    let delivery = Delivery::open(session)?;
    let (from, to) = (delivery.target(session, &args.env)?, delivery.target(session, &args.to)?);
    if from.environment() == to.environment() {
        return Err(StepError::user("an environment does not take over from itself").into());
    }
    is_free(&*to).await?;
    let copying = Instant::now();
    let Made { directory, manifest } = match &args.from {
        None => backup::make(session, &*from, None).await?,
        // As if there were nothing else left: what was lost is not asked.
        Some(directory) => {
            let manifest = set::read(directory).map_err(|e| StepError::of(&e))?;
            restore::is_ours(session, directory, &manifest)?;
            restore::is_of(directory, &manifest, from.environment())?;
            Made { directory: directory.clone(), manifest }
        }
    };
    let backup_ms = args.from.is_none().then(|| millis(copying));
    set::verify(&directory, &manifest).map_err(|e| StepError::of(&e))?;
    let live = manifest.release.clone();
    restore::takes(&live, &manifest, false)?;
    let release = next(session, &*to, &live).await?;

    let begun = Instant::now();
    let state_age_ms = system_clock()().as_millis() - manifest.created.as_millis();
    let actor = session.actor().await;
    let made = Made { directory, manifest };
    let taken = Box::pin(take_over(session, args, (&*to, &delivery.prober), release, &made, &actor)).await;
    let kept = args.keep && taken.is_ok();
    if !kept {
        // Whatever came of it: nothing of a drill goes on working.
        let reason = format!("end of a drill: failover of {}", args.env);
        let stopped = rest(&*to, &actor, &reason).await;
        if taken.is_ok() {
            stopped?;
        }
    }
    let Phases { stood_up_ms, restored_ms, served_ms, smoke_requests } = taken?;
    let report = Report {
        environment: args.env.clone(),
        to: args.to.clone(),
        version: live.version.clone(),
        state_age_ms,
        state_bytes: made.manifest.bytes(),
        backup_ms,
        stood_up_ms,
        restored_ms,
        served_ms,
        outage_ms: millis(begun),
        smoke_requests,
        kept,
    };
    session.console.out(&if session.global.json { json(&report) } else { report.text() });
    Ok(ExitCode::SUCCESS)
}

/// How long each part took, in milliseconds.
struct Phases {
    stood_up_ms: u64,
    restored_ms: u64,
    served_ms: u64,
    smoke_requests: u64,
}

/// Stands the release up, gives it the state and asks whether it works.
async fn take_over(
    session: &Session,
    args: &FailoverArgs,
    (to, prober): (&dyn Target, &dyn Prober),
    release: Release,
    Made { directory, manifest }: &Made,
    actor: &str,
) -> Result<Phases, CliError> {
    let begun = Instant::now();
    let prober = to.prober().unwrap_or(prober);
    say(session, &format!("{}: standing {} up in {}\n", args.env, release.version, args.to));
    wake(to, actor).await?;
    let goal = Goal::Deploy(release);
    let policy = Policy::default().without_watch();
    let with =
        Drive { target: to, goal: &goal, policy: &policy, prober, meter: None, gate: &|_, _| Ok(()), observer: &() };
    let cancel = Cancel::new();
    interrupt::watch(cancel.clone());
    Box::pin(drive(&with, cancel.cancelled())).await.map_err(|e| drive_failed(&e))?;
    let stood_up_ms = millis(begun);

    let putting_back = Instant::now();
    say(session, &format!("{}: putting the state of {} back\n", args.to, manifest.created.readable()));
    let seen = to.observe().await.map_err(|e| StepError::of(&e))?;
    let live = restore::fits(&seen, manifest, false, system_clock()())?;
    let generation = restore::put_back(to, &seen, directory, manifest, actor).await?;
    let restored_ms = millis(putting_back);

    let starting = Instant::now();
    to.start(generation, actor).await.map_err(|e| StepError::of(&e))?;
    let smoked = restore::serves(to, live, prober).await?;
    let smoke_requests = smoked.requests.values().sum();
    Ok(Phases { stood_up_ms, restored_ms, served_ms: millis(starting), smoke_requests })
}

/// Refuses an environment in which something serves: it would be replaced, with its state.
async fn is_free(to: &dyn Target) -> Result<(), StepError> {
    let seen = to.peek().await.map_err(|e| StepError::of(&e))?;
    match seen.filter(|seen| !seen.stopped).and_then(|seen| seen.live) {
        Some(live) => {
            let environment = to.environment();
            let what = format!("{} is live in {environment}, and would be replaced with its state", live.version);
            Err(StepError::user(what).with_hint(format!("if that is meant, first: cargo xtask stop {environment}")))
        }
        None => Ok(()),
    }
}

/// Stops the other environment.
async fn rest(to: &dyn Target, actor: &str, reason: &str) -> Result<(), StepError> {
    let seen = to.observe().await.map_err(|e| StepError::of(&e))?;
    if seen.live.is_some() && !seen.stopped {
        to.stop(seen.generation, actor, Some(reason)).await.map_err(|e| StepError::of(&e))?;
    }
    Ok(())
}

/// What is live there, as the other environment is configured.
async fn next(session: &Session, to: &dyn Target, live: &ReleaseRecord) -> Result<Release, CliError> {
    let environment = to.environment();
    let wanted = Wanted { pipeline: "release", environment: Some(environment.to_string()), ..Wanted::default() };
    let (inputs, _) = session.inputs(wanted).await?;
    let mut release = preview(&inputs, environment, Some(live), &running::run_id(system_clock()()))?;
    if let Some(strange) = release.services.iter().find(|spec| !live.services.contains_key(&spec.name)) {
        let what = format!("{} is in plimsoll.toml, and not in what is live: there is no image of it", strange.name);
        return Err(StepError::user(what).with_hint("drill with the checkout that was released").into());
    }
    for spec in &mut release.services {
        // What the image says of its state, and not what this checkout would.
        let there = &live.services[&spec.name].spec;
        (spec.schema, spec.backup) = (there.schema, there.backup.clone());
    }
    (release.version, release.revision) = (live.version.clone(), live.revision.clone());
    // What was approved there is what serves here, or nothing does.
    release.approval.clone_from(&live.approval);
    let gated = session.config.environments.get(environment).is_some_and(|e| e.gate == Some(Gate::Approval));
    if gated && release.approval.is_none() {
        let what = format!("{environment} takes only what was approved, and {} was not", live.version);
        return Err(StepError::user(what).into());
    }
    Ok(release)
}

/// Starts an environment that an earlier drill left stopped.
async fn wake(to: &dyn Target, actor: &str) -> Result<(), StepError> {
    let seen = to.observe().await.map_err(|e| StepError::of(&e))?;
    if seen.stopped {
        to.start(seen.generation, actor).await.map_err(|e| StepError::of(&e))?;
    }
    Ok(())
}

fn say(session: &Session, line: &str) {
    if !session.global.quiet && !session.global.json {
        session.console.err(line);
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Report {
    fn text(&self) -> String {
        #[expect(clippy::cast_precision_loss, reason = "for people, to a tenth of a second")]
        let seconds = |millis: u64| format!("{:.1} s", millis as f64 / 1000.0);
        let age = seconds(u64::try_from(self.state_age_ms).unwrap_or(0));
        let copied = self.backup_ms.map(|ms| format!(", copied in {}", seconds(ms))).unwrap_or_default();
        let end = if self.kept { "it goes on" } else { "it was stopped again" };
        format!(
            "{to} took over from {from} with {version}; {end}\n  \
             state     {bytes} bytes, {age} old when it began{copied}: what is younger would be lost\n  \
             stood up  {up}\n  restored  {restored}\n  serving   {served}, {smoke} smoke requests answered\n  \
             outage    {outage}\n",
            to = self.to,
            from = self.environment,
            version = self.version,
            bytes = self.state_bytes,
            up = seconds(self.stood_up_ms),
            restored = seconds(self.restored_ms),
            served = seconds(self.served_ms),
            smoke = self.smoke_requests,
            outage = seconds(self.outage_ms),
        )
    }
}
