//! `[environments.NAME.canary]`: how a release is tried on a share of the requests before it gets them all.

use super::{Period, SecretSource};
use crate::ServiceName;
use serde::{Deserialize, Serialize};

/// `canary = { … }` of an environment whose `strategy.kind` is `canary`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CanarySettings {
    /// The shares of the requests, in per cent, growing, from 1 to 99; default 5, 25, 50.
    pub steps: Vec<u8>,
    /// Which services get a share; empty: each that changes and takes requests. Exclusive ones never do.
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub services: Vec<ServiceName>,
    /// How long each step takes at least; default `1m`.
    pub step: Period,
    /// How long all steps may take together, waiting for requests included, up to `24h`; then the release gives its share
    /// back. Default `1h`.
    pub hold: Period,
    /// By how many percentage points more of its requests may fail than where it serves; default 0.5.
    pub max_error_diff: f64,
    /// By how much its 99th percentile of response times may be longer than where it serves; default `10ms`.
    pub max_p99_diff: Period,
    /// How many times the share of failed requests where it serves is too much, above 1; default 2.
    pub abort_error_ratio: f64,
    /// Which share of failed requests is too much in any case, in per cent; default 5.
    pub abort_error_pct: f64,
    /// How often the verdict may be wrong, above 0, at most 0.5; default 0.05.
    pub error_rate: f64,
    /// Real requests that each step needs, from 1; default 100.
    pub min_requests: u64,
    /// Whether probes count as real requests; default false.
    pub count_probes: bool,
    /// Where the numbers come from, unless the target counts them: the proxy, or the pods' metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusSettings>,
}

/// `prometheus = { … }` of a canary. In the queries `{service}`, `{slot}` and `{environment}` are replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PrometheusSettings {
    /// Its base URL, such as `http://prometheus.monitoring:9090`.
    pub url: String,
    /// A query for the number of requests to a slot since some moment: of a counter, `sum by (pod)` where there are several.
    pub requests: String,
    /// The same for those that failed. It must have a sample where the first has one, also while nothing fails.
    pub failed: String,
    /// The same for the buckets of a histogram of response times in seconds, by `le` too.
    pub latency: String,
    /// The secret that is its bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretSource>,
}

impl Default for CanarySettings {
    fn default() -> Self {
        Self {
            steps: vec![5, 25, 50],
            services: Vec::new(),
            step: Period::from_secs(60),
            hold: Period::from_secs(3600),
            max_error_diff: 0.5,
            max_p99_diff: Period::from_millis(10),
            abort_error_ratio: 2.0,
            abort_error_pct: 5.0,
            error_rate: 0.05,
            min_requests: 100,
            count_probes: false,
            prometheus: None,
        }
    }
}
