//! The docker target under test: the service in containers of a real engine.

use crate::{
    engine, images,
    world::{World, ask},
};
use plimsoll_core::{Digest, ImageRef, Secret, Slot};
use plimsoll_deploy::{Health, Target as _};
use plimsoll_http::{Client, ClientOptions};
use plimsoll_local::{LocalPaths, LocalTarget, supervisor::Launch};
use plimsoll_oci::{AuthSource, Credentials, RegistryClient, RegistryOptions};
use std::{path::Path, sync::Arc};

pub(crate) fn new(root: &Path, environment: &str) -> LocalTarget {
    through(root, environment, &engine::socket(), AuthSource::Anonymous)
}

fn through(root: &Path, environment: &str, socket: &Path, auth: AuthSource) -> LocalTarget {
    let http = Client::new(&ClientOptions::default()).unwrap();
    let registry = RegistryClient::new(http, RegistryOptions { auth, ..RegistryOptions::default() });
    let program = std::env::current_exe().unwrap();
    let args = vec!["role:supervisor".to_owned(), root.to_string_lossy().into_owned()];
    let secrets = Arc::new(|source: &str| Ok(Secret::new(format!("secret-{source}"))));
    let environment = environment.parse().unwrap();
    LocalTarget::in_containers(
        LocalPaths::new(root),
        environment,
        Launch { program, args },
        socket.to_owned(),
        registry,
        secrets,
    )
}

/// The service's command that copies its state or puts a copy back.
pub(crate) fn command(verb: &str) -> Vec<String> {
    vec!["/bin/service".to_owned(), verb.to_owned()]
}

/// That the engine has nothing of a project any more. What a failed scenario left is removed.
pub(crate) async fn left(paths: &LocalPaths, passed: bool) -> Result<(), String> {
    let there = engine::left(paths).await;
    if !passed {
        engine::clear(paths).await;
    }
    if passed && !there.is_empty() { Err(format!("left on the engine: {there}")) } else { Ok(()) }
}

impl World {
    /// The same environment through another socket of the engine.
    pub(crate) fn through(&self, socket: &Path) -> LocalTarget {
        through(self.directory.path(), "staging", socket, AuthSource::Anonymous)
    }

    /// The same with a login for registries.
    pub(crate) fn logged_in(&self, username: &str, password: &str) -> LocalTarget {
        let auth = Credentials { username: username.to_owned(), password: Secret::new(password) };
        through(self.directory.path(), "staging", &engine::socket(), AuthSource::Fixed(auth))
    }

    /// The one container of a service's slot, as the `docker` command names it.
    pub(crate) async fn container(&self, service: &str, slot: Slot) -> String {
        let names = engine::containers(&self.paths(), true).await;
        let part = format!("-staging-{service}-{slot}-");
        let found: Vec<&String> = names.iter().filter(|n| n.contains(&part)).collect();
        assert_eq!(found.len(), 1, "{names:?}");
        found[0].clone()
    }

    /// Asks one container for something that it will not survive: the proxy would ask the next one for the same.
    pub(crate) async fn ask_itself(&self, service: &str, slot: Slot, path: &str) {
        let endpoints = self.target.endpoints(&service.parse().unwrap(), slot).await.unwrap();
        let answer = ask(endpoints[0].trim_start_matches("http://").parse().unwrap(), path).await;
        assert!(answer.is_err(), "{answer:?}");
    }
}

pub(crate) fn health() -> Health {
    Health { path: "/ready".to_owned(), deadline_ms: 20_000, interval_ms: 50 }
}

pub(crate) fn image() -> ImageRef {
    images::name()
}

/// The digest of the index of a version of the service.
pub(crate) fn digest(version: u32) -> Digest {
    images::version(version)
}
