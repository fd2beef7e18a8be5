//! A target in memory, for tests: it holds state as a real one does, and can be broken on purpose.
//!
//! Time is tokio's, so that tests may pause it. It answers requests too, as a [`Prober`].

mod load;
mod state;

use crate::{
    admission::{Beside, admit_shares},
    copying::{admit_backup, admit_restore},
    observation::{LockView, Observation, ServiceView, SlotView, Switched},
    probe::{Answer, Prober},
    spec::{Activation, Release, ServiceSpec, SmokeRequest},
    target::{
        CutOver, CutOverDone, DrainReport, Fut, LockOutcome, LockOwner, Target, TargetError, TargetKind, Weights,
    },
    traffic::Traffic,
};
use load::Load;
use plimsoll_core::{EnvironmentName, Generation, ServiceName, Slot, Timestamp};
use state::{Service, Stands, State};
use std::{
    collections::BTreeMap,
    future::Future,
    path::Path,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Records kept, as the trait asks of every target.
const HISTORY: usize = 10;

/// Something to go wrong. Those about versions hold until cleared; the others happen once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A service of this version never gets ready.
    NeverReady(String),
    /// A service of this version gets ready so long after its start.
    SlowReady(String, Duration),
    /// A service of this version ends by itself so long after it took the traffic.
    CrashAfterCutOver(String, Duration),
    /// Of a service of this version only half the replicas ever get ready, as where a quota or a node lets in no more.
    HalfReady(String),
    /// A node goes down so long after a service of this version took the traffic, and with it half the replicas.
    LosesHalfAfterCutOver(String, Duration),
    /// One of two nodes hears of a cut-over so much later, and routes as before until then.
    SlowNode(Duration),
    /// A service of this version ends by itself again and again from its start.
    CrashLoop(String),
    /// A service of this version answers every request with 500, its health path apart.
    Answers500(String),
    /// A service of this version makes of the state something with which all other versions answer 500.
    SpoilsState(String),
    /// An exclusive service of this version takes the traffic, but does not accept its activation.
    RefusesActivation(String),
    /// Somebody else changes the environment just before the next cut-over.
    OvertakenOnce,
    /// The next cut-over takes place, but its answer is lost.
    ReplyLostOnce,
    /// The next so many looks fail.
    UnreachableLooks(u32),
    /// One in so many real requests to a service of this version fails.
    FailsOneIn(String, u64),
    /// Nobody can say how many requests there were.
    NoNumbers,
    /// The numbers of requests stand still.
    OldNumbers,
}

/// A target in memory.
pub struct FakeTarget {
    environment: EnvironmentName,
    state: Mutex<State>,
}

impl FakeTarget {
    /// An environment in which nothing has happened yet.
    pub fn new(environment: EnvironmentName) -> Self {
        let state = State {
            born: Instant::now(),
            generation: Generation(0),
            live: None,
            history: Vec::new(),
            services: BTreeMap::new(),
            stopped: false,
            switched: None,
            lock: None,
            faults: Vec::new(),
            calls: Vec::new(),
            load: Load::new(),
            kept: BTreeMap::new(),
        };
        Self { environment, state: Mutex::new(state) }
    }

