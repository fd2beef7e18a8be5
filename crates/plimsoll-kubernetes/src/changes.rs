//! What standing a release up would change of the objects in the namespace. Looks, and changes nothing.
//!
//! A service moves to its other slot, so what is there is another object than what will be. Both are the same but for
//! names and labels of the slot: the objects are put into the slot that serves, and compared with what it has.

use crate::{
    KubernetesTarget, adopt, autoscalers,
    cluster::{Cluster, Kind, refused},
    compare, dropped,
    dropped::Whose,
    names,
    object::Object,
    slot::Slotted,
};
use k8s_openapi::api::{
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Secret as SecretObject},
    policy::v1::PodDisruptionBudget,
};
use plimsoll_core::{ServiceName, Slot};
use plimsoll_deploy::{ObjectChange, ObjectDiff, Release, ServiceSpec, TargetError};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

impl KubernetesTarget {
    /// For each service, the objects that `release` would make, change, take over or leave behind. A service without a
    /// difference has no entry.
    pub async fn changes(&self, release: &Release) -> Result<BTreeMap<ServiceName, Vec<ObjectDiff>>, TargetError> {
        let seen = Box::pin(self.look()).await?.observation();
        let mut all = BTreeMap::new();
        for spec in &release.services {
            let live = seen.services.get(&spec.name).and_then(|view| view.live.as_ref());
            let replicas = live.map_or(0, |slot| slot.replicas);
            let found = match live.map(|slot| slot.slot) {
                Some(live) => self.moved(spec, live, release, replicas).await?,
                None => self.first(spec, release).await?,
            };
            if !found.is_empty() {
                all.insert(spec.name.clone(), found);
            }
        }
        Ok(all)
    }

    /// A service of which nothing serves: everything of its slot is new.
    async fn first(&self, spec: &ServiceSpec, release: &Release) -> Result<Vec<ObjectDiff>, TargetError> {
        let cluster = self.cluster.get().await?;
        let next = self.slotted(spec, Slot::Blue, release, 0)?;
        let mut found = self.named_alike(cluster, spec, release, &next).await?;
        found.extend(next.own.iter().map(|object| diff(object, ObjectChange::Added)));
        found.extend(self.secret_of(cluster, spec, None, Slot::Blue).await?);
        found.extend(stays(cluster, spec, &next).await?);
        if let Some(service) = cluster.read(&next.service).await?.filter(is_foreign) {
            let known = |title: &String| found.iter().any(|diff| diff.object == *title);
            let behind: Vec<_> =
                adopt::workloads_behind(cluster, &service).await?.into_iter().filter(|b| !known(b)).collect();
            found.extend(behind.into_iter().map(|object| ObjectDiff { object, change: ObjectChange::Foreign }));
        }
        Ok(found)
    }

    /// A service that moves from the slot `live` to the other one.
    async fn moved(
        &self,
        spec: &ServiceSpec,
        live: Slot,
        release: &Release,
        replicas: u16,
    ) -> Result<Vec<ObjectDiff>, TargetError> {
        let cluster = self.cluster.get().await?;
        let here = self.slotted(spec, live, release, replicas)?;
        let next = self.slotted(spec, live.other(), release, replicas)?;
        let mut found = Vec::new();
        // Both were made from the same objects in the same way, so their order is the same.
        for (here, next) in here.own.iter().zip(&next.own) {
            let there = cluster.read(here).await?.map(autoscalers::as_declared);
            found.extend(compared(there.as_ref(), here, next, spec, Whose::Everybody));
        }
        found.extend(self.left_behind(cluster, spec, live, &here).await?);
        found.extend(self.secret_of(cluster, spec, Some(live), live.other()).await?);
        found.extend(stays(cluster, spec, &next).await?);
        Ok(found)
    }

    /// What the slot that serves has, and the next one will not.
    async fn left_behind(
        &self,
        cluster: &Cluster,
        spec: &ServiceSpec,
        live: Slot,
        here: &Slotted,
    ) -> Result<Vec<ObjectDiff>, TargetError> {
        let labels = names::of_slot(&self.environment, &spec.name, live);
        let made = [
            ("ConfigMap", titles::<ConfigMap>(cluster, &labels).await?),
            ("Secret", titles::<SecretObject>(cluster, &labels).await?),
            ("HorizontalPodAutoscaler", titles::<HorizontalPodAutoscaler>(cluster, &labels).await?),
            ("PodDisruptionBudget", titles::<PodDisruptionBudget>(cluster, &labels).await?),
        ];
        // Those that the target makes itself are no part of what was rendered.
        let own = [names::identity(&spec.name, live), names::slotted(spec.name.as_str(), live)];
        let is_known = |kind: &str, name: &String| {
            let is_own = (kind == "ConfigMap" && *name == own[0])
                || (kind == "Secret" && *name == own[1] && !spec.secret_env.is_empty());
            is_own || here.own.iter().any(|o| o.kind() == kind && o.name() == name)
        };
        let gone = made.into_iter().flat_map(|(kind, names)| names.into_iter().map(move |name| (kind, name)));
        let gone = gone.filter(|(kind, name)| !is_known(kind, name));
        let diff = |(kind, name)| ObjectDiff { object: format!("{kind} {name}"), change: ObjectChange::Removed };
        Ok(gone.map(diff).collect())
    }

