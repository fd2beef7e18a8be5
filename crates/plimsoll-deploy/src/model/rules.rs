//! What must hold for every decision, and in every world.

use super::{End, Health, Model, Service, US, World, index_of, service_of};
use crate::{
    goal::Goal,
    observation::{Observation, SlotView},
    plan::{Action, Progress, SlotOf, next},
    target::{Change, LockOwner},
    testing::run,
};

impl Model {
    /// What must hold for every decision.
    pub(super) fn judge(&self, world: &World, seen: &Observation, action: &Action) {
        let live = |of: &SlotOf| world.services[service_of(&of.0)].live == Some(index_of(of.1));
        let touched: Vec<usize> = match action {
            Action::StandUp { service, .. } | Action::RetireFailed { service, .. } => vec![service_of(service)],
            Action::Drain { slots } => slots.iter().map(|(of, _)| service_of(&of.0)).collect(),
            _ => Vec::new(),
        };
        let shared = touched.iter().any(|at| world.services[*at].shared);
        assert!(!shared, "its share goes first: {action:?} in {world:?}");
        match action {
            Action::Try { slots, .. } => {
                let ready = |of: &SlotOf| {
                    let standby = seen.services[&of.0].standby.as_ref();
                    standby.is_some_and(|s| s.slot == of.1 && s.ready == 1)
                };
                assert!(slots.iter().all(|of| !live(of) && ready(of)), "shares go to ready slots only: {world:?}");
                assert!(slots.iter().all(|of| world.progress.probed.contains(of)), "and after their probes: {world:?}");
            }
            Action::StandUp { service, slot, .. } => {
                assert!(!live(&(service.clone(), *slot)), "a live slot is left alone: {action:?} in {world:?}");
            }
            Action::Drain { slots } => {
                assert!(!slots.iter().any(|(of, _)| live(of)), "a live slot is left alone: {action:?} in {world:?}");
            }
            Action::RetireFailed { service, slot } => {
                let of = (service.clone(), *slot);
                assert!(!live(&of), "a live slot is never retired: {world:?}");
                let stands = world.services[service_of(service)].slots[index_of(*slot)].unwrap();
                let warm = matches!(self.goal, Goal::Deploy(_)) && stands.0 != 2;
                assert!(!warm, "what a rollback needs stays: {world:?}");
            }
            Action::CutOver(cut_over) | Action::PutBack { cut_over, .. } => {
                let ready = |s: &Option<SlotView>, to| s.as_ref().is_some_and(|s| s.slot == to && s.ready == 1);
                let all = cut_over.moves.iter().all(|m| ready(&seen.services[&m.service].standby, m.to));
                assert!(all, "traffic moves to ready slots only: {world:?}");
            }
            _ => {}
        }
    }

    /// What must hold in every world.
    pub(super) fn check(&self, world: &World) {
        assert!(world.ours <= 1 && world.returns <= 1, "one change and one return at most: {world:?}");
        if let Some(end) = world.end {
            let live = world.live.as_ref();
            let ours = live.is_some_and(|l| l.run == US) || world.ours == 0;
            let untouched = world.rival_left == 1;
            // What works at the end worked when that was said: nature takes no activation away.
            let idle = world.ours > 0 && world.services.iter().any(|s| s.idle);
            assert!(!idle || !matches!(end, End::Done | End::Returned), "nobody does the work: {world:?}");
            match end {
                End::Done if untouched => assert!(ours, "done means that it serves: {world:?}"),
                End::Stale | End::TargetRefused => assert!(!untouched, "nobody interfered: {world:?}"),
                End::Returned => assert_eq!(world.returns, 1, "{world:?}"),
                _ => {}
            }
            let shared = world.services.iter().any(|s| s.shared);
            assert!(!shared || !untouched || end == End::Stuck, "nobody is left with a share: {world:?}");
            if end == End::Failed && untouched && matches!(self.goal, Goal::Deploy(_)) {
                assert_eq!((world.ours, world.returns), (0, 0), "it failed before the cut-over: {world:?}");
                let left = |s: &Service| s.slots.iter().flatten().any(|(version, _)| *version == 2);
                assert!(!world.services.iter().any(left), "nothing is left behind: {world:?}");
            }
        }
        self.check_rollback(world);
    }

    /// As long as the former slots are ready, a rollback begins with the cut-over itself; where a canary was left behind, after it is ended.
    fn check_rollback(&self, world: &World) {
        let Some(former) = world.history.first().filter(|_| matches!(self.goal, Goal::Deploy(_))) else { return };
        let warm = former
            .services
            .iter()
            .enumerate()
            .all(|(at, (slot, version))| world.services[at].slots[*slot] == Some((*version, Health::Ready)));
        let by = LockOwner { run: run(99), actor: "eve".to_owned() };
        let goal = Goal::PutBack { record: self.record(former), change: Change::Rollback, by };
        if warm {
            let action = next(&goal, &self.look(world), &Progress::default(), &self.policy);
            let begins = matches!(action, Action::CutOver(_) | Action::Weigh { .. });
            assert!(begins, "a rollback needs no start: {action:?} in {world:?}");
        }
    }
}
