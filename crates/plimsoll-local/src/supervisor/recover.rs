//! What a new supervisor does first: find everything again that the one before it left, then go on from the durable
//! state.
//!
//! The order matters. Slots that are not live give up the environment before live ones get it; nothing is routed before
//! it was seen answering, but the proxy goes on meanwhile by the table it has.

use crate::supervisor::{
    core::Supervisor,
    cutover, handover,
    protocol::chain,
    proxy_child, registry,
    replica::Begin,
    spawn::{SlotKey, secrets_of_process},
    state::{ReplicaState, SlotState},
    verbs,
};
use plimsoll_deploy::{Activation, TargetError};
use plimsoll_process::Detached;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// How long the table waits for adopted replicas to be seen on their ports, which takes milliseconds on an idle machine:
/// clients of a service whose table is out of date wait that long at most.
const VERIFY: Duration = Duration::from_secs(3);

/// Restores everything the state names.
pub(crate) async fn recover(supervisor: &Arc<Supervisor>) -> Result<(), TargetError> {
    let proxy = proxy_child::adopt(supervisor).await;
    let state = supervisor.state().await;
    for (name, environment) in &state.environments {
        for (service, of) in &environment.services {
            if let Some(port) = of.public_port
                && let Err(error) = supervisor.bind(name, service, port)
            {
                // The other services go on; this one is out of reach until its port is free and the supervisor restarted.
                tracing::error!(error = chain(&error), "a public port is lost");
            }
        }
    }
    tokio::spawn(proxy_child::keep(supervisor.clone(), proxy));
    let router = supervisor.clone();
    tokio::spawn(async move { router.router.run(&router).await });
    let mut running = Vec::new();
    for (name, environment) in &state.environments {
        for (key, stands, live) in verbs::slots(supervisor, name).await {
            if environment.stopped {
                end_leftovers(&stands).await;
                continue;
            }
            adopt(supervisor, &key, &stands);
            running.push((key, stands, live));
        }
    }
    hand_over(supervisor, &running).await;
    for name in state.environments.keys() {
        cutover::write_identities(supervisor, name).await;
    }
    verify(supervisor, &running).await;
    supervisor.router.open().await;
    if let Err(error) = supervisor.router.push(supervisor).await {
        tracing::warn!(error = chain(&error), "the proxy did not take the first table yet");
    }
    if let Some(known) = &state.registry
        && let Err(error) = registry::ensure(supervisor, &known.program, &known.args).await
    {
        // Whoever needs the registry asks for it, and is told; what serves goes on without it.
        tracing::error!(error = chain(&error), "the registry is lost");
    }
    Ok(())
}

/// Ends processes of a stopped environment that a crash in the middle of the stop left running.
async fn end_leftovers(stands: &SlotState) {
    for process in stands.replicas.iter().filter_map(|r| r.process.as_ref()?.adopt()) {
        let _ = process.kill_tree(Duration::from_millis(stands.spec.stop_grace_ms)).await;
    }
}

/// Starts the keepers of a slot on the processes that still run.
fn adopt(supervisor: &Arc<Supervisor>, key: &SlotKey, stands: &SlotState) {
    let found: Vec<_> = stands.replicas.iter().map(|r| (r, r.process.as_ref().and_then(Detached::adopt))).collect();
    if let Some(pid) = found.iter().find_map(|(_, process)| Some(process.as_ref()?.identity().pid)) {
        supervisor.remember_secrets(key, secrets_of_process(pid, &stands.spec));
    }
    let begin = |(replica, process): (&ReplicaState, Option<_>)| match process {
        Some(process) => Begin::Adopt { process, port: replica.port, crashes: replica.crashes },
        None => {
            // It ended while nobody looked.
            Begin::Sweep { crashes: replica.crashes + u32::from(replica.process.is_some()) }
        }
    };
    supervisor.keep(key, found.into_iter().map(begin).collect());
}

/// Lets the slots that are not live give up their environment, then opens the gates of the live ones.
async fn hand_over(supervisor: &Arc<Supervisor>, running: &[(SlotKey, SlotState, bool)]) {
    let state = supervisor.state().await;
    let generation = |key: &SlotKey| state.environments.get(&key.environment).map(|e| e.generation).unwrap_or_default();
    let exclusive = || running.iter().filter(|(_, stands, _)| stands.spec.activation == Activation::Exclusive);
    // A keeper knows its adopted process once it has begun to watch it.
    for (key, ..) in exclusive() {
        let begun = async {
            for mut watch in supervisor.watches(key) {
                let _ = watch.wait_for(|s| s.pid.is_some() || s.failing.is_some()).await;
            }
        };
        let _ = timeout(VERIFY, begun).await;
    }
    for (key, ..) in exclusive().filter(|(_, _, live)| !live) {
        handover::take_away(supervisor, key, generation(key)).await;
    }
    for (key, ..) in exclusive().filter(|(_, _, live)| *live) {
        // The keepers activate their replicas as these become ready.
        *supervisor.gate(key).lock().await = Some(generation(key));
    }
}

/// Waits until the live replicas have answered, or the time is over.
async fn verify(supervisor: &Supervisor, running: &[(SlotKey, SlotState, bool)]) {
    let all = async {
        for (key, ..) in running.iter().filter(|(_, _, live)| *live) {
            for mut watch in supervisor.watches(key) {
                let _ = watch.wait_for(|s| s.verified || s.failing.is_some()).await;
            }
        }
    };
    let _ = timeout(VERIFY, all).await;
}
