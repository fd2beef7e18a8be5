//! What a person and a program are told.

use super::*;
use crate::{
    delivery::testing::observed,
    report::schema::{documented, violations},
};
use plimsoll_core::{Fingerprint, Slot, Timestamp};
use plimsoll_deploy::{ReleaseRecord, ServiceRecord, ServiceSpec, sample};
use serde_json::json;

fn spec(name: &str, env: &[(&str, &str)]) -> ServiceSpec {
    let env: BTreeMap<String, String> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    ServiceSpec {
        image: "127.0.0.1:5000/shop/api".parse().unwrap(),
        config_hash: Fingerprint::of(format!("{env:?}").as_bytes()),
        env,
        ..sample(name)
    }
}

fn release(version: &str, services: Vec<ServiceSpec>) -> Release {
    Release {
        environment: "production".parse().unwrap(),
        version: version.into(),
        revision: "0123456789abcdef-dirty".into(),
        run: "20260101-000000-0000".parse().unwrap(),
        actor: "ada".into(),
        services,
        approval: None,
    }
}

/// An environment in which these services serve.
fn serving(services: Vec<ServiceSpec>) -> Observation {
    let release = release("1.0.0", services);
    let record = |spec: ServiceSpec| (spec.name.clone(), ServiceRecord { slot: Slot::Blue, spec });
    let live = ReleaseRecord {
        version: release.version,
        revision: "fedcba9876543210".into(),
        run: release.run,
        actor: release.actor,
        since: Timestamp::from_millis(0),
        generation: Generation(7),
        approval: None,
        services: release.services.into_iter().map(record).collect(),
    };
    observed(live)
}

fn object(name: &str, change: ObjectChange) -> ObjectDiff {
    ObjectDiff { object: name.into(), change }
}

fn field(what: &str, from: &str, to: &str) -> ConfigChange {
    ConfigChange { what: what.into(), from: Some(from.into()), to: Some(to.into()) }
}

/// A service of each kind, objects of each kind, and drift.
fn everything() -> Difference {
    let mut seen = serving(vec![spec("api", &[("LIMIT", "5")]), spec("old", &[]), spec("worker", &[])]);
    seen.drift.push(Drift { what: "selector of Service api".into(), recorded: "blue".into(), found: "green".into() });
    let next = release("1.1.0", vec![spec("api", &[("LIMIT", "6")]), spec("web", &[]), spec("worker", &[])]);
    let of_api = vec![
        object("ConfigMap api-green", ObjectChange::Added),
        object("Deployment api-green", ObjectChange::Changed { fields: vec![field("spec.replicas", "1", "2")] }),
        object("PodDisruptionBudget api-blue", ObjectChange::Removed),
        object("Service api", ObjectChange::Kept { fields: vec![field("spec.ports[http].port", "80", "81")] }),
        object("Secret api-green", ObjectChange::Unknown { reason: "KEY is not set".into() }),
    ];
    let of_web = vec![object("Deployment web", ObjectChange::Foreign)];
    let objects = [("api", of_api), ("web", of_web)].map(|(name, objects)| (name.parse().unwrap(), objects));
    Difference::new(TargetKind::Kubernetes, Some(&seen), &next, objects.into())
}

#[test]
fn where_somebody_else_serves_and_nothing_is_recorded_adopting_is_proposed() {
    let next = release("1.1.0", vec![spec("web", &[])]);
    let others = [("web".parse().unwrap(), vec![object("Service web", ObjectChange::Foreign)])];
    let told = Difference::new(TargetKind::Kubernetes, None, &next, others.clone().into()).to_string();
    assert!(told.ends_with("`cargo xtask adopt production` goes on from what they made\n"), "{told}");
    let seen = serving(vec![spec("api", &[])]);
    let told = Difference::new(TargetKind::Kubernetes, Some(&seen), &next, others.into()).to_string();
    assert!(!told.contains("adopt"), "what is recorded cannot be adopted: {told}");
}

#[test]
fn a_person_reads_what_is_new_what_changes_and_what_is_not_known_yet() {
    let live = |name: &str| Digest::of(name.as_bytes()).short().to_owned();
    let (api, old, worker) = (live("api"), live("old"), live("worker"));
    assert_eq!(
        everything().to_string(),
        format!(
            "production: 1.0.0 (fedcba9) → 1.1.0 (0123456-dirty) (generation 7)\n\
             ~ api\n    image: built when released; {api} is live\n    env LIMIT: 5 → 6\n    \
             + ConfigMap api-green\n    ~ Deployment api-green\n        spec.replicas: 1 → 2\n    \
             - PodDisruptionBudget api-blue\n    \
             = Service api stays as it is: a release changes its selector only; made anew it would have\n        \
             spec.ports[http].port: 80 → 81\n    ? Secret api-green cannot be compared from here: KEY is not set\n\
             + web\n    image: built when released\n    \
             ! Deployment web is there already, and not made by Plimsoll: a release does not take it over\n\
             = worker\n    image: built when released; {worker} is live\n    configuration: as it is\n\
             - old: serves no more; {old} is live\n\
             ! somebody else changed what is there\n    selector of Service api: recorded blue, found green\n"
        )
    );
}

#[test]
fn what_diff_prints_as_json_is_what_its_schema_says() {
    let schema = documented("diff.schema.json");
    let value = serde_json::to_value(everything()).unwrap();
    assert_eq!(violations(&schema, &value), Vec::<String>::new());
    let nothing = Difference::new(TargetKind::Local, None, &release("1.0.0", vec![spec("api", &[])]), BTreeMap::new());
    assert_eq!(violations(&schema, &serde_json::to_value(nothing).unwrap()), Vec::<String>::new());
    assert!(!violations(&schema, &json!({ "services": [{ "name": 1, "change": "odd" }] })).is_empty());
}

#[test]
fn where_nothing_is_live_everything_is_new() {
    let next = release("1.0.0", vec![spec("api", &[])]);
    let text = Difference::new(TargetKind::Local, None, &next, BTreeMap::new()).to_string();
    let expected =
        "production: nothing is live → 1.0.0 (0123456-dirty) (generation 0)\n+ api\n    image: built when released\n";
    assert_eq!(text, expected);
}

#[test]
fn a_hash_that_differs_alone_is_explained() {
    let seen = serving(vec![spec("api", &[])]);
    let mut other = spec("api", &[]);
    other.config_hash = Fingerprint::of(b"other");
    let text =
        Difference::new(TargetKind::Local, Some(&seen), &release("1.1.0", vec![other]), BTreeMap::new()).to_string();
    assert!(text.contains("configuration: recorded in another way"), "{text}");
}
