//! What the pods of a slot answered, by their own metrics: one source per container, and no zero for what is not known.

mod text;

use crate::{cut_over::Site, pods};
use futures_util::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use plimsoll_core::{ServiceName, Slot};
use plimsoll_deploy::{Histogram, Metrics, Probed, SlotTraffic, TargetError, Traffic};
use std::collections::BTreeMap;
use text::{Exposition, Sample, TextError};

/// Why nobody knows what a slot answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetricsError {
    #[error("no pod of it runs")]
    Nobody,
    #[error("pod {pod} cannot be asked for {path}")]
    Ask {
        pod: String,
        path: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("pod {pod} answers {path} with status {status}")]
    Status { pod: String, path: String, status: u16 },
    #[error("pod {pod}")]
    Text {
        pod: String,
        #[source]
        source: TextError,
    },
    #[error("pod {pod} shows no {metric}")]
    Missing { pod: String, metric: String },
    #[error("pod {pod} shows {metric} with {what}")]
    Wrong { pod: String, metric: String, what: String },
}

/// Asks each running pod of a slot. The outer error is of the look.
pub(crate) async fn count(
    site: &Site<'_>,
    service: &ServiceName,
    slot: Slot,
) -> Result<Result<Traffic, MetricsError>, TargetError> {
    let world = site.look().await?;
    let metrics = world.workload(service, slot).map(|w| w.metrics.clone()).unwrap_or_default();
    // What does not run yet has answered nothing.
    let running = world.pods_of(service, slot).into_iter().filter(|pod| pods::is_running(pod));
    let sources = try_join_all(running.map(|pod| one(site, service, &metrics, pod))).await;
    Ok(sources.and_then(|sources| {
        if sources.is_empty() {
            return Err(MetricsError::Nobody);
        }
        Ok(Traffic { sources: sources.into_iter().collect() })
    }))
}

async fn one(
    site: &Site<'_>,
    service: &ServiceName,
    metrics: &Metrics,
    pod: &Pod,
) -> Result<(String, Probed), MetricsError> {
    let (name, path) = (pods::name(pod).to_owned(), metrics.path.clone());
    let answer = match pods::metrics(site.cluster, pod, metrics).await {
        Ok(answer) if answer.status == 200 => answer,
        Ok(answer) => return Err(MetricsError::Status { pod: name, path, status: answer.status }),
        Err(source) => return Err(MetricsError::Ask { pod: name, path, source: Box::new(source) }),
    };
    let text = String::from_utf8_lossy(&answer.body);
    let exposition = text::parse(&text).map_err(|source| MetricsError::Text { pod: name.clone(), source })?;
    let counted = Reading { pod: &name, metrics }.read(&exposition)?;
    // A container that is started again counts from zero, in a pod of the same name.
    Ok((format!("{name} since {}", pods::started(pod, service)), counted))
}

/// What tells one series of a metric from another.
type Labels<'a> = Vec<(&'a str, &'a str)>;

/// Reading one pod's metrics. Pure.
struct Reading<'a> {
    pod: &'a str,
    metrics: &'a Metrics,
}

