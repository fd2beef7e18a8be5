//! What pods use, as the cluster's metrics server tells it (`metrics.k8s.io/v1beta1`).

use crate::{KubernetesTarget, cluster::refused, names, workload::slot_of};
use kube::{api::ObjectMeta, core::NamespaceResourceScope};
use plimsoll_core::{ByteSize, ServiceName, Timestamp};
use plimsoll_deploy::{TargetError, UsageSample};
use serde::Deserialize;
use std::{borrow::Cow, collections::BTreeMap};

impl KubernetesTarget {
    /// What the pods that serve used last: one sample for each that the metrics server knows.
    pub async fn usage(&self) -> Result<Vec<(ServiceName, UsageSample)>, TargetError> {
        let seen = Box::pin(self.look()).await?.observation();
        let live: BTreeMap<_, _> =
            seen.services.iter().filter_map(|(name, view)| Some((name, view.live.as_ref()?.slot))).collect();
        let cluster = self.cluster.get().await?;
        let all = cluster.list::<PodMetrics>(&names::of_environment(&self.environment)).await;
        let all = all.map_err(|error| match error {
            TargetError::Refused { what, reason }
                if reason.contains("could not find") || reason.contains("page not found") =>
            {
                refused(&what, "the cluster has no metrics server (metrics.k8s.io/v1beta1)")
            }
            other => other,
        })?;
        let serving = all.iter().filter_map(|pod| {
            let (service, slot) = slot_of(pod.metadata.labels.as_ref()?)?;
            (live.get(&service) == Some(&slot)).then(|| Some((service.clone(), pod.sample(&service)?))).flatten()
        });
        Ok(serving.collect())
    }
}

/// What one pod used.
#[derive(Debug, Clone, Deserialize)]
struct PodMetrics {
    metadata: ObjectMeta,
    /// The end of the time it was measured over.
    timestamp: String,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Debug, Clone, Deserialize)]
struct ContainerMetrics {
    name: String,
    usage: Used,
}

#[derive(Debug, Clone, Deserialize)]
struct Used {
    cpu: String,
    memory: String,
}

impl kube::Resource for PodMetrics {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "PodMetrics".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "metrics.k8s.io".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1beta1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl PodMetrics {
    /// What the service's own container used; a sidecar has requests of its own. `None` where it is not measured yet.
    fn sample(&self, service: &ServiceName) -> Option<UsageSample> {
        let named = self.containers.iter().find(|c| c.name == service.as_str());
        let container = named.or_else(|| self.containers.first().filter(|_| self.containers.len() == 1))?;
        Some(UsageSample {
            pod: self.metadata.name.clone()?,
            at: self.timestamp.parse::<jiff::Timestamp>().ok().map(|t| Timestamp::from_millis(t.as_millisecond()))?,
            cpu_nanocores: nanocores(&container.usage.cpu)?,
            memory: container.usage.memory.parse::<ByteSize>().ok()?,
        })
    }
}

/// Processor time in billionths of a core: finer than anything that is configured.
fn nanocores(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metrics(containers: &serde_json::Value) -> PodMetrics {
        serde_json::from_value(json!({
            "metadata": {"name": "api-blue-1", "labels": {}},
            "timestamp": "2026-01-01T00:00:10Z", "window": "15.1s", "containers": containers,
        }))
        .unwrap()
    }

    #[test]
    fn the_units_of_the_metrics_server_are_read() {
        let texts = ["2345678n", "12u", "7m", "2", "0"].map(nanocores);
        assert_eq!(texts, [Some(2_345_678), Some(12_000), Some(7_000_000), Some(2_000_000_000), Some(0)]);
        assert_eq!(["", "n", "1.5", "-1", "1Ki", "99999999999999999999"].map(nanocores), [None; 6]);
    }

    #[test]
    fn what_a_sidecar_uses_is_not_the_services() {
        let of = |name: &str, cpu: &str| json!({"name": name, "usage": {"cpu": cpu, "memory": "3Mi"}});
        let service: ServiceName = "api".parse().unwrap();
        let cpu = |containers: serde_json::Value| metrics(&containers).sample(&service).map(|s| s.cpu_nanocores);
        assert_eq!(cpu(json!([of("proxy", "9m"), of("api", "1m")])), Some(1_000_000));
        // One that is called otherwise, as a chart may have it.
        assert_eq!(cpu(json!([of("server", "2m")])), Some(2_000_000));
        assert_eq!(cpu(json!([of("proxy", "9m"), of("server", "1m")])), None);
        assert_eq!(cpu(json!([])), None);
    }
}
