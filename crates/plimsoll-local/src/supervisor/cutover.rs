//! The cut-over: doing it so that a crash at any point leaves one of the two states.
//!
//! The commit is one write of the state file. Before it, everything done can be taken back: workers of the old slot
//! that gave up the environment get it again. After it, everything missing is made up for at the next start.

use crate::supervisor::{
    core::{Supervisor, now},
    handover,
    identity::write_identity,
    place::SlotKey,
    probe,
    state::{EnvironmentState, HISTORY, ReleaseStamp},
    view::show,
};
use plimsoll_core::{EnvironmentName, Generation, ServiceName, Slot};
use plimsoll_deploy::{Activation, CutOver, CutOverDone, ReleaseRecord, TargetError, admit};
use std::{collections::BTreeMap, sync::Arc, time::Instant};

/// Makes `record` the live one. A service that it does not name serves no more.
fn commit(environment: &mut EnvironmentState, record: &ReleaseRecord) {
    if let Some(before) = environment.live.replace(record.clone()) {
        environment.history.insert(0, before);
        environment.history.truncate(HISTORY);
    }
    environment.generation = record.generation;
    for (name, service) in &mut environment.services {
        let before = service.live;
        service.share = 0;
        service.live = record.services.get(name).map(|r| r.slot);
        for (slot, stands) in &mut service.slots {
            let exclusive = stands.spec.activation == Activation::Exclusive;
            if service.live != Some(*slot) {
                stands.active = None;
            } else if exclusive && before != service.live {
                stands.active = Some(record.generation);
            }
        }
    }
}

/// The slots whose place changes, of exclusive services: out and in.
fn exclusive(
    name: &EnvironmentName,
    environment: &EnvironmentState,
    record: &ReleaseRecord,
) -> (Vec<SlotKey>, Vec<SlotKey>) {
    let (mut out, mut into) = (Vec::new(), Vec::new());
    for (service, of) in &environment.services {
        let next = record.services.get(service).map(|r| r.slot);
        if next == of.live {
            continue;
        }
        let is_exclusive = |slot: &Slot| of.slots.get(slot).is_some_and(|s| s.spec.activation == Activation::Exclusive);
        let key = |slot| SlotKey { environment: name.clone(), service: service.clone(), slot };
        out.extend(of.live.filter(is_exclusive).map(key));
        into.extend(next.filter(is_exclusive).map(key));
    }
    (out, into)
}

/// Does a cut-over. The caller has the environment's turn.
pub(crate) async fn cut_over(
    supervisor: &Arc<Supervisor>,
    name: &EnvironmentName,
    wish: &CutOver,
) -> Result<CutOverDone, TargetError> {
    let environment = supervisor.environment(name).await;
    // Whether replicas are ready is asked below, of each of them.
    let seen = show(name, environment.clone(), &|_| Vec::new());
    let record = admit(&seen, wish, now())?;
    for moved in &wish.moves {
        let key = SlotKey { environment: name.clone(), service: moved.service.clone(), slot: moved.to };
        ready(supervisor, &key, &environment).await?;
    }
    let (out, into) = exclusive(name, &environment, &record);
    let mut handed: BTreeMap<ServiceName, Instant> = BTreeMap::new();
    for key in &out {
        if let Err(error) = handover::take_away(supervisor, key, environment.generation).await {
            give_back(supervisor, &out, environment.generation).await;
            return Err(error);
        }
        handed.insert(key.service.clone(), Instant::now());
    }
    let decided = Instant::now();
    let committed = supervisor
        .change(|state| {
            commit(state.environments.entry(name.clone()).or_default(), &record);
            Ok(())
        })
        .await;
    if let Err(error) = committed {
        give_back(supervisor, &out, environment.generation).await;
        return Err(error);
    }
    // A proxy that dies now gets this table at its restart; clients wait meanwhile, so this is no reason to fail.
    if let Err(error) = supervisor.router.push(supervisor).await {
        tracing::warn!(error = plimsoll_core::chain(&error), "the proxy did not take the cut-over yet");
    }
    let switch_micros = micros(decided);
    let mut handover_micros = Vec::new();
    let mut refusal = None;
    for key in &into {
        match handover::give(supervisor, key, record.generation).await {
            Ok(()) => {
                let gap = handed.get(&key.service).map_or(0, |since| micros(*since));
                handover_micros.push((key.service.clone(), gap));
            }
            Err(error) => refusal = Some(error),
        }
    }
    write_identities(supervisor, name).await;
    match refusal {
        Some(error) => Err(error),
        None => Ok(CutOverDone { live: record, switch_micros, handover_micros }),
    }
}

/// Takes a hand-over back that came to nothing.
async fn give_back(supervisor: &Supervisor, out: &[SlotKey], generation: Generation) {
    for key in out {
        let _ = handover::give(supervisor, key, generation).await;
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Asks every replica of a slot once more, now.
async fn ready(supervisor: &Supervisor, key: &SlotKey, environment: &EnvironmentState) -> Result<(), TargetError> {
    let stands = environment.services.get(&key.service).and_then(|s| s.slots.get(&key.slot));
    let stands = stands.expect("checked: the slot that is to serve stands");
    let statuses = supervisor.statuses(key);
    let answers = statuses.iter().map(|s| async move {
        s.pid.is_some() && s.verified && matches!(probe::status(s.address, &stands.spec.health.path).await, Ok(200))
    });
    let ready = futures_util::future::join_all(answers).await.into_iter().filter(|r| *r).count();
    if ready == usize::from(stands.spec.replicas) {
        return Ok(());
    }
    let failing = statuses.iter().find_map(|s| s.failing.clone()).unwrap_or_default();
    let reason = format!("{ready} of {} replicas are ready; {failing}", stands.spec.replicas);
    let log_tail = crate::supervisor::view::log_tail(supervisor, key, stands.replicas.len(), 20).await;
    Err(TargetError::Slot { service: key.service.clone(), slot: key.slot, reason, log_tail })
}

/// Lets every live service, moved or not, say which release serves.
pub(crate) async fn write_identities(supervisor: &Supervisor, name: &EnvironmentName) {
    let environment = supervisor.environment(name).await;
    let Some(live) = &environment.live else { return };
    let stamp = ReleaseStamp::of_record(live);
    for (service, record) in &live.services {
        let key = SlotKey { environment: name.clone(), service: service.clone(), slot: record.slot };
        if let Err(error) = write_identity(&supervisor.paths, &key, &stamp, live.generation) {
            tracing::error!(%error, %service, "the identity file is out of date");
        }
    }
}

/// The generation that an environment has next.
pub(crate) fn advance(
    name: &EnvironmentName,
    environment: &EnvironmentState,
    from: Generation,
) -> Result<Generation, TargetError> {
    if from == environment.generation {
        return Ok(from.next());
    }
    Err(TargetError::Stale { environment: name.clone(), expected: from, current: environment.generation })
}
