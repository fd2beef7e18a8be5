//! Metrics of one process, in the text format that Prometheus reads, on `/metrics`.
//!
//! Label values come from routes, known methods and the configuration only, so that callers cannot make it grow.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Of what [`Metrics::render`] returns.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Upper bounds of the duration buckets, seconds: narrow enough, where answers usually lie, to see a 99th percentile move by
/// ten milliseconds.
const BUCKETS: [f64; 20] = [
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.045, 0.05, 0.06, 0.07, 0.08, 0.1, 0.5,
    1.0, 5.0,
];
/// Requests with this header were sent by whoever deploys, to see whether the service works.
const PROBE: &str = "x-plimsoll-probe";

/// A route and the method it was asked with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    method: String,
    path: String,
    probe: bool,
}

/// A route and how it answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: String,
    path: String,
    probe: bool,
    status: u16,
}

/// A replica of another service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReplicaLabels {
    pub(crate) service: String,
    pub(crate) url: String,
    pub(crate) zone: String,
}

/// The metrics of one process; clones share them.
#[derive(Clone)]
pub(crate) struct Metrics(Arc<All>);

struct All {
    registry: Mutex<Registry>,
    requests: Family<Answered, Counter>,
    durations: Family<Route, Histogram>,
    in_flight: Gauge,
    replicas: Family<ReplicaLabels, Gauge>,
    circuits: Family<ReplicaLabels, Gauge>,
    counters: Mutex<BTreeMap<&'static str, Counter>>,
    gauges: Mutex<BTreeMap<&'static str, Gauge>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let durations = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        let (requests, in_flight, replicas, circuits) =
            (Family::default(), Gauge::default(), Family::default(), Family::default());
        registry.register("http_requests", "Answers by route and status", requests.clone());
        registry.register("http_request_duration_seconds", "Until an answer begins, by route", durations.clone());
        registry.register("http_requests_in_flight", "Requests whose answer has not begun", in_flight.clone());
        registry.register("kairos_replica_healthy", "1 unless its heartbeats have ejected it", replicas.clone());
        registry.register("kairos_circuit_state", "0 closed, 1 half-open, 2 open", circuits.clone());
        let (counters, gauges) = (Mutex::default(), Mutex::default());
        let registry = Mutex::new(registry);
        Self(Arc::new(All { registry, requests, durations, in_flight, replicas, circuits, counters, gauges }))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Metrics are valid between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request under way; also an abandoned one ends.
struct InFlight(Metrics);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.in_flight.dec();
    }
}

impl Metrics {
    /// Adds `amount` to a counter; with 0 the counter only begins to be shown. Its name ends with `_total`.
    pub(crate) fn add(&self, name: &'static str, amount: u64) {
        let mut counters = lock(&self.0.counters);
        let counter = counters.entry(name).or_insert_with(|| {
            let counter = Counter::default();
            // The format adds the ending.
            let short = name.trim_end_matches("_total");
            lock(&self.0.registry).register(short, "Since the start of the process", counter.clone());
            counter
        });
        counter.inc_by(amount);
    }

    /// Sets a gauge.
    pub(crate) fn set(&self, name: &'static str, value: i64) {
        let mut gauges = lock(&self.0.gauges);
        let gauge = gauges.entry(name).or_insert_with(|| {
            let gauge = Gauge::default();
            lock(&self.0.registry).register(name, "Now", gauge.clone());
            gauge
        });
        gauge.set(value);
    }

    /// Sets what is known of a replica.
    pub(crate) fn set_replica(&self, replica: &ReplicaLabels, healthy: bool, circuit: u8) {
        self.0.replicas.get_or_create(replica).set(i64::from(healthy));
        self.0.circuits.get_or_create(replica).set(i64::from(circuit));
    }

    /// Requests whose answer has not begun.
    pub(crate) fn in_flight(&self) -> u64 {
        u64::try_from(self.0.in_flight.get()).unwrap_or(0)
    }

    fn begin(&self) -> InFlight {
        self.0.in_flight.inc();
        InFlight(self.clone())
    }

    fn request(&self, method: &Method, path: &str, probe: bool, status: u16, took: Duration) {
        let method = match *method {
            Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::DELETE => method.as_str(),
            _ => "other",
        };
        let (method, path) = (method.to_owned(), path.to_owned());
        let route = Route { method, path, probe };
        let Route { method, path, .. } = route.clone();
        self.0.requests.get_or_create(&Answered { method, path, probe, status }).inc();
        self.0.durations.get_or_create(&route).observe(took.as_secs_f64());
    }

    /// All of them, as text.
    pub(crate) fn render(&self) -> String {
        let mut all = String::new();
        text::encode(&mut all, &lock(&self.0.registry)).expect("a string takes all that is written");
        all
    }
}

/// Counts and times each request by the route that took it.
pub(crate) async fn measure(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let _in_flight = metrics.begin();
    let method = request.method().clone();
    let probe = request.headers().contains_key(PROBE);
    let path = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    metrics.request(&method, &path, probe, response.status().as_u16(), begun.elapsed());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_shown_with_cumulative_buckets() {
        let metrics = Metrics::default();
        metrics.request(&Method::GET, "/health", false, 200, Duration::from_millis(2));
        metrics.request(&Method::GET, "/health", false, 200, Duration::from_mins(1));
        metrics.request(&Method::GET, "/health", true, 200, Duration::ZERO);
        metrics.request(&Method::from_bytes(b"BREW").expect("a token"), "other", false, 404, Duration::ZERO);
        metrics.add("kairos_ticks_total", 3);
        metrics.set("kairos_active", 1);
        let text = metrics.render();
        for line in [
            "http_requests_total{method=\"GET\",path=\"/health\",probe=\"false\",status=\"200\"} 2",
            "http_requests_total{method=\"other\",path=\"other\",probe=\"false\",status=\"404\"} 1",
            "http_request_duration_seconds_bucket{le=\"0.001\",method=\"GET\",path=\"/health\",probe=\"false\"} 0",
            "http_request_duration_seconds_bucket{le=\"0.0025\",method=\"GET\",path=\"/health\",probe=\"false\"} 1",
            "http_request_duration_seconds_bucket{le=\"+Inf\",method=\"GET\",path=\"/health\",probe=\"false\"} 2",
            "http_request_duration_seconds_count{method=\"GET\",path=\"/health\",probe=\"false\"} 2",
            "http_requests_total{method=\"GET\",path=\"/health\",probe=\"true\",status=\"200\"} 1",
            "http_requests_in_flight 0",
            "kairos_ticks_total 3",
            "kairos_active 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
        }
        assert_eq!(text.lines().last(), Some("# EOF"));
    }

    #[test]
    fn what_a_configuration_says_cannot_break_out_of_its_label() {
        let metrics = Metrics::default();
        let url = "http://h/\"} 1\nforged 1".to_owned();
        metrics.set_replica(&ReplicaLabels { service: "s".to_owned(), url, zone: String::new() }, true, 0);
        assert!(!metrics.render().lines().any(|line| line.starts_with("forged")), "{}", metrics.render());
    }
}
