//! The verbs of [`Target`], done in one namespace.

use crate::{
    adopt, autoscalers, claim,
    cluster::{Access, Lazy, refused, unreachable, unwritable},
    copying,
    cut_over::{self, Site},
    drain, hand_over, identity, lease, logs, metrics, names,
    object::Object,
    pods,
    prober::ClusterProber,
    record, revive, share,
    slot::{self, Place, Slotted, in_slot},
    watching::Watching,
    workload::WorkloadKind,
    world::{Releases, World},
};
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Pod, Secret as SecretObject},
    policy::v1::PodDisruptionBudget,
};
use plimsoll_core::{EnvironmentName, Generation, ServiceName, Slot, config::CanaryBy};
use plimsoll_deploy::{
    CutOver, CutOverDone, DrainReport, Fut, LockOutcome, LockOwner, Observation, Prober, Release, SecretSource,
    ServiceSpec, SlotView, Switched, Target, TargetError, TargetKind, Traffic, Weights,
};
use serde_json::json;
use std::{future::Future, path::Path, pin::Pin, sync::Arc, time::Duration};

/// Makes the objects of a service, without a slot.
pub type Render = Arc<dyn Fn(&ServiceSpec, &Release) -> Result<Vec<Object>, String> + Send + Sync>;

/// A stop or start is tried so often when others write the record at the same time.
const TRIES: u32 = 5;

/// One environment in a namespace of its own.
pub struct KubernetesTarget {
    pub(crate) environment: EnvironmentName,
    pub(crate) cluster: Arc<Lazy>,
    prober: ClusterProber,
    releases: Releases,
    watching: Watching,
    secrets: SecretSource,
    canary_by: CanaryBy,
    pub(crate) render: Render,
}

impl std::fmt::Debug for KubernetesTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let namespace = self.cluster.namespace();
        f.debug_struct("KubernetesTarget")
            .field("environment", &self.environment)
            .field("namespace", &namespace)
            .finish_non_exhaustive()
    }
}

impl KubernetesTarget {
    /// The version of the cluster, if it answers within two seconds.
    pub async fn version(&self) -> Result<String, TargetError> {
        self.cluster.get().await?.version().await
    }

    /// The environment in `namespace` of the cluster that `access` leads to. Asks the cluster nothing yet.
    pub fn new(
        access: Access,
        environment: EnvironmentName,
        namespace: String,
        secrets: SecretSource,
        render: Render,
    ) -> Self {
        let cluster = Arc::new(Lazy::new(access, namespace));
        let prober = ClusterProber(Arc::clone(&cluster));
        let watching = Watching::new(&environment);
        let (releases, canary_by) = (Releases::default(), CanaryBy::default());
        Self { environment, cluster, prober, releases, watching, secrets, canary_by, render }
    }

    /// With shares of the requests given by this.
    #[must_use]
    pub fn canary_by(self, canary_by: CanaryBy) -> Self {
        Self { canary_by, ..self }
    }

