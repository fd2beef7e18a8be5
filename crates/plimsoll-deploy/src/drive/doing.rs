//! Doing what the machine says, one action after the other.

use super::{
    Drive, DriveError, DriveEvent, Outcome, WaitingFor,
    patience::{Patience, TRIES},
    trying::Trying,
};
use crate::{
    goal::Goal,
    load::{ProbeLoad, ProbeReport, ProbeTarget, common_requests, requests},
    observation::{LockView, Observation, SlotView},
    plan::{Action, Failure, Progress, Refusal, SlotOf, Verdict, is_live_by, is_ready, moves_made, next},
    policy::Sample,
    probe::{SmokeFailure, run_smoke},
    spec::{Release, ServiceSpec},
    target::{CutOver, DrainReport, TargetError},
};
use futures_util::future::join_all;
use plimsoll_core::{ServiceName, Slot};
use std::{collections::BTreeMap, time::Duration};
use tokio::{sync::watch, time::Instant};

/// Lines of a failed slot's log in an error: what fits a screen beside the rest.
const TAIL: usize = 20;
/// Probes run for this long before a cut-over, so that some are under way when it happens.
const RUN_UP: Duration = Duration::from_millis(100);
/// Without a watch, probes go on for this long after it.
const RUN_OUT: Duration = Duration::from_millis(150);
/// The longest pause between two looks.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Driver<'a> {
    pub(super) with: &'a Drive<'a>,
    pub(super) load: &'a ProbeLoad,
    pub(super) progress: Progress,
    pub(super) cancelled: watch::Receiver<bool>,
    pub(super) lost: watch::Receiver<Option<LockView>>,
    /// The error that stands behind `progress.failed`.
    error: Option<DriveError>,
    /// What the slot to blame for a return wrote last.
    pub(super) tail: Vec<String>,
    deadlines: BTreeMap<SlotOf, Instant>,
    /// The state of the new slots just before they took the traffic.
    pub(super) base: Option<Sample>,
    pub(super) patience: Patience,
    aimed: Aim,
    switch_micros: Option<u64>,
    handover: Vec<(ServiceName, u64)>,
    drain: BTreeMap<ServiceName, DrainReport>,
    pub(super) trying: Trying,
}

/// What the probes ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    Nothing,
    /// What old and new slots both answer.
    Both,
    /// What the new release declares.
    New,
}

impl<'a> Driver<'a> {
    pub(super) fn new(
        with: &'a Drive<'a>,
        load: &'a ProbeLoad,
        cancelled: watch::Receiver<bool>,
        lost: watch::Receiver<Option<LockView>>,
    ) -> Self {
        Self {
            with,
            load,
            progress: Progress::default(),
            cancelled,
            lost,
            error: None,
            tail: Vec::new(),
            deadlines: BTreeMap::new(),
            base: None,
            patience: Patience::with(with.target.kind()),
            aimed: Aim::Nothing,
            switch_micros: None,
            handover: Vec::new(),
            drain: BTreeMap::new(),
            trying: Trying::default(),
        }
    }

    pub(super) async fn run(&mut self) -> Result<Outcome, DriveError> {
        // Per service at most: stand up, await, probe, cut over, drain, retire, each once more for a return and once
        // more for readiness that came and went; the steps of a canary; and the faults. More means that somebody undoes
        // what we do.
        let steps = self.with.policy.canary.as_ref().map_or(0, |canary| canary.steps.len());
        let bound = 40 + TRIES + 16 * self.with.goal.services().len() + 2 * steps;
        for _ in 0..bound {
            let seen = self.look().await?;
            self.progress.started.get_or_insert(seen.generation);
            self.stop_if_asked(&seen)?;
            match next(self.with.goal, &seen, &self.progress, self.with.policy) {
                Action::Done { changed } => return Ok(self.finish(seen, changed).await),
                Action::Refuse(refusal) => return Err(self.refused(refusal)),
                action => self.act(&seen, action).await?,
            }
        }
        Err(DriveError::Unsettled { environment: self.with.target.environment().clone(), actions: bound })
    }

