//! A look at an environment that no supervisor looks after: what the state file says, and whether it answers.
//!
//! Changes nothing and starts nothing, not even a supervisor.

use crate::supervisor::{
    LocalPaths,
    place::SlotKey,
    probe,
    protocol::broken,
    replica::Status,
    runtime::Instance,
    state::{self, EnvironmentState, ReplicaState, SlotState},
    view,
};
use futures_util::future::join_all;
use plimsoll_core::EnvironmentName;
use plimsoll_deploy::{Observation, TargetError};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
};

/// Looks at one environment; `None` when the state file knows nothing of it.
pub(crate) async fn peek(paths: &LocalPaths, name: &EnvironmentName) -> Result<Option<Observation>, TargetError> {
    let file = paths.state_file();
    let loaded = state::load(&file).map_err(|e| broken(format!("look at {name} without a supervisor"), e))?;
    let Some(environment) = loaded.state.environments.get(name) else { return Ok(None) };
    let statuses = statuses(name, environment).await;
    Ok(Some(view::show(name, environment.clone(), &|key| statuses.get(key).cloned().unwrap_or_default())))
}

async fn statuses(name: &EnvironmentName, environment: &EnvironmentState) -> BTreeMap<SlotKey, Vec<Status>> {
    let mut all = BTreeMap::new();
    for (service, of) in &environment.services {
        for (slot, stands) in &of.slots {
            let key = SlotKey { environment: name.clone(), service: service.clone(), slot: *slot };
            // A stop is no failure: the observation says that it was on purpose.
            let down = (!environment.stopped)
                .then(|| format!("nothing runs here; `cargo xtask start {name}` or the next release brings it back"));
            let each = stands.replicas.iter().map(|replica| status(stands, replica, down.clone()));
            all.insert(key, join_all(each).await);
        }
    }
    all
}

/// A replica whose supervisor was killed goes on, so it is asked; everything else is down.
async fn status(stands: &SlotState, replica: &ReplicaState, down: Option<String>) -> Status {
    let base = Status { crashes: replica.crashes, ..Status::default() };
    let Some((pid, address)) = replica.instance.as_ref().and_then(|known| found(known, replica.port)) else {
        return Status { failing: down, ..base };
    };
    let health = &stands.spec.health.path;
    let failing = match probe::status(address, health).await {
        Ok(200) => None,
        Ok(status) => Some(format!("{health} answered {status}")),
        Err(error) => Some(error.to_string()),
    };
    let (pid, ready) = (Some(pid), failing.is_none());
    Status { pid, address, verified: ready, ready, active: stands.active.filter(|_| ready), failing, ..base }
}

/// The first process and the address of a replica that runs. Of a container only its answers tell whether it does: its
/// engine is not asked.
fn found(known: &Instance, port: u16) -> Option<(u32, SocketAddr)> {
    match known {
        Instance::Process(process) => {
            Some((process.adopt()?.identity().pid, SocketAddr::from((Ipv4Addr::LOCALHOST, port))))
        }
        Instance::Container(container) => Some((container.pid, container.address)),
    }
}