    /// The Secret with the values of the service's secret variables.
    async fn secret_of(
        &self,
        cluster: &Cluster,
        spec: &ServiceSpec,
        live: Option<Slot>,
        next: Slot,
    ) -> Result<Option<ObjectDiff>, TargetError> {
        if spec.secret_env.is_empty() {
            return Ok(None);
        }
        let title = format!("Secret {}", names::slotted(spec.name.as_str(), next));
        let told = |change| Some(ObjectDiff { object: title, change });
        let Some(live) = live else { return Ok(told(ObjectChange::Added)) };
        let wanted = match self.secret_object(spec, live) {
            Ok(wanted) => wanted,
            Err(TargetError::Refused { what, reason }) => {
                return Ok(told(ObjectChange::Unknown { reason: format!("{what}: {reason}") }));
            }
            Err(error) => return Err(error),
        };
        let there = cluster.read(&wanted).await?;
        Ok(compared(there.as_ref(), &wanted, &wanted, spec, Whose::Everybody).and_then(|d| told(d.change)))
    }

    /// Workloads of somebody else that are called as this service's are.
    async fn named_alike(
        &self,
        cluster: &Cluster,
        spec: &ServiceSpec,
        release: &Release,
        next: &Slotted,
    ) -> Result<Vec<ObjectDiff>, TargetError> {
        let what = format!("make the objects of {}", spec.name);
        let plain = (self.render)(spec, release).map_err(|reason| refused(&what, reason))?;
        let slotted: BTreeSet<&str> = next.own.iter().map(Object::name).collect();
        let workloads = plain.iter().filter(|o| o.kind() == next.workload.kind && !slotted.contains(o.name()));
        let mut found = Vec::new();
        for workload in workloads {
            if cluster.read(workload).await?.is_some_and(|there| is_foreign(&there)) {
                found.push(diff(workload, ObjectChange::Foreign));
            }
        }
        Ok(found)
    }
}

/// What both slots share, which is applied, and the Service, which is made once.
async fn stays(cluster: &Cluster, spec: &ServiceSpec, next: &Slotted) -> Result<Vec<ObjectDiff>, TargetError> {
    let mut found = Vec::new();
    for object in &next.shared {
        let there = cluster.read(object).await?;
        found.extend(compared(there.as_ref(), object, object, spec, Whose::Ours));
    }
    let service = cluster.read(&next.service).await?;
    if service.as_ref().is_some_and(is_foreign) {
        found.push(diff(&next.service, ObjectChange::Foreign));
        return Ok(found);
    }
    let change = compared(service.as_ref(), &next.service, &next.service, spec, Whose::Ours);
    found.extend(change.map(|diff| match diff.change {
        ObjectChange::Changed { fields } => ObjectDiff { object: diff.object, change: ObjectChange::Kept { fields } },
        _ => diff,
    }));
    Ok(found)
}

/// What becomes of one object: `there` is compared with `here`, and the difference is told of `next`.
fn compared(
    there: Option<&Value>,
    here: &Object,
    next: &Object,
    spec: &ServiceSpec,
    whose: Whose,
) -> Option<ObjectDiff> {
    let Some(there) = there else { return Some(diff(next, ObjectChange::Added)) };
    let mut fields = compare::fields(there, here.value(), &spec.image.to_string());
    fields.extend(dropped::dropped(there, here.value(), whose));
    (!fields.is_empty()).then(|| diff(next, ObjectChange::Changed { fields }))
}

fn diff(object: &Object, change: ObjectChange) -> ObjectDiff {
    ObjectDiff { object: object.title(), change }
}

/// Whether somebody else made it: everything of an environment bears its label.
fn is_foreign(object: &Value) -> bool {
    object["metadata"]["labels"].get(names::ENVIRONMENT).is_none()
}

async fn titles<K: Kind>(cluster: &Cluster, labels: &str) -> Result<Vec<String>, TargetError> {
    let all = cluster.list::<K>(labels).await?;
    Ok(all.into_iter().filter_map(|object| object.meta().name.clone()).collect())
}