    async fn act(&mut self, seen: &Observation, action: Action) -> Result<(), DriveError> {
        match action {
            Action::StandUp { service, slot, release } => self.stand_up((service, slot), &release).await,
            Action::AwaitReady { slots } => self.await_ready(&slots).await,
            Action::Probe { spec, slot } => self.probe(&spec, slot).await,
            Action::ProbeFormer { migrated, spec, slot } => self.probe_former(seen, &spec, slot, migrated).await,
            Action::Weigh { from, shares } => self.weigh(from, shares).await,
            Action::Try { share, slots } => self.try_out(seen, share, &slots).await,
            Action::CutOver(cut_over) => self.cut_over(seen, &cut_over).await,
            Action::Watch { slots } => self.watch(seen, &slots).await,
            Action::AwaitActive { slots } => self.await_active(&slots).await,
            Action::Drain { slots } => self.drain(slots).await,
            Action::PutBack { reason, cut_over } => self.put_back(seen, reason, &cut_over).await,
            Action::RetireFailed { service, slot } => self.retire((service, slot)).await,
            Action::Done { .. } | Action::Refuse(_) => Ok(()),
        }
    }

    /// Looks, and looks again when the target cannot be reached.
    pub(super) async fn look(&mut self) -> Result<Observation, DriveError> {
        // Ends by the bound on patience.
        loop {
            match self.with.target.observe().await {
                Ok(seen) => return Ok(seen),
                Err(error) => self.patience.again(self.with.observer, error).await?,
            }
        }
    }

    fn stop_if_asked(&mut self, seen: &Observation) -> Result<(), DriveError> {
        if let Some(holder) = self.lost.borrow().clone() {
            return Err(DriveError::LockLost {
                environment: seen.environment.clone(),
                run: holder.run,
                actor: holder.actor,
                since: holder.since,
            });
        }
        let going_back = matches!(self.progress.watch, Some(Verdict::Breached(_)));
        if !*self.cancelled.borrow() || going_back || self.progress.failed.is_some() {
            return Ok(());
        }
        if is_live_by(self.with.goal, seen) {
            return Err(DriveError::Cancelled { live: true });
        }
        self.fail(None, "cancelled".to_owned(), DriveError::Cancelled { live: false });
        Ok(())
    }

    /// There will be no cut-over (or no return), because of this.
    pub(super) fn fail(&mut self, slot: Option<SlotOf>, reason: String, error: DriveError) {
        self.aim(Aim::Nothing, None);
        if matches!(self.progress.watch, Some(Verdict::Breached(_))) {
            self.progress.cannot_return = Some(reason);
        } else {
            self.progress.failed = Some(Failure { slot, reason });
            self.error = Some(error);
        }
    }

    /// What an error of the target means: look again, or give up.
    async fn fault(&mut self, slot: Option<SlotOf>, error: TargetError) {
        // Whether a stale generation is another's work or our own, the next look tells.
        if matches!(error, TargetError::Stale { .. }) {
            return;
        }
        if let Err(error) = self.patience.again(self.with.observer, error).await {
            let reason = plimsoll_core::chain(&error);
            self.fail(slot, reason, error);
        }
    }

    async fn stand_up(&mut self, of: SlotOf, release: &Release) -> Result<(), DriveError> {
        let spec = release.services.iter().find(|s| s.name == of.0).expect("the machine stands up what is released");
        self.tell(&DriveEvent::StandingUp { service: of.0.clone(), slot: of.1 });
        self.progress.stood_up.insert(of.clone());
        match self.with.target.stand_up(spec, of.1, release).await {
            Ok(_) => {
                let deadline = Instant::now() + Duration::from_millis(spec.health.deadline_ms);
                self.deadlines.insert(of, deadline);
            }
            Err(error) => self.fault(Some(of), error).await,
        }
        Ok(())
    }

    async fn await_ready(&mut self, slots: &[(SlotOf, u64)]) -> Result<(), DriveError> {
        let begun = Instant::now();
        for (of, deadline_ms) in slots {
            // Once set it stays: readiness that comes and goes does not wait for ever.
            self.deadlines.entry(of.clone()).or_insert(begun + Duration::from_millis(*deadline_ms));
            self.progress.probed.remove(of);
        }
        let mut pause = Duration::from_millis(10);
        // Ends by the slots' deadlines.
        loop {
            let seen = self.look().await?;
            let mut waiting = Vec::new();
            for (of, _) in slots {
                let view = seen.services.get(&of.0).and_then(|s| s.standby.as_ref()).filter(|s| s.slot == of.1);
                // Gone, or live: the machine decides anew.
                let Some(view) = view else { return Ok(()) };
                if is_ready(view) {
                    continue;
                }
                let crashing = view.crashes >= self.with.policy.max_start_crashes;
                if crashing || view.stuck || Instant::now() >= self.deadlines[of] {
                    let failing = view.failing.as_deref().unwrap_or("no reason is known");
                    let when = match (crashing, view.stuck) {
                        (true, _) => "its processes keep ending",
                        (false, true) => "waiting will not help",
                        (false, false) => "its deadline passed",
                    };
                    let counts = format!("{} of {} replicas are ready", view.ready, view.replicas);
                    self.not_ready(of, format!("{when}, {counts}: {failing}")).await;
                    return Ok(());
                }
                waiting.push(WaitingFor {
                    service: of.0.clone(),
                    slot: of.1,
                    ready: view.ready,
                    replicas: view.replicas,
                    failing: view.failing.clone(),
                });
            }
            if waiting.is_empty() || self.lost.borrow().is_some() || *self.cancelled.borrow() {
                return Ok(());
            }
            let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.tell(&DriveEvent::Waiting { slots: waiting, millis });
            self.with.target.changed(pause).await;
            pause = (pause * 3 / 2).min(PAUSE);
        }
    }