    /// Breaks something.
    pub fn break_it(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Mends everything that will be started from now on.
    pub fn mend(&self) {
        self.state().faults.clear();
    }

    /// Ends the processes of a slot.
    pub fn end_slot(&self, service: &ServiceName, slot: Slot) {
        let mut state = self.state();
        if let Some(stands) = state.services.get_mut(service).and_then(|s| s.slots.get_mut(&slot)) {
            stands.ends_at = Some(Instant::now());
        }
    }

    /// Sends each service so many real requests a second from now on.
    pub fn load(&self, per_second: u64) {
        let mut state = self.state();
        state.count();
        state.load.set(per_second);
    }

    /// The changing verbs called so far, in words such as `stand_up gateway green`.
    pub fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stale(&self, expected: Generation, current: Generation) -> TargetError {
        TargetError::Stale { environment: self.environment.clone(), expected, current }
    }

    fn look(&self) -> Result<Observation, TargetError> {
        let mut state = self.state();
        if let Some(Fault::UnreachableLooks(left)) = state.fault(|f| matches!(f, Fault::UnreachableLooks(1..))) {
            *left -= 1;
            return Err(unreachable("observe"));
        }
        let stopped = state.stopped;
        let view = |name: &ServiceName, service: &Service| {
            let slot = |slot: Slot| Some(service.slots.get(&slot)?.view(slot, stopped));
            let standby = match service.live {
                Some(live) => slot(live.other()),
                None => slot(Slot::Blue).or_else(|| slot(Slot::Green)),
            };
            let url = Some(format!("fake://{name}"));
            ServiceView { live: service.live.and_then(slot), standby, share: service.share, url }
        };
        let services = state.services.iter().map(|(name, s)| (name.clone(), view(name, s))).collect();
        Ok(Observation {
            environment: self.environment.clone(),
            generation: state.generation,
            live: state.live.clone(),
            history: state.history.clone(),
            services,
            stopped,
            switched: state.switched.clone(),
            lock: state.lock.as_ref().filter(|(_, until)| *until > Instant::now()).map(|(view, _)| view.clone()),
            drift: Vec::new(),
        })
    }

    fn start_slot(&self, spec: &ServiceSpec, slot: Slot, release: &Release) -> Result<SlotView, TargetError> {
        let mut state = self.state();
        state.calls.push(format!("stand_up {} {slot}", spec.name));
        if state.services.get(&spec.name).is_some_and(|s| s.live == Some(slot)) {
            return Err(refused(format!("stand {} ({slot}) up", spec.name), "it is live"));
        }
        let version = &release.version;
        let now = Instant::now();
        let (mut ready_at, mut half_at, mut crashes) = (Some(now), None, 0);
        for fault in &state.faults {
            match fault {
                Fault::NeverReady(v) if v == version => ready_at = None,
                Fault::SlowReady(v, after) if v == version => ready_at = Some(now + *after),
                Fault::HalfReady(v) if v == version => half_at = Some(now),
                Fault::CrashLoop(v) if v == version => (ready_at, crashes) = (None, 3),
                _ => {}
            }
        }
        let service = state.services.entry(spec.name.clone()).or_default();
        let same = service.slots.get(&slot).is_some_and(|s| s.spec.is_same_as(spec));
        if !same {
            service.share = 0;
            let spec = spec.clone();
            let version = version.clone();
            let stands = Stands { spec, version, ready_at, ends_at: None, half_at, crashes, active: None };
            service.slots.insert(slot, stands);
        }
        Ok(service.slots[&slot].view(slot, false))
    }

    fn switch(&self, wish: &CutOver) -> Result<CutOverDone, TargetError> {
        let mut state = self.state();
        if state.take(&Fault::OvertakenOnce) {
            state.generation = state.generation.next();
        }
        if wish.from != state.generation {
            return Err(self.stale(wish.from, state.generation));
        }
        let version = &wish.release.version;
        let slots = state.allowed(wish)?;
        let record = state.record(wish, slots);
        state.count();
        state.calls.push(format!("cut_over {version}"));
        let now = Instant::now();
        let (mut crash, mut half) = (None, None);
        for fault in &state.faults {
            match fault {
                Fault::CrashAfterCutOver(v, after) if v == version => crash = Some(now + *after),
                Fault::LosesHalfAfterCutOver(v, after) if v == version => half = Some(now + *after),
                _ => {}
            }
        }
        let handover_micros = state.commit(&record, crash, half);
        if state.take(&Fault::ReplyLostOnce) {
            return Err(unreachable("cut over"));
        }
        state.all_active()?;
        Ok(CutOverDone { live: record, switch_micros: 150, handover_micros })
    }

    fn share(&self, weights: &Weights) -> Result<(), TargetError> {
        let mut state = self.state();
        let now = Instant::now();
        let holder = state.lock.as_ref().filter(|(_, until)| *until > now).map(|(view, _)| &view.run);
        admit_shares(&self.environment, state.generation, holder, weights, |name| {
            let service = state.services.get(name);
            let Some((service, live)) = service.and_then(|s| Some((s, s.live?))) else { return Beside::NothingLive };
            match service.slots.get(&live.other()) {
                None => Beside::Nothing,
                Some(slot) if slot.spec.activation == Activation::Exclusive => Beside::Exclusive,
                Some(_) => Beside::Slot,
            }
        })?;
        state.count();
        for (name, share) in &weights.shares {
            state.calls.push(format!("weigh {name} {share}"));
            if let Some(service) = state.services.get_mut(name) {
                service.share = *share;
            }
        }
        Ok(())
    }

    fn answer(&self, base: &str, request: &SmokeRequest) -> Result<Answer, String> {
        let mut state = self.state();
        let mut parts = base.strip_prefix("fake://").ok_or("no such place")?.split('/');
        let name: ServiceName = parts.next().unwrap_or_default().parse().map_err(|_| "no such service")?;
        let direct = parts.next().map(|slot| if slot == "blue" { Slot::Blue } else { Slot::Green });
        let slot = direct.or_else(|| state.answering(&name));
        let service = state.services.get(&name).ok_or("no such service")?;
        let stands = slot.and_then(|slot| service.slots.get(&slot));
        let stands = stands.filter(|s| !state.stopped && s.is_ready(Instant::now())).ok_or("connection refused")?;
        let broken = state.faults.contains(&Fault::Answers500(stands.version.clone()));
        let spoils = |other: &Stands| {
            other.version != stands.version && state.faults.contains(&Fault::SpoilsState(other.version.clone()))
        };
        let broken = broken || service.slots.values().any(spoils);
        let status = if broken && request.path != stands.spec.health.path { 500 } else { 200 };
        let mut body = format!(r#"{{"service":"{name}","version":"{}"}}"#, stands.version);
        match (request.path.strip_prefix("/put/"), request.path.as_str()) {
            (Some(word), _) => drop(state.kept.insert(name, word.to_owned())),
            (_, "/kept") => body = state.kept.get(&name).cloned().unwrap_or_default(),
            _ => {}
        }
        Ok(Answer { status, body, ..Answer::default() })
    }

    fn restart(&self, from: Generation, switch: impl FnOnce(Timestamp) -> Switched) -> Result<Generation, TargetError> {
        let mut state = self.state();
        if from != state.generation {
            return Err(self.stale(from, state.generation));
        }
        let switched = switch(state.now());
        if state.stopped != switched.stopped {
            state.stopped = switched.stopped;
            state.switched = Some(switched);
            state.generation = from.next();
        }
        Ok(state.generation)
    }

    fn take_lock(&self, owner: &LockOwner, lease: Duration) -> LockOutcome {
        let mut state = self.state();
        let (now, at) = (Instant::now(), state.now());
        let held = state.lock.as_ref().filter(|(_, until)| *until > now);
        if let Some((view, _)) = held.filter(|(view, _)| view.run != owner.run) {
            return LockOutcome::Busy(view.clone());
        }
        let since = held.map_or(at, |(view, _)| view.since);
        let millis = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
        let expires = Timestamp::from_millis(at.as_millis().saturating_add(millis));
        let view = LockView { run: owner.run.clone(), actor: owner.actor.clone(), since, expires };
        state.lock = Some((view.clone(), now + lease));
        LockOutcome::Held(view)
    }
}

fn refused(what: String, reason: &str) -> TargetError {
    TargetError::Refused { what, reason: reason.to_owned() }
}

fn unreachable(what: &str) -> TargetError {
    TargetError::Unreachable { what: what.to_owned(), source: "the connection broke off".into() }
}

fn ready<'a, T: Send + 'a>(result: Result<T, TargetError>) -> Fut<'a, T> {
    Box::pin(std::future::ready(result))
}

impl Prober for FakeTarget {
    fn ask<'a>(
        &'a self,
        base: &'a str,
        request: &'a SmokeRequest,
        _: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, String>> + Send + 'a>> {
        Box::pin(std::future::ready(self.answer(base, request)))
    }
}

