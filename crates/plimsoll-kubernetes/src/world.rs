//! One look at the namespace: everything an observation is made of, read at the same time.

use crate::{
    cluster::{Cluster, refused},
    events, lease, names, pods,
    record::{self, ReleaseName, Stored},
    route::Route,
    workload::Workload,
};
use futures_util::future::{join_all, try_join_all};
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    coordination::v1::Lease,
    core::v1::{Pod, Service},
};
use plimsoll_core::{EnvironmentName, Generation};
use plimsoll_deploy::{LockView, ReleaseRecord, TargetError};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Release records that were read; they never change.
#[derive(Default)]
pub(crate) struct Releases(Mutex<BTreeMap<ReleaseName, ReleaseRecord>>);

/// What is in the namespace.
pub(crate) struct World {
    pub(crate) environment: EnvironmentName,
    pub(crate) stored: Stored,
    pub(crate) live: Option<ReleaseRecord>,
    pub(crate) history: Vec<ReleaseRecord>,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) services: Vec<Service>,
    /// Services of slots that have a share by weights; they are no services' own.
    pub(crate) aside: Vec<Service>,
    pub(crate) routes: Vec<Route>,
    pub(crate) pods: Vec<Pod>,
    /// By pod: the generation it works under, where it does.
    pub(crate) active: BTreeMap<String, Generation>,
    pub(crate) lock: Option<LockView>,
}

impl World {
    /// Looks.
    pub(crate) async fn look(
        cluster: &Cluster,
        environment: &EnvironmentName,
        releases: &Releases,
    ) -> Result<Self, TargetError> {
        let labels = names::of_environment(environment);
        let name = names::environment(environment);
        let (stored, lease, deployments, stateful, services, pods, routes) = tokio::try_join!(
            record::read(cluster, environment),
            cluster.get::<Lease>(&name),
            cluster.list::<Deployment>(&labels),
            cluster.list::<StatefulSet>(&labels),
            cluster.list::<Service>(&labels),
            cluster.list::<Pod>(&labels),
            cluster.routes(),
        )?;
        let is_aside = |s: &Service| s.metadata.labels.as_ref().is_some_and(|l| l.contains_key(names::SHARE_OF));
        let (aside, services) = services.into_iter().partition(is_aside);
        let deployments = deployments.into_iter().filter_map(Workload::of_deployment);
        let mut workloads: Vec<Workload> =
            deployments.chain(stateful.into_iter().filter_map(Workload::of_stateful_set)).collect();
        events::complain(cluster, &mut workloads, &pods).await;
        let record = &stored.record;
        let (live, history, active) = tokio::join!(
            releases.read(cluster, environment, record.live.as_slice()),
            releases.read(cluster, environment, &record.history),
            active(cluster, &workloads, &pods),
        );
        let live = live?.into_iter().next();
        // Nothing may be decided as if nothing served.
        if let Some(name) = record.live.as_ref().filter(|_| live.is_none()) {
            let map = names::release(environment, name.generation, &name.run);
            let reason = format!("the ConfigMap {map}, which says what is live, is gone");
            return Err(refused(&format!("look at {environment}"), reason));
        }
        let lock = lease.as_ref().and_then(lease::view).filter(|view| view.expires > crate::now());
        Ok(Self {
            environment: environment.clone(),
            live,
            history: history?,
            stored,
            workloads,
            services,
            aside,
            routes,
            pods,
            active,
            lock,
        })
    }
}

impl Releases {
    async fn read(
        &self,
        cluster: &Cluster,
        environment: &EnvironmentName,
        wanted: &[ReleaseName],
    ) -> Result<Vec<ReleaseRecord>, TargetError> {
        let read = try_join_all(wanted.iter().map(|name| self.one(cluster, environment, name))).await?;
        Ok(read.into_iter().flatten().collect())
    }

    async fn one(
        &self,
        cluster: &Cluster,
        environment: &EnvironmentName,
        name: &ReleaseName,
    ) -> Result<Option<ReleaseRecord>, TargetError> {
        if let Some(known) = self.known().get(name) {
            return Ok(Some(known.clone()));
        }
        let read = record::read_release(cluster, environment, name).await?;
        if let Some(read) = &read {
            self.known().insert(name.clone(), read.clone());
        }
        Ok(read)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<ReleaseName, ReleaseRecord>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the running pods of exclusive services whether they work.
async fn active(cluster: &Cluster, workloads: &[Workload], all: &[Pod]) -> BTreeMap<String, Generation> {
    let exclusive = workloads.iter().filter(|w| w.exclusive);
    let asked = exclusive.flat_map(|w| all.iter().filter(|pod| w.owns(pod) && pods::is_running(pod)));
    let answers = join_all(asked.map(|pod| async move {
        let working = pods::active(cluster, pod).await?;
        Some((pods::name(pod).to_owned(), working))
    }));
    answers.await.into_iter().flatten().collect()
}