    async fn not_ready(&mut self, of: &SlotOf, reason: String) {
        let log_tail = self.log_tail(of).await;
        let (service, slot) = of.clone();
        let error = DriveError::NotReady { service, slot, reason: reason.clone(), log_tail };
        self.fail(Some(of.clone()), reason, error);
    }

    pub(super) async fn log_tail(&self, (service, slot): &SlotOf) -> Vec<String> {
        self.with.target.logs(service, *slot, TAIL).await.unwrap_or_else(|error| vec![format!("(no log: {error})")])
    }

    async fn probe(&mut self, spec: &ServiceSpec, slot: Slot) -> Result<(), DriveError> {
        let of = (spec.name.clone(), slot);
        let Some(endpoints) = self.endpoints(&of, Some(of.clone())).await else { return Ok(()) };
        if endpoints.is_empty() {
            self.not_ready(&of, "it has no endpoint".to_owned()).await;
            return Ok(());
        }
        self.tell(&DriveEvent::Probing {
            service: spec.name.clone(),
            slot,
            endpoints: endpoints.len(),
            requests: spec.smoke.len(),
        });
        let Some(asked) = self.smoke(spec, &endpoints, Some(of.clone())).await else { return Ok(()) };
        let Err(failure) = asked else {
            self.progress.probed.insert(of);
            return Ok(());
        };
        let (reason, log_tail, service) = (failure.to_string(), self.log_tail(&of).await, spec.name.clone());
        let error = DriveError::Smoke { service, slot, failure: Box::new(failure), log_tail };
        self.fail(Some(of), reason, error);
        Ok(())
    }

    /// What serves is asked whether it works, on the state as it is or as the new slot has migrated it.
    async fn probe_former(
        &mut self,
        seen: &Observation,
        spec: &ServiceSpec,
        slot: Slot,
        migrated: bool,
    ) -> Result<(), DriveError> {
        let of = (spec.name.clone(), slot);
        let Some(endpoints) = self.endpoints(&of, None).await else { return Ok(()) };
        let Some(asked) = self.smoke(spec, &endpoints, None).await else { return Ok(()) };
        match (asked, migrated) {
            (Ok(()), true) => drop(self.progress.probed.insert(of)),
            (Ok(()), false) => drop(self.progress.asked.insert(of)),
            (Err(failure), false) => {
                tracing::info!(%failure, service = %spec.name, "what serves did not work before its state was migrated");
                self.progress.unfit.insert(of);
            }
            (Err(failure), true) => {
                let version = seen.live.as_ref().map_or_else(String::new, |live| live.version.clone());
                let (reason, log_tail, service) = (failure.to_string(), self.log_tail(&of).await, spec.name.clone());
                let error = DriveError::Former { service, slot, version, failure: Box::new(failure), log_tail };
                self.fail(None, reason, error);
            }
        }
        Ok(())
    }

    /// Where the replicas of a slot are asked; nothing after a fault, for which `blamed` answers.
    async fn endpoints(&mut self, (service, slot): &SlotOf, blamed: Option<SlotOf>) -> Option<Vec<String>> {
        match self.with.target.endpoints(service, *slot).await {
            Ok(endpoints) => Some(endpoints),
            Err(error) => {
                self.fault(blamed, error).await;
                None
            }
        }
    }

    /// Whether all smoke requests were answered as declared; nothing after a fault, for which `blamed` answers.
    async fn smoke(
        &mut self,
        spec: &ServiceSpec,
        endpoints: &[String],
        blamed: Option<SlotOf>,
    ) -> Option<Result<(), SmokeFailure>> {
        for base in endpoints {
            match run_smoke(self.with.prober, base, &spec.smoke).await {
                Err(failure) if failure.away => {
                    // It says nothing of the service: it could not be asked.
                    let (what, source) = (failure.request, failure.reason.into());
                    self.fault(blamed, TargetError::Unreachable { what, source }).await;
                    return None;
                }
                Err(failure) => return Some(Err(failure)),
                Ok(()) => {}
            }
        }
        Some(Ok(()))
    }

