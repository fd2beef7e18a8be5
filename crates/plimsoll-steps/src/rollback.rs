//! `rollback`: a release that served before is put back. First it is picked, then put back: a resume puts back what was picked, not
//! what would be picked by then.

use crate::{
    deploying,
    environment::{Environment, Gated},
    inputs::Inputs,
    release::Rendered,
    targets::Targets,
};
use plimsoll_deploy::{Change, Goal, LockOwner, Observation, Outcome, ReleaseRecord, unreadable};
use plimsoll_engine::{Cx, Effect, Step, StepError, World};
use serde::Serialize;
use std::marker::PhantomData;

/// Picks the release to put back: the last one before the present, or the one of the version asked for.
#[derive(Debug, Serialize)]
pub struct Pick<E> {
    to: Option<String>,
    gated: bool,
    #[serde(skip)]
    of: PhantomData<fn() -> E>,
}

/// Puts the picked release back.
#[derive(Debug, Serialize)]
pub struct Rollback<E> {
    rendered: Rendered,
    #[serde(skip)]
    of: PhantomData<fn() -> E>,
}

impl<E: Environment> Pick<E> {
    /// The step for what the command line asked for.
    pub fn new(inputs: &Inputs) -> Self {
        Self { to: inputs.options.to.clone(), gated: E::Gate::APPROVAL, of: PhantomData }
    }
}

impl<E: Environment> Rollback<E> {
    /// The step for the configuration of `E`.
    pub fn new(inputs: &Inputs) -> Result<Self, StepError> {
        Ok(Self { rendered: Rendered::of::<E>(inputs)?, of: PhantomData })
    }
}

/// The release to put back, out of those that served. Pure.
pub fn pick(seen: &Observation, to: Option<&str>, gated: bool) -> Result<ReleaseRecord, StepError> {
    let environment = &seen.environment;
    let known = || seen.history.iter().map(|r| r.version.as_str()).collect::<Vec<_>>().join(", ");
    let mut former = seen.history.iter().filter(|r| seen.live.as_ref().is_none_or(|live| is_former(r, live)));
    let found = match to {
        Some(version) => former.find(|r| r.version == version).ok_or_else(|| {
            StepError::user(format!("{environment} never served {version}")).with_hint(if seen.history.is_empty() {
                "it has no former release".to_owned()
            } else {
                format!("it served {}", known())
            })
        })?,
        // What was left half made goes back to what the record names before anything else does.
        None if seen.is_half_made() || !seen.drift.is_empty() || seen.shared().next().is_some() => {
            seen.live
                .as_ref()
                .ok_or_else(|| StepError::user(format!("{environment} has no release on record to go back to")))?
        }
        // After the engine put a release back by itself, what did not hold is of the same run as what serves in its place:
        // nobody goes back to that without naming it.
        None => former
            .find(|r| seen.live.as_ref().is_none_or(|live| r.run != live.run))
            .ok_or_else(|| StepError::user(format!("{environment} has no former release to go back to")))?,
    };
    // What was adopted changed nothing of what served, so there was nothing to approve; to go back to it is no news either.
    if gated && found.approval.is_none() && !found.is_adopted() {
        return Err(StepError::check(format!("{} served in {environment} without an approval", found.version)));
    }
    let serves = seen.live.as_ref().is_some_and(|live| live.generation == found.generation);
    match unreadable(found, seen).first().filter(|_| !serves) {
        Some(state) => Err(StepError::user(state.to_string()).with_hint(safe(seen))),
        None => Ok(found.clone()),
    }
}

/// Which former releases can read the state as it is now.
fn safe(seen: &Observation) -> String {
    let former = seen.history.iter().filter(|r| seen.live.as_ref().is_none_or(|live| is_former(r, live)));
    let safe: Vec<&str> = former.filter(|r| unreadable(r, seen).is_empty()).map(|r| r.version.as_str()).collect();
    let environment = &seen.environment;
    match safe.first() {
        Some(newest) => {
            format!("safe to go back to: {}; `cargo xtask rollback {environment} --to {newest}`", safe.join(", "))
        }
        None => "no former release can read it: release a newer version".to_owned(),
    }
}

/// Whether `record` is something else than what serves.
fn is_former(record: &ReleaseRecord, live: &ReleaseRecord) -> bool {
    let same =
        |name, r: &plimsoll_deploy::ServiceRecord| live.services.get(name).is_some_and(|l| l.spec.is_same_as(&r.spec));
    let serves = record.version == live.version
        && record.services.len() == live.services.len()
        && record.services.iter().all(|(name, r)| same(name, r));
    record.generation != live.generation && !serves
}

impl<E: Environment> Step for Pick<E> {
    const NAME: &'static str = "pick";
    const VERSION: u32 = 1;
    type In = ();
    type Out = ReleaseRecord;
}

impl<E: Environment> Effect for Pick<E> {
    async fn reconcile(&self, cx: &Cx, (): &()) -> Result<World<ReleaseRecord>, StepError> {
        let target = cx.resource::<Targets>()?.get(&E::name())?;
        let seen = target.observe().await.map_err(|e| StepError::of(&e))?;
        let record = pick(&seen, self.to.as_deref(), self.gated)?;
        let live = seen.live.as_ref().map_or("nothing", |l| l.version.as_str());
        cx.note(format!("{} goes back from {live} to {}", E::NAME, record.version));
        Ok(World::Done(record))
    }

    async fn act(&self, _: &Cx, (): ()) -> Result<ReleaseRecord, StepError> {
        Err(StepError::internal("picking is all looking: there is nothing to do"))
    }
}

