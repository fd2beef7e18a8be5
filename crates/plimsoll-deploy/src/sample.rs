//! A service for tests, of this crate and of those that build on it.

use crate::{
    capacity::Resources,
    spec::{Activation, Health, ServiceSpec, StatePolicy},
};
use plimsoll_core::{Digest, Fingerprint, ImageRef};
use std::collections::BTreeMap;

/// A service of one replica and nothing that it can be without: `ServiceSpec { what matters, ..sample("web") }`.
///
/// # Panics
/// If `name` is no name of a service.
pub fn sample(name: &str) -> ServiceSpec {
    let digest = Digest::of(name.as_bytes());
    let image: ImageRef = format!("registry.test/shop/{name}").parse().expect("a reference");
    ServiceSpec {
        name: name.parse().expect("a name"),
        image: image.at(digest.clone()),
        digest,
        replicas: 1,
        public_port: None,
        env: BTreeMap::new(),
        secret_env: BTreeMap::new(),
        depends_on: Vec::new(),
        health: Health { path: "/ready".to_owned(), deadline_ms: 30_000, interval_ms: 100 },
        smoke: Vec::new(),
        activation: Activation::Traffic,
        state: StatePolicy::External,
        drain_ms: 1000,
        stop_grace_ms: 1000,
        resources: Resources::default(),
        autoscale: None,
        storage: None,
        metrics: None,
        schema: None,
        backup: None,
        objects: Vec::new(),
        config_hash: Fingerprint::of(name.as_bytes()),
    }
}
