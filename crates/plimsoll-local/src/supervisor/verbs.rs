//! The target's verbs, but for the cut-over: each looks first and does only what is missing.

use crate::{
    proxy::ListenerKey,
    supervisor::{
        copying,
        core::{Supervisor, now},
        cutover::{self, advance},
        handover,
        identity::write_identity,
        lease,
        place::SlotKey,
        protocol::{Answer, SecretValues, StandUp, Verb, broken, refused},
        replica::Begin,
        state::{ReleaseStamp, ReplicaState, SlotState},
        traffic, view, weigh,
    },
};
use plimsoll_core::{EnvironmentName, Generation, ServiceName};
use plimsoll_deploy::{Activation, DrainReport, LockOutcome, LockOwner, SlotView, Switched, TargetError};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::timeout;

/// How long an answer waits for processes to be started: a start takes milliseconds, ten of them on a busy machine
/// a second.
const STARTED: Duration = Duration::from_secs(10);

/// Does one verb.
pub(crate) async fn perform(
    supervisor: &Arc<Supervisor>,
    name: &EnvironmentName,
    verb: Verb,
) -> Result<Answer, TargetError> {
    let key = |service, slot| SlotKey { environment: name.clone(), service, slot };
    if let Verb::StandUp(wish) = &verb {
        // Before its turn: an emergency stop does not wait for an image on its way.
        let runtime = supervisor.runtime(&wish.payload).map_err(|e| broken(format!("run {}", wish.spec.name), e))?;
        runtime.prepare(&wish.spec, &wish.payload, wish.login.as_ref()).await?;
    }
    match verb {
        Verb::Observe => Ok(Answer::Observation(Box::new(view::observe(supervisor, name).await))),
        Verb::Endpoints { service, slot } => endpoints(supervisor, &key(service, slot)).await.map(Answer::Lines),
        Verb::Drain { service, slot, deadline_ms } => {
            drain(supervisor, &key(service, slot), deadline_ms).await.map(Answer::Drained)
        }
        Verb::Traffic { service, slot } => {
            traffic::of(supervisor, &key(service, slot)).await.map(|t| Answer::Traffic(Box::new(t)))
        }
        Verb::Logs { service, slot, lines } => {
            let key = key(service, slot);
            let replicas = stands(supervisor, &key).await?.replicas.len();
            Ok(Answer::Lines(view::log_tail(supervisor, &key, replicas, lines).await))
        }
        Verb::Backup { service, to, secrets } => {
            copying::backup(supervisor, name, &service, to, secrets).await.map(|()| Answer::Done)
        }
        Verb::Lock { owner, lease_ms } => {
            lock(supervisor, name, &owner, Duration::from_millis(lease_ms)).await.map(Answer::Lock)
        }
        Verb::Unlock { owner } => unlock(supervisor, name, &owner).await.map(|()| Answer::Done),
        changing => {
            // From here on the environment changes: one at a time.
            let turn = supervisor.turn(name);
            let _turn = turn.lock().await;
            change(supervisor, name, changing).await
        }
    }
}

async fn change(supervisor: &Arc<Supervisor>, name: &EnvironmentName, verb: Verb) -> Result<Answer, TargetError> {
    match verb {
        Verb::StandUp(wish) => stand_up(supervisor, name, *wish).await.map(|v| Answer::Slot(Box::new(v))),
        Verb::CutOver(wish) => {
            cutover::cut_over(supervisor, name, &wish).await.map(|done| Answer::CutOver(Box::new(done)))
        }
        Verb::Weigh(weights) => weigh::weigh(supervisor, name, &weights).await.map(|()| Answer::Done),
        Verb::Retire { service, slot } => {
            let key = SlotKey { environment: name.clone(), service, slot };
            retire(supervisor, &key).await.map(|()| Answer::Done)
        }
        Verb::Restore { from, service, copy, secrets } => {
            tracing::warn!(environment = %name, %service, copy = %copy.display(), "restore");
            copying::restore(supervisor, name, from, &service, copy, secrets).await.map(|()| Answer::Done)
        }
        Verb::Stop { from, actor, reason } => {
            tracing::warn!(environment = %name, actor, reason, "stop");
            stop(supervisor, name, from, switched(true, actor, reason)).await.map(Answer::Generation)
        }
        Verb::Start { from, actor, secrets } => {
            tracing::info!(environment = %name, actor, "start");
            start(supervisor, name, from, switched(false, actor, None), secrets).await.map(Answer::Generation)
        }
        other => Err(refused(format!("{other:?}"), "it changes nothing")),
    }
}

