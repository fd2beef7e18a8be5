//! `status`: what is live where, since when, who approved it. It looks and starts nothing.

use super::resources::Delivery;
use crate::{cli_error::CliError, session::Session};
use plimsoll_deploy::{Observation, ReleaseRecord, TargetKind};
use plimsoll_engine::StepError;
use serde::Serialize;
use std::{fmt::Write, process::ExitCode};

/// `status --json`; its shape is stable and described by `docs/status.schema.json`.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    environments: Vec<EnvironmentStatus>,
}

#[derive(Debug, Serialize)]
struct EnvironmentStatus {
    name: String,
    target: TargetKind,
    generation: u64,
    stopped: bool,
    live: Option<LiveStatus>,
    lock: Option<plimsoll_deploy::LockView>,
}

#[derive(Debug, Serialize)]
struct LiveStatus {
    version: String,
    revision: String,
    run: String,
    since: String,
    started_by: String,
    approved_by: Option<String>,
    services: Vec<ServiceStatus>,
}

#[derive(Debug, Serialize)]
struct ServiceStatus {
    name: String,
    slot: String,
    digest: String,
    url: Option<String>,
    replicas: u16,
    ready: u16,
    standby: Option<String>,
    failing: Option<String>,
}

/// Prints the status of all environments.
pub(crate) async fn status(session: &Session) -> Result<ExitCode, CliError> {
    let delivery = Delivery::open(session, false)?;
    let mut environments = Vec::new();
    for (name, target) in &delivery.targets {
        let seen = target.peek().await.map_err(|e| StepError::of(&e))?;
        environments.push(environment(name.as_str(), seen));
    }
    let status = Status { environments };
    let text = if session.global.json {
        serde_json::to_string_pretty(&status).expect("a status is plain data") + "\n"
    } else {
        render(&status)
    };
    session.console.out(&text);
    Ok(ExitCode::SUCCESS)
}

fn environment(name: &str, seen: Option<Observation>) -> EnvironmentStatus {
    let nothing = |name: &str| EnvironmentStatus {
        name: name.to_owned(),
        target: TargetKind::Local,
        generation: 0,
        stopped: false,
        live: None,
        lock: None,
    };
    let Some(seen) = seen else { return nothing(name) };
    EnvironmentStatus {
        generation: seen.generation.0,
        stopped: seen.stopped,
        live: seen.live.as_ref().map(|live| live_status(live, &seen)),
        lock: seen.lock,
        ..nothing(name)
    }
}

fn live_status(live: &ReleaseRecord, seen: &Observation) -> LiveStatus {
    let services = live.services.iter().map(|(name, record)| {
        let view = seen.services.get(name);
        let slot = view.and_then(|v| v.live.as_ref());
        ServiceStatus {
            name: name.to_string(),
            slot: slot.map_or(record.slot, |s| s.slot).to_string(),
            digest: record.spec.digest.to_string(),
            url: view.and_then(|v| v.url.clone()),
            replicas: record.spec.replicas,
            ready: slot.map_or(0, |s| s.ready),
            standby: view.and_then(|v| v.standby.as_ref()).map(|s| s.version.clone()),
            failing: slot.and_then(|s| s.failing.clone()),
        }
    });
    LiveStatus {
        version: live.version.clone(),
        revision: live.revision.clone(),
        run: live.run.to_string(),
        since: live.since.to_string(),
        started_by: live.actor.clone(),
        approved_by: live.approval.as_ref().map(|a| a.approver.clone()),
        services: services.collect(),
    }
}

fn render(status: &Status) -> String {
    let mut out = String::new();
    let mut say = |text: String| writeln!(out, "{text}").expect("a string can always be written to");
    for environment in &status.environments {
        let Some(live) = &environment.live else {
            say(format!("{}: nothing was deployed yet", environment.name));
            continue;
        };
        let stopped = if environment.stopped { ", STOPPED" } else { "" };
        let approved = live.approved_by.as_ref().map_or(String::new(), |a| format!(", approved by {a}"));
        say(format!(
            "{}: {} since {} (generation {}{stopped})",
            environment.name, live.version, live.since, environment.generation
        ));
        say(format!("  started by {}{approved}, run {}", live.started_by, live.run));
        for service in &live.services {
            let url = service.url.as_deref().unwrap_or("-");
            say(format!(
                "  {:<24} {:<5} {}/{} ready  {url}",
                service.name, service.slot, service.ready, service.replicas
            ));
            if let Some(failing) = &service.failing {
                say(format!("    {failing}"));
            }
        }
        if let Some(lock) = &environment.lock {
            say(format!("  locked by run {} of {} since {}", lock.run, lock.actor, lock.since.readable()));
        }
    }
    out
}
