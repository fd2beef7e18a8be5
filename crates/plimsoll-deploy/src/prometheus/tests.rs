//! Answers as Prometheus gives them, from a server on loopback.

use super::*;
use plimsoll_core::Secret;
use plimsoll_http::ClientOptions;
use std::sync::Arc;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
};

/// Answers each query, by the first word in it, with series of labels and values.
async fn server(answers: &'static [(&'static str, &'static str)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let (mut first, mut line, mut authorized) = (String::new(), String::new(), false);
                stream.read_line(&mut first).await.unwrap();
                while stream.read_line(&mut line).await.unwrap() > 2 {
                    authorized |= line.to_lowercase().starts_with("authorization: bearer s3cret");
                    line.clear();
                }
                let found = answers.iter().find(|(word, _)| first.contains(word)).map_or("", |(_, series)| series);
                let (status, body) = if authorized {
                    (200, format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{found}]}}}}"#))
                } else {
                    (401, r#"{"status":"error","error":"who are you?"}"#.to_owned())
                };
                let head =
                    format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            });
        }
    });
    format!("http://{address}/")
}

async fn read(answers: &'static [(&'static str, &'static str)], token: &'static str) -> Result<Traffic, String> {
    let queries = Queries {
        requests: "requests{slot=\"{slot}\"}".to_owned(),
        failed: "failed{slot=\"{slot}\"}".to_owned(),
        latency: "latency{slot=\"{slot}\"}".to_owned(),
    };
    let secrets: SecretSource = Arc::new(move |_| Ok(Secret::new(token)));
    let client = Client::new(&ClientOptions::default()).unwrap();
    let environment = "production".parse().unwrap();
    let token = Some(("env:TOKEN".to_owned(), secrets));
    let meter = Prometheus::new(client, server(answers).await, environment, queries, token);
    let read = meter.read(&"gateway".parse().unwrap(), Slot::Green).await;
    read.map_err(|e| plimsoll_core::chain(&e))
}

const LATENCY: &str =
    r#"{"metric":{"pod":"a","le":"0.005"},"value":[1,"90"]},{"metric":{"pod":"a","le":"+Inf"},"value":[1,"100"]}"#;

#[tokio::test]
async fn counters_are_read_by_replica() {
    let requests = r#"{"metric":{"pod":"a"},"value":[1700000000.1,"100"]}"#;
    let failed = r#"{"metric":{"pod":"a"},"value":[1700000000.1,"3"]}"#;
    let answers: &'static [(&str, &str)] =
        Box::leak(Box::new([("requests", requests), ("failed", failed), ("latency", LATENCY)]));
    let traffic = read(answers, "s3cret").await.unwrap();
    let real = &traffic.sources["a"].real;
    assert_eq!((real.requests, real.failed), (100, 3));
    assert_eq!(real.latency.counts, BTreeMap::from([(5000, 90), (u64::MAX, 10)]));
    assert!(read(answers, "wrong").await.unwrap_err().contains("it answered 401: who are you?"));
}

#[tokio::test]
async fn what_is_missing_or_no_number_is_an_error_that_names_the_query() {
    const REQUESTS: &str = r#"{"metric":{"pod":"a"},"value":[1,"100"]}"#;
    const FAILED: &str = r#"{"metric":{"pod":"a"},"value":[1,"0"]}"#;
    const OTHER: &str = r#"{"metric":{"pod":"b"},"value":[1,"0"]}"#;
    const NAN: &str = r#"{"metric":{"pod":"a"},"value":[1,"NaN"]}"#;
    const RATE: &str = r#"{"metric":{"pod":"a"},"value":[1,"0.25"]}"#;
    const OPEN: &str = r#"{"metric":{"pod":"a","le":"0.005"},"value":[1,"90"]}"#;
    const FALLING: &str =
        r#"{"metric":{"pod":"a","le":"0.005"},"value":[1,"90"]},{"metric":{"pod":"a","le":"+Inf"},"value":[1,"80"]}"#;
    const SUM: &str = r#"{"metric":{},"value":[1,"100"]}"#;
    let cases: [(&'static [(&str, &str)], &str); 9] = [
        (&[("requests", SUM)], "does not tell replicas apart"),
        (&[], "requests{slot=\"green\"} has no samples"),
        (&[("requests", REQUESTS)], "failed{slot=\"green\"} has no samples"),
        (&[("requests", REQUESTS), ("failed", OTHER), ("latency", LATENCY)], "no sample for a"),
        (&[("requests", REQUESTS), ("failed", NAN), ("latency", LATENCY)], "NaN is no number of requests"),
        (&[("requests", RATE), ("failed", FAILED), ("latency", LATENCY)], "0.25 is no number of requests"),
        (&[("requests", REQUESTS), ("failed", FAILED)], "latency{slot=\"green\"} has no samples"),
        (&[("requests", REQUESTS), ("failed", FAILED), ("latency", OPEN)], "no bucket le"),
        (&[("requests", REQUESTS), ("failed", FAILED), ("latency", FALLING)], "holds less"),
    ];
    for (answers, expected) in cases {
        let error = read(answers, "s3cret").await.unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
