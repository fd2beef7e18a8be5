//! Releases and rollbacks of the four services in a real cluster, with objects from each source, while clients inside the
//! cluster's network use them.

use crate::{
    load::{self, Summary},
    place::{self, Place, Ran},
    scene::{Cluster, Scene},
    world::eventually,
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const REQUESTS: u64 = 10_000;
const SOME: u64 = 1_000;
/// Fewer requests a second while the command works are no load.
const RATE: u128 = 500;
/// One request in fifty takes a second, so that fewer connections could not make as much.
const CONNECTIONS: &str = "-c64";
const PATIENCE: Duration = Duration::from_mins(3);

/// Runs a command while `wrk` asks production.
fn under_load(scene: &Scene<'_>, place: &Place, what: &str, args: &[&str]) -> Summary {
    let load = scene.cluster.load(CONNECTIONS, &scene.url());
    eventually("the load begins", PATIENCE, || load.answered() >= SOME);
    let (before, began) = (load.answered(), Instant::now());
    let ran: Ran = place.run(args).expect(0);
    let took = began.elapsed();
    let answered = load.answered();
    eventually("the load goes on", PATIENCE, || load.answered() >= REQUESTS.max(answered + SOME));
    let load = load.stop();
    let rate = load.requests * 1_000_000 / load.micros.max(1);
    println!("{what}: {} requests at {rate}/s, errors {:?}, answered by {:?}", load.requests, load.errors, load.seen);
    let during = u128::from(answered - before) * 1000 / took.as_millis().max(1);
    println!("{what}: command {} ms, {during} requests a second meanwhile", took.as_millis());
    assert!(during >= RATE, "{during} requests a second are no load");
    assert!(load.requests >= REQUESTS, "{load:?}");
    assert_eq!(load.failed(), 0, "{load:?}\n{}", ran.text());
    let slots: Vec<_> = load.seen.keys().filter_map(|who| who.split(' ').next()).collect();
    assert!(slots.contains(&"blue") && slots.contains(&"green"), "{:?}", load.seen);
    load
}

/// A first release, a second one and a rollback from a fresh clone, the latter two under load.
fn released_and_put_back(source: &str, render: &dyn Fn(&Scene<'_>, &str) -> String) {
    let Some(cluster) = Cluster::find().filter(|_| load::available()) else { return };
    let scene = Scene::new(&cluster, source);
    let configured = |text: &str| scene.configured(text, &|environment| render(&scene, environment));
    let mut place = Place::configured(configured, cluster.variables());
    place.run(&["release", "--yes"]).expect(0);
    let (_, first) = place.production();
    change(&place, source);
    under_load(&scene, &place, &format!("{source}: release"), &["release", "--yes"]);
    let (generation, second) = place.production();
    assert_eq!(generation, 2);
    assert_ne!(first.version, second.version);
    for (name, service) in &first.services {
        assert_ne!(service.slot, second.services[name].slot, "{name} was not moved");
    }
    place.forget();
    under_load(&scene, &place, &format!("{source}: rollback"), &["rollback", "production", "--yes"]);
    let (generation, back) = place.production();
    assert_eq!((generation, &back.version), (3, &first.version));
}

/// Another value of a variable of all services, wherever this source has it.
fn change(place: &Place, source: &str) {
    for environment in ["staging", "production"] {
        for name in ["values.yaml", "kustomization.yaml"] {
            let file = directory(source, environment).join(name);
            if let Ok(text) = fs::read_to_string(&file) {
                assert!(text.contains("SEED"), "{text}");
                fs::write(&file, text.replace("\"11\"", "\"12\"").replace("SEED=11", "SEED=12")).unwrap();
            }
        }
    }
    place.change(2);
}

/// The settings that render the chart with these values.
pub(crate) fn chart(source: &str, environment: &str, values: &str) -> String {
    let directory = directory(source, environment);
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("values.yaml");
    fs::write(&file, values).unwrap();
    format!(", render = \"helm\", chart = \"helm/kairos\", values = [\"{}\"]", relative(&file))
}

fn directory(source: &str, environment: &str) -> PathBuf {
    place::clone().join("deploy").join(format!("test-{source}-{environment}"))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(place::clone()).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_release_of_typed_objects_and_its_rollback_lose_nothing_in_a_cluster() {
    released_and_put_back("typed", &|_, _| String::new());
}

#[test]
fn a_release_of_a_chart_and_its_rollback_lose_nothing_in_a_cluster() {
    released_and_put_back("helm", &|_, environment| chart("helm", environment, include_str!("values.yaml")));
}

#[test]
fn a_release_of_an_overlay_and_its_rollback_lose_nothing_in_a_cluster() {
    released_and_put_back("kustomize", &|scene, environment| {
        let directory = directory("kustomize", environment);
        fs::create_dir_all(&directory).unwrap();
        let overlay = include_str!("kustomization.yaml").replace("NAMESPACE", &scene.namespace(environment));
        fs::write(directory.join("kustomization.yaml"), overlay).unwrap();
        format!(", render = \"kustomize\", overlay = \"{}\"", relative(&directory))
    });
}
