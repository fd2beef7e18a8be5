//! Requests as a Prometheus counts them: three queries a reading, each for counters.
//!
//! Every sample must be a whole number, and where requests were counted there must be failures and latencies too: a query
//! that matches nothing tells nothing, least of all that nothing failed.

use crate::{
    meter::Meter,
    target::{Fut, SecretSource, TargetError},
    traffic::{Histogram, Probed, SlotTraffic, Traffic},
};
use plimsoll_core::{EnvironmentName, ServiceName, Slot};
use plimsoll_http::{Client, Method, Url, read_limited};
use serde::Deserialize;
use std::{collections::BTreeMap, time::Duration};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer: a thousand pods with forty buckets each.
const MOST: u64 = 16 << 20;
/// Labels that name a replica, the first that is there.
const REPLICA: [&str; 2] = ["pod", "instance"];

/// What is asked. In the queries `{service}`, `{slot}` and `{environment}` are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queries {
    /// Requests, of a counter.
    pub requests: String,
    /// Those that failed.
    pub failed: String,
    /// Buckets of response times in seconds, by `le`.
    pub latency: String,
}

/// A Prometheus, or what speaks its HTTP API.
pub struct Prometheus {
    client: Client,
    base: String,
    environment: EnvironmentName,
    queries: Queries,
    token: Option<(String, SecretSource)>,
}

/// Why there are no numbers.
#[derive(Debug, thiserror::Error)]
enum PrometheusError {
    #[error("`{0}` is no URL of a Prometheus")]
    Url(String),
    #[error("its token: {0}")]
    Token(String),
    #[error(transparent)]
    Http(#[from] plimsoll_http::HttpError),
    #[error("it answered {status}: {reason}")]
    Refused { status: u16, reason: String },
    #[error("its answer cannot be read")]
    Answer(#[source] serde_json::Error),
    #[error("{query} has no samples")]
    Nothing { query: String },
    #[error(
        "{query} has no sample for {replica}, which `requests` has; `… or 0 * (…)` gives it one while nothing fails"
    )]
    Missing { query: String, replica: String },
    #[error("{query}: {value} is no number of requests")]
    NoCount { query: String, value: String },
    #[error("{query} does not tell replicas apart; `sum by (pod) (…)` does, or `by (instance)`")]
    Sum { query: String },
    #[error("{query}: {reason}")]
    Histogram { query: String, reason: String },
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

impl Series {
    /// Sums over replicas fall when one ends and jump when it is seen again, which new requests are not to be told from.
    fn replica(&self, query: &str) -> Result<String, PrometheusError> {
        let replica = REPLICA.iter().find_map(|label| self.metric.get(*label)).cloned();
        replica.ok_or_else(|| PrometheusError::Sum { query: query.to_owned() })
    }

    fn count(&self, query: &str) -> Result<u64, PrometheusError> {
        let text = &self.value.1;
        let number = text.parse::<f64>().ok().filter(|n| n.fract() == 0.0 && (0.0..9.0e15).contains(n));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number that fits, as was just seen"
        )]
        let count = number.map(|n| n as u64);
        count.ok_or_else(|| PrometheusError::NoCount { query: query.to_owned(), value: text.clone() })
    }

    /// The upper bound of a bucket, in microseconds.
    fn bound(&self, query: &str) -> Result<u64, PrometheusError> {
        let le = self.metric.get("le").map_or("", String::as_str);
        if le == "+Inf" {
            return Ok(u64::MAX);
        }
        let seconds = le.parse::<f64>().ok().filter(|s| (0.0..1.0e9).contains(s));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some seconds, as was just seen")]
        let bound = seconds.map(|s| (s * 1.0e6).round() as u64);
        let reason = || format!("a bucket has the bound `{le}`");
        bound.ok_or_else(|| PrometheusError::Histogram { query: query.to_owned(), reason: reason() })
    }
}