    async fn cut_over(&mut self, seen: &Observation, cut_over: &CutOver) -> Result<(), DriveError> {
        if !cut_over.moves.is_empty() && self.aimed == Aim::Nothing && self.with.policy.probes_per_second > 0 {
            self.aim(Aim::Both, Some(seen));
            tokio::time::sleep(RUN_UP).await;
            // The world is looked at again: what is decided on must be fresh.
            return Ok(());
        }
        if let Err(reason) = (self.with.gate)(seen, &cut_over.release) {
            let environment = seen.environment.clone();
            self.fail(None, reason.clone(), DriveError::Gate { environment, reason });
            return Ok(());
        }
        let slots: Vec<_> = cut_over.moves.iter().map(|m| (m.service.clone(), m.to)).collect();
        self.base = Some(self.sample(seen, &slots, &Sample::default()).await);
        self.tell(&DriveEvent::CuttingOver { moves: cut_over.moves.clone() });
        self.switch(cut_over).await
    }

    async fn put_back(&mut self, seen: &Observation, reason: String, cut_over: &CutOver) -> Result<(), DriveError> {
        self.tell(&DriveEvent::Returning { reason });
        self.aim(Aim::Both, Some(seen));
        self.switch(cut_over).await
    }

    async fn switch(&mut self, cut_over: &CutOver) -> Result<(), DriveError> {
        match self.with.target.cut_over(cut_over).await {
            Ok(done) => {
                let (generation, switch_micros) = (done.live.generation, done.switch_micros);
                self.switch_micros = (!cut_over.moves.is_empty()).then_some(switch_micros);
                self.handover = done.handover_micros;
                self.tell(&DriveEvent::Live { generation, switch_micros });
            }
            // Whether a stale generation is another's work or our own, the next look tells.
            Err(TargetError::Stale { .. }) => {}
            Err(error) => self.not_switched(cut_over, error).await?,
        }
        Ok(())
    }

    /// A lost answer, a refusal, and a slot that took the traffic but does not work: a look tells them apart.
    async fn not_switched(&mut self, cut_over: &CutOver, error: TargetError) -> Result<(), DriveError> {
        let lost = matches!(error, TargetError::Unreachable { .. });
        let slot = match &error {
            TargetError::Slot { service, slot, .. } => Some((service.clone(), *slot)),
            _ => None,
        };
        let Err(error) = self.patience.again(self.with.observer, error).await else { return Ok(()) };
        let reason = plimsoll_core::chain(&error);
        let seen = self.look().await?;
        let took_place = seen.generation != cut_over.from;
        if took_place && lost {
            return Ok(());
        }
        if took_place && is_live_by(self.with.goal, &seen) {
            if let Some(of) = &slot {
                self.tail = self.log_tail(of).await;
            }
            self.progress.watch = Some(Verdict::Breached(reason));
        } else {
            self.fail(slot, reason, error);
        }
        Ok(())
    }

