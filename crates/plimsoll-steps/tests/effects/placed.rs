//! A target in memory whose services have an address of their own: two of them are asked through one prober.

use crate::measured::asked;
use plimsoll_core::{EnvironmentName, Generation, ServiceName, Slot};
use plimsoll_deploy::{
    Answer, CutOver, CutOverDone, DrainReport, FakeTarget, Fut, LockOutcome, LockOwner, Observation, Prober, Release,
    ServiceSpec, SlotView, SmokeRequest, Target, TargetKind, Traffic, Weights,
};
use std::{future::Future, path::Path, pin::Pin, sync::Arc, time::Duration};

/// A target in memory at `fake://<environment>/`.
pub(crate) struct Placed {
    pub(crate) fake: FakeTarget,
    base: String,
}

impl Placed {
    pub(crate) fn new(environment: &EnvironmentName) -> Self {
        Self { fake: FakeTarget::new(environment.clone()), base: format!("fake://{environment}/") }
    }

    fn outside(&self, url: &str) -> String {
        url.replacen("fake://", &self.base, 1)
    }

    fn inside(&self, url: &str) -> Option<String> {
        url.strip_prefix(&self.base).map(|rest| format!("fake://{rest}"))
    }
}

/// Asks whichever target has the address.
pub(crate) struct Asker(pub(crate) Vec<Arc<Placed>>);

impl Prober for Asker {
    fn ask<'a>(
        &'a self,
        base: &'a str,
        request: &'a SmokeRequest,
        timeout: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, String>> + Send + 'a>> {
        Box::pin(async move {
            let found = self.0.iter().find_map(|placed| Some((placed, placed.inside(base)?)));
            let (placed, base) = found.ok_or("no such place")?;
            placed.fake.ask(&base, request, timeout).await
        })
    }
}

impl Target for Placed {
    fn kind(&self) -> TargetKind {
        self.fake.kind()
    }

    fn environment(&self) -> &EnvironmentName {
        self.fake.environment()
    }

    fn observe(&self) -> Fut<'_, Observation> {
        asked();
        Box::pin(async {
            let mut seen = self.fake.observe().await?;
            for view in seen.services.values_mut() {
                view.url = view.url.as_deref().map(|url| self.outside(url));
            }
            Ok(seen)
        })
    }

    fn lock<'a>(&'a self, owner: &'a LockOwner, lease: Duration) -> Fut<'a, LockOutcome> {
        asked();
        self.fake.lock(owner, lease)
    }

    fn unlock<'a>(&'a self, owner: &'a LockOwner) -> Fut<'a, ()> {
        self.fake.unlock(owner)
    }

    fn stand_up<'a>(&'a self, spec: &'a ServiceSpec, slot: Slot, release: &'a Release) -> Fut<'a, SlotView> {
        self.fake.stand_up(spec, slot, release)
    }

    fn endpoints<'a>(&'a self, service: &'a ServiceName, slot: Slot) -> Fut<'a, Vec<String>> {
        Box::pin(async move {
            let inside = self.fake.endpoints(service, slot).await?;
            Ok(inside.iter().map(|url| self.outside(url)).collect())
        })
    }

    fn cut_over<'a>(&'a self, cut_over: &'a CutOver) -> Fut<'a, CutOverDone> {
        self.fake.cut_over(cut_over)
    }

    fn drain<'a>(&'a self, service: &'a ServiceName, slot: Slot, deadline: Duration) -> Fut<'a, DrainReport> {
        self.fake.drain(service, slot, deadline)
    }

    fn retire<'a>(&'a self, service: &'a ServiceName, slot: Slot) -> Fut<'a, ()> {
        self.fake.retire(service, slot)
    }

    fn stop<'a>(&'a self, from: Generation, actor: &'a str, reason: Option<&'a str>) -> Fut<'a, Generation> {
        self.fake.stop(from, actor, reason)
    }

    fn start<'a>(&'a self, from: Generation, actor: &'a str) -> Fut<'a, Generation> {
        self.fake.start(from, actor)
    }

    fn backup<'a>(&'a self, service: &'a ServiceName, to: &'a Path) -> Fut<'a, ()> {
        self.fake.backup(service, to)
    }

    fn restore<'a>(&'a self, from: Generation, service: &'a ServiceName, copy: &'a Path) -> Fut<'a, ()> {
        self.fake.restore(from, service, copy)
    }

    fn weigh<'a>(&'a self, weights: &'a Weights) -> Fut<'a, ()> {
        self.fake.weigh(weights)
    }

    fn traffic<'a>(&'a self, service: &'a ServiceName, slot: Slot) -> Fut<'a, Traffic> {
        self.fake.traffic(service, slot)
    }

    fn logs<'a>(&'a self, service: &'a ServiceName, slot: Slot, lines: usize) -> Fut<'a, Vec<String>> {
        self.fake.logs(service, slot, lines)
    }
}
