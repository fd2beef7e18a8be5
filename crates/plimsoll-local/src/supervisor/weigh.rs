//! Shares of the requests for slots that are not live: durable, so that a proxy or supervisor that is started anew goes on
//! with them, until a cut-over, a stop or the slot's end takes them away.

use crate::supervisor::{core::Supervisor, cutover::advance, protocol::refused, state::ServiceState};
use plimsoll_core::EnvironmentName;
use plimsoll_deploy::{Activation, TargetError, Weights};
use std::sync::Arc;

/// Gives and takes shares. The caller has the environment's turn.
pub(crate) async fn weigh(
    supervisor: &Arc<Supervisor>,
    name: &EnvironmentName,
    weights: &Weights,
) -> Result<(), TargetError> {
    let environment = supervisor.environment(name).await;
    advance(name, &environment, weights.from)?;
    let what = || format!("share the requests of {name}");
    if environment.lock.as_ref().is_none_or(|lock| lock.run != weights.run) {
        return Err(refused(what(), format!("run {} does not hold the lock", weights.run)));
    }
    for (service, share) in &weights.shares {
        let fault = environment.services.get(service).map_or(Some("it is not known here"), |of| fault(of, *share));
        if let Some(fault) = fault {
            return Err(refused(format!("give {share} % of the requests to the standby slot of {service}"), fault));
        }
    }
    supervisor
        .change(|state| {
            let environment = state.environments.entry(name.clone()).or_default();
            for (service, share) in &weights.shares {
                environment.services.entry(service.clone()).or_default().share = *share;
            }
            Ok(())
        })
        .await?;
    supervisor.router.push(supervisor).await
}

/// Why a service cannot have such a share.
fn fault(of: &ServiceState, share: u8) -> Option<&'static str> {
    if share == 0 {
        return None;
    }
    let Some(live) = of.live else { return Some("nothing is live beside it") };
    match of.slots.get(&live.other()) {
        _ if share > 100 => Some("there are not more than 100"),
        None => Some("nothing stands there"),
        Some(stands) if stands.spec.activation == Activation::Exclusive => Some("only one slot of it may work"),
        Some(_) => None,
    }
}