    async fn site(&self) -> Result<Site<'_>, TargetError> {
        let cluster = self.cluster.get().await?;
        let Self { environment, releases, canary_by, .. } = self;
        Ok(Site { cluster, environment, releases, canary_by: *canary_by })
    }

    pub(crate) async fn look(&self) -> Result<World, TargetError> {
        self.site().await?.look().await
    }

    /// The objects of a service as they are applied for a slot.
    pub(crate) fn slotted(
        &self,
        spec: &ServiceSpec,
        slot: Slot,
        release: &Release,
        live: u16,
    ) -> Result<Slotted, TargetError> {
        let what = format!("make the objects of {}", spec.name);
        let objects = (self.render)(spec, release).map_err(|reason| refused(&what, reason))?;
        let place = Place {
            environment: &self.environment,
            slot,
            version: &release.version,
            replicas: slot::replicas(&objects, spec, live),
        };
        in_slot(&objects, spec, &place).map_err(|e| refused(&what, e.to_string()))
    }

    async fn ensure_namespace(&self) -> Result<(), TargetError> {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.cluster.namespace()}});
        let what = "make the namespace";
        let object = Object::try_from(namespace).map_err(|e| unwritable(what, e))?;
        match self.cluster.get().await?.create_if_missing(&object).await {
            // Who may not make namespaces is given one.
            Err(TargetError::Refused { .. }) => Ok(()),
            done => done,
        }
    }

    async fn secret(&self, spec: &ServiceSpec, slot: Slot) -> Result<(), TargetError> {
        if spec.secret_env.is_empty() {
            return Ok(());
        }
        let object = self.secret_object(spec, slot)?;
        self.cluster.get().await?.apply(&object).await.map(drop)
    }

    /// The Secret with the values of a service's secret variables, as they are now.
    pub(crate) fn secret_object(&self, spec: &ServiceSpec, slot: Slot) -> Result<Object, TargetError> {
        let mut data = serde_json::Map::new();
        for (variable, source) in &spec.secret_env {
            let value = (self.secrets)(source)
                .map_err(|reason| refused(&format!("resolve the secret `{source}` of {}", spec.name), reason))?;
            data.insert(variable.clone(), value.expose().into());
        }
        let object = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": names::slotted(spec.name.as_str(), slot),
                "labels": {
                    (names::ENVIRONMENT): self.environment,
                    (names::SERVICE): spec.name,
                    (names::SLOT): slot.as_str(),
                    "app.kubernetes.io/managed-by": names::MANAGER,
                },
            },
            "stringData": data,
        });
        Object::try_from(object).map_err(|e| unwritable(&format!("write the Secret of {}", spec.name), e))
    }

    async fn make(&self, spec: &ServiceSpec, slot: Slot, release: &Release) -> Result<SlotView, TargetError> {
        let what = format!("stand {} up in {slot}", spec.name);
        let world = self.look().await?;
        let seen = world.observation();
        let view = seen.services.get(&spec.name);
        if view.and_then(|v| v.live.as_ref()).is_some_and(|l| l.slot == slot) {
            return Err(refused(&what, "it is live"));
        }
        if let Some(there) = view.and_then(|v| v.standby.as_ref())
            && there.slot == slot
            && there.runs(spec)
            && there.replicas > 0
        {
            return Ok(there.clone());
        }
        // Beside what is adopted, and nobody counts here, the first slot has to be as large.
        let beside = if adopt::theirs(spec).is_some() { spec.replicas } else { 0 };
        let live = view.and_then(|v| v.live.as_ref()).map_or(beside, |l| l.replicas);
        let mut objects = self.slotted(spec, slot, release, live)?;
        autoscalers::hold(&mut objects.own, live);
        if world.workloads.is_empty() && world.services.is_empty() {
            self.ensure_namespace().await?;
        }
        let there = self.cluster.get().await?.read(&objects.service).await?;
        adopt::may_lead(&world, spec, there.as_ref()).map_err(|reason| refused(&what, reason))?;
        // Pods that are replaced must not have clients.
        share::end(&self.site().await?, &world, &spec.name).await?;
        for object in &objects.shared {
            self.cluster.get().await?.apply(object).await?;
        }
        self.cluster.get().await?.create_if_missing(&objects.service).await?;
        let told = identity::Identity::of_release(release);
        identity::write(self.cluster.get().await?, &self.environment, &spec.name, slot, &told).await?;
        self.secret(spec, slot).await?;
        for object in &objects.own {
            self.apply_own(object).await?;
        }
        if world.selected(&spec.name) == Some(slot) {
            return revive::serves(&self.site().await?, spec, slot).await;
        }
        self.look()
            .await?
            .observation()
            .services
            .get(&spec.name)
            .and_then(|v| v.standby.clone())
            .ok_or_else(|| refused(&what, "it was made, and is not there: something deletes or relabels it"))
    }

    /// Fields of a StatefulSet that cannot change make it necessary to replace it; its slot is not live.
    async fn apply_own(&self, object: &Object) -> Result<(), TargetError> {
        match self.cluster.get().await?.apply(object).await {
            Err(TargetError::Refused { reason, .. })
                if object.kind() == "StatefulSet" && reason.contains("updates to") =>
            {
                self.cluster.get().await?.delete::<StatefulSet>(object.name()).await?;
                self.cluster.get().await?.apply(object).await.map(drop)
            }
            done => done.map(drop),
        }
    }

    async fn remove(&self, service: &ServiceName, slot: Slot) -> Result<(), TargetError> {
        let what = format!("retire {service} ({slot})");
        let world = self.look().await?;
        let live = world.observation().services.get(service).and_then(|v| v.live.as_ref().map(|l| l.slot));
        if world.selected(service) == Some(slot) || live == Some(slot) {
            return Err(refused(&what, "it is live"));
        }
        share::end(&self.site().await?, &world, service).await?;
        let labels = names::of_slot(&self.environment, service, slot);
        // What makes pods goes first: nothing may come back.
        self.delete_all::<HorizontalPodAutoscaler>(&labels).await?;
        self.delete_all::<Deployment>(&labels).await?;
        self.delete_all::<StatefulSet>(&labels).await?;
        self.delete_all::<PodDisruptionBudget>(&labels).await?;
        self.delete_all::<SecretObject>(&labels).await?;
        self.delete_all::<ConfigMap>(&labels).await
    }

    async fn delete_all<K: crate::cluster::Kind>(&self, labels: &str) -> Result<(), TargetError> {
        for object in self.cluster.get().await?.list::<K>(labels).await? {
            if let Some(name) = &object.meta().name {
                self.cluster.get().await?.delete::<K>(name).await?;
            }
        }
        Ok(())
    }

    /// Records a stop or start, then scales every workload.
    async fn switch(&self, from: Generation, switched: Switched) -> Result<Generation, TargetError> {
        let verb = if switched.stopped { "stop" } else { "start" };
        if !switched.stopped {
            copying::none_at_work(&self.site().await?).await?;
        }
        for _ in 0..TRIES {
            let mut stored = record::read(self.cluster.get().await?, &self.environment).await?;
            if stored.record.generation != from {
                return Err(self.site().await?.stale(from, stored.record.generation));
            }
            stored.record.generation = from.next();
            stored.record.stopped = switched.stopped;
            stored.record.switched = Some(switched.clone());
            if record::write(self.cluster.get().await?, &self.environment, stored).await?.is_some() {
                self.scale(switched.stopped).await?;
                // It is stopped: what leads to it meanwhile leads to nobody.
                if switched.stopped
                    && let Err(error) = share::end_all(&self.site().await?).await
                {
                    tracing::warn!(error = plimsoll_core::chain(&error), "shares of the requests are left");
                }
                return Ok(from.next());
            }
        }
        Err(refused(&format!("{verb} {}", self.environment), "others write its record all the time"))
    }

    async fn scale(&self, stopped: bool) -> Result<(), TargetError> {
        let world = self.look().await?;
        for workload in &world.workloads {
            let patch = json!({"spec": {"replicas": if stopped { 0 } else { workload.wanted }}});
            match workload.kind {
                WorkloadKind::Deployment => {
                    self.cluster.get().await?.merge::<Deployment>(&workload.name, &patch).await?;
                }
                WorkloadKind::StatefulSet => {
                    self.cluster.get().await?.merge::<StatefulSet>(&workload.name, &patch).await?;
                }
            }
        }
        Ok(())
    }

    async fn again(&self, service: &ServiceName, slot: Slot) -> Result<(), TargetError> {
        let world = self.look().await?;
        let record = world.live.as_ref().filter(|live| live.services.get(service).is_some_and(|r| r.slot == slot));
        let Some(record) = record else {
            return Err(refused(&format!("activate {service} ({slot})"), "it is not live"));
        };
        hand_over::give(&self.site().await?, service, slot, record).await
    }
}

