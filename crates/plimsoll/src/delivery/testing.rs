//! Values for tests: a service with a state, a record of it, and a look at where it serves.

use plimsoll_core::{BackupCommands, Generation, RunId, Slot, StateSchema, Timestamp};
use plimsoll_deploy::{Observation, Release, ReleaseRecord, ServiceRecord, ServiceSpec, sample};
use std::collections::BTreeMap;

/// A service `risk` that copies its state, and says this of it.
fn spec(schema: Option<(u32, u32)>) -> ServiceSpec {
    let command = vec!["/bin/risk".to_owned()];
    ServiceSpec {
        schema: schema.map(|(version, readable_from)| StateSchema { version, readable_from }),
        backup: Some(BackupCommands { save: command.clone(), load: command }),
        ..sample("risk")
    }
}

/// A release of it.
pub(super) fn release(schema: Option<(u32, u32)>) -> Release {
    Release {
        environment: "production".parse().unwrap(),
        version: "1.2.3".to_owned(),
        revision: "c0ffee".to_owned(),
        run: RunId::new(Timestamp::from_millis(0), 1),
        actor: "ann".to_owned(),
        services: vec![spec(schema)],
        approval: None,
    }
}

/// That release as a target records it.
pub(super) fn record(schema: Option<(u32, u32)>) -> ReleaseRecord {
    let Release { version, revision, run, actor, mut services, approval, .. } = release(schema);
    let spec = services.remove(0);
    ReleaseRecord {
        version,
        revision,
        run,
        actor,
        since: Timestamp::from_millis(0),
        generation: Generation(1),
        approval,
        services: BTreeMap::from([(spec.name.clone(), ServiceRecord { slot: Slot::Blue, spec })]),
    }
}

/// A look at production where it is live.
pub(super) fn seen() -> Observation {
    observed(record(None))
}

/// A look at production where a release is live, and nothing else is told.
pub(super) fn observed(live: ReleaseRecord) -> Observation {
    Observation {
        environment: "production".parse().unwrap(),
        generation: live.generation,
        live: Some(live),
        history: Vec::new(),
        services: BTreeMap::new(),
        stopped: false,
        switched: None,
        lock: None,
        drift: Vec::new(),
    }
}
