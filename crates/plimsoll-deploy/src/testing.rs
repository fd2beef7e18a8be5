//! Values for tests: small specs and releases that need no image.

use crate::{
    sample::sample,
    spec::{Health, Release, ServiceSpec, SmokeRequest},
};
use plimsoll_core::{Digest, EnvironmentName, ImageRef, RunId, Timestamp};
use std::collections::BTreeMap;

pub(crate) fn smoke(path: &str) -> SmokeRequest {
    SmokeRequest {
        method: "GET".to_owned(),
        path: path.to_owned(),
        status: 200,
        contains: None,
        json: BTreeMap::new(),
        headers: BTreeMap::new(),
        max_ms: None,
    }
}

pub(crate) fn spec(name: &str, version: u32) -> ServiceSpec {
    let digest = Digest::of(format!("{name} {version}").as_bytes());
    let image: ImageRef = format!("127.0.0.1:5000/{name}:{version}").parse().expect("a reference");
    ServiceSpec {
        image: image.at(digest.clone()),
        digest,
        replicas: 2,
        health: Health { path: "/health".to_owned(), deadline_ms: 5000, interval_ms: 50 },
        smoke: vec![smoke("/version")],
        ..sample(name)
    }
}

pub(crate) fn run(number: u16) -> RunId {
    RunId::new(Timestamp::from_millis(1_700_000_000_000), number)
}

pub(crate) fn environment() -> EnvironmentName {
    "production".parse().expect("a name")
}

pub(crate) fn release(number: u16, version: &str, services: Vec<ServiceSpec>) -> Release {
    Release {
        environment: environment(),
        version: version.to_owned(),
        revision: format!("c{version}"),
        run: run(number),
        actor: "ann".to_owned(),
        services,
        approval: None,
    }
}
