//! The local target under test: every image is this executable as a service.

use crate::world::{World, client};
use plimsoll_core::{Digest, ImageRef, Platform, RunId, Secret, Timestamp};
use plimsoll_deploy::{Drive, DriveError, DriveObserver, Goal, Health, Outcome, Policy, Release, TargetError, drive};
use plimsoll_local::{ImageSource, LocalPaths, LocalTarget, Rootfs, supervisor::Launch};
use std::{
    collections::BTreeMap,
    future::{Future, Ready, ready},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

/// What happens by itself happens within this: nobody helped, and no wait of ten seconds or more ran out. How long it took is
/// printed, and not judged: the machine may be busy.
pub(crate) const BY_ITSELF: Duration = Duration::from_secs(5);

struct Own;

impl ImageSource for Own {
    fn fetch<'a>(
        &'a self,
        _: &'a ImageRef,
        _: &'a Digest,
        _: Platform,
    ) -> Pin<Box<dyn Future<Output = Result<Rootfs, TargetError>> + Send + 'a>> {
        let program = std::env::current_exe().unwrap();
        let args = vec!["role:service".to_owned()];
        Box::pin(async {
            Ok(Rootfs { program, args, env: BTreeMap::new(), cwd: PathBuf::from("/"), root: PathBuf::from("/") })
        })
    }
}

pub(crate) fn new(root: &Path, environment: &str) -> LocalTarget {
    let program = std::env::current_exe().unwrap();
    let args = vec!["role:supervisor".to_owned(), root.to_string_lossy().into_owned()];
    let secrets = Arc::new(|source: &str| Ok(Secret::new(format!("secret-{source}"))));
    let environment = environment.parse().unwrap();
    LocalTarget::new(LocalPaths::new(root), environment, Launch { program, args }, Arc::new(Own), secrets)
}

impl World {
    /// Drives a release as a run of its own.
    pub(crate) async fn drive(
        &self,
        release: Release,
        run: u16,
        policy: &Policy,
        observer: &dyn DriveObserver,
    ) -> Result<Outcome, DriveError> {
        let run = RunId::new(Timestamp::from_millis(1_700_000_000_000), run);
        let goal = Goal::Deploy(Release { run, ..release });
        let with = Drive {
            target: &self.target,
            goal: &goal,
            policy,
            prober: &client(),
            meter: None,
            gate: &|_, _| Ok(()),
            observer,
        };
        drive(&with, std::future::pending()).await
    }
}

/// The service's command that copies its state or puts a copy back.
pub(crate) fn command(verb: &str) -> Vec<String> {
    vec![std::env::current_exe().unwrap().to_string_lossy().into_owned(), format!("role:{verb}")]
}

/// Processes end with their supervisor; that nothing else is left, scenarios ask themselves.
pub(crate) fn left(_: &LocalPaths, _: bool) -> Ready<Result<(), String>> {
    ready(Ok(()))
}

pub(crate) fn health() -> Health {
    Health { path: "/ready".to_owned(), deadline_ms: 10_000, interval_ms: 20 }
}

pub(crate) fn image() -> ImageRef {
    "127.0.0.1:1/test/service:1".parse().unwrap()
}

/// The digest of a version of the service.
pub(crate) fn digest(version: u32) -> Digest {
    Digest::of(version.to_string().as_bytes())
}
