//! Which releases can read the state as it is now: from what each of them says of its schema. Pure.
//!
//! Nobody looks into a state here. A release counts as having written in its way from the moment it was recorded as live,
//! also when it was put back: what it left stays. One that says nothing of a schema is not judged.

use crate::{
    goal::Goal,
    observation::{Observation, ReleaseRecord},
    plan::Refusal,
    spec::ServiceSpec,
};
use plimsoll_core::ServiceName;
use std::fmt;

/// A release that cannot read what another one left, or would leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Whose state it is.
    pub service: ServiceName,
    /// The version that cannot read it.
    pub version: String,
    /// The newest schema that one reads.
    pub reads: u32,
    /// The version that wrote, or would write.
    pub by: String,
    /// The schema that is needed after it.
    pub needs: u32,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, version, reads, by, needs } = self;
        write!(f, "{version} cannot read the state of {service} after {by}: it reads up to schema {reads}, ")?;
        write!(f, "and {needs} is needed")
    }
}

/// What in `record` cannot read the state that all releases since it left.
pub fn unreadable(record: &ReleaseRecord, seen: &Observation) -> Vec<Unreadable> {
    record.services.values().filter_map(|service| left(&service.spec, &record.version, seen)).collect()
}

/// Why a service must not serve as the goal wants it: it cannot read the state, or what serves now could not any more.
pub(crate) fn conflict(spec: &ServiceSpec, goal: &Goal, seen: &Observation) -> Option<Refusal> {
    let cannot = left(spec, goal.version(), seen).map(|found| Refusal::Unreadable { unreadable: Box::new(found) });
    cannot.or_else(|| no_way_back(spec, goal, seen).map(|found| Refusal::NoWayBack { unreadable: Box::new(found) }))
}

/// What was left to `spec` that it cannot read.
fn left(spec: &ServiceSpec, version: &str, seen: &Observation) -> Option<Unreadable> {
    let reads = spec.schema?.version;
    let releases = seen.live.iter().chain(&seen.history);
    let left =
        releases.filter_map(|record| Some((record, record.services.get(&spec.name)?.spec.schema?.readable_from)));
    let (by, needs) = left.max_by_key(|(_, needs)| *needs).filter(|(_, needs)| *needs > reads)?;
    Some(Unreadable { service: spec.name.clone(), version: version.to_owned(), reads, by: by.version.clone(), needs })
}

/// Whether what serves could not read what a new release writes.
fn no_way_back(spec: &ServiceSpec, goal: &Goal, seen: &Observation) -> Option<Unreadable> {
    let (Goal::Deploy(_), Some(live)) = (goal, &seen.live) else { return None };
    let (reads, needs) = (live.services.get(&spec.name)?.spec.schema?.version, spec.schema?.readable_from);
    (needs > reads).then(|| Unreadable {
        service: spec.name.clone(),
        version: live.version.clone(),
        reads,
        by: goal.version().to_owned(),
        needs,
    })
}

/// Whether `next` may migrate the state that `live` works on, so that `live` is to be tried on what `next` made of it.
pub(crate) fn migrates(live: &ServiceSpec, next: &ServiceSpec) -> bool {
    next.schema.is_some_and(|next| live.schema.is_none_or(|live| next.version > live.version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        observation::ServiceRecord,
        testing::{environment, release, run, spec},
    };
    use plimsoll_core::{Generation, Slot, StateSchema, Timestamp};
    use std::collections::BTreeMap;

    fn with(version: u32, schema: Option<(u32, u32)>) -> ServiceSpec {
        let schema = schema.map(|(version, readable_from)| StateSchema { version, readable_from });
        ServiceSpec { schema, ..spec("risk", version) }
    }

    fn record(number: u32, schema: Option<(u32, u32)>) -> ReleaseRecord {
        let spec = with(number, schema);
        ReleaseRecord {
            version: number.to_string(),
            revision: String::new(),
            run: run(1),
            actor: "ann".to_owned(),
            since: Timestamp::from_millis(0),
            generation: Generation(u64::from(number)),
            approval: None,
            services: BTreeMap::from([(spec.name.clone(), ServiceRecord { slot: Slot::Blue, spec })]),
        }
    }

    /// The releases that served, oldest first.
    fn served(schemas: &[Option<(u32, u32)>]) -> Observation {
        let mut all: Vec<_> = (1..).zip(schemas).map(|(number, schema)| record(number, *schema)).collect();
        all.reverse();
        let mut all = all.into_iter();
        Observation {
            environment: environment(),
            generation: Generation(1),
            live: all.next(),
            history: all.collect(),
            services: BTreeMap::new(),
            stopped: false,
            switched: None,
            lock: None,
            drift: Vec::new(),
        }
    }

    #[test]
    fn an_expanded_state_can_be_gone_back_from_and_a_contracted_one_as_far_as_it_is_read() {
        let check = |schemas: &[Option<(u32, u32)>], readable: &[bool]| {
            let seen = served(schemas);
            let mut found: Vec<bool> = seen.history.iter().map(|old| unreadable(old, &seen).is_empty()).collect();
            found.reverse();
            assert_eq!(found, readable, "{schemas:?}");
        };
        let old = Some((1, 1));
        check(&[None, None], &[true]);
        check(&[old, Some((2, 1))], &[true]);
        check(&[old, Some((2, 1)), Some((2, 2))], &[false, true]);
        check(&[None, Some((2, 2))], &[true]);
        check(&[Some((2, 1)), Some((3, 2)), Some((3, 3))], &[false, true]);
        // What was put back left its state all the same.
        check(&[old, Some((2, 2)), old], &[false, true]);
    }

    #[test]
    fn a_release_that_what_serves_could_not_be_put_back_after_is_a_conflict() {
        let conflict = |live, next| {
            let goal = Goal::Deploy(release(9, "9", vec![with(9, next)]));
            conflict(goal.services()[0], &goal, &served(&[live])).map(|refusal| refusal.to_string())
        };
        let old = Some((1, 1));
        assert_eq!(conflict(old, Some((2, 1))), None);
        assert_eq!(conflict(Some((2, 1)), Some((2, 2))), None);
        assert_eq!(conflict(Some((2, 1)), old), None, "the version before reads it");
        assert_eq!(conflict(None, Some((2, 2))), None, "nobody said what the version before reads");
        let told = "1 cannot read the state of risk after 9: it reads up to schema 1, and 2 is needed";
        let found = conflict(old, Some((2, 2))).expect("a conflict");
        assert!(found.starts_with(told) && found.contains(": there would be no way back"), "{found}");
        let told = "9 cannot read the state of risk after 1: it reads up to schema 1, and 2 is needed";
        assert_eq!(conflict(Some((2, 2)), old).as_deref(), Some(told));
    }
}
