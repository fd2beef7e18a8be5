//! Where a service tells what it answered: names of its metrics in the text format that Prometheus reads.

use serde::{Deserialize, Serialize};

/// `[services.NAME.metrics]`. What is not said is as common practice has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Metrics {
    /// Path of the metrics of one replica; default `/metrics`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The port they are at; default: the one requests go to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The counter of answers; default `http_requests_total`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<String>,
    /// Its label with the status, such as `503` or `5xx`; default `status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The histogram of the time to an answer, in milliseconds if its name ends with `_milliseconds` or `_ms`, else in
    /// seconds; default `http_request_duration_seconds`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Labels of both with the route or path of a request, the first that is there counts; default `route`, `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<Vec<String>>,
    /// Paths of requests that do not count, where one that ends with `/` stands for all below it; default those of usual
    /// health questions, of metrics and of Plimsoll. The service's own health and metrics paths never count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore: Option<Vec<String>>,
    /// The label of both that is `true` for requests with the header `x-plimsoll-probe`; default `probe`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<String>,
}