async fn stands(supervisor: &Supervisor, key: &SlotKey) -> Result<SlotState, TargetError> {
    let state = supervisor.state().await;
    state.slot(&key.environment, &key.service, key.slot).cloned().ok_or_else(|| {
        refused(format!("look at {} ({}) in {}", key.service, key.slot, key.environment), "nothing stands there")
    })
}

async fn endpoints(supervisor: &Supervisor, key: &SlotKey) -> Result<Vec<String>, TargetError> {
    stands(supervisor, key).await?;
    let running = supervisor.statuses(key).into_iter().filter(|s| s.pid.is_some());
    Ok(running.map(|s| format!("http://{}", s.address)).collect())
}

async fn drain(supervisor: &Supervisor, key: &SlotKey, deadline_ms: u64) -> Result<DrainReport, TargetError> {
    let what = || format!("drain {} ({})", key.service, key.slot);
    if supervisor.state().await.is_live(&key.environment, &key.service, key.slot) {
        return Err(refused(what(), "it is live"));
    }
    // A table that routes away from the slot may still be on its way.
    supervisor.router.push(supervisor).await?;
    let client = supervisor.router.client().await.ok_or_else(|| broken(what(), "the proxy is being started again"))?;
    let listener = ListenerKey { environment: key.environment.clone(), service: key.service.clone() };
    let done =
        client.drain(&listener, key.slot, Duration::from_millis(deadline_ms)).await.map_err(|e| broken(what(), e))?;
    Ok(DrainReport {
        finished: done.finished,
        timed_out: done.timed_out,
        aborted: done.aborted,
        websockets_closed: done.websockets_closed,
        still_connected: 0,
        millis: done.millis,
    })
}

async fn lock(
    supervisor: &Supervisor,
    name: &EnvironmentName,
    owner: &LockOwner,
    lease: Duration,
) -> Result<LockOutcome, TargetError> {
    let turn = supervisor.turn(name);
    let outcome = supervisor
        .change(|state| {
            let environment = state.environments.entry(name.clone()).or_default();
            let at = now();
            let by_wall = environment.lock.as_ref().is_some_and(|l| l.expires <= at);
            let lapsed = supervisor.lease_over(name).unwrap_or(by_wall);
            // A change under way is its holder's sign of life, however long it takes.
            let lapsed = lapsed && turn.try_lock().is_ok();
            let outcome = lease::decide(environment.lock.as_ref(), lapsed, owner, at, lease);
            if let LockOutcome::Held(view) = &outcome {
                environment.lock = Some(view.clone());
            }
            Ok(outcome)
        })
        .await?;
    if let LockOutcome::Held(_) = outcome {
        supervisor.note_lease(name, Some(lease));
    }
    Ok(outcome)
}

async fn unlock(supervisor: &Supervisor, name: &EnvironmentName, owner: &LockOwner) -> Result<(), TargetError> {
    supervisor
        .change(|state| {
            if let Some(environment) = state.environments.get_mut(name)
                && environment.lock.as_ref().is_some_and(|l| l.run == owner.run)
            {
                environment.lock = None;
                supervisor.note_lease(name, None);
            }
            Ok(())
        })
        .await
}

