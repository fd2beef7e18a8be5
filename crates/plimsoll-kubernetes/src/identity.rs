//! The identity file of a slot's pods (docs/adr/0008), as a ConfigMap they mount.
//!
//! The kubelet brings a changed ConfigMap to running pods within about a minute, so the version in it is that of the
//! release which stood the slot up. What must be known at once is told over HTTP.

use crate::{
    cluster::{Cluster, unreachable, unwritable},
    names,
    object::Object,
};
use k8s_openapi::api::core::v1::ConfigMap;
use plimsoll_core::{EnvironmentName, Generation, RunId, ServiceName, Slot};
use plimsoll_deploy::{Release, ReleaseRecord, TargetError};
use serde::{Deserialize, Serialize};
use serde_json::json;

const KEY: &str = "identity.json";

/// What a pod is told of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Identity {
    pub(crate) version: String,
    pub(crate) revision: String,
    pub(crate) run: Option<RunId>,
    pub(crate) environment: Option<EnvironmentName>,
    /// For an exclusive service: the generation it works under from its start on.
    pub(crate) active: Option<Generation>,
    /// The same, under the name that services know.
    pub(crate) generation: Option<Generation>,
}

impl Identity {
    pub(crate) fn of(record: &ReleaseRecord) -> Self {
        Self {
            version: record.version.clone(),
            revision: record.revision.clone(),
            run: Some(record.run.clone()),
            environment: None,
            active: None,
            generation: Some(record.generation),
        }
    }

    pub(crate) fn of_release(release: &Release) -> Self {
        Self {
            version: release.version.clone(),
            revision: release.revision.clone(),
            run: Some(release.run.clone()),
            environment: Some(release.environment.clone()),
            active: None,
            generation: None,
        }
    }
}

/// Writes it.
pub(crate) async fn write(
    cluster: &Cluster,
    environment: &EnvironmentName,
    service: &ServiceName,
    slot: Slot,
    identity: &Identity,
) -> Result<(), TargetError> {
    let text = serde_json::to_string(identity).expect("an identity is plain data");
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": names::identity(service, slot),
            "labels": {
                (names::ENVIRONMENT): environment,
                (names::SERVICE): service,
                (names::SLOT): slot.as_str(),
                "app.kubernetes.io/managed-by": names::MANAGER,
            },
        },
        "data": { (KEY): text },
    });
    let what = "write an identity file";
    cluster.apply(&Object::try_from(object).map_err(|e| unwritable(what, e))?).await.map(drop)
}

/// Changes what is there; a slot that has none has no pods either.
pub(crate) async fn change(
    cluster: &Cluster,
    service: &ServiceName,
    slot: Slot,
    change: impl FnOnce(&mut Identity),
) -> Result<(), TargetError> {
    let name = names::identity(service, slot);
    let Some(map) = cluster.get::<ConfigMap>(&name).await? else { return Ok(()) };
    let text = map.data.and_then(|mut data| data.remove(KEY)).unwrap_or_default();
    let mut identity: Identity =
        serde_json::from_str(&text).map_err(|e| unreachable(format!("read ConfigMap {name}"), e))?;
    change(&mut identity);
    identity.generation = identity.active.or(identity.generation);
    let text = serde_json::to_string(&identity).expect("an identity is plain data");
    cluster.merge::<ConfigMap>(&name, &json!({"data": {(KEY): text}})).await
}
