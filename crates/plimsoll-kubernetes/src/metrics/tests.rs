//! From what a pod shows to counts, and what is refused.

use super::*;

const DECLARED: &str = "# TYPE http_requests counter\n# TYPE http_request_duration_seconds histogram\n";

fn read(text: &str) -> Result<Probed, MetricsError> {
    Reading { pod: "web-0", metrics: &Metrics::default() }.read(&text::parse(text).unwrap())
}

fn fails(text: &str, words: &str) {
    let error = read(text).expect_err("it cannot be judged by").to_string();
    assert_eq!(error, format!("pod web-0 shows {words}"), "{text}");
}

/// Buckets of one series, with its counter.
fn series(labels: &str, status: u16, up_to: [u64; 3]) -> String {
    let [fast, slow, all] = up_to;
    format!(
        "http_requests_total{{{labels},status=\"{status}\"}} {all}\n\
         http_request_duration_seconds_bucket{{{labels},le=\"0.005\"}} {fast}\n\
         http_request_duration_seconds_bucket{{{labels},le=\"0.01\"}} {slow}\n\
         http_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {all}\n\
         http_request_duration_seconds_count{{{labels}}} {all}\n\
         http_request_duration_seconds_sum{{{labels}}} 1.5\n"
    )
}

#[test]
fn real_requests_probes_and_questions_of_machines_are_told_apart() {
    let text = [
        series("path=\"/orders/{id}\",probe=\"false\"", 200, [7, 9, 10]),
        series("path=\"/orders\"", 503, [0, 2, 2]),
        series("path=\"/orders\",probe=\"true\"", 200, [4, 4, 4]),
        series("path=\"/ready\"", 503, [900, 900, 900]),
        series("path=\"/_plimsoll/lame-duck\"", 200, [5, 5, 5]),
        "# EOF\n".to_owned(),
    ];
    let counted = read(&text.concat()).unwrap();
    assert_eq!((counted.real.requests, counted.real.failed), (12, 2));
    assert_eq!((counted.probe.requests, counted.probe.failed), (4, 0));
    assert_eq!(counted.real.latency.counts, [(5000, 7), (10_000, 4), (u64::MAX, 1)].into());
    assert_eq!(counted.probe.latency.count(), 4);
}

#[test]
fn what_is_declared_and_has_no_samples_has_answered_nothing() {
    let counted = read(DECLARED).unwrap();
    assert_eq!((counted.real.requests, counted.real.latency.count()), (0, 0));
}

#[test]
fn what_is_not_known_is_an_error_and_not_zero() {
    fails("up 1\n", "no http_requests_total");
    fails("http_requests_total{path=\"/\",status=\"200\"} 1\n", "no http_request_duration_seconds");
    let one = format!("{DECLARED}http_requests_total{{path=\"/\",status=\"200\"}} 1\n");
    fails(&one, "no http_request_duration_seconds");
    fails(
        "http_requests_total{status=\"200\"} 1\n",
        "http_requests_total with no label route or path, so that nobody knows which requests machines make",
    );
    let count = |value: &str| format!("{DECLARED}http_requests_total{{status=\"200\"}} {value}\n");
    fails(&count("NaN"), "http_requests_total with the count NaN");
    fails(&count("-1"), "http_requests_total with the count -1");
    fails(&count("1.5"), "http_requests_total with the count 1.5");
    fails(&count("+Inf"), "http_requests_total with the count inf");
    fails(&count("1e300"), &format!("http_requests_total with the count {}", 1e300));
    let status = |text: &str| format!("{DECLARED}http_requests_total{{{text}}} 1\n");
    fails(&status("code=\"200\""), "http_requests_total with the label status=\"\", which is no status");
    fails(&status("status=\"fine\""), "http_requests_total with the label status=\"fine\", which is no status");
}

#[test]
fn a_histogram_that_contradicts_itself_is_an_error() {
    let bucket = |le: &str, count: &str| format!("http_request_duration_seconds_bucket{{le=\"{le}\"}} {count}\n");
    let with = |buckets: &[String]| format!("{DECLARED}{}", buckets.concat());
    fails(&with(&[bucket("0.1", "1")]), "http_request_duration_seconds with no bucket le=\"+Inf\"");
    fails(
        &with(&[bucket("0.1", "2"), bucket("+Inf", "1")]),
        "http_request_duration_seconds with a bucket that holds less than the one in it",
    );
    fails(&with(&[bucket("fast", "2")]), "http_request_duration_seconds with the bound le=\"fast\"");
    fails(&with(&[bucket("0.1", "NaN")]), "http_request_duration_seconds with the count NaN");
}

#[test]
fn names_and_unit_are_those_that_were_declared() {
    let metrics = Metrics {
        requests: "answers".to_owned(),
        status: "class".to_owned(),
        duration: "answer_ms".to_owned(),
        route: vec!["handler".to_owned()],
        ignore: vec!["/up".to_owned()],
        probe: "synthetic".to_owned(),
        ..Metrics::default()
    };
    let text = "answers{class=\"5xx\",handler=\"/\"} 2\nanswers{class=\"2xx\",handler=\"/up\"} 9\n\
                answers{class=\"2xx\",handler=\"/\",synthetic=\"true\"} 3\n\
                answer_ms_bucket{handler=\"/\",le=\"10\"} 2\nanswer_ms_bucket{handler=\"/\",le=\"+Inf\"} 2\n";
    let counted = Reading { pod: "web-0", metrics: &metrics }.read(&text::parse(text).unwrap()).unwrap();
    assert_eq!((counted.real.requests, counted.real.failed, counted.probe.requests), (2, 2, 3));
    assert_eq!(counted.real.latency.counts, [(10_000, 2), (u64::MAX, 0)].into());
}