impl<E: Environment> Rollback<E> {
    fn goal(&self, cx: &Cx, record: &ReleaseRecord) -> Goal {
        let by = LockOwner { run: cx.run().clone(), actor: self.rendered.actor.clone() };
        Goal::PutBack { record: record.clone(), change: Change::Rollback, by }
    }
}

impl<E: Environment> Step for Rollback<E> {
    const NAME: &'static str = "rollback";
    const VERSION: u32 = 1;
    type In = ReleaseRecord;
    type Out = Outcome;
}

impl<E: Environment> Effect for Rollback<E> {
    async fn reconcile(&self, cx: &Cx, record: &ReleaseRecord) -> Result<World<Outcome>, StepError> {
        deploying::look(cx, &E::name(), &self.goal(cx, record)).await
    }

    async fn act(&self, cx: &Cx, record: ReleaseRecord) -> Result<Outcome, StepError> {
        let policy = self.rendered.policy.without_watch();
        deploying::reach(cx, &E::name(), &self.goal(cx, &record), &policy, &|_, _| Ok(())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::service_spec;
    use plimsoll_core::{Generation, Timestamp};
    use std::collections::BTreeMap;

    fn record(version: &str, run: &str, generation: u64) -> ReleaseRecord {
        ReleaseRecord {
            version: version.to_owned(),
            revision: version.to_owned(),
            run: run.parse().unwrap(),
            actor: "ann".to_owned(),
            since: Timestamp::from_millis(0),
            generation: Generation(generation),
            approval: None,
            services: BTreeMap::new(),
        }
    }

    fn seen(live: ReleaseRecord, history: Vec<ReleaseRecord>) -> Observation {
        Observation {
            environment: "production".parse().unwrap(),
            generation: live.generation,
            live: Some(live),
            history,
            services: BTreeMap::new(),
            stopped: false,
            switched: None,
            lock: None,
            drift: Vec::new(),
        }
    }

    const ONE: &str = "20260101-000000-0001";
    const TWO: &str = "20260101-000000-0002";

    fn picked(seen: &Observation, to: Option<&str>) -> Result<String, String> {
        pick(seen, to, false).map(|r| r.version).map_err(|e| e.to_string())
    }

    #[test]
    fn the_last_release_is_picked_or_the_one_that_was_named() {
        let seen = seen(record("3", TWO, 3), vec![record("2", ONE, 2), record("1", ONE, 1)]);
        assert_eq!(picked(&seen, None).as_deref(), Ok("2"));
        assert_eq!(picked(&seen, Some("1")).as_deref(), Ok("1"));
        assert!(picked(&seen, Some("9")).unwrap_err().contains("never served 9"));
    }

    #[test]
    fn what_did_not_hold_and_was_put_back_is_not_picked_unless_it_is_named() {
        // Run TWO released 2, which did not hold; the engine put 1 back under the same run.
        let seen = seen(record("1", TWO, 3), vec![record("2", TWO, 2), record("1", ONE, 1)]);
        assert!(picked(&seen, None).unwrap_err().contains("no former release"));
        assert_eq!(picked(&seen, Some("2")).as_deref(), Ok("2"));
    }

    #[test]
    fn what_cannot_read_the_state_is_not_put_back_and_what_can_is_named() {
        let with = |version: &str, generation, schema: (u32, u32)| {
            let text = format!(
                "[project]\nname = \"shop\"\n[services.web]\npackage = \"web\"\n\
                 schema = {{ version = {}, readable_from = {} }}\n[environments.production]\n",
                schema.0, schema.1
            );
            let config = plimsoll_core::config::Config::parse(&text, "plimsoll.toml").unwrap();
            let service = config.resolved(&"production".parse().unwrap()).unwrap().remove(0);
            let digest = plimsoll_core::Digest::of(version.as_bytes());
            let spec = service_spec(&service, "registry.test/web".parse().unwrap(), digest, &BTreeMap::new());
            let run = format!("20260101-000000-000{generation}");
            let slot = plimsoll_core::Slot::Blue;
            let services = BTreeMap::from([(spec.name.clone(), plimsoll_deploy::ServiceRecord { slot, spec })]);
            ReleaseRecord { services, ..record(version, &run, generation) }
        };
        let seen = |now| seen(with("3", 3, now), vec![with("2", 2, (2, 1)), with("1", 1, (1, 1))]);
        assert_eq!(picked(&seen((2, 1)), Some("1")).as_deref(), Ok("1"), "an expanded state is read by both");
        let contracted = seen((2, 2));
        assert_eq!(picked(&contracted, None).as_deref(), Ok("2"));
        let refused = pick(&contracted, Some("1"), false).unwrap_err();
        let told = "1 cannot read the state of web after 3: it reads up to schema 1, and 2 is needed";
        assert_eq!(refused.to_string(), told);
        assert!(format!("{refused:?}").contains("safe to go back to: 2;"), "{refused:?}");
    }

    #[test]
    fn a_gated_environment_goes_back_to_nothing_that_was_not_approved() {
        let seen = seen(record("2", TWO, 2), vec![record("1", ONE, 1)]);
        assert!(pick(&seen, None, true).unwrap_err().to_string().contains("without an approval"));
    }

    #[test]
    fn a_gated_environment_goes_back_to_what_was_adopted_as_it_served_before() {
        let adopted = |generation| ReleaseRecord {
            revision: plimsoll_deploy::ADOPTED.to_owned(),
            ..record("0.9", ONE, generation)
        };
        let seen = seen(record("2", TWO, 2), vec![adopted(1)]);
        assert_eq!(pick(&seen, None, true).unwrap().version, "0.9");
        // Once it was put back and left again, too.
        let seen = Observation { history: vec![adopted(4), record("1", ONE, 3)], ..seen };
        assert_eq!(pick(&seen, Some("0.9"), true).unwrap().generation, Generation(4));
    }
}