async fn stand_up(
    supervisor: &Arc<Supervisor>,
    name: &EnvironmentName,
    wish: StandUp,
) -> Result<SlotView, TargetError> {
    let StandUp { spec, slot, release, payload, secrets, login: _ } = wish;
    let key = SlotKey { environment: name.clone(), service: spec.name.clone(), slot };
    let what = || format!("stand up {} ({slot}) in {name}", spec.name);
    let environment = supervisor.environment(name).await;
    if environment.stopped {
        return Err(refused(what(), "the environment is stopped; start it first"));
    }
    let known = environment.services.get(&spec.name);
    let same = known
        .and_then(|k| k.slots.get(&slot))
        .is_some_and(|s| s.spec.is_same_as(&spec) && s.spec.replicas == spec.replicas && s.payload.is_like(&payload));
    let live = known.is_some_and(|k| k.live == Some(slot));
    if live && !same {
        return Err(refused(what(), "the slot is live"));
    }
    let stamp = ReleaseStamp::of(&release);
    supervisor.remember_secrets(&key, secrets);
    if !same {
        retire(supervisor, &key).await?;
        supervisor.listen(name, &release.services).await?;
        supervisor.listen(name, std::slice::from_ref(&spec)).await?;
    }
    if !live {
        write_identity(&supervisor.paths, &key, &stamp, environment.generation)
            .map_err(|e| broken("write the identity file", e))?;
        let replicas = vec![ReplicaState::default(); usize::from(spec.replicas)];
        let engine = payload.engine().map(std::path::Path::to_owned);
        let state = SlotState { spec, payload, stamp, active: None, replicas };
        supervisor
            .change(|all| {
                all.engines.extend(engine);
                let service = all.environments.entry(name.clone()).or_default();
                let slots = &mut service.services.entry(key.service.clone()).or_default().slots;
                match slots.get_mut(&slot).filter(|_| same) {
                    Some(stands) => stands.stamp = state.stamp,
                    None => drop(slots.insert(slot, state)),
                }
                Ok(())
            })
            .await?;
    }
    let stands = stands(supervisor, &key).await?;
    if supervisor.statuses(&key).is_empty() {
        supervisor.keep(&key, stands.replicas.iter().map(|_| Begin::Fresh).collect());
    }
    supervisor.router.push(supervisor).await?;
    until(supervisor, &key, |s| s.pid.is_some() || s.failing.is_some(), STARTED).await;
    Ok(view::slot_view(slot, &stands, &supervisor.statuses(&key)))
}

/// Waits until all replicas of a slot are as wished, or the time is over.
async fn until(
    supervisor: &Supervisor,
    key: &SlotKey,
    wish: impl Fn(&crate::supervisor::replica::Status) -> bool + Copy,
    limit: Duration,
) {
    let all = async {
        for mut watch in supervisor.watches(key) {
            let _ = watch.wait_for(wish).await;
        }
    };
    let _ = timeout(limit, all).await;
}

pub(crate) async fn retire(supervisor: &Supervisor, key: &SlotKey) -> Result<(), TargetError> {
    let state = supervisor.state().await;
    if state.is_live(&key.environment, &key.service, key.slot) {
        return Err(refused(format!("retire {} ({})", key.service, key.slot), "it is live"));
    }
    let Some(replicas) = state.slot(&key.environment, &key.service, key.slot).map(|s| s.replicas.len()) else {
        return Ok(());
    };
    supervisor.end_replicas(key).await;
    supervisor.sweep_slot(key, replicas).await?;
    supervisor
        .change(|state| {
            let environment = state.environments.get_mut(&key.environment);
            if let Some(service) = environment.and_then(|e| e.services.get_mut(&key.service)) {
                service.slots.remove(&key.slot);
                service.share = 0;
            }
            Ok(())
        })
        .await?;
    supervisor.forget(key);
    Ok(())
}

/// The slots in which something stands.
pub(crate) async fn slots(supervisor: &Supervisor, name: &EnvironmentName) -> Vec<(SlotKey, SlotState, bool)> {
    let environment = supervisor.environment(name).await;
    let mut all = Vec::new();
    for (service, of) in environment.services {
        for (slot, stands) in of.slots {
            let key = SlotKey { environment: name.clone(), service: service.clone(), slot };
            all.push((key, stands, of.live == Some(slot)));
        }
    }
    all
}

fn switched(stopped: bool, actor: String, reason: Option<String>) -> Switched {
    Switched { stopped, actor, reason, at: now() }
}