impl Target for FakeTarget {
    fn kind(&self) -> TargetKind {
        TargetKind::Local
    }

    fn environment(&self) -> &EnvironmentName {
        &self.environment
    }

    fn observe(&self) -> Fut<'_, Observation> {
        ready(self.look())
    }

    fn lock<'a>(&'a self, owner: &'a LockOwner, lease: Duration) -> Fut<'a, LockOutcome> {
        ready(Ok(self.take_lock(owner, lease)))
    }

    fn unlock<'a>(&'a self, owner: &'a LockOwner) -> Fut<'a, ()> {
        let mut state = self.state();
        if state.lock.as_ref().is_some_and(|(view, _)| view.run == owner.run) {
            state.lock = None;
        }
        ready(Ok(()))
    }

    fn stand_up<'a>(&'a self, spec: &'a ServiceSpec, slot: Slot, release: &'a Release) -> Fut<'a, SlotView> {
        ready(self.start_slot(spec, slot, release))
    }

    fn endpoints<'a>(&'a self, service: &'a ServiceName, slot: Slot) -> Fut<'a, Vec<String>> {
        let state = self.state();
        let stands = state.services.get(service).and_then(|s| s.slots.get(&slot));
        let replicas = stands.map_or(0, |s| s.spec.replicas);
        ready(Ok((0..replicas).map(|r| format!("fake://{service}/{slot}/{r}")).collect()))
    }

    fn cut_over<'a>(&'a self, cut_over: &'a CutOver) -> Fut<'a, CutOverDone> {
        ready(self.switch(cut_over))
    }

    fn drain<'a>(&'a self, service: &'a ServiceName, slot: Slot, _: Duration) -> Fut<'a, DrainReport> {
        self.state().calls.push(format!("drain {service} {slot}"));
        ready(Ok(DrainReport::default()))
    }

    fn backup<'a>(&'a self, service: &'a ServiceName, to: &'a Path) -> Fut<'a, ()> {
        let copy = || {
            admit_backup(&self.look()?, service)?;
            let word = self.state().kept.get(service).cloned().unwrap_or_default();
            std::fs::write(to, word).map_err(|_| unreachable("write the copy"))
        };
        ready(copy())
    }

    fn restore<'a>(&'a self, from: Generation, service: &'a ServiceName, copy: &'a Path) -> Fut<'a, ()> {
        let replace = || {
            admit_restore(&self.look()?, from, service)?;
            let word = std::fs::read_to_string(copy).map_err(|_| unreachable("read the copy"))?;
            if word.starts_with("damaged") {
                let (service, slot) = (service.clone(), Slot::Blue);
                let log_tail = vec!["this copy is damaged".to_owned()];
                return Err(TargetError::Slot { service, slot, reason: "it ended with status 9".to_owned(), log_tail });
            }
            self.state().kept.insert(service.clone(), word);
            Ok(())
        };
        ready(replace())
    }

    fn retire<'a>(&'a self, service: &'a ServiceName, slot: Slot) -> Fut<'a, ()> {
        let mut state = self.state();
        state.calls.push(format!("retire {service} {slot}"));
        let Some(known) = state.services.get_mut(service) else { return ready(Ok(())) };
        if known.live == Some(slot) {
            return ready(Err(refused(format!("retire {service} ({slot})"), "it is live")));
        }
        known.slots.remove(&slot);
        known.share = 0;
        ready(Ok(()))
    }

    fn stop<'a>(&'a self, from: Generation, actor: &'a str, reason: Option<&'a str>) -> Fut<'a, Generation> {
        let (actor, reason) = (actor.to_owned(), reason.map(str::to_owned));
        ready(self.restart(from, |at| Switched { stopped: true, actor, reason, at }))
    }

    fn start<'a>(&'a self, from: Generation, actor: &'a str) -> Fut<'a, Generation> {
        let actor = actor.to_owned();
        ready(self.restart(from, |at| Switched { stopped: false, actor, reason: None, at }))
    }

    fn weigh<'a>(&'a self, weights: &'a Weights) -> Fut<'a, ()> {
        ready(self.share(weights))
    }

    fn traffic<'a>(&'a self, service: &'a ServiceName, slot: Slot) -> Fut<'a, Traffic> {
        let mut state = self.state();
        if state.faults.contains(&Fault::NoNumbers) {
            return ready(Err(unreachable("count requests")));
        }
        if !state.faults.contains(&Fault::OldNumbers) {
            state.count();
        }
        let counted = state.load.of(service, slot);
        ready(Ok(Traffic::of("fake", counted)))
    }

    fn logs<'a>(&'a self, service: &'a ServiceName, slot: Slot, lines: usize) -> Fut<'a, Vec<String>> {
        let line = format!("{service} {slot}: last words");
        ready(Ok(std::iter::once(line).take(lines).collect()))
    }
}
