//! `status`: what is live where, since when, who approved it. It looks and starts nothing.

use super::resources::Delivery;
use crate::{cli_error::CliError, session::Session};
use plimsoll_core::ErrorClass;
use plimsoll_deploy::{Observation, ReleaseRecord, Switched, TargetKind};
use plimsoll_engine::StepError;
use serde::Serialize;
use std::{fmt::Write, process::ExitCode, time::Duration};

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
    switched: Option<Switched>,
    live: Option<LiveStatus>,
    lock: Option<plimsoll_deploy::LockView>,
    /// Whether a cut-over moved some services and not the others: it is under way, or was left so.
    half_made: bool,
    /// What somebody else changed there.
    drift: Vec<plimsoll_deploy::Drift>,
    /// Why nothing is known of it now.
    problem: Option<String>,
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
    /// The share of the requests, in per cent, that the standby slot gets.
    canary: u8,
    failing: Option<String>,
}

/// A target that takes longer to look at keeps nobody from hearing of the others.
const PATIENCE: Duration = Duration::from_secs(15);

/// Prints the status of all environments.
pub(crate) async fn status(session: &Session) -> Result<ExitCode, CliError> {
    let delivery = Delivery::open(session)?;
    let mut environments = Vec::new();
    for (name, target) in &delivery.targets {
        let (seen, problem) = match tokio::time::timeout(PATIENCE, target.peek()).await {
            Ok(Ok(seen)) => (seen, None),
            Ok(Err(error)) => (None, Some(StepError::of(&error).to_string())),
            Err(_) => (None, Some(format!("it did not answer within {} s", PATIENCE.as_secs()))),
        };
        environments.push(EnvironmentStatus { problem, ..environment(name.as_str(), target.kind(), seen) });
    }
    let unknown = environments.iter().any(|e| e.problem.is_some());
    let status = Status { environments };
    let text = if session.global.json {
        serde_json::to_string_pretty(&status).expect("a status is plain data") + "\n"
    } else {
        render(&status)
    };
    session.console.out(&text);
    // What cannot be looked at is an external failure; the others have been told all the same.
    Ok(if unknown { ExitCode::from(ErrorClass::External.exit_code()) } else { ExitCode::SUCCESS })
}

