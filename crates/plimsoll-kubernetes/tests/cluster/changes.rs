//! What a release would change, asked of a real API server, which fills in a great deal.

use crate::world::{World, cluster, plain, spec};
use plimsoll_core::{ByteSize, Fingerprint, ImageRef, Millicores, RunId, Secret, ServiceName, Slot, Timestamp};
use plimsoll_deploy::{
    Autoscale, ConfigChange, ObjectChange, ObjectDiff, Release, Resources, ServiceSpec, StatePolicy, Storage, Target,
};
use plimsoll_kubernetes::{
    Object, Render,
    manifest::{Context, typed},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

fn release(services: Vec<ServiceSpec>) -> Release {
    Release {
        environment: "staging".parse().expect("a name"),
        version: "1.0.0".to_owned(),
        revision: "abc".to_owned(),
        run: RunId::new(Timestamp::from_millis(0), 0),
        actor: "ada".to_owned(),
        services,
        approval: None,
    }
}

impl World {
    /// Makes the services stand in blue, and their Services select that; nobody waits for pods.
    async fn serves(&self, release: &Release) {
        for spec in &release.services {
            self.target.stand_up(spec, Slot::Blue, release).await.expect("the API server takes the objects");
            let selector =
                r#"{"spec":{"selector":{"plimsoll.dev/traffic-of-none":null,"plimsoll.dev/traffic-of-blue":"yes"}}}"#;
            self.kubectl(&["patch", "service", spec.name.as_str(), "-p", selector]);
        }
    }

    async fn changes(&self, spec: &ServiceSpec) -> Vec<ObjectDiff> {
        let all = self.target.changes(&release(vec![spec.clone()])).await.expect("the cluster can be compared with");
        all.into_values().flatten().collect()
    }
}

fn lines(diffs: &[ObjectDiff]) -> Vec<String> {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "nothing".to_owned());
    let of = |fields: &[ConfigChange]| {
        fields.iter().map(|c| format!("{}: {} → {}", c.what, or_none(&c.from), or_none(&c.to))).collect::<Vec<_>>()
    };
    let line = |diff: &ObjectDiff| match &diff.change {
        ObjectChange::Changed { fields } => format!("~ {}: {}", diff.object, of(fields).join("; ")),
        ObjectChange::Kept { fields } => format!("= {}: {}", diff.object, of(fields).join("; ")),
        other => format!("{other:?} {}", diff.object),
    };
    diffs.iter().map(line).collect()
}

