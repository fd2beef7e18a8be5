//! Why a controller makes no pods: a Deployment says so in a condition, a StatefulSet in events only.

use crate::{
    cluster::Cluster,
    workload::{Workload, WorkloadKind},
};
use k8s_openapi::api::core::v1::{Event, Pod};

/// Adds to StatefulSets that lack pods what was last said about that.
pub(crate) async fn complain(cluster: &Cluster, workloads: &mut [Workload], pods: &[Pod]) {
    for workload in workloads {
        let standing = pods.iter().filter(|pod| workload.owns(pod)).count();
        if workload.kind == WorkloadKind::StatefulSet && standing < usize::from(workload.replicas) {
            workload.complaints.extend(last(cluster, &workload.uid).await);
        }
    }
}

/// What the latest event about a pod that could not be made says. Who may not read events does without.
async fn last(cluster: &Cluster, uid: &str) -> Option<String> {
    let about = format!("involvedObject.uid={uid},reason=FailedCreate");
    let events = cluster.list_where::<Event>(&about).await.inspect_err(|error| tracing::debug!(%error, "no events"));
    let when = |event: &Event| event.last_timestamp.as_ref().map(|time| time.0);
    events.ok()?.into_iter().max_by_key(when)?.message
}