fn environment(name: &str, target: TargetKind, seen: Option<Observation>) -> EnvironmentStatus {
    let nothing = |name: &str| EnvironmentStatus {
        name: name.to_owned(),
        target,
        generation: 0,
        stopped: false,
        switched: None,
        live: None,
        lock: None,
        half_made: false,
        drift: Vec::new(),
        problem: None,
    };
    let Some(seen) = seen else { return nothing(name) };
    EnvironmentStatus {
        generation: seen.generation.0,
        stopped: seen.stopped,
        switched: seen.switched.clone(),
        live: seen.live.as_ref().map(|live| live_status(live, &seen)),
        half_made: seen.is_half_made(),
        lock: seen.lock,
        drift: seen.drift,
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
            canary: view.map_or(0, |v| v.share),
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
        if let Some(problem) = &environment.problem {
            say(format!("{}: unknown: {problem}", environment.name));
            continue;
        }
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
        if let Some(by) = environment.switched.as_ref().filter(|_| environment.stopped) {
            let reason = by.reason.as_ref().map_or(String::new(), |r| format!(": {r}"));
            say(format!("  stopped by {} at {}{reason}", by.actor, by.at.readable()));
        }
        say(format!("  started by {}{approved}, run {}", live.started_by, live.run));
        // What is wrong with all of them alike is said once.
        let first = live.services.first().and_then(|s| s.failing.as_ref());
        let common =
            first.filter(|f| live.services.len() > 1 && live.services.iter().all(|s| s.failing.as_ref() == Some(*f)));
        if let Some(failing) = common {
            say(format!("  {failing}"));
        }
        for service in &live.services {
            let url = service.url.as_deref().unwrap_or("-");
            say(format!(
                "  {:<24} {:<5} {}/{} ready  {url}",
                service.name, service.slot, service.ready, service.replicas
            ));
            if service.canary > 0 {
                let version = service.standby.as_deref().unwrap_or("the other slot");
                say(format!("    canary: {version} gets {} % of the requests", service.canary));
            }
            if let Some(failing) = service.failing.as_ref().filter(|_| common.is_none()) {
                say(format!("    {failing}"));
            }
        }
        for drift in &environment.drift {
            say(format!("  CHANGED BY SOMEBODY ELSE  {drift}"));
        }
        if environment.half_made {
            let name = &environment.name;
            say(format!(
                "  HALF MADE  a cut-over has moved some services and not the others; where nobody works on it any more, \
                 `cargo xtask resume` of its run finishes it, and `cargo xtask rollback {name}` takes it back"
            ));
        }
        if let Some(lock) = &environment.lock {
            say(format!("  locked by run {} of {} since {}", lock.run, lock.actor, lock.since.readable()));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::schema::{documented, violations};
    use plimsoll_core::{Digest, Fingerprint, Generation, Slot};
    use plimsoll_deploy::{ApprovalRecord, Evidence, ServiceRecord, ServiceSpec, ServiceView, SlotView, sample};
    use std::collections::BTreeMap;

    fn observation() -> Observation {
        let (digest, hash) = (Digest::of(b"image"), Fingerprint::of(b"config"));
        let spec = ServiceSpec {
            image: "127.0.0.1:5000/kairos/api".parse().unwrap(),
            digest: digest.clone(),
            replicas: 2,
            config_hash: hash,
            ..sample("api")
        };
        let slot = |slot, version: &str, failing: Option<&str>| SlotView {
            slot,
            digest: digest.clone(),
            config_hash: hash,
            version: version.into(),
            replicas: 2,
            ready: 1,
            active: None,
            failing: failing.map(str::to_owned),
            stuck: false,
            crashes: 0,
        };
        let view = ServiceView {
            live: Some(slot(Slot::Green, "1.1.0", Some("replica 1 does not answer"))),
            standby: Some(slot(Slot::Blue, "1.0.0", None)),
            share: 5,
            url: Some("http://127.0.0.1:4000".into()),
        };
        let at = plimsoll_core::Timestamp::from_millis(0);
        let approval =
            ApprovalRecord { approver: "ann@x".into(), evidence: Evidence::Terminal, at, expires: at, subject: hash };
        let live = ReleaseRecord {
            version: "1.1.0".into(),
            revision: "abc".into(),
            run: "20260101-000000-0000".parse().unwrap(),
            actor: "bob@x".into(),
            since: at,
            generation: Generation(7),
            approval: Some(approval),
            services: BTreeMap::from([("api".parse().unwrap(), ServiceRecord { slot: Slot::Green, spec })]),
        };
        Observation {
            environment: "production".parse().unwrap(),
            generation: Generation(7),
            live: Some(live),
            history: Vec::new(),
            services: BTreeMap::from([("api".parse().unwrap(), view)]),
            stopped: false,
            switched: None,
            lock: None,
            drift: Vec::new(),
        }
    }

    #[test]
    fn what_status_prints_is_what_its_schema_says() {
        let environments = vec![
            environment("production", TargetKind::Local, Some(observation())),
            environment("staging", TargetKind::Kubernetes, None),
        ];
        let status = serde_json::to_value(Status { environments }).unwrap();
        assert_eq!(violations(&documented("status.schema.json"), &status), Vec::<String>::new());
    }

    #[test]
    fn a_person_reads_what_is_live_who_approved_it_and_what_is_wrong() {
        let environments = vec![
            environment("production", TargetKind::Local, Some(observation())),
            environment("staging", TargetKind::Kubernetes, None),
        ];
        assert_eq!(
            render(&Status { environments }),
            "production: 1.1.0 since 1970-01-01T00:00:00.000Z (generation 7)\n  \
             started by bob@x, approved by ann@x, run 20260101-000000-0000\n  \
             api                      green 1/2 ready  http://127.0.0.1:4000\n    \
             canary: 1.0.0 gets 5 % of the requests\n    replica 1 does not answer\n\
             staging: nothing was deployed yet\n"
        );
    }

    #[test]
    fn a_cut_over_that_was_left_half_made_is_told_with_what_puts_it_right() {
        let mut seen = observation();
        let view = seen.services.values_mut().next().unwrap();
        std::mem::swap(&mut view.live, &mut view.standby);
        view.live.as_mut().unwrap().config_hash = Fingerprint::of(b"another config");
        let status = Status { environments: vec![environment("production", TargetKind::Kubernetes, Some(seen))] };
        let text = render(&status);
        assert!(text.contains("HALF MADE") && text.contains("`cargo xtask rollback production`"), "{text}");
        assert_eq!(serde_json::to_value(status).unwrap()["environments"][0]["half_made"], true);
    }
}
