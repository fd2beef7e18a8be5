//! The suite that every target passes: fakes in memory, processes, containers, clusters.
//!
//! Each case gets an environment in which nothing has happened. A case panics with a sentence when a rule is broken.

use crate::{
    observation::Observation,
    probe::{Prober, ask},
    spec::{Release, ServiceSpec, SmokeRequest},
    target::{Change, CutOver, CutOverDone, LockOutcome, LockOwner, Move, Target, TargetError, Weights},
};
use plimsoll_core::{Generation, RunId, Slot, Timestamp};
use std::{collections::BTreeMap, future::Future, path::Path, pin::Pin, time::Duration};
use tokio::time::Instant;

/// The longest wait for a fact; real processes on a busy machine need seconds at worst.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a target brings to its test.
pub trait Fixture: Send + Sync {
    /// The target, of an environment of its own.
    fn target(&self) -> &dyn Target;
    /// Asks at the URLs that the target names.
    fn prober(&self) -> &dyn Prober;
    /// A small HTTP service that takes traffic: version 1 or 2, with different digests.
    fn traffic(&self, version: u32) -> ServiceSpec;
    /// The same as an exclusive service of another name.
    fn exclusive(&self, version: u32) -> ServiceSpec;
    /// The service that takes traffic, with a state that both slots share. At `/put/WORD` it puts a word into the state, at
    /// `/kept` it shows it. It copies the state, and does not take a copy that begins with `damaged`: it says so.
    fn stateful(&self) -> ServiceSpec;
    /// A directory for files, of this environment alone.
    fn scratch(&self) -> &Path;
    /// A request that this version of either service answers as declared and the other version does not.
    fn tells(&self, version: u32) -> SmokeRequest;
}

