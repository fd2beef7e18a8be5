//! What a new supervisor does first: find everything again that the one before it left, then go on from the durable
//! state.
//!
//! The order matters. Slots that are not live give up the environment before live ones get it; nothing is routed before
//! it was seen answering, but the proxy goes on meanwhile by the table it has.

use crate::supervisor::{
    core::Supervisor,
    cutover, handover,
    place::{ReplicaKey, SlotKey},
    proxy_child, registry,
    replica::Begin,
    state::SlotState,
    verbs,
};
use plimsoll_core::{EnvironmentName, ServiceName, chain};
use plimsoll_deploy::{Activation, TargetError};
use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

/// How long the table waits for adopted replicas to be seen on their ports, which takes milliseconds on an idle machine:
/// clients of a service whose table is out of date wait that long at most.
const VERIFY: Duration = Duration::from_secs(3);

/// Between two tries of a hand-over that an engine is needed for.
const AGAIN: Duration = Duration::from_secs(5);

/// Restores everything the state names.
pub(crate) async fn recover(supervisor: &Arc<Supervisor>) -> Result<(), TargetError> {
    let proxy = proxy_child::adopt(supervisor).await;
    let state = supervisor.state().await;
    for (name, environment) in &state.environments {
        for (service, of) in &environment.services {
            if let Some(port) = of.public_port
                && let Err(error) = supervisor.bind(name, service, Ipv4Addr::LOCALHOST, port)
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
                let grace = Duration::from_millis(stands.spec.stop_grace_ms);
                if timeout(grace + VERIFY, end_leftovers(supervisor, &key, &stands, grace)).await.is_err() {
                    tracing::error!(%key.service, "what is stopped may still run: whoever holds it does not answer");
                }
                continue;
            }
            adopt(supervisor, &key, &stands).await;
            running.push((key, stands, live));
        }
    }
    // What is left over serves nobody; what cannot be removed now, the next supervisor tries again.
    match timeout(VERIFY, supervisor.tidy_engines()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error = chain(&error), "what is left on an engine cannot be removed"),
        Err(_late) => tracing::warn!("what is left on an engine is not all removed yet"),
    }
    let undone = hand_over(supervisor, &running).await;
    if !undone.is_empty() {
        tokio::spawn(hand_over_later(supervisor.clone(), undone));
    }
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

/// Ends what a crash in the middle of a stop left running.
async fn end_leftovers(supervisor: &Supervisor, key: &SlotKey, stands: &SlotState, grace: Duration) {
    for n in (0..).take(stands.replicas.len()) {
        let key = ReplicaKey { slot: key.clone(), n };
        if let Ok(Some(running)) = supervisor.find_replica(&key).await {
            let _ = running.end(grace).await;
        }
    }
    if let Err(error) = supervisor.sweep_slot(key, stands.replicas.len()).await {
        tracing::error!(error = chain(&error), "what is stopped may still run");
    }
}

/// Starts the keepers of a slot on the replicas that still run.
async fn adopt(supervisor: &Arc<Supervisor>, key: &SlotKey, stands: &SlotState) {
    let mut begins = Vec::with_capacity(stands.replicas.len());
    for (replica, n) in stands.replicas.iter().zip(0..) {
        let found = timeout(VERIFY, supervisor.find_replica(&ReplicaKey { slot: key.clone(), n })).await;
        begins.push(match found {
            Ok(Ok(Some(running))) => {
                supervisor.recall_secrets(key, stands, &*running);
                Begin::Adopt { running, crashes: replica.crashes }
            }
            // It ended while nobody looked.
            Ok(Ok(None)) => Begin::Sweep { crashes: replica.crashes + u32::from(replica.instance.is_some()) },
            Ok(Err(error)) => {
                tracing::error!(error = chain(&error), %key.service, %key.slot, n, "whether a replica runs is unknown");
                Begin::Look { crashes: replica.crashes, last: replica.instance.clone() }
            }
            Err(_late) => Begin::Look { crashes: replica.crashes, last: replica.instance.clone() },
        });
    }
    supervisor.keep(key, begins);
}

/// Services whose environment one slot could not be made to give up.
type Undone = BTreeSet<(EnvironmentName, ServiceName)>;

/// Hands over what could not be, as soon as it can: the engine that holds a container may not answer for a while.
async fn hand_over_later(supervisor: Arc<Supervisor>, mut undone: Undone) {
    let mut ending = supervisor.ending.subscribe();
    // Ends with the supervisor, or when nothing is left to be done.
    while !undone.is_empty() {
        tokio::select! {
            () = sleep(AGAIN) => {}
            _ = ending.wait_for(|e| *e) => return,
        }
        let mut left = Undone::new();
        for (name, service) in undone {
            let turn = supervisor.turn(&name);
            let _turn = turn.lock().await;
            let mut slots = verbs::slots(&supervisor, &name).await;
            slots.retain(|(key, ..)| key.service == service);
            left.append(&mut hand_over(&supervisor, &slots).await);
        }
        undone = left;
    }
}

/// Lets the slots that are not live give up their environment, then opens the gates of the live ones.
async fn hand_over(supervisor: &Arc<Supervisor>, running: &[(SlotKey, SlotState, bool)]) -> Undone {
    let state = supervisor.state().await;
    let generation = |key: &SlotKey| state.environments.get(&key.environment).map(|e| e.generation).unwrap_or_default();
    let exclusive = || running.iter().filter(|(_, stands, _)| stands.spec.activation == Activation::Exclusive);
    let mut undone = BTreeSet::new();
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
        if let Err(error) = handover::take_away(supervisor, key, generation(key)).await {
            tracing::error!(error = chain(&error), "a worker that is not live may be active");
            undone.insert((key.environment.clone(), key.service.clone()));
        }
    }
    let whole = |key: &SlotKey| !undone.contains(&(key.environment.clone(), key.service.clone()));
    for (key, ..) in exclusive().filter(|(key, _, live)| *live && whole(key)) {
        // The keepers activate their replicas as these become ready.
        *supervisor.gate(key).lock().await = Some(generation(key));
    }
    undone
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
