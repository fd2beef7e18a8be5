//! Looking at what could be adopted. Changes nothing.

use super::{AdoptError, Adoption, There, adopt, makes_pods_of, selected};
use crate::{
    KubernetesTarget,
    cluster::{Cluster, refused},
    names,
    object::Object,
};
use k8s_openapi::api::core::v1::Pod;
use plimsoll_core::Slot;
use plimsoll_deploy::{Release, ServiceSpec, TargetError};
use serde_json::{Value, json};

impl KubernetesTarget {
    /// What adopting the services of `wanted` comes to. Refused where the environment has a record: what is there is its own.
    pub async fn adoption(&self, wanted: &Release) -> Result<Adoption, TargetError> {
        let what = format!("adopt {}", self.environment);
        let world = Box::pin(self.look()).await?;
        if let Some(live) = &world.live {
            let reason = format!(
                "{} is live there since generation {}: it is adopted already, or released to",
                live.version, live.generation
            );
            return Err(refused(&what, reason));
        }
        let cluster = self.cluster.get().await?;
        let there = Box::pin(there(cluster)).await?;
        let mut all = Vec::new();
        for spec in &wanted.services {
            let found = match adopt(spec, &there, self.environment.as_str()) {
                Ok(adopted) => self.untaken(&adopted.spec, wanted).await?.map(|()| adopted),
                Err(error) => Err(error),
            };
            all.push((spec.name.clone(), found));
        }
        Ok(Adoption(all))
    }

    /// Whether no name that a slot of `spec` needs is taken by an object of somebody else.
    async fn untaken(&self, spec: &ServiceSpec, wanted: &Release) -> Result<Result<(), AdoptError>, TargetError> {
        let cluster = self.cluster.get().await?;
        for slot in [Slot::Blue, Slot::Green] {
            let slotted = match self.slotted(spec, slot, wanted, spec.replicas) {
                Ok(slotted) => slotted,
                Err(TargetError::Refused { reason, .. }) => return Ok(Err(AdoptError::Object(reason))),
                Err(error) => return Err(error),
            };
            let identity = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": names::identity(&spec.name, slot)},
            });
            let identity = Object::try_from(identity).map_err(|e| crate::cluster::unwritable("name a ConfigMap", e))?;
            for object in slotted.own.iter().chain([&identity]) {
                let of = |there: &Value| there["metadata"]["labels"][names::ENVIRONMENT] == self.environment.as_str();
                if cluster.read(object).await?.is_some_and(|there| !of(&there)) {
                    return Ok(Err(AdoptError::Taken(object.title())));
                }
            }
        }
        Ok(Ok(()))
    }
}

async fn there(cluster: &Cluster) -> Result<There, TargetError> {
    let (services, deployments, stateful_sets, autoscalers, budgets, policies, pods) = tokio::try_join!(
        cluster.all("v1", "Service"),
        cluster.all("apps/v1", "Deployment"),
        cluster.all("apps/v1", "StatefulSet"),
        cluster.all("autoscaling/v2", "HorizontalPodAutoscaler"),
        cluster.all("policy/v1", "PodDisruptionBudget"),
        cluster.all("networking.k8s.io/v1", "NetworkPolicy"),
        cluster.list::<Pod>(""),
    )?;
    let own = |object: &Value| object["metadata"]["labels"].get(names::ENVIRONMENT).is_some();
    let foreign = |mut all: Vec<Value>| {
        all.retain(|object| !own(object));
        all
    };
    Ok(There {
        services,
        deployments: foreign(deployments),
        stateful_sets: foreign(stateful_sets),
        autoscalers: foreign(autoscalers),
        budgets: foreign(budgets),
        policies,
        pods,
    })
}

/// The workloads of somebody else whose pods their Service selects, as people call them.
pub(crate) async fn workloads_behind(cluster: &Cluster, service: &Value) -> Result<Vec<String>, TargetError> {
    let selector = selected(service);
    let mut found = Vec::new();
    for kind in ["Deployment", "StatefulSet"] {
        let all = cluster.all("apps/v1", kind).await?;
        let all = all.iter().filter(|workload| makes_pods_of(workload, &selector));
        found.extend(all.map(|workload| format!("{kind} {}", super::name(workload))));
    }
    Ok(found)
}