type Case = for<'a> fn(&'a dyn Fixture) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Runs every case against a fixture of its own and returns their names; `make` gets the case's name.
pub async fn conformance<F: Fixture, M: Future<Output = F>>(make: impl Fn(&'static str) -> M) -> Vec<&'static str> {
    let cases: [(&'static str, Case); 15] = [
        ("an empty environment", |f| Box::pin(empty(f))),
        ("a slot that was stood up answers", |f| Box::pin(stood_up(f))),
        ("a cut-over moves traffic", |f| Box::pin(cut_over(f))),
        ("a stale generation is refused", |f| Box::pin(stale(f))),
        ("the lock excludes, renews and lapses", |f| Box::pin(lock(f))),
        ("repeated verbs are harmless", |f| Box::pin(repeated(f))),
        ("a live slot is neither retired nor replaced", |f| Box::pin(live_stays(f))),
        ("an idle slot drains at once", |f| Box::pin(idle_drain(f))),
        ("stop and start keep the record", |f| Box::pin(stop_start(f))),
        ("a warm slot takes the traffic back", |f| Box::pin(rollback(f))),
        ("of two cut-overs one has effect", |f| Box::pin(concurrent(f))),
        ("an exclusive service is active once", |f| Box::pin(exclusive(f))),
        ("a share goes to a standby slot until it is taken away", |f| Box::pin(share(f))),
        ("a cut-over takes all shares away", |f| Box::pin(share_ends(f))),
        ("a state is copied while it is worked on and put back while it is not", |f| Box::pin(copied(f))),
    ];
    let mut names = Vec::with_capacity(cases.len());
    for (name, case) in cases {
        tracing::info!(case = name, "conformance");
        let fixture = make(name).await;
        case(&fixture).await;
        names.push(name);
    }
    names
}

fn owner(number: u16) -> LockOwner {
    LockOwner { run: RunId::new(Timestamp::from_millis(1_700_000_000_000), number), actor: "ann".to_owned() }
}

fn release(f: &dyn Fixture, version: u32, services: Vec<ServiceSpec>) -> Release {
    let number = u16::try_from(version).expect("versions are small");
    let LockOwner { run, actor } = owner(number);
    let environment = f.target().environment().clone();
    let (version, revision) = (version.to_string(), "c0ffee".to_owned());
    Release { environment, version, revision, run, actor, services, approval: None }
}

async fn look(f: &dyn Fixture) -> Observation {
    f.target().observe().await.expect("a look")
}

/// Looks until `fact` holds.
async fn until(f: &dyn Fixture, what: &str, fact: impl Fn(&Observation) -> bool) -> Observation {
    let begun = Instant::now();
    // Ends by the bound on patience.
    loop {
        let seen = look(f).await;
        if fact(&seen) {
            return seen;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}, in time: {seen:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asks until a service answers anything but that nobody is there.
async fn reached(f: &dyn Fixture, url: &str) {
    let begun = Instant::now();
    // Ends by the bound on patience.
    while let Err(failure) = ask(f.prober(), url, &asks("/kept", "")).await {
        let nobody = failure.status.is_none_or(|status| status == 503);
        assert!(nobody && begun.elapsed() < PATIENCE, "a started service is reached, in time: {failure:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Stands a service up and waits until it is ready.
async fn stand(f: &dyn Fixture, spec: &ServiceSpec, slot: Slot, release: &Release) {
    f.target().stand_up(spec, slot, release).await.expect("the slot stands up");
    until(f, "a slot gets ready", |seen| {
        let view = seen.services.get(&spec.name).and_then(|s| s.standby.as_ref()).filter(|s| s.slot == slot);
        view.is_some_and(|s| s.ready == spec.replicas && s.digest == spec.digest)
    })
    .await;
}

fn switch(release: &Release, from: Generation, old: Option<Slot>, to: Slot) -> CutOver {
    let moves = release.services.iter().map(|s| Move { service: s.name.clone(), from: old, to }).collect();
    CutOver { from, moves, release: release.clone(), change: Change::Promote }
}

async fn go(f: &dyn Fixture, wish: &CutOver) -> CutOverDone {
    f.target().cut_over(wish).await.expect("the cut-over takes place")
}

/// Version 1 of `spec` serves from blue.
async fn first(f: &dyn Fixture, spec: ServiceSpec) -> Release {
    let release = release(f, 1, vec![spec]);
    stand(f, &release.services[0], Slot::Blue, &release).await;
    go(f, &switch(&release, Generation(0), None, Slot::Blue)).await;
    release
}

/// Version 2 of `spec` stands in green.
async fn second(f: &dyn Fixture, spec: ServiceSpec) -> Release {
    let release = release(f, 2, vec![spec]);
    stand(f, &release.services[0], Slot::Green, &release).await;
    release
}

async fn serves(f: &dyn Fixture, spec: &ServiceSpec, version: u32) {
    let url = look(f).await.services[&spec.name].url.clone().expect("a live service has a URL");
    ask(f.prober(), &url, &f.tells(version)).await.expect("the public URL answers with the live version");
}

async fn empty(f: &dyn Fixture) {
    let seen = look(f).await;
    assert_eq!((seen.generation, seen.live, seen.stopped, seen.lock), (Generation(0), None, false, None));
    assert!(seen.history.is_empty() && seen.services.is_empty());
    assert_eq!(&seen.environment, f.target().environment());
}

async fn stood_up(f: &dyn Fixture) {
    let release = release(f, 1, vec![f.traffic(1)]);
    let spec = &release.services[0];
    stand(f, spec, Slot::Blue, &release).await;
    let endpoints = f.target().endpoints(&spec.name, Slot::Blue).await.expect("endpoints");
    assert_eq!(endpoints.len(), usize::from(spec.replicas), "one endpoint per replica");
    for base in endpoints {
        ask(f.prober(), &base, &f.tells(1)).await.expect("each replica answers directly");
    }
    assert_eq!(look(f).await.generation, Generation(0), "standing up changes nothing that serves");
}

async fn cut_over(f: &dyn Fixture) {
    let one = first(f, f.traffic(1)).await;
    serves(f, &one.services[0], 1).await;
    let two = second(f, f.traffic(2)).await;
    serves(f, &one.services[0], 1).await;
    let done = go(f, &switch(&two, Generation(1), Some(Slot::Blue), Slot::Green)).await;
    assert_eq!((done.live.version.as_str(), done.live.generation), ("2", Generation(2)));
    let seen = look(f).await;
    assert_eq!((seen.live.as_ref(), seen.generation), (Some(&done.live), Generation(2)));
    assert_eq!(seen.history.iter().map(|r| r.version.as_str()).collect::<Vec<_>>(), ["1"]);
    serves(f, &two.services[0], 2).await;
}

async fn stale(f: &dyn Fixture) {
    first(f, f.traffic(1)).await;
    let two = second(f, f.traffic(2)).await;
    let before = look(f).await;
    for generation in [0, 2, 9] {
        let wish = switch(&two, Generation(generation), Some(Slot::Blue), Slot::Green);
        let error = f.target().cut_over(&wish).await.expect_err("a stale generation is refused");
        let TargetError::Stale { expected, current, .. } = error else { panic!("refused as stale: {error}") };
        assert_eq!((expected, current), (Generation(generation), Generation(1)));
    }
    assert!(f.target().stop(Generation(0), "ann", None).await.is_err(), "stop is fenced too");
    assert_eq!(look(f).await.live, before.live);
}

async fn lock(f: &dyn Fixture) {
    let (target, long) = (f.target(), Duration::from_mins(1));
    let held = target.lock(&owner(1), long).await.expect("an answer");
    let LockOutcome::Held(mine) = held else { panic!("a free lock is given: {held:?}") };
    let busy = target.lock(&owner(2), long).await.expect("an answer");
    assert!(matches!(&busy, LockOutcome::Busy(v) if v.run == mine.run && v.since == mine.since), "{busy:?}");
    target.unlock(&owner(2)).await.expect("harmless");
    assert!(look(f).await.lock.is_some(), "a lock is not given back by another run");
    let again = target.lock(&owner(1), long).await.expect("an answer");
    assert!(matches!(&again, LockOutcome::Held(v) if v.since == mine.since && v.expires >= mine.expires), "{again:?}");
    target.unlock(&owner(1)).await.expect("given back");
    target.unlock(&owner(1)).await.expect("twice is harmless");
    let short = target.lock(&owner(2), Duration::from_millis(50)).await.expect("an answer");
    assert!(matches!(short, LockOutcome::Held(_)), "a lock that was given back is free");
    let begun = Instant::now();
    // Ends by the bound on patience.
    while !matches!(target.lock(&owner(1), long).await.expect("an answer"), LockOutcome::Held(_)) {
        assert!(begun.elapsed() < PATIENCE, "a lock that is not renewed lapses");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn repeated(f: &dyn Fixture) {
    let one = first(f, f.traffic(1)).await;
    let two = second(f, f.traffic(2)).await;
    let spec = &two.services[0];
    f.target().stand_up(spec, Slot::Green, &two).await.expect("standing up twice is harmless");
    let view = look(f).await.services[&spec.name].standby.clone().expect("it still stands");
    assert_eq!((view.ready, view.crashes), (spec.replicas, 0), "nothing was started anew");
    let wish = switch(&two, Generation(1), Some(Slot::Blue), Slot::Green);
    go(f, &wish).await;
    // Whether the second is acknowledged or refused as stale: it has no effect.
    let _ = f.target().cut_over(&wish).await;
    let seen = look(f).await;
    assert_eq!((seen.generation, seen.history.len()), (Generation(2), 1));
    for _ in 0..2 {
        f.target().retire(&one.services[0].name, Slot::Blue).await.expect("retiring twice is harmless");
    }
    assert_eq!(look(f).await.services[&spec.name].standby, None);
    serves(f, spec, 2).await;
}

async fn live_stays(f: &dyn Fixture) {
    let one = first(f, f.traffic(1)).await;
    let name = &one.services[0].name;
    assert!(f.target().retire(name, Slot::Blue).await.is_err(), "a live slot is not retired");
    let two = release(f, 2, vec![f.traffic(2)]);
    let replaced = f.target().stand_up(&two.services[0], Slot::Blue, &two).await;
    assert!(replaced.is_err(), "a live slot is not replaced");
    let absent = switch(&two, Generation(1), Some(Slot::Blue), Slot::Green);
    assert!(f.target().cut_over(&absent).await.is_err(), "an empty slot takes no traffic");
    serves(f, &one.services[0], 1).await;
}

async fn idle_drain(f: &dyn Fixture) {
    first(f, f.traffic(1)).await;
    let two = second(f, f.traffic(2)).await;
    go(f, &switch(&two, Generation(1), Some(Slot::Blue), Slot::Green)).await;
    let begun = Instant::now();
    let drained = f.target().drain(&two.services[0].name, Slot::Blue, PATIENCE).await.expect("drained");
    assert!(begun.elapsed() < PATIENCE / 2, "an idle slot does not wait for the deadline");
    assert_eq!((drained.timed_out, drained.aborted), (0, 0));
}

async fn stop_start(f: &dyn Fixture) {
    let one = first(f, f.traffic(1)).await;
    let before = look(f).await.live;
    let stopped = f.target().stop(Generation(1), "ann", Some("an exercise")).await.expect("stopped");
    assert!(stopped > Generation(1), "a stop is a change");
    let name = &one.services[0].name;
    let ended = |seen: &Observation| seen.services[name].live.as_ref().is_none_or(|s| s.ready == 0);
    let seen = until(f, "a stopped environment ends", |seen| seen.stopped && ended(seen)).await;
    assert_eq!(seen.live, before, "the record stays");
    let by = seen.switched.map(|s| (s.stopped, s.actor, s.reason));
    assert_eq!(
        by,
        Some((true, "ann".to_owned(), Some("an exercise".to_owned()))),
        "who stopped it, and why, is recorded"
    );
    f.target().start(stopped, "ben").await.expect("started");
    until(f, "a started environment serves again", |seen| !seen.stopped && !ended(seen)).await;
    let by = look(f).await.switched.map(|s| (s.stopped, s.actor));
    assert_eq!(by, Some((false, "ben".to_owned())), "who started it again is recorded");
    serves(f, &one.services[0], 1).await;
}

async fn rollback(f: &dyn Fixture) {
    let one = first(f, f.traffic(1)).await;
    let two = second(f, f.traffic(2)).await;
    go(f, &switch(&two, Generation(1), Some(Slot::Blue), Slot::Green)).await;
    f.target().drain(&two.services[0].name, Slot::Blue, Duration::from_secs(1)).await.expect("drained");
    let back = CutOver { change: Change::Rollback, ..switch(&one, Generation(2), Some(Slot::Green), Slot::Blue) };
    let done = go(f, &back).await;
    assert_eq!((done.live.version.as_str(), done.live.generation), ("1", Generation(3)));
    serves(f, &one.services[0], 1).await;
}

async fn concurrent(f: &dyn Fixture) {
    first(f, f.traffic(1)).await;
    let two = second(f, f.traffic(2)).await;
    let (run, actor) = (owner(3).run, "bob".to_owned());
    let other = Release { run, actor, ..two.clone() };
    let wishes = [&two, &other].map(|r| switch(r, Generation(1), Some(Slot::Blue), Slot::Green));
    let (a, b) = tokio::join!(f.target().cut_over(&wishes[0]), f.target().cut_over(&wishes[1]));
    assert_eq!(u8::from(a.is_ok()) + u8::from(b.is_ok()), 1, "exactly one is acknowledged: {a:?} {b:?}");
    let winner = a.or(b).expect("one of them").live;
    let seen = look(f).await;
    assert_eq!((seen.generation, seen.live), (Generation(2), Some(winner)));
}

async fn exclusive(f: &dyn Fixture) {
    let one = first(f, f.exclusive(1)).await;
    let name = one.services[0].name.clone();
    let active = |seen: &Observation| {
        let view = &seen.services[&name];
        (view.live.as_ref().and_then(|s| s.active), view.standby.as_ref().and_then(|s| s.active))
    };
    assert_eq!(active(&look(f).await), (Some(Generation(1)), None));
    let two = second(f, f.exclusive(2)).await;
    assert_eq!(active(&look(f).await), (Some(Generation(1)), None), "a standby slot is passive");
    let done = go(f, &switch(&two, Generation(1), Some(Slot::Blue), Slot::Green)).await;
    assert!(done.handover_micros.iter().any(|(service, _)| *service == name), "the gap is measured");
    assert_eq!(active(&look(f).await), (Some(Generation(2)), None), "the former slot is passive again");
}

/// A wish for a share of the service of `release`.
fn weights(release: &Release, from: u64, share: u8) -> Weights {
    let shares = release.services.iter().map(|s| (s.name.clone(), share)).collect();
    Weights { from: Generation(from), run: release.run.clone(), shares }
}

/// How many of `asked` requests at the public URL the first and the second version answered.
async fn answered(f: &dyn Fixture, spec: &ServiceSpec, asked: u32) -> [u32; 2] {
    let url = look(f).await.services[&spec.name].url.clone().expect("a live service has a URL");
    let mut by = [0, 0];
    for _ in 0..asked {
        let second = ask(f.prober(), &url, &f.tells(2)).await.is_ok();
        by[usize::from(second)] += 1;
    }
    by
}

/// Asks until only `version` has answered for a while: what moves traffic may need a moment to be heard of everywhere.
async fn only(f: &dyn Fixture, spec: &ServiceSpec, version: usize) {
    let begun = Instant::now();
    // Ends by the bound on patience.
    loop {
        let by = answered(f, spec, 30).await;
        if by[2 - version] == 0 {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "only version {version} answers, in time: {by:?}");
    }
}

async fn share(f: &dyn Fixture) {
    first(f, f.traffic(1)).await;
    let two = second(f, f.traffic(2)).await;
    let spec = &two.services[0];
    let target = f.target();
    assert!(target.weigh(&weights(&two, 1, 50)).await.is_err(), "who does not hold the lock gives no shares");
    let owner = LockOwner { run: two.run.clone(), actor: two.actor.clone() };
    target.lock(&owner, PATIENCE * 4).await.expect("an answer");
    for stale in [0, 2] {
        let error = target.weigh(&weights(&two, stale, 50)).await.expect_err("a stale generation is refused");
        assert!(matches!(error, TargetError::Stale { .. }), "refused as stale: {error}");
    }
    assert_eq!(look(f).await.services[&spec.name].share, 0, "what is refused has no effect");
    let before = target.traffic(&spec.name, Slot::Green).await.expect("counters").total().probe.requests;
    target.weigh(&weights(&two, 1, 50)).await.expect("a share");
    let seen = until(f, "the share is seen", |seen| seen.services[&spec.name].share > 0).await;
    assert_eq!((seen.generation, seen.drift), (Generation(1), Vec::new()), "a share is no release, and no drift");
    let begun = Instant::now();
    // Ends by the bound on patience.
    let by = loop {
        let by = answered(f, spec, 60).await;
        if by.iter().all(|n| *n >= 6) {
            break by;
        }
        assert!(begun.elapsed() < PATIENCE, "both answer, in time: {by:?}");
    };
    let counted = target.traffic(&spec.name, Slot::Green).await.expect("counters").total().probe.requests;
    assert!(counted - before >= u64::from(by[1]), "what the slot answered is counted: {before}, {counted}, {by:?}");
    target.weigh(&weights(&two, 1, 0)).await.expect("taken away");
    assert_eq!(look(f).await.services[&spec.name].share, 0);
    only(f, spec, 1).await;
}

async fn share_ends(f: &dyn Fixture) {
    let one = first(f, f.traffic(1)).await;
    let two = second(f, f.traffic(2)).await;
    let spec = &two.services[0];
    let owner = LockOwner { run: two.run.clone(), actor: two.actor.clone() };
    f.target().lock(&owner, PATIENCE * 4).await.expect("an answer");
    f.target().weigh(&weights(&two, 1, 50)).await.expect("a share");
    go(f, &switch(&two, Generation(1), Some(Slot::Blue), Slot::Green)).await;
    assert_eq!(look(f).await.services[&spec.name].share, 0, "a cut-over takes shares away");
    only(f, spec, 2).await;
    // And nothing of them is left when the former slot takes the traffic back.
    let back = CutOver { change: Change::Rollback, ..switch(&one, Generation(2), Some(Slot::Green), Slot::Blue) };
    go(f, &back).await;
    only(f, spec, 1).await;
}

/// A request whose answer must be 200 and contain `text`.
fn asks(path: &str, text: &str) -> SmokeRequest {
    SmokeRequest {
        method: "GET".to_owned(),
        path: path.to_owned(),
        status: 200,
        contains: Some(text.to_owned()),
        json: BTreeMap::new(),
        headers: BTreeMap::new(),
        max_ms: None,
    }
}

async fn copied(f: &dyn Fixture) {
    let one = first(f, f.stateful()).await;
    let (target, name) = (f.target(), &one.services[0].name);
    let url = look(f).await.services[name].url.clone().expect("a live service has a URL");
    let asked = async |path: &str, text: &str| {
        ask(f.prober(), &url, &asks(path, text)).await.expect("the service answers as it should");
    };
    asked("/put/early", "").await;
    let copy = f.scratch().join("copy");
    target.backup(name, &copy).await.expect("the state of a service at work is copied");
    asked("/put/late", "").await;
    let error = target.restore(Generation(1), name, &copy).await.expect_err("a state that is worked on stays");
    assert!(matches!(error, TargetError::Refused { .. }), "{error}");
    let nobody = "nobody".parse().expect("a name");
    assert!(target.backup(&nobody, &f.scratch().join("none")).await.is_err(), "what never served has no state");

    let stopped = target.stop(Generation(1), "ann", None).await.expect("stopped");
    let ended = |seen: &Observation| seen.services[name].live.as_ref().is_none_or(|s| s.ready == 0);
    until(f, "a stopped environment ends", |seen| seen.stopped && ended(seen)).await;
    let error = target.restore(Generation(1), name, &copy).await.expect_err("a stale generation is refused");
    assert!(matches!(error, TargetError::Stale { .. }), "refused as stale: {error}");
    let damaged = f.scratch().join("damaged");
    std::fs::write(&damaged, "damaged: all of it").expect("a file");
    let error = target.restore(stopped, name, &damaged).await.expect_err("a damaged copy is not taken");
    let told = plimsoll_core::chain(&error);
    let said = match error {
        TargetError::Slot { log_tail, .. } => log_tail.join(" "),
        _ => String::new(),
    };
    assert!(told.contains('9') && format!("{told} {said}").contains("damaged"), "{told} {said}");
    let started = target.start(stopped, "ann").await.expect("started");
    until(f, "a started environment serves again", |seen| !seen.stopped && !ended(seen)).await;
    // What is ready gets traffic a moment later in a cluster: who asks next waits for that, and then for the right answer.
    reached(f, &url).await;
    asked("/kept", "late").await;

    let stopped = target.stop(started, "ann", None).await.expect("stopped");
    until(f, "a stopped environment ends", |seen| seen.stopped && ended(seen)).await;
    target.restore(stopped, name, &copy).await.expect("the copy is put back");
    target.start(stopped, "ann").await.expect("started");
    until(f, "a started environment serves again", |seen| !seen.stopped && !ended(seen)).await;
    reached(f, &url).await;
    asked("/kept", "early").await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fake::FakeTarget,
        spec::{Activation, StatePolicy},
        testing::{environment, smoke, spec},
    };
    use plimsoll_core::BackupCommands;

    struct InMemory(FakeTarget, tempfile::TempDir);

    impl Fixture for InMemory {
        fn target(&self) -> &dyn Target {
            &self.0
        }

        fn prober(&self) -> &dyn Prober {
            &self.0
        }

        fn traffic(&self, version: u32) -> ServiceSpec {
            spec("gateway", version)
        }

        fn exclusive(&self, version: u32) -> ServiceSpec {
            ServiceSpec { activation: Activation::Exclusive, ..spec("ingestor", version) }
        }

        fn stateful(&self) -> ServiceSpec {
            let command = vec!["/bin/gateway".to_owned()];
            let backup = Some(BackupCommands { save: command.clone(), load: command });
            ServiceSpec { state: StatePolicy::Shared, backup, ..spec("gateway", 1) }
        }

        fn scratch(&self) -> &Path {
            self.1.path()
        }

        fn tells(&self, version: u32) -> SmokeRequest {
            SmokeRequest { json: [("/version".to_owned(), version.to_string().into())].into(), ..smoke("/version") }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_target_in_memory_passes_the_suite() {
        let names =
            conformance(|_| async { InMemory(FakeTarget::new(environment()), tempfile::tempdir().unwrap()) }).await;
        assert_eq!(names.len(), 15);
    }
}
