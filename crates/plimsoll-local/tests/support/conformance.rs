//! The suite that every target passes, with what really runs behind the real proxy.

#![expect(clippy::disallowed_macros, reason = "this test is its own harness")]

use crate::{
    target::{command, digest},
    world::{World, client, spec, worker},
};
use plimsoll_core::BackupCommands;
use plimsoll_deploy::{Fixture, Prober, ServiceSpec, SmokeRequest, StatePolicy, Target};
use plimsoll_local::LocalTarget;
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

struct Environment {
    target: LocalTarget,
    scratch: tempfile::TempDir,
    prober: plimsoll_http::Client,
}

fn versioned(spec: ServiceSpec, version: u32) -> ServiceSpec {
    ServiceSpec { digest: digest(version), ..spec }
}

impl Fixture for Environment {
    fn target(&self) -> &dyn Target {
        &self.target
    }

    fn prober(&self) -> &dyn Prober {
        &self.prober
    }

    fn traffic(&self, version: u32) -> ServiceSpec {
        versioned(spec("api", &[("N", &version.to_string())]), version)
    }

    fn exclusive(&self, version: u32) -> ServiceSpec {
        versioned(worker(&[("N", &version.to_string())]), version)
    }

    fn stateful(&self) -> ServiceSpec {
        let backup = Some(BackupCommands { save: command("save"), load: command("load") });
        ServiceSpec { state: StatePolicy::Shared, backup, ..self.traffic(1) }
    }

    fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    fn tells(&self, version: u32) -> SmokeRequest {
        SmokeRequest {
            method: "GET".to_owned(),
            path: "/env/N".to_owned(),
            status: 200,
            contains: Some(format!("N={version};")),
            json: BTreeMap::new(),
            headers: BTreeMap::new(),
            max_ms: None,
        }
    }
}

/// Each case has an environment of its own; one supervisor and one proxy serve them all.
pub(crate) async fn the_target_passes_the_suite_of_all_targets(world: Arc<World>) {
    let made = AtomicUsize::new(0);
    let cases = plimsoll_deploy::conformance(|_| async {
        let name = format!("case-{}", made.fetch_add(1, Ordering::Relaxed));
        Environment { target: world.environment(&name), scratch: tempfile::tempdir().unwrap(), prober: client() }
    })
    .await;
    println!("conformance: {} cases passed", cases.len());
}
