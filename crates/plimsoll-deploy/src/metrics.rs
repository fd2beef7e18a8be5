//! Where the replicas of a service tell what they answered, for targets that do not see the requests themselves. Pure.

use serde::{Deserialize, Serialize};

/// Names of a service's metrics, in the text format that Prometheus reads. What is not said is as common practice has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// Path of the metrics of one replica.
    pub path: String,
    /// The port they are at; `None`: the one requests go to.
    pub port: Option<u16>,
    /// The counter of answers.
    pub requests: String,
    /// Its label with the status, such as `503` or `5xx`.
    pub status: String,
    /// The histogram of the time to an answer: in milliseconds if its name ends with `_milliseconds` or `_ms`, else in
    /// seconds.
    pub duration: String,
    /// Labels of both with the route or path of a request; the first that is there counts.
    pub route: Vec<String>,
    /// Paths of requests that nobody sent on purpose; one that ends with `/` stands for all below it.
    pub ignore: Vec<String>,
    /// The label of both that is `true` for requests with the header `x-plimsoll-probe`.
    pub probe: String,
}

impl Default for Metrics {
    fn default() -> Self {
        let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect();
        Self {
            path: "/metrics".to_owned(),
            port: None,
            requests: "http_requests_total".to_owned(),
            status: "status".to_owned(),
            duration: "http_request_duration_seconds".to_owned(),
            route: texts(&["route", "path"]),
            ignore: texts(&["/health", "/healthz", "/livez", "/ready", "/readyz", "/metrics", "/_plimsoll/"]),
            probe: "probe".to_owned(),
        }
    }
}

impl Metrics {
    /// Whether requests to this path do not count.
    pub fn ignores(&self, path: &str) -> bool {
        let is = |one: &String| one == path || (one.ends_with('/') && path.starts_with(one.as_str()));
        path == self.path || self.ignore.iter().any(is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_of_machines_do_not_count() {
        let metrics = Metrics { path: "/internal/metrics".to_owned(), ..Metrics::default() };
        for path in ["/ready", "/healthz", "/_plimsoll/lame-duck", "/internal/metrics"] {
            assert!(metrics.ignores(path), "{path}");
        }
        for path in ["/", "/orders/{id}", "/readiness", "/health/of/patients"] {
            assert!(!metrics.ignores(path), "{path}");
        }
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        let said: Metrics = serde_json::from_str(r#"{"requests": "answers_total"}"#).unwrap();
        assert_eq!(said, Metrics { requests: "answers_total".to_owned(), ..Metrics::default() });
    }
}