impl Reading<'_> {
    fn read(&self, shown: &Exposition) -> Result<Probed, MetricsError> {
        let mut counted = Probed::default();
        self.requests(shown, &mut counted)?;
        self.latencies(shown, &mut counted)?;
        Ok(counted)
    }

    fn requests(&self, shown: &Exposition, counted: &mut Probed) -> Result<(), MetricsError> {
        let metric = &self.metrics.requests;
        // Where nothing was counted yet there are no samples, only the declaration; OpenMetrics leaves the ending out.
        let short = metric.strip_suffix("_total").unwrap_or(metric);
        let is_declared = shown.declared.iter().any(|name| name == metric || name == short);
        if !is_declared && !shown.samples.iter().any(|sample| sample.name == *metric) {
            return Err(self.missing(metric));
        }
        for sample in shown.samples.iter().filter(|sample| sample.name == *metric) {
            let count = self.whole(metric, sample.value)?;
            let status = sample.labels.get(&self.metrics.status).map_or("", String::as_str);
            let failed = self.is_failure(metric, status)?;
            if let Some(of) = self.kind(metric, sample, counted)? {
                of.requests += count;
                of.failed += if failed { count } else { 0 };
            }
        }
        Ok(())
    }

    /// Which counters a sample belongs to, if to any. Where routes are not told, the questions of the kubelet, and ours for these
    /// very metrics, would be taken for requests.
    fn kind<'c>(
        &self,
        metric: &str,
        sample: &Sample,
        counted: &'c mut Probed,
    ) -> Result<Option<&'c mut SlotTraffic>, MetricsError> {
        let labels = &self.metrics.route;
        match labels.iter().find_map(|label| sample.labels.get(label)) {
            Some(route) if self.metrics.ignores(route) => return Ok(None),
            None if !labels.is_empty() => {
                let what =
                    format!("no label {}, so that nobody knows which requests machines make", labels.join(" or "));
                return Err(self.wrong(metric, what));
            }
            _ => {}
        }
        let is_probe = sample.labels.get(&self.metrics.probe).is_some_and(|probe| probe == "true");
        Ok(Some(if is_probe { &mut counted.probe } else { &mut counted.real }))
    }

    fn is_failure(&self, metric: &str, status: &str) -> Result<bool, MetricsError> {
        match status.as_bytes() {
            [class @ b'1'..=b'5', b'0'..=b'9', b'0'..=b'9'] | [class @ b'1'..=b'5', b'x', b'x'] => Ok(*class == b'5'),
            _ => Err(self.wrong(metric, format!("the label {}=\"{status}\", which is no status", self.metrics.status))),
        }
    }

    fn latencies(&self, shown: &Exposition, counted: &mut Probed) -> Result<(), MetricsError> {
        let (metric, bucket) = (&self.metrics.duration, format!("{}_bucket", self.metrics.duration));
        let buckets: Vec<&Sample> = shown.samples.iter().filter(|sample| sample.name == bucket).collect();
        let answered = counted.real.requests + counted.probe.requests;
        if buckets.is_empty() && (answered > 0 || !shown.declared.contains(metric)) {
            return Err(self.missing(metric));
        }
        let mut series: BTreeMap<Labels<'_>, Vec<(u64, u64)>> = BTreeMap::new();
        for sample in &buckets {
            let others = sample.labels.iter().filter(|(key, _)| *key != "le");
            let key = others.map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let bound = self.bound(metric, sample)?;
            series.entry(key).or_default().push((bound, self.whole(metric, sample.value)?));
        }
        for (key, cumulative) in series {
            let labels = key.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let sample = Sample { name: bucket.clone(), labels, value: 0.0 };
            let histogram = Histogram::from_cumulative(cumulative).map_err(|reason| self.wrong(metric, reason))?;
            if let Some(of) = self.kind(metric, &sample, counted)? {
                of.latency.add(&histogram);
            }
        }
        Ok(())
    }

    /// The upper bound of a bucket in microseconds.
    fn bound(&self, metric: &str, sample: &Sample) -> Result<u64, MetricsError> {
        let text = sample.labels.get("le").map_or("", String::as_str);
        let is_millis = metric.ends_with("_milliseconds") || metric.ends_with("_ms");
        let unit = if is_millis { 1e3 } else { 1e6 };
        match text::number(text) {
            Some(bound) if bound == f64::INFINITY => Ok(u64::MAX),
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is small and not negative")]
            Some(bound) if (0.0..1e9).contains(&bound) => Ok((bound * unit).round() as u64),
            _ => Err(self.wrong(metric, format!("the bound le=\"{text}\""))),
        }
    }

    fn whole(&self, metric: &str, value: f64) -> Result<u64, MetricsError> {
        // Beyond this not every whole number is one.
        const MOST: f64 = 9_007_199_254_740_992.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole and in bounds")]
        if (0.0..=MOST).contains(&value) && value.fract() == 0.0 {
            return Ok(value as u64);
        }
        Err(self.wrong(metric, format!("the count {value}")))
    }

    fn missing(&self, metric: &str) -> MetricsError {
        MetricsError::Missing { pod: self.pod.to_owned(), metric: metric.to_owned() }
    }

    fn wrong(&self, metric: &str, what: String) -> MetricsError {
        MetricsError::Wrong { pod: self.pod.to_owned(), metric: metric.to_owned(), what }
    }
}

#[cfg(test)]
mod tests;