/// A service with another environment, and so with another hash.
fn with_env(of: &ServiceSpec, env: &[(&str, &str)]) -> ServiceSpec {
    let env: BTreeMap<String, String> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    ServiceSpec { config_hash: Fingerprint::of(format!("{env:?}").as_bytes()), env, ..of.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_blue_to_green_is_no_difference_and_what_is_one_is_told_by_field() {
    let Some(cluster) = cluster().await else { return };
    let world = World::new(cluster, "diff");
    let api = spec("api", &cluster.images[0], &[("LIMIT", "5")]);
    assert_eq!(lines(&world.changes(&api).await), ["Added Deployment api-blue", "Added Service api"]);
    world.serves(&release(vec![api.clone()])).await;
    assert_eq!(lines(&world.changes(&api).await), Vec::<String>::new());
    let path = "spec.template.spec.containers[api]";
    let limit = format!("~ Deployment api-green: {path}.env[LIMIT].value: 5 → 6");
    assert_eq!(lines(&world.changes(&with_env(&api, &[("LIMIT", "6")])).await), std::slice::from_ref(&limit));
    // What somebody set by hand is not in the next slot.
    world.kubectl(&["set", "env", "deployment/api-blue", "THEIRS=1"]);
    let theirs = format!("{path}.env[THEIRS]: {{\"name\":\"THEIRS\",\"value\":\"1\"}} → nothing");
    assert_eq!(lines(&world.changes(&with_env(&api, &[("LIMIT", "6")])).await), [format!("{limit}; {theirs}")]);
    let made = world.kubectl(&["get", "deployments", "-o", "name"]);
    assert_eq!(made.trim(), "deployment.apps/api-blue", "a comparison makes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_plimsoll_did_not_make_is_named() {
    let Some(cluster) = cluster().await else { return };
    let world = World::new(cluster, "adopt");
    world.kubectl(&["create", "namespace", &world.namespace]);
    world.kubectl(&["create", "deployment", "web", "--image=registry.invalid/web", "--replicas=0"]);
    let web = spec("web", &cluster.images[0], &[]);
    assert_eq!(
        lines(&world.changes(&web).await),
        ["Foreign Deployment web", "Added Deployment web-blue", "Added Service web"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_secret_only_that_it_changed_is_told() {
    let Some(cluster) = cluster().await else { return };
    let value = Arc::new(Mutex::new("hunter1"));
    let source = Arc::clone(&value);
    let secrets = Arc::new(move |name: &str| match *source.lock().unwrap_or_else(PoisonError::into_inner) {
        "" => Err(format!("{name} is not set")),
        value => Ok(Secret::new(value)),
    });
    let world = World::rendered(cluster, "secret", secrets, plain());
    let mut api = spec("api", &cluster.images[0], &[]);
    api.secret_env = [("KEY".to_owned(), "env:KEY".to_owned())].into();
    world.serves(&release(vec![api.clone()])).await;
    assert_eq!(lines(&world.changes(&api).await), Vec::<String>::new());
    *value.lock().unwrap() = "hunter2";
    assert_eq!(lines(&world.changes(&api).await), ["~ Secret api-green: data.KEY: (secret) → (changed)"]);
    *value.lock().unwrap() = "";
    let [unknown] = &world.changes(&api).await[..] else { panic!("one object differs") };
    let ObjectChange::Unknown { reason } = &unknown.change else { panic!("{unknown:?}") };
    assert!(reason.contains("env:KEY is not set"), "{reason}");
}

/// The objects of the typed builders.
pub(crate) fn built() -> Render {
    Arc::new(|spec: &ServiceSpec, release: &Release| {
        let context = Context::new("shop".to_owned(), release.environment.clone(), &release.services);
        typed(spec, &context).map_err(|e| e.to_string())
    })
}

/// A service that asks for all there is to ask for.
fn full(image: &ImageRef) -> ServiceSpec {
    let autoscale = Autoscale { min: 1, max: 3, cpu_pct: Some(80), memory_pct: None, scale_down_after_s: 300 };
    ServiceSpec {
        state: StatePolicy::Shared,
        storage: Some(Storage {
            size: ByteSize::new(1 << 20),
            class: None,
            access: plimsoll_deploy::Access::default(),
        }),
        autoscale: Some(autoscale),
        resources: Resources {
            cpu: Some(Millicores::new(1500)),
            memory: Some(ByteSize::new(1 << 30)),
            cpu_limit: Some(Millicores::new(2000)),
            memory_limit: Some(ByteSize::new(3 << 29)),
        },
        ..spec("full", image, &[("EMPTY", "")])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_the_typed_builders_are_the_same_once_they_are_there() {
    let Some(cluster) = cluster().await else { return };
    let no_secrets = Arc::new(|name: &str| Err(format!("no secret {name}")));
    let world = World::rendered(cluster, "typed", no_secrets, built());
    let full = full(&cluster.images[0]);
    let objects: Vec<Object> = built()(&full, &release(vec![full.clone()])).expect("it is no nonsense");
    assert!(objects.len() > 5, "{}", objects.len());
    world.serves(&release(vec![full.clone()])).await;
    assert_eq!(lines(&world.changes(&full).await), Vec::<String>::new());
    let mut less = full.clone();
    less.autoscale = None;
    less.resources.cpu_limit = None;
    let told = lines(&world.changes(&less).await);
    let name: ServiceName = less.name;
    assert!(told.iter().any(|line| line.ends_with(&format!("HorizontalPodAutoscaler {name}-blue"))), "{told:?}");
    let limit = format!("spec.template.spec.containers[{name}].resources.limits.cpu: 2 → nothing");
    assert!(told.iter().any(|line| line.contains(&limit)), "{told:?}");
}
