//! `rightsize`: what services in a cluster should ask for, from what their pods are seen to use.

mod advice;

use crate::{cli_error::CliError, session::Session, verbs::runs::json};
use advice::{Advice, Whose};
use plimsoll_core::{
    EnvironmentName, ServiceName,
    config::{Period, Target as TargetConfig},
};
use plimsoll_deploy::UsageSample;
use plimsoll_engine::StepError;
use std::{collections::BTreeMap, process::ExitCode};

/// Samples by service.
type Samples = BTreeMap<ServiceName, Vec<UsageSample>>;

/// Looks for as long as `length` says, and proposes.
pub(crate) async fn rightsize(session: &Session, name: &str, length: Period) -> Result<ExitCode, CliError> {
    let name = session.environment_name(name)?;
    let environment = &session.config.environments[&name];
    if environment.target != TargetConfig::Kubernetes {
        return Err(StepError::user(format!(
            "{name} is not in a cluster: its processes share one machine, and are promised nothing of it"
        ))
        .with_hint("rightsize is for environments with target = \"kubernetes\"")
        .into());
    }
    if !session.global.quiet && !session.global.json {
        session
            .console
            .err(&format!("looking at {name} for {length}; idle services are proposed what they need idle\n"));
    }
    let samples = sampled(session, &name, length).await?;
    let services = session.config.resolved(&name).map_err(|e| StepError::of(&e))?;
    let whose = |service: &ServiceName| Whose::of(&session.config, &name, service);
    let advice = Advice::new(&name, length, &services, whose, &samples);
    session.console.out(&if session.global.json { json(&advice) } else { advice.to_string() });
    Ok(ExitCode::SUCCESS)
}

#[cfg(feature = "kubernetes")]
async fn sampled(session: &Session, name: &EnvironmentName, length: Period) -> Result<Samples, StepError> {
    use std::time::Duration;
    use tokio::time::{Instant, sleep_until};

    /// More often tells nothing new: metrics servers measure every 15 s.
    const EVERY: Duration = Duration::from_secs(10);
    let target = super::kubernetes::target_of(session, name);
    let mut samples = Samples::new();
    let (mut next, end) = (Instant::now(), Instant::now() + length.duration());
    // Ends with the time that was asked for, which has a bound.
    loop {
        for (service, sample) in Box::pin(target.usage()).await.map_err(|e| StepError::of(&e))? {
            samples.entry(service).or_default().push(sample);
        }
        next += EVERY;
        if next > end {
            return Ok(samples);
        }
        sleep_until(next).await;
    }
}

#[cfg(not(feature = "kubernetes"))]
#[expect(clippy::unused_async, reason = "the other form awaits")]
async fn sampled(_: &Session, name: &EnvironmentName, _: Period) -> Result<Samples, StepError> {
    Err(super::resources::without("kubernetes", name))
}