async fn stop(
    supervisor: &Arc<Supervisor>,
    name: &EnvironmentName,
    from: Generation,
    switched: Switched,
) -> Result<Generation, TargetError> {
    let environment = supervisor.environment(name).await;
    let next = advance(name, &environment, from)?;
    if environment.stopped {
        end_all(supervisor, name).await?;
        return Ok(from);
    }
    supervisor
        .change(|state| {
            let environment = state.environments.entry(name.clone()).or_default();
            environment.stopped = true;
            environment.services.values_mut().for_each(|service| service.share = 0);
            environment.switched = Some(switched);
            environment.generation = next;
            Ok(())
        })
        .await?;
    // An emergency stop does not wait for a proxy that is being restarted: that one gets the table without us.
    if let Err(error) = supervisor.router.push(supervisor).await {
        tracing::warn!(error = plimsoll_core::chain(&error), "the proxy did not take the stop yet");
    }
    end_all(supervisor, name).await?;
    Ok(next)
}

/// Ends every process of an environment, at the same time; an error says which one could not be.
pub(crate) async fn end_all(supervisor: &Supervisor, name: &EnvironmentName) -> Result<(), TargetError> {
    let all = slots(supervisor, name).await;
    let ends = all.iter().map(|(key, stands, _)| async move {
        *supervisor.gate(key).lock().await = None;
        supervisor.end_replicas(key).await;
        supervisor.sweep_slot(key, stands.replicas.len()).await?;
        supervisor.sweep_jobs(key).await
    });
    futures_util::future::join_all(ends).await.into_iter().collect::<Result<(), _>>()?;
    let forgotten = supervisor
        .change(|state| {
            let services = state.environments.get_mut(name).into_iter().flat_map(|e| e.services.values_mut());
            for replica in services.flat_map(|s| s.slots.values_mut()).flat_map(|s| &mut s.replicas) {
                replica.instance = None;
            }
            Ok(())
        })
        .await;
    if let Err(error) = forgotten {
        // They are looked for by start time and boot before anything is done to them.
        tracing::warn!(%error, "ended processes are still in the state file");
    }
    Ok(())
}

async fn start(
    supervisor: &Arc<Supervisor>,
    name: &EnvironmentName,
    from: Generation,
    switched: Switched,
    mut secrets: BTreeMap<ServiceName, SecretValues>,
) -> Result<Generation, TargetError> {
    let environment = supervisor.environment(name).await;
    let next = advance(name, &environment, from)?;
    for (key, ..) in slots(supervisor, name).await {
        if let Some(values) = secrets.get_mut(&key.service) {
            supervisor.remember_secrets(&key, values.clone());
        }
    }
    if !environment.stopped {
        return Ok(from);
    }
    // A supervisor that was killed may have left one that still puts a copy back.
    for (key, ..) in slots(supervisor, name).await {
        supervisor.sweep_jobs(&key).await?;
    }
    supervisor
        .change(|state| {
            let environment = state.environments.entry(name.clone()).or_default();
            environment.stopped = false;
            environment.switched = Some(switched);
            environment.generation = next;
            Ok(())
        })
        .await?;
    begin(supervisor, name, next).await;
    Ok(next)
}

/// Starts every slot of an environment anew, activates the live exclusive ones, and waits for the live ones.
async fn begin(supervisor: &Arc<Supervisor>, name: &EnvironmentName, generation: Generation) {
    let all = slots(supervisor, name).await;
    for (key, stands, _) in &all {
        supervisor.keep(key, stands.replicas.iter().map(|r| Begin::Sweep { crashes: r.crashes }).collect());
    }
    let live = all.iter().filter(|(_, _, live)| *live).map(|(key, stands, _)| async move {
        let limit = Duration::from_millis(stands.spec.health.deadline_ms);
        until(supervisor, key, |s| s.ready || s.failing.is_some(), limit).await;
        if stands.spec.activation == Activation::Exclusive
            && let Err(error) = handover::give(supervisor, key, generation).await
        {
            tracing::error!(%error, "a worker is not active yet");
        }
    });
    futures_util::future::join_all(live).await;
    if let Err(error) = supervisor.router.push(supervisor).await {
        tracing::warn!(error = plimsoll_core::chain(&error), "the proxy did not take the start yet");
    }
}
