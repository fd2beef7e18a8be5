//! The machine against every course of a small world: slots that get ready, fail or crash at any moment, or serve but
//! refuse to work, answers that are lost, a rival that changes the environment, and a driver that dies and comes back knowing nothing. All states are visited.

mod circle;
mod others;
mod rules;

use crate::{
    canary::Canary,
    goal::Goal,
    observation::{Observation, ReleaseRecord, ServiceRecord, ServiceView, SlotView},
    plan::{Action, Failure, Progress, Refusal, SlotOf, Verdict, is_live_by, next},
    policy::Policy,
    spec::{Activation, ServiceSpec},
    target::{Change, CutOver, LockOwner},
    testing::{environment, release, run, spec},
};
use plimsoll_core::{Generation, Slot, Timestamp};
use std::collections::{BTreeMap, HashMap};

const NAMES: [&str; 2] = ["gateway", "risk"];
/// The run of the driver, of the rival, and of what was there before.
const US: u16 = 50;
const RIVAL: u16 = 60;
const BEFORE: u16 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Health {
    Starting,
    Ready,
    Failed,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Service {
    live: Option<usize>,
    slots: [Option<(u32, Health)>; 2],
    /// The live slot did not accept its activation.
    idle: bool,
    /// The other slot has a share of the requests.
    shared: bool,
}

impl Service {
    fn is_served(&self) -> bool {
        self.live.is_some_and(|slot| matches!(self.slots[slot], Some((_, Health::Ready))))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Record {
    version: u32,
    run: u16,
    generation: u64,
    /// Slot and version of each service.
    services: Vec<(usize, u32)>,
}

/// What the driver is about to do, decided by an earlier look.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Pending {
    StandUp(usize, usize, u32),
    Await(Vec<(usize, usize)>),
    Probe(usize, usize),
    Weigh { from: u64, shares: Vec<(usize, bool)> },
    Try { from: u64, share: u8, slots: Vec<(usize, usize)> },
    Switch { from: u64, moves: Vec<(usize, usize)>, version: u32, promotes: bool },
    Watch(Vec<(usize, usize)>),
    AwaitActive(Vec<(usize, usize)>),
    Drain(Vec<(usize, usize)>),
    Retire(usize, usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum End {
    Done,
    Failed,
    Stale,
    Returned,
    Stuck,
    TargetRefused,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    generation: u64,
    services: Vec<Service>,
    live: Option<Record>,
    history: Vec<Record>,
    progress: Progress,
    pending: Option<Pending>,
    end: Option<End>,
    failures_left: u8,
    deaths_left: u8,
    rival_left: u8,
    /// Effective cut-overs of ours: promotions or rollbacks, and returns.
    ours: u8,
    returns: u8,
}

struct Model {
    goal: Goal,
    policy: Policy,
    /// The generation that the approval names.
    approved: u64,
    specs: Vec<Vec<ServiceSpec>>,
}

fn slot_of(index: usize) -> Slot {
    if index == 0 { Slot::Blue } else { Slot::Green }
}

fn index_of(slot: Slot) -> usize {
    usize::from(slot == Slot::Green)
}

fn service_of(name: &plimsoll_core::ServiceName) -> usize {
    NAMES.iter().position(|n| *n == name.as_str()).unwrap()
}

fn pair(of: &SlotOf) -> (usize, usize) {
    (service_of(&of.0), index_of(of.1))
}

impl Model {
    fn name(&self, service: usize, slot: usize) -> SlotOf {
        (self.specs[service][0].name.clone(), slot_of(slot))
    }

    fn record(&self, record: &Record) -> ReleaseRecord {
        let one = |(service, (slot, version)): (usize, &(usize, u32))| {
            let spec = self.specs[service][*version as usize].clone();
            (spec.name.clone(), ServiceRecord { slot: slot_of(*slot), spec })
        };
        ReleaseRecord {
            version: record.version.to_string(),
            revision: format!("c{}", record.version),
            run: run(record.run),
            actor: "ann".to_owned(),
            since: Timestamp::from_millis(0),
            generation: Generation(record.generation),
            approval: None,
            services: record.services.iter().enumerate().map(one).collect(),
        }
    }

    fn look(&self, world: &World) -> Observation {
        let mut services = BTreeMap::new();
        for (at, service) in world.services.iter().enumerate() {
            let view = |slot: usize| {
                let (version, health) = service.slots[slot]?;
                let spec = &self.specs[at][version as usize];
                Some(SlotView {
                    slot: slot_of(slot),
                    digest: spec.digest.clone(),
                    config_hash: spec.config_hash,
                    version: version.to_string(),
                    replicas: 1,
                    ready: u16::from(health == Health::Ready),
                    active: (service.live == Some(slot) && !service.idle).then_some(Generation(world.generation)),
                    failing: None,
                    stuck: false,
                    crashes: 0,
                })
            };
            let standby = service.live.map_or_else(|| view(0).or_else(|| view(1)), |live| view(1 - live));
            let view = ServiceView {
                live: service.live.and_then(view),
                standby,
                share: if service.shared { 10 } else { 0 },
                url: None,
            };
            services.insert(self.specs[at][0].name.clone(), view);
        }
        Observation {
            environment: environment(),
            generation: Generation(world.generation),
            live: world.live.as_ref().map(|r| self.record(r)),
            history: world.history.iter().map(|r| self.record(r)).collect(),
            services,
            stopped: false,
            switched: None,
            lock: None,
            drift: Vec::new(),
        }
    }

    /// Every world that may come next. The last of the pair says whether the driver did it.
    fn steps(&self, world: &World) -> Vec<(World, bool)> {
        let mut next = Vec::new();
        Self::nature(world, &mut next);
        Self::rival(world, &mut next);
        if world.end.is_none() {
            if world.deaths_left > 0 && world.progress.started.is_some() {
                let deaths_left = world.deaths_left - 1;
                next.push((World { progress: Progress::default(), pending: None, deaths_left, ..world.clone() }, true));
            }
            let ours = match &world.pending {
                None => self.decide(world),
                Some(pending) => self.act(&World { pending: None, ..world.clone() }, pending),
            };
            assert!(!ours.is_empty() || matches!(world.pending, Some(Pending::Await(_))), "the driver is at a loss");
            next.extend(ours.into_iter().map(|w| (w, true)));
        }
        next
    }

    fn decide(&self, world: &World) -> Vec<World> {
        let seen = self.look(world);
        let mut world = world.clone();
        world.progress.started.get_or_insert(seen.generation);
        let action = next(&self.goal, &seen, &world.progress, &self.policy);
        self.judge(&world, &seen, &action);
        let pending = match action {
            Action::Done { .. } => return vec![World { end: Some(End::Done), ..world }],
            Action::Refuse(refusal) => {
                let end = match refusal {
                    Refusal::Stale { .. } => End::Stale,
                    Refusal::Failed { .. } => End::Failed,
                    Refusal::Returned { .. } => End::Returned,
                    Refusal::Stuck { .. } => End::Stuck,
                    Refusal::Stopped { .. } | Refusal::Drifted { .. } => unreachable!("nobody else touches this world"),
                    Refusal::Unreadable { .. } | Refusal::NoWayBack { .. } => {
                        unreachable!("no service of this world has a schema")
                    }
                };
                return vec![World { end: Some(end), ..world }];
            }
            Action::StandUp { service, slot, release } => {
                let at = service_of(&service);
                let wanted = release.services.iter().find(|s| s.name == service).unwrap();
                let version = self.specs[at].iter().position(|s| s.is_same_as(wanted)).unwrap();
                Pending::StandUp(at, index_of(slot), u32::try_from(version).unwrap())
            }
            Action::AwaitReady { slots } => Pending::Await(slots.iter().map(|(of, _)| pair(of)).collect()),
            Action::Probe { spec, slot } => Pending::Probe(service_of(&spec.name), index_of(slot)),
            Action::ProbeFormer { .. } => unreachable!("no service of this world has a schema"),
            Action::CutOver(cut_over) => {
                // The gate is asked with the same look: it lets pass what was approved, or finds that it expired.
                let closed = World { progress: failed(&world.progress, None), ..world.clone() };
                let promotes = cut_over.change == Change::Promote;
                if promotes && world.generation != self.approved {
                    return vec![closed];
                }
                let open = World { pending: Some(switch(&cut_over)), ..world };
                return if promotes { vec![open, closed] } else { vec![open] };
            }
            Action::PutBack { cut_over, .. } => switch(&cut_over),
            Action::Weigh { from, shares } => {
                let shares = shares.iter().map(|(name, share)| (service_of(name), *share > 0)).collect();
                Pending::Weigh { from: from.0, shares }
            }
            Action::Try { share, slots } => {
                Pending::Try { from: world.generation, share, slots: slots.iter().map(pair).collect() }
            }
            Action::Watch { slots } => Pending::Watch(slots.iter().map(pair).collect()),
            Action::AwaitActive { slots } => Pending::AwaitActive(slots.iter().map(pair).collect()),
            Action::Drain { slots } => Pending::Drain(slots.iter().map(|(of, _)| pair(of)).collect()),
            Action::RetireFailed { service, slot } => Pending::Retire(service_of(&service), index_of(slot)),
        };
        vec![World { pending: Some(pending), ..world }]
    }

    /// Every way the pending action may end.
    fn act(&self, world: &World, pending: &Pending) -> Vec<World> {
        let mut world = world.clone();
        match pending {
            Pending::StandUp(at, slot, version) => {
                world.progress.stood_up.insert(self.name(*at, *slot));
                if world.services[*at].live == Some(*slot) {
                    world.progress = failed(&world.progress, Some(self.name(*at, *slot)));
                } else if !matches!(world.services[*at].slots[*slot], Some((stands, _)) if stands == *version) {
                    world.services[*at].slots[*slot] = Some((*version, Health::Starting));
                }
                vec![world]
            }
            Pending::Await(slots) => {
                let health = |(at, slot): &(usize, usize)| world.services[*at].slots[*slot].map(|s| s.1);
                let mut ends = Vec::new();
                if slots.iter().all(|of| health(of) != Some(Health::Starting)) {
                    ends.push(world.clone());
                }
                // The deadline may pass at any moment, also for a slot that failed and is not restarted.
                if let Some((at, slot)) = slots.iter().find(|of| health(of).is_some_and(|h| h != Health::Ready)) {
                    ends.clear();
                    ends.push(World { progress: failed(&world.progress, Some(self.name(*at, *slot))), ..world });
                }
                ends
            }
            Pending::Probe(at, slot) => {
                let bad = World { progress: failed(&world.progress, Some(self.name(*at, *slot))), ..world.clone() };
                world.progress.probed.insert(self.name(*at, *slot));
                vec![world, bad]
            }
            Pending::Weigh { from, shares } => {
                world.weigh(*from, shares.iter().copied());
                vec![world]
            }
            Pending::Try { from, share, slots } => self.try_out(world, *from, *share, slots),
            Pending::Switch { from, moves, version, promotes } => self.switch(world, *from, moves, *version, *promotes),
            Pending::Watch(slots) => {
                let good =
                    slots.iter().all(|(at, slot)| matches!(world.services[*at].slots[*slot], Some((_, Health::Ready))));
                let with = |verdict| {
                    let progress = Progress { watch: Some(verdict), ..world.progress.clone() };
                    World { progress, ..world.clone() }
                };
                let breached = with(Verdict::Breached("it crashed".to_owned()));
                if good { vec![with(Verdict::Kept), breached] } else { vec![breached] }
            }
            Pending::AwaitActive(slots) => {
                let waits = |(at, slot): &(usize, usize)| {
                    let service = &world.services[*at];
                    service.idle && service.live == Some(*slot)
                };
                if slots.iter().any(waits) {
                    world.progress = self.refused(&world);
                }
                vec![world]
            }
            // One may be done and another one not, when the target could not be reached.
            Pending::Drain(slots) => {
                let names = || slots.iter().map(|(at, slot)| self.name(*at, *slot));
                let mut part = world.clone();
                part.progress.drained.extend(names().take(1));
                world.progress.drained.extend(names());
                if part == world { vec![world] } else { vec![part, world] }
            }
            Pending::Retire(at, slot) => {
                if world.services[*at].live == Some(*slot) {
                    world.end = Some(End::TargetRefused);
                } else {
                    world.services[*at].slots[*slot] = None;
                }
                vec![world]
            }
        }
    }

    /// A share, and what comes of it. Slots that are not ready are never found good.
    fn try_out(&self, mut world: World, from: u64, share: u8, slots: &[(usize, usize)]) -> Vec<World> {
        if !world.weigh(from, slots.iter().map(|(at, _)| (*at, true))) {
            return vec![world];
        }
        world.progress.tried.extend(slots.iter().map(|(at, slot)| self.name(*at, *slot)));
        let ready = |(at, slot): &(usize, usize)| matches!(world.services[*at].slots[*slot], Some((_, Health::Ready)));
        let (at, slot) = slots[0];
        let bad = World { progress: failed(&world.progress, Some(self.name(at, slot))), ..world.clone() };
        if !slots.iter().all(ready) {
            return vec![bad];
        }
        world.progress.passed = share;
        vec![world, bad]
    }

    /// What the driver knows of a live slot that does not work.
    fn refused(&self, world: &World) -> Progress {
        let reason = "not active".to_owned();
        if is_live_by(&self.goal, &self.look(world)) {
            Progress { watch: Some(Verdict::Breached(reason)), ..world.progress.clone() }
        } else {
            Progress { cannot_return: Some(reason), ..world.progress.clone() }
        }
    }

    /// A target's cut-over: fenced by the generation, and the slots are asked once more. The last service that moves
    /// may refuse its activation, and that answer may be lost.
    fn switch(
        &self,
        mut world: World,
        from: u64,
        moves: &[(usize, usize)],
        version: u32,
        promotes: bool,
    ) -> Vec<World> {
        if from != world.generation {
            return vec![world];
        }
        let ready = |(at, slot): &(usize, usize)| matches!(world.services[*at].slots[*slot], Some((_, Health::Ready)));
        if let Some((at, slot)) = moves.iter().find(|of| !ready(of)) {
            world.progress = failed(&world.progress, Some(self.name(*at, *slot)));
            return vec![world];
        }
        assert!(!promotes || world.generation == self.approved, "only what was approved is promoted");
        for (at, slot) in moves {
            world.services[*at].live = Some(*slot);
            world.services[*at].idle = false;
        }
        let stands = |s: &Service| (s.live.unwrap(), s.slots[s.live.unwrap()].unwrap().0);
        let services = world.services.iter().map(stands).collect();
        let returns = world.live.as_ref().is_some_and(|live| live.run == US);
        world.commit(version, US, services);
        world.returns += u8::from(returns);
        world.ours += u8::from(!returns);
        let mut ends = vec![world.clone()];
        let works = |at: usize| self.specs[at][0].activation == Activation::Exclusive;
        if let Some((at, _)) = moves.last().filter(|(at, _)| world.failures_left > 0 && works(*at)) {
            world.failures_left -= 1;
            world.services[*at].idle = true;
            ends.push(World { progress: self.refused(&world), ..world.clone() });
            ends.push(world);
        }
        ends
    }

    /// Visits every world that can be reached; returns how many worlds and steps there are, and how they end.
    fn explore(&self, start: World) -> (usize, usize, HashMap<End, usize>) {
        let mut known: HashMap<World, usize> = HashMap::from([(start.clone(), 0)]);
        let (mut worlds, mut edges) = (vec![start], Vec::new());
        let mut ends = HashMap::new();
        let mut at = 0;
        while at < worlds.len() {
            let world = worlds[at].clone();
            self.check(&world);
            if let Some(end) = world.end {
                *ends.entry(end).or_insert(0) += 1;
            }
            let steps = self.steps(&world);
            assert!(world.end.is_some() || !steps.is_empty(), "stuck: {world:?}");
            for (next, ours) in steps {
                if ours {
                    let kept = world.services.iter().zip(&next.services).all(|(a, b)| !a.is_served() || b.is_served());
                    assert!(kept, "a healthy slot serves: {world:?} to {next:?}");
                }
                let id = *known.entry(next.clone()).or_insert_with(|| {
                    worlds.push(next);
                    worlds.len() - 1
                });
                edges.push((at, id));
            }
            at += 1;
        }
        circle::assert_none(worlds.len(), &edges);
        (worlds.len(), edges.len(), ends)
    }
}

impl World {
    fn commit(&mut self, version: u32, run: u16, services: Vec<(usize, u32)>) {
        self.generation += 1;
        let record = Record { version, run, generation: self.generation, services };
        if let Some(before) = self.live.replace(record) {
            self.history.insert(0, before);
        }
        self.services.iter_mut().for_each(|s| s.shared = false);
    }

    /// Gives and takes shares, unless the generation is stale.
    fn weigh(&mut self, from: u64, shares: impl Iterator<Item = (usize, bool)>) -> bool {
        if from != self.generation {
            return false;
        }
        for (at, shared) in shares {
            let service = &mut self.services[at];
            let stands = service.live.is_some_and(|live| service.slots[1 - live].is_some());
            service.shared = shared && stands;
        }
        true
    }
}

fn switch(cut_over: &CutOver) -> Pending {
    Pending::Switch {
        from: cut_over.from.0,
        moves: cut_over.moves.iter().map(|m| (service_of(&m.service), index_of(m.to))).collect(),
        version: cut_over.release.version.parse().unwrap(),
        promotes: cut_over.change == Change::Promote,
    }
}

fn failed(progress: &Progress, slot: Option<SlotOf>) -> Progress {
    let mut progress = progress.clone();
    if matches!(progress.watch, Some(Verdict::Breached(_))) {
        progress.cannot_return = Some("not ready".to_owned());
    } else {
        progress.failed = Some(Failure { slot, reason: "not ready".to_owned() });
    }
    progress
}

/// A world of `count` services in which `live` serves and `warm` stands beside it.
fn world(count: usize, live: Option<u32>, warm: Option<u32>, failures: u8, deaths: u8) -> World {
    let ready = |version| (version, Health::Ready);
    let service =
        Service { live: live.map(|_| 0), slots: [live.map(ready), warm.map(ready)], idle: false, shared: false };
    let record =
        |version, slot, generation| Record { version, run: BEFORE, generation, services: vec![(slot, version); count] };
    World {
        generation: 7,
        services: vec![service; count],
        live: live.map(|version| record(version, 0, 7)),
        history: warm.map(|version| record(version, 1, 6)).into_iter().collect(),
        progress: Progress::default(),
        pending: None,
        end: None,
        failures_left: failures,
        deaths_left: deaths,
        rival_left: 1,
        ours: 0,
        returns: 0,
    }
}

fn model(count: usize, goal: impl Fn(&Model) -> Goal) -> Model {
    model_of(Activation::Exclusive, count, goal)
}

fn model_of(activation: Activation, count: usize, goal: impl Fn(&Model) -> Goal) -> Model {
    let specs = (0..count)
        .map(|at| (0..3).map(move |version| ServiceSpec { replicas: 1, activation, ..spec(NAMES[at], version) }));
    let specs: Vec<Vec<_>> = specs.map(Iterator::collect).collect();
    let next = specs.iter().map(|s| s[2].clone()).collect();
    let goal_of_none = Goal::Deploy(release(US, "2", next));
    let blank = Model { goal: goal_of_none, policy: Policy::default(), approved: 7, specs };
    Model { goal: goal(&blank), ..blank }
}

#[expect(
    clippy::print_stdout,
    clippy::disallowed_macros,
    reason = "the number of states is the result of a model check"
)]
fn report(what: &str, (worlds, steps, ends): (usize, usize, HashMap<End, usize>), expected: &[End]) {
    println!("{what}: {worlds} states, {steps} steps, ends {ends:?}");
    for end in expected {
        assert!(ends.contains_key(end), "{what}: no course ends with {end:?}");
    }
}

#[test]
fn every_course_of_a_first_deployment_keeps_the_rules() {
    let model = model(1, |m| m.goal.clone());
    let found = model.explore(world(1, None, None, 2, 2));
    report("first deployment of one service", found, &[End::Done, End::Failed, End::Stuck]);
}

#[test]
fn every_course_of_a_deployment_keeps_the_rules() {
    let deploy = model(1, |m| m.goal.clone());
    let ends = [End::Done, End::Failed, End::Stale, End::Returned, End::Stuck];
    report("one service", deploy.explore(world(1, Some(1), None, 3, 2)), &ends);
    report("one service beside a warm slot", deploy.explore(world(1, Some(1), Some(0), 2, 2)), &ends);
    let deploy = model(2, |m| m.goal.clone());
    report("two services", deploy.explore(world(2, Some(1), None, 1, 1)), &ends);
}

#[test]
fn every_course_of_a_canary_keeps_the_rules() {
    let canary = Some(Canary { steps: vec![10, 50], ..Canary::default() });
    let with = |count| {
        let policy = Policy { canary: canary.clone(), ..Policy::default() };
        Model { policy, ..model_of(Activation::Traffic, count, |m| m.goal.clone()) }
    };
    let ends = [End::Done, End::Failed, End::Stale, End::Returned];
    report("canary of one service", with(1).explore(world(1, Some(1), None, 2, 2)), &ends);
    report("canary beside a warm slot", with(1).explore(world(1, Some(1), Some(0), 2, 2)), &ends);
    report("canary of two services", with(2).explore(world(2, Some(1), None, 1, 1)), &ends);
    // A dead run's canary is what a rollback to what serves finds.
    let mut left = world(1, Some(1), Some(2), 1, 1);
    left.services[0].shared = true;
    left.history.clear();
    report("a canary that was left behind", with(1).explore(left), &[End::Done, End::Failed, End::Stale]);
}

#[test]
fn every_course_of_a_rollback_keeps_the_rules() {
    let by = || LockOwner { run: run(US), actor: "eve".to_owned() };
    let back = |m: &Model| {
        let services = vec![(1, 1); m.specs.len()];
        let record = m.record(&Record { version: 1, run: BEFORE, generation: 6, services });
        Goal::PutBack { record, change: Change::Rollback, by: by() }
    };
    let ends = [End::Done, End::Failed, End::Stale, End::Stuck];
    report("rollback to a warm slot", model(1, back).explore(world(1, Some(2), Some(1), 2, 2)), &ends);
    report("rollback of two services", model(2, back).explore(world(2, Some(2), Some(1), 1, 1)), &ends);
    let mut cold = world(1, Some(2), Some(1), 2, 2);
    cold.services[0].slots[1] = None;
    report("rollback to a slot that was ended", model(1, back).explore(cold), &ends);
}