    /// All at once: no slot's requests wait for those of another one.
    async fn drain(&mut self, slots: Vec<(SlotOf, u64)>) -> Result<(), DriveError> {
        self.aim_at_new().await?;
        let target = self.with.target;
        for ((service, slot), _) in &slots {
            self.tell(&DriveEvent::Draining { service: service.clone(), slot: *slot });
        }
        let drained =
            join_all(slots.iter().map(|((service, slot), deadline_ms)| {
                target.drain(service, *slot, Duration::from_millis(*deadline_ms))
            }));
        let mut failed = None;
        for ((of, _), done) in slots.iter().zip(drained.await) {
            match done {
                Ok(report) => {
                    let (service, slot) = of.clone();
                    self.drain.insert(service.clone(), report.clone());
                    self.tell(&DriveEvent::Drained { service, slot, report });
                    self.progress.drained.insert(of.clone());
                }
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => self.patience.again(self.with.observer, error).await,
            None => Ok(()),
        }
    }

    async fn retire(&mut self, (service, slot): SlotOf) -> Result<(), DriveError> {
        self.tell(&DriveEvent::Retiring { service: service.clone(), slot });
        let Err(error) = self.with.target.retire(&service, slot).await else { return Ok(()) };
        match self.patience.again(self.with.observer, error).await {
            Ok(()) => Ok(()),
            // The first cause is what a person must read; the slot that stays is named in the log.
            Err(second) => {
                tracing::error!(error = plimsoll_core::chain(&second), %service, %slot, "the slot could not be ended");
                Err(self.error.take().unwrap_or(second))
            }
        }
    }

    /// From the cut-over on the probes ask what the new release declares.
    pub(super) async fn aim_at_new(&mut self) -> Result<(), DriveError> {
        let going_back = self.progress.failed.is_some() || matches!(self.progress.watch, Some(Verdict::Breached(_)));
        if self.aimed != Aim::New && !going_back {
            let seen = self.look().await?;
            self.aim(Aim::New, Some(&seen));
        }
        Ok(())
    }

    pub(super) fn aim(&mut self, aim: Aim, seen: Option<&Observation>) {
        self.aimed = aim;
        let targets = seen.map(|seen| targets(self.with.goal, seen, aim)).unwrap_or_default();
        self.load.aim(targets);
    }

    async fn finish(&mut self, seen: Observation, changed: bool) -> Outcome {
        if self.aimed != Aim::Nothing && self.progress.watch.is_none() {
            tokio::time::sleep(RUN_OUT).await;
        }
        self.aim(Aim::Nothing, None);
        let moved = if changed { moves_made(&seen) } else { Vec::new() };
        Outcome {
            changed,
            moved,
            previous: if changed { seen.history.into_iter().next() } else { None },
            live: seen.live.expect("a goal is reached when its release is live"),
            switch_micros: self.switch_micros,
            handover: std::mem::take(&mut self.handover),
            probes: ProbeReport::default(),
            canary: std::mem::take(&mut self.trying.steps),
            drain: std::mem::take(&mut self.drain),
            millis: 0,
        }
    }

    fn refused(&mut self, refusal: Refusal) -> DriveError {
        match refusal {
            Refusal::Failed { .. } => self.error.take().unwrap_or(DriveError::Refused(refusal)),
            Refusal::Returned { version, reason } => {
                let log_tail = std::mem::take(&mut self.tail);
                DriveError::Returned { version, reason, log_tail, probes: Box::default() }
            }
            other => DriveError::Refused(other),
        }
    }

    pub(super) fn tell(&self, event: &DriveEvent) {
        self.with.observer.on(event);
    }
}

/// The first of these slots that is not fit for its share of the requests, and why: it crashed since `base`, or has fewer
/// ready replicas than then, now and in `last`. Replicas that an autoscaler adds may take their time.
pub(super) fn unfit(
    slots: &[SlotOf],
    base: &Observation,
    last: &Observation,
    now: &Observation,
) -> Option<(SlotOf, String)> {
    let view = |seen: &Observation, of: &SlotOf| {
        let standby = seen.services.get(&of.0).and_then(|view| view.standby.clone());
        standby.filter(|slot| slot.slot == of.1)
    };
    slots.iter().find_map(|of| {
        let (began, before, now) = (view(base, of)?, view(last, of), view(now, of));
        let short = |slot: &Option<SlotView>| {
            slot.as_ref().is_none_or(|slot| slot.ready < slot.replicas && slot.ready < began.ready)
        };
        let why = now.as_ref().and_then(|slot| slot.failing.as_deref()).map(|f| format!(": {f}")).unwrap_or_default();
        if now.as_ref().is_some_and(|slot| slot.crashes > began.crashes) {
            return Some((of.clone(), format!("it crashed with a share of the requests{why}")));
        }
        (short(&now) && short(&before)).then(|| (of.clone(), format!("it is no longer ready{why}")))
    })
}

/// What to ask, and where: all services that serve, moved or not.
fn targets(goal: &Goal, seen: &Observation, aim: Aim) -> Vec<ProbeTarget> {
    let mut targets = Vec::new();
    for spec in goal.services() {
        let Some(url) = seen.services.get(&spec.name).filter(|v| v.live.is_some()).and_then(|v| v.url.clone()) else {
            continue;
        };
        let asked = match aim {
            Aim::Nothing => Vec::new(),
            Aim::New => requests(spec),
            Aim::Both => {
                let live = seen.live.as_ref().and_then(|live| live.services.get(&spec.name));
                let former = seen.history.first().and_then(|former| former.services.get(&spec.name));
                let goes = live.filter(|l| !l.spec.is_same_as(spec)).or(former).or(live);
                goes.map(|old| common_requests(&old.spec, spec)).unwrap_or_default()
            }
        };
        let service = &spec.name;
        targets.extend(asked.into_iter().map(|request| ProbeTarget {
            service: service.clone(),
            base: url.clone(),
            request,
        }));
    }
    targets
}
