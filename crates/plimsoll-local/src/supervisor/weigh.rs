//! Shares of the requests for slots that are not live: durable, so that a proxy or supervisor that is started anew goes on
//! with them, until a cut-over, a stop or the slot's end takes them away.

use crate::supervisor::{core::Supervisor, state::ServiceState};
use plimsoll_core::EnvironmentName;
use plimsoll_deploy::{Activation, Beside, TargetError, Weights, admit_shares};
use std::sync::Arc;

/// Gives and takes shares. The caller has the environment's turn.
pub(crate) async fn weigh(
    supervisor: &Arc<Supervisor>,
    name: &EnvironmentName,
    weights: &Weights,
) -> Result<(), TargetError> {
    let environment = supervisor.environment(name).await;
    let holder = environment.lock.as_ref().map(|lock| &lock.run);
    admit_shares(name, environment.generation, holder, weights, |service| {
        environment.services.get(service).map_or(Beside::NothingLive, beside)
    })?;
    supervisor
        .change(|state| {
            let environment = state.environments.entry(name.clone()).or_default();
            for (service, share) in &weights.shares {
                if let Some(service) = environment.services.get_mut(service) {
                    service.share = *share;
                }
            }
            Ok(())
        })
        .await?;
    supervisor.router.push(supervisor).await
}

fn beside(service: &ServiceState) -> Beside {
    let Some(live) = service.live else { return Beside::NothingLive };
    match service.slots.get(&live.other()) {
        None => Beside::Nothing,
        Some(stands) if stands.spec.activation == Activation::Exclusive => Beside::Exclusive,
        Some(_) => Beside::Slot,
    }
}