impl Prometheus {
    /// The server at `base`. `token` is the name of a secret and who knows its value.
    pub fn new(
        client: Client,
        base: impl Into<String>,
        environment: EnvironmentName,
        queries: Queries,
        token: Option<(String, SecretSource)>,
    ) -> Self {
        Self { client, base: base.into(), environment, queries, token }
    }

    async fn counted(&self, service: &ServiceName, slot: Slot) -> Result<Traffic, PrometheusError> {
        let fill = |query: &str| {
            let query = query.replace("{service}", service.as_str()).replace("{slot}", slot.as_str());
            query.replace("{environment}", self.environment.as_str())
        };
        let [asked, failing, timing] =
            [&self.queries.requests, &self.queries.failed, &self.queries.latency].map(|query| fill(query));
        let requests = self.by_replica(&asked).await?;
        let failed = self.by_replica(&failing).await?;
        let mut latency = self.histograms(&timing).await?;
        let mut sources = BTreeMap::new();
        for (replica, requests) in requests {
            let missing = |query: &str| PrometheusError::Missing { query: query.to_owned(), replica: replica.clone() };
            let failed = *failed.get(&replica).ok_or_else(|| missing(&failing))?;
            let latency = latency.remove(&replica).ok_or_else(|| missing(&timing))?;
            let real = SlotTraffic { requests, failed, latency, in_flight: 0 };
            sources.insert(replica, Probed { real, ..Probed::default() });
        }
        Ok(Traffic { sources })
    }

    async fn by_replica(&self, query: &str) -> Result<BTreeMap<String, u64>, PrometheusError> {
        let mut counts = BTreeMap::new();
        for series in self.ask(query).await? {
            *counts.entry(series.replica(query)?).or_insert(0) += series.count(query)?;
        }
        Ok(counts)
    }

    async fn histograms(&self, query: &str) -> Result<BTreeMap<String, Histogram>, PrometheusError> {
        let mut buckets: BTreeMap<String, BTreeMap<u64, u64>> = BTreeMap::new();
        for series in self.ask(query).await? {
            let of = buckets.entry(series.replica(query)?).or_default();
            let bucket = of.entry(series.bound(query)?).or_insert(0);
            *bucket += series.count(query)?;
        }
        let one = |(replica, buckets): (String, BTreeMap<u64, u64>)| {
            let histogram = Histogram::from_cumulative(buckets);
            let histogram = histogram.map_err(|reason| PrometheusError::Histogram { query: query.to_owned(), reason });
            Ok((replica, histogram?))
        };
        buckets.into_iter().map(one).collect()
    }

    async fn ask(&self, query: &str) -> Result<Vec<Series>, PrometheusError> {
        let base = self.base.trim_end_matches('/');
        let url = Url::parse_with_params(&format!("{base}/api/v1/query"), [("query", query)]);
        let url = url.map_err(|_| PrometheusError::Url(self.base.clone()))?;
        let mut request = self.client.request(Method::GET, url).timeout(PATIENCE);
        if let Some((name, secrets)) = &self.token {
            request = request.bearer_auth(secrets(name).map_err(PrometheusError::Token)?.expose());
        }
        let response = self.client.send(Client::build(request)?).await?;
        let status = response.status().as_u16();
        let body = read_limited(response, MOST).await?;
        let answer = serde_json::from_slice::<Answer>(&body);
        if status != 200 {
            let reason = answer.map(|a| a.error).unwrap_or_default();
            return Err(PrometheusError::Refused { status, reason });
        }
        let found = answer.map_err(PrometheusError::Answer)?.data.map(|data| data.result).unwrap_or_default();
        if found.is_empty() { Err(PrometheusError::Nothing { query: query.to_owned() }) } else { Ok(found) }
    }
}

impl Meter for Prometheus {
    fn read<'a>(&'a self, service: &'a ServiceName, slot: Slot) -> Fut<'a, Traffic> {
        Box::pin(async move {
            let counted = self.counted(service, slot).await;
            counted.map_err(|error| TargetError::Unreachable {
                what: format!("ask {} for the requests of {service} ({slot})", self.base),
                source: Box::new(error),
            })
        })
    }
}

#[cfg(test)]
mod tests;
