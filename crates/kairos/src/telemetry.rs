//! Logs and metrics: one line per event on standard output, Prometheus text on `/metrics`.
//!
//! A registry of its own, as all it needs is counters and one histogram; label values come from routes and known
//! methods only, so that callers cannot make it grow.

#![expect(clippy::disallowed_methods, reason = "logs go to standard output")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::config::LogFormat;

/// Upper bounds of the duration buckets, seconds.
const BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

type SetLevel = Box<dyn Fn(&str) + Send + Sync>;

/// Sets the level of the lines that are written, once there are some.
static LEVEL: OnceLock<SetLevel> = OnceLock::new();

/// Sends the process's log lines of `level` and above to standard output. The first call in a process counts.
pub(crate) fn init(format: LogFormat, level: &str) {
    let lines = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(level)).with_writer(std::io::stdout);
    // A second subscriber would be refused, and so would its level; the first ones then go on as they are.
    match format {
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
            let lines = lines.with_filter_reloading();
            let filter = lines.reload_handle();
            let _ = LEVEL.set(Box::new(move |level| _ = filter.reload(EnvFilter::new(level))));
            let _ = lines.try_init();
        }
        LogFormat::Text => {
            let lines = lines.with_ansi(false).with_filter_reloading();
            let filter = lines.reload_handle();
            let _ = LEVEL.set(Box::new(move |level| _ = filter.reload(EnvFilter::new(level))));
            let _ = lines.try_init();
        }
    }
}

/// Writes lines of `level` and above from now on.
pub(crate) fn set_level(level: &str) {
    if let Some(set) = LEVEL.get() {
        set(level);
    }
}

/// The wall clock in the form of the log lines (RFC 3339, UTC).
pub(crate) fn now() -> String {
    let mut text = String::new();
    SystemTime.format_time(&mut Writer::new(&mut text)).expect("a string takes all that is written");
    text
}

/// Counters of one process; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics(Arc<Mutex<Registry>>);

#[derive(Debug, Default)]
struct Registry {
    requests: BTreeMap<(String, String, u16), u64>,
    durations: BTreeMap<(String, String), Histogram>,
    counters: BTreeMap<&'static str, u64>,
    in_flight: u64,
}

/// One request under way; also an abandoned one ends.
struct InFlight(Metrics);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.lock().in_flight -= 1;
    }
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

impl Metrics {
    /// Adds `amount` to a counter; with 0 the counter only begins to be shown.
    pub(crate) fn add(&self, counter: &'static str, amount: u64) {
        *self.lock().counters.entry(counter).or_default() += amount;
    }

    /// Requests whose answer has not begun.
    pub(crate) fn in_flight(&self) -> u64 {
        self.lock().in_flight
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Registry> {
        // Counters are valid between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> InFlight {
        self.lock().in_flight += 1;
        InFlight(self.clone())
    }

    fn request(&self, method: &Method, path: &str, status: u16, took: Duration) {
        let method = match *method {
            Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::DELETE => method.as_str(),
            _ => "other",
        };
        let mut registry = self.lock();
        *registry.requests.entry((method.to_owned(), path.to_owned(), status)).or_default() += 1;
        let histogram = registry.durations.entry((method.to_owned(), path.to_owned())).or_default();
        let seconds = took.as_secs_f64();
        for (bucket, bound) in histogram.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= bound);
        }
        histogram.count += 1;
        histogram.sum += seconds;
    }

    /// The Prometheus text format, version 0.0.4.
    pub(crate) fn render(&self) -> String {
        let registry = self.lock();
        let mut text = String::from("# TYPE http_requests_total counter\n");
        render_requests(&registry, &mut text).expect("a string takes all that is written");
        text
    }
}

fn render_requests(registry: &Registry, text: &mut String) -> std::fmt::Result {
    for ((method, path, status), count) in &registry.requests {
        writeln!(text, "http_requests_total{{method=\"{method}\",path=\"{path}\",status=\"{status}\"}} {count}")?;
    }
    let name = "http_request_duration_seconds";
    writeln!(text, "# TYPE {name} histogram")?;
    for ((method, path), histogram) in &registry.durations {
        let labels = format!("method=\"{method}\",path=\"{path}\"");
        for (bound, count) in BUCKETS.iter().zip(histogram.buckets) {
            writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}")?;
        }
        writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", histogram.count)?;
        writeln!(text, "{name}_sum{{{labels}}} {}", histogram.sum)?;
        writeln!(text, "{name}_count{{{labels}}} {}", histogram.count)?;
    }
    writeln!(text, "# TYPE http_requests_in_flight gauge\nhttp_requests_in_flight {}", registry.in_flight)?;
    for (counter, count) in &registry.counters {
        writeln!(text, "# TYPE {counter} counter\n{counter} {count}")?;
    }
    Ok(())
}

/// Counts and times each request by the route that took it.
pub(crate) async fn measure(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let _in_flight = metrics.begin();
    let method = request.method().clone();
    let path = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    metrics.request(&method, &path, response.status().as_u16(), begun.elapsed());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_shown_with_cumulative_buckets() {
        let metrics = Metrics::default();
        metrics.request(&Method::GET, "/health", 200, Duration::from_millis(2));
        metrics.request(&Method::GET, "/health", 200, Duration::from_mins(1));
        metrics.request(&Method::from_bytes(b"BREW").expect("a token"), "other", 404, Duration::ZERO);
        metrics.add("kairos_ticks_total", 3);
        let text = metrics.render();
        for line in [
            "http_requests_total{method=\"GET\",path=\"/health\",status=\"200\"} 2",
            "http_requests_total{method=\"other\",path=\"other\",status=\"404\"} 1",
            "http_request_duration_seconds_bucket{method=\"GET\",path=\"/health\",le=\"0.001\"} 0",
            "http_request_duration_seconds_bucket{method=\"GET\",path=\"/health\",le=\"0.0025\"} 1",
            "http_request_duration_seconds_bucket{method=\"GET\",path=\"/health\",le=\"+Inf\"} 2",
            "kairos_ticks_total 3",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
        }
    }
}