impl Target for KubernetesTarget {
    fn kind(&self) -> TargetKind {
        TargetKind::Kubernetes
    }

    fn environment(&self) -> &EnvironmentName {
        &self.environment
    }

    fn observe(&self) -> Fut<'_, Observation> {
        Box::pin(async move { Ok(self.look().await?.observation()) })
    }

    fn lock<'a>(&'a self, owner: &'a LockOwner, lease: Duration) -> Fut<'a, LockOutcome> {
        Box::pin(async move {
            let outcome = match lease::take(self.cluster.get().await?, &self.environment, owner, lease).await {
                // The first thing that a first release writes is the lock.
                Err(TargetError::Refused { .. }) if self.cluster.get().await?.get::<Pod>("none").await.is_ok() => {
                    self.ensure_namespace().await?;
                    lease::take(self.cluster.get().await?, &self.environment, owner, lease).await?
                }
                done => done?,
            };
            if matches!(outcome, LockOutcome::Held(_)) {
                Box::pin(claim::take_over(&self.site().await?, owner)).await?;
            }
            Ok(outcome)
        })
    }

    fn unlock<'a>(&'a self, owner: &'a LockOwner) -> Fut<'a, ()> {
        Box::pin(async move {
            let site = self.site().await?;
            let settled = claim::settle(&site, &owner.run).await;
            if let Ok(world) = site.look().await {
                autoscalers::settle(&site, &world).await;
                share::settle(&site, &world).await;
            }
            lease::give(self.cluster.get().await?, &self.environment, owner).await?;
            settled
        })
    }

    fn stand_up<'a>(&'a self, spec: &'a ServiceSpec, slot: Slot, release: &'a Release) -> Fut<'a, SlotView> {
        Box::pin(self.make(spec, slot, release))
    }

    fn endpoints<'a>(&'a self, service: &'a ServiceName, slot: Slot) -> Fut<'a, Vec<String>> {
        Box::pin(async move {
            let world = self.look().await?;
            let pods = world.pods_of(service, slot);
            let namespace = self.cluster.namespace();
            let url = |pod: &&Pod| format!("http://{}.{namespace}.pod:{}", pods::name(pod), pods::port(pod));
            Ok(pods.iter().map(url).collect())
        })
    }

    fn weigh<'a>(&'a self, weights: &'a Weights) -> Fut<'a, ()> {
        Box::pin(async move { share::weigh(&self.site().await?, weights).await })
    }

    fn cut_over<'a>(&'a self, cut_over: &'a CutOver) -> Fut<'a, CutOverDone> {
        Box::pin(async move { cut_over::cut_over(&self.site().await?, cut_over).await })
    }

    fn drain<'a>(&'a self, service: &'a ServiceName, slot: Slot, deadline: Duration) -> Fut<'a, DrainReport> {
        Box::pin(async move {
            let (site, world) = (self.site().await?, self.look().await?);
            if world.selected(service) == Some(slot) {
                return Err(refused(&format!("drain {service} ({slot})"), "it is live"));
            }
            drain::drain(&site, service, slot, deadline).await
        })
    }

    fn backup<'a>(&'a self, service: &'a ServiceName, to: &'a Path) -> Fut<'a, ()> {
        Box::pin(async move { copying::backup(&self.site().await?, service, to).await })
    }

    fn restore<'a>(&'a self, from: Generation, service: &'a ServiceName, copy: &'a Path) -> Fut<'a, ()> {
        Box::pin(async move { copying::restore(&self.site().await?, from, service, copy).await })
    }

    fn retire<'a>(&'a self, service: &'a ServiceName, slot: Slot) -> Fut<'a, ()> {
        Box::pin(self.remove(service, slot))
    }

    fn stop<'a>(&'a self, from: Generation, actor: &'a str, reason: Option<&'a str>) -> Fut<'a, Generation> {
        let (actor, reason) = (actor.to_owned(), reason.map(str::to_owned));
        Box::pin(self.switch(from, Switched { stopped: true, actor, reason, at: crate::now() }))
    }

    fn start<'a>(&'a self, from: Generation, actor: &'a str) -> Fut<'a, Generation> {
        let actor = actor.to_owned();
        Box::pin(self.switch(from, Switched { stopped: false, actor, reason: None, at: crate::now() }))
    }

    fn traffic<'a>(&'a self, service: &'a ServiceName, slot: Slot) -> Fut<'a, Traffic> {
        Box::pin(async move {
            let counted = metrics::count(&self.site().await?, service, slot).await?;
            counted.map_err(|e| unreachable(format!("count the requests of {service} ({slot})"), e))
        })
    }

    fn activate<'a>(&'a self, service: &'a ServiceName, slot: Slot) -> Fut<'a, ()> {
        Box::pin(self.again(service, slot))
    }

    fn changed(&self, pause: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            match self.cluster.get().await {
                Ok(cluster) => self.watching.changed(cluster, pause).await,
                Err(_) => tokio::time::sleep(pause).await,
            }
        })
    }

    fn prober(&self) -> Option<&dyn Prober> {
        Some(&self.prober)
    }

    fn logs<'a>(&'a self, service: &'a ServiceName, slot: Slot, lines: usize) -> Fut<'a, Vec<String>> {
        Box::pin(async move {
            let world = self.look().await?;
            Ok(logs::tail(self.cluster.get().await?, &world.pods_of(service, slot), lines).await)
        })
    }
}
