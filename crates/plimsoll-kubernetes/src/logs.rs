//! The last lines of pods, those of the container that ended before the present one included.

use crate::{cluster::Cluster, pods};
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use std::time::Duration;

/// How long the kubelet may take to hand a log over; a tail comes at once or not at all.
const LIMIT: Duration = Duration::from_secs(5);

/// The last `lines` lines of all `pods` together, one pod after the other.
pub(crate) async fn tail(cluster: &Cluster, pods: &[&Pod], lines: usize) -> Vec<String> {
    let each = i64::try_from(lines.div_ceil(pods.len().max(1))).unwrap_or(i64::MAX);
    let mut all = Vec::new();
    for pod in pods {
        let mut text = read(cluster, pod, each, false).await;
        // A container that has just been started anew has not said yet why the one before ended.
        if pods::crashes(pod) > 0 && text.lines().count() < 3 {
            text = format!("{}{text}", read(cluster, pod, each, true).await);
        }
        all.extend(text.lines().map(str::to_owned));
    }
    all.split_off(all.len().saturating_sub(lines))
}

async fn read(cluster: &Cluster, pod: &Pod, lines: i64, previous: bool) -> String {
    let params = LogParams { tail_lines: Some(lines), previous, limit_bytes: Some(1 << 20), ..LogParams::default() };
    let api = cluster.api::<Pod>();
    let log = tokio::time::timeout(LIMIT, api.logs(pods::name(pod), &params)).await;
    match log {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => {
            tracing::debug!(%error, pod = pods::name(pod), "no log");
            String::new()
        }
        Err(_) => String::new(),
    }
}
