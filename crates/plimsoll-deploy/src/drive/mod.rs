//! The driver: looks, asks the machine what to do next, does it, and again. All waiting, deadlines and locks are here.
//!
//! It may be interrupted anywhere: driving the same goal again finds what was done and does the rest.

mod doing;
mod patience;
mod report;
#[cfg(test)]
mod tests;
mod trying;
mod watching;

use patience::Patience;
pub use report::{DriveError, DriveEvent, DriveObserver, Outcome, WaitingFor};

use crate::{
    goal::Goal,
    load::ProbeLoad,
    meter::Meter,
    observation::{LockView, Observation},
    policy::Policy,
    probe::Prober,
    spec::Release,
    target::{LockOutcome, LockOwner, Target, TargetError},
    traffic::Traffic,
};
use plimsoll_core::{ServiceName, Slot};
use std::{future::Future, pin::pin, time::Duration};
use tokio::{sync::watch, time::Instant};

/// How long the lock holds without a renewal: a dead driver blocks others for half a minute and no longer.
const LEASE: Duration = Duration::from_secs(30);
/// Two renewals may fail before the lease is over.
const RENEWAL: Duration = Duration::from_secs(10);

/// Asked immediately before a cut-over, with the latest look and the release that is to serve: digests, configuration,
/// generation and expiry must still be the approved ones. The refusal is a reason in words.
pub type Gate<'a> = &'a (dyn Fn(&Observation, &Release) -> Result<(), String> + Send + Sync);

/// Everything a drive needs.
#[derive(Clone, Copy)]
pub struct Drive<'a> {
    /// Where.
    pub target: &'a dyn Target,
    /// What is to serve in the end.
    pub goal: &'a Goal,
    /// What it must keep to.
    pub policy: &'a Policy,
    /// How services are asked: a client that follows no redirects.
    pub prober: &'a dyn Prober,
    /// Who counts the requests of each slot, where the target is not to be asked.
    pub meter: Option<&'a dyn Meter>,
    /// The last check before the cut-over.
    pub gate: Gate<'a>,
    /// Who is told.
    pub observer: &'a dyn DriveObserver,
}

impl Drive<'_> {
    /// Reads the requests of a slot.
    pub(crate) async fn count(&self, service: &ServiceName, slot: Slot) -> Result<Traffic, TargetError> {
        match self.meter {
            Some(meter) => meter.read(service, slot).await,
            None => self.target.traffic(service, slot).await,
        }
    }
}

/// Brings the environment to the goal, under its lock. When `cancel` resolves before the cut-over, what was made is
/// taken away; after it, the new release stays live and the rest (watch, drain) is left to the next drive.
pub async fn drive(with: &Drive<'_>, cancel: impl Future<Output = ()> + Send) -> Result<Outcome, DriveError> {
    let owner = with.goal.owner();
    take_lock(with, &owner).await?;
    let begun = Instant::now();
    let load = ProbeLoad::new(with.policy.probes_per_second);
    let (tell_cancel, cancelled) = watch::channel(false);
    let (tell_lost, lost) = watch::channel(None);
    let (stop_load, stopped) = watch::channel(false);
    let result = {
        let mut driver = doing::Driver::new(with, &load, cancelled, lost);
        let mut work = pin!(driver.run());
        let mut keep = pin!(keep_lock(with.target, &owner, &tell_lost));
        let mut cancel = pin!(cancel);
        let mut probes = pin!(load.run(with.prober, stopped));
        let (mut asked, mut over) = (false, false);
        // Ends with the work; each of the others takes one turn at most.
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                () = &mut cancel, if !asked => {
                    asked = true;
                    tell_cancel.send_replace(true);
                }
                () = &mut probes, if !over => over = true,
                () = &mut keep => unreachable!("the lock is kept until this future is dropped"),
            }
        };
        stop_load.send_replace(true);
        if !over {
            probes.await;
        }
        result
    };
    if let Err(error) = with.target.unlock(&owner).await {
        tracing::warn!(%error, "the lock could not be given back; it lapses by itself");
    }
    let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    match result {
        Ok(outcome) => Ok(Outcome { probes: load.report(), millis, ..outcome }),
        Err(DriveError::Returned { version, reason, log_tail, .. }) => {
            Err(DriveError::Returned { version, reason, log_tail, probes: Box::new(load.report()) })
        }
        Err(error) => Err(error),
    }
}

async fn take_lock(with: &Drive<'_>, owner: &LockOwner) -> Result<(), DriveError> {
    let mut patience = Patience::with(with.target.kind());
    // Ends by the bound on patience.
    loop {
        match with.target.lock(owner, LEASE).await {
            Ok(LockOutcome::Held(_)) => return Ok(()),
            Ok(LockOutcome::Busy(holder)) => {
                return Err(DriveError::Locked { environment: with.target.environment().clone(), holder });
            }
            Err(error) => patience.again(with.observer, error).await?,
        }
    }
}

/// Renews the lock until dropped. Whoever took it over is told to the driver, which stops before its next action;
/// an action under way is fenced by the generation.
async fn keep_lock(target: &dyn Target, owner: &LockOwner, lost: &watch::Sender<Option<LockView>>) {
    // Ends by being dropped with the drive.
    loop {
        tokio::time::sleep(RENEWAL).await;
        match target.lock(owner, LEASE).await {
            Ok(LockOutcome::Held(_)) => {}
            Ok(LockOutcome::Busy(holder)) => {
                lost.send_replace(Some(holder));
            }
            Err(error) => tracing::warn!(%error, "the lock could not be renewed"),
        }
    }
}
