//! Smoke requests: asking a service what its spec declares, and whether the answer is what it should be.
//!
//! Nothing here repeats a request: a failure is a finding. Redirects are not followed; one is a failure unless its very
//! status is what the spec expects.

use crate::{
    ask_error::AskError,
    spec::{ServiceSpec, SmokeRequest},
    target::{Target, TargetError},
};
use plimsoll_core::{ServiceName, chain};
use plimsoll_http::{Client, Method, Url, read_limited};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    time::{Duration, Instant},
};

/// Marks a request as one of ours; targets count these apart from real traffic.
pub const PROBE_HEADER: &str = "x-plimsoll-probe";
/// The longest body that is looked at: smoke answers are small, and a service must not fill our memory.
const MAX_BODY: u64 = 1 << 20;
/// How much of a body an error shows, in characters.
const SHOWN: usize = 300;
/// How long an answer without its own limit may take.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// What a service answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Names in lower case, with their values.
    pub headers: Vec<(String, String)>,
    /// The body as text, other bytes replaced.
    pub body: String,
    /// From the request to the last byte of the answer.
    pub took: Duration,
}

/// An answer that is not what the spec declares, or none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{request}: {reason}{}", shown(self.status, &self.body))]
pub struct SmokeFailure {
    /// Method and path.
    pub request: String,
    /// What was expected and what came.
    pub reason: String,
    /// The answer's status, if there was one.
    pub status: Option<u16>,
    /// The first 300 characters of the answer's body.
    pub body: String,
    /// Whether nobody could be asked, for a reason that does not lie with the service.
    pub away: bool,
}

fn shown(status: Option<u16>, body: &str) -> String {
    let status = status.map(|s| format!(" (status {s})")).unwrap_or_default();
    if body.is_empty() { status } else { format!("{status}; it answered: {body}") }
}

/// Asks one question at a base URL. `Client` does it over HTTP; fakes answer by themselves.
pub trait Prober: Send + Sync {
    /// Sends `request` once to `base` (no trailing slash) and returns whatever comes within `timeout`.
    fn ask<'a>(
        &'a self,
        base: &'a str,
        request: &'a SmokeRequest,
        timeout: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, String>> + Send + 'a>>;

    /// Whether nobody can be asked at the moment, for a reason that does not lie with the services. Looked at after a
    /// question had no answer: then that says nothing of the service.
    fn is_away(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(async { false })
    }
}

/// Over HTTP, through a client that must not follow redirects.
impl Prober for Client {
    fn ask<'a>(
        &'a self,
        base: &'a str,
        request: &'a SmokeRequest,
        timeout: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, String>> + Send + 'a>> {
        Box::pin(async move { over_http(self, base, request, timeout).await.map_err(|e| chain(&e)) })
    }
}

async fn over_http(client: &Client, base: &str, request: &SmokeRequest, timeout: Duration) -> Result<Answer, AskError> {
    let text = format!("{base}{}", request.path);
    let url = Url::parse(&text).map_err(|source| AskError::Url { text, source })?;
    let method: Method = request.method.parse().map_err(|_| AskError::Method { method: request.method.clone() })?;
    let start = Instant::now();
    let sent = Client::build(client.request(method, url).header(PROBE_HEADER, "1").timeout(timeout))?;
    let response = client.send(sent).await?;
    let status = response.status().as_u16();
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers = response.headers().iter().map(|(n, v)| (n.as_str().to_owned(), text(v.as_bytes()))).collect();
    let body = text(&read_limited(response, MAX_BODY).await?);
    Ok(Answer { status, headers, body, took: start.elapsed() })
}

/// Whether `answer` is what `request` declares.
pub fn check(answer: &Answer, request: &SmokeRequest) -> Result<(), SmokeFailure> {
    match mismatch(answer, request) {
        None => Ok(()),
        Some(reason) => Err(SmokeFailure {
            request: format!("{} {}", request.method, request.path),
            reason,
            status: Some(answer.status),
            body: answer.body.chars().take(SHOWN).collect(),
            away: false,
        }),
    }
}

fn mismatch(answer: &Answer, request: &SmokeRequest) -> Option<String> {
    let header =
        |name: &str| answer.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
    if answer.status != request.status {
        let to = header("location").map(|l| format!(", a redirect to {l}")).unwrap_or_default();
        return Some(format!("expected status {}, got {}{to}", request.status, answer.status));
    }
    if let Some(text) = request.contains.as_ref().filter(|text| !answer.body.contains(text.as_str())) {
        return Some(format!("expected a body that contains `{text}`"));
    }
    for (name, expected) in &request.headers {
        match header(name) {
            Some(value) if value == expected => {}
            Some(value) => return Some(format!("expected header {name} to be `{expected}`, got `{value}`")),
            None => return Some(format!("expected header {name} to be `{expected}`, there is none")),
        }
    }
    if !request.json.is_empty() {
        let body: serde_json::Value = match serde_json::from_str(&answer.body) {
            Ok(body) => body,
            Err(error) => return Some(format!("expected JSON: {error}")),
        };
        for (pointer, expected) in &request.json {
            match body.pointer(pointer) {
                Some(value) if value == expected => {}
                Some(value) => return Some(format!("expected {expected} at `{pointer}`, got {value}")),
                None => return Some(format!("expected {expected} at `{pointer}`, there is nothing")),
            }
        }
    }
    let took = u64::try_from(answer.took.as_millis()).unwrap_or(u64::MAX);
    let late = request.max_ms.filter(|max| took > *max);
    late.map(|max| format!("expected an answer within {max} ms, it took {took} ms"))
}

/// Sends one request once, and judges the answer.
pub async fn ask(prober: &dyn Prober, base: &str, request: &SmokeRequest) -> Result<Duration, SmokeFailure> {
    match prober.ask(base, request, ASK_TIMEOUT).await {
        Ok(answer) => check(&answer, request).map(|()| answer.took),
        Err(reason) => Err(SmokeFailure {
            request: format!("{} {}", request.method, request.path),
            reason,
            status: None,
            body: String::new(),
            away: prober.is_away().await,
        }),
    }
}

/// Sends each request once, in order, and stops at the first that fails.
pub async fn run_smoke(prober: &dyn Prober, base: &str, requests: &[SmokeRequest]) -> Result<(), SmokeFailure> {
    for request in requests {
        ask(prober, base, request).await?;
    }
    Ok(())
}

/// Why an environment does not pass its smoke test.
#[derive(Debug, thiserror::Error)]
pub enum SmokeError {
    /// The environment could not be looked at.
    #[error("cannot look at the environment")]
    Target(#[source] TargetError),
    /// Nothing serves, or the service has no URL.
    #[error("{service} does not serve in {environment}")]
    NotLive {
        /// The service.
        service: ServiceName,
        /// The environment's name.
        environment: String,
    },
    /// An answer was not what it should be.
    #[error("{service} at {url}")]
    Failed {
        /// The service.
        service: ServiceName,
        /// Its public URL.
        url: String,
        /// What was wrong.
        #[source]
        failure: SmokeFailure,
    },
}

/// What a smoke test asked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SmokeReport {
    /// For each service, how many requests were answered as declared.
    pub requests: BTreeMap<ServiceName, u64>,
}

/// Sends the smoke requests of `services`, in the given order, to the public URLs where they serve.
pub async fn smoke_environment(
    target: &dyn Target,
    services: &[ServiceSpec],
    prober: &dyn Prober,
) -> Result<SmokeReport, SmokeError> {
    let seen = target.observe().await.map_err(SmokeError::Target)?;
    let mut report = SmokeReport::default();
    for spec in services {
        let view = seen.services.get(&spec.name).filter(|v| v.live.is_some());
        let Some(url) = view.and_then(|v| v.url.clone()) else {
            return Err(SmokeError::NotLive { service: spec.name.clone(), environment: seen.environment.to_string() });
        };
        let outcome = run_smoke(prober, &url, &spec.smoke).await;
        outcome.map_err(|failure| SmokeError::Failed { service: spec.name.clone(), url, failure })?;
        report.requests.insert(spec.name.clone(), spec.smoke.len() as u64);
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::smoke;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.to_owned(), ..Answer::default() }
    }

    fn says(answer: &Answer, request: &SmokeRequest, expected: Option<&str>) {
        match (check(answer, request), expected) {
            (Ok(()), None) => {}
            (Err(failure), Some(text)) => assert!(failure.to_string().contains(text), "{failure}"),
            (got, expected) => panic!("{got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn an_answer_is_compared_with_everything_that_was_declared() {
        let plain = smoke("/version");
        says(&answer(200, ""), &plain, None);
        says(
            &answer(500, "boom"),
            &plain,
            Some("GET /version: expected status 200, got 500 (status 500); it answered: boom"),
        );
        let text = SmokeRequest { contains: Some("ok".to_owned()), ..plain.clone() };
        says(&answer(200, "all ok"), &text, None);
        says(&answer(200, "no"), &text, Some("contains `ok`"));
        let json = SmokeRequest { json: BTreeMap::from([("/a/0".to_owned(), 1.into())]), ..plain.clone() };
        says(&answer(200, r#"{"a":[1]}"#), &json, None);
        says(&answer(200, r#"{"a":[2]}"#), &json, Some("expected 1 at `/a/0`, got 2"));
        says(&answer(200, "{}"), &json, Some("there is nothing"));
        says(&answer(200, "<html>"), &json, Some("expected JSON"));
        let headers = SmokeRequest { headers: BTreeMap::from([("X-A".to_owned(), "1".to_owned())]), ..plain.clone() };
        let with = Answer { headers: vec![("x-a".to_owned(), "1".to_owned())], ..answer(200, "") };
        says(&with, &headers, None);
        says(&answer(200, ""), &headers, Some("expected header X-A to be `1`, there is none"));
        let quick = SmokeRequest { max_ms: Some(5), ..plain };
        let slow = Answer { took: Duration::from_millis(6), ..answer(200, "") };
        says(&slow, &quick, Some("within 5 ms, it took 6 ms"));
    }

    #[test]
    fn a_redirect_to_a_login_is_a_failure_that_says_where_it_leads() {
        let login = Answer { headers: vec![("location".to_owned(), "/login".to_owned())], ..answer(302, "") };
        says(&login, &smoke("/"), Some("got 302, a redirect to /login"));
    }

    #[test]
    fn a_long_body_is_cut_at_300_characters() {
        let failure = check(&answer(500, &"ä".repeat(1000)), &smoke("/")).unwrap_err();
        assert_eq!(failure.body.chars().count(), 300);
    }

    /// A server on loopback that gives every request this answer.
    async fn server(answer: &'static str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        // Ends with the test's runtime.
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 4096];
                let read = stream.read(&mut head).await.unwrap_or(0);
                let marked = String::from_utf8_lossy(&head[..read]).contains("x-plimsoll-probe: 1");
                assert!(marked, "probes are marked");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        base
    }

    fn client() -> Client {
        let options = plimsoll_http::ClientOptions { follow_redirects: false, ..Default::default() };
        Client::new(&options).unwrap()
    }

    const FINE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-kind: small\r\nconnection: close\r\n\r\nok";
    const LOGIN: &str = "HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn over_http_a_good_answer_passes_and_a_redirect_is_not_followed() {
        let (client, fine, login) = (client(), server(FINE).await, server(LOGIN).await);
        let request = SmokeRequest {
            contains: Some("ok".to_owned()),
            headers: BTreeMap::from([("x-kind".to_owned(), "small".to_owned())]),
            ..smoke("/")
        };
        run_smoke(&client, &fine, &[request]).await.unwrap();
        let failure = run_smoke(&client, &login, &[smoke("/")]).await.unwrap_err();
        assert!(failure.to_string().contains("a redirect to /login"), "{failure}");
    }

    #[tokio::test]
    async fn where_nobody_listens_the_failure_names_the_request() {
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let failure = run_smoke(&client(), &format!("http://{gone}"), &[smoke("/x")]).await.unwrap_err();
        assert_eq!((failure.request.as_str(), failure.status), ("GET /x", None));
        assert!(failure.reason.contains("cannot connect"), "{failure}");
    }

    #[tokio::test]
    async fn a_load_counts_what_failed_and_tells_the_first_five() {
        let load = crate::load::ProbeLoad::new(1000);
        let base = server(LOGIN).await;
        load.aim(vec![crate::load::ProbeTarget { service: "gateway".parse().unwrap(), base, request: smoke("/") }]);
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let client = client();
        let enough = async {
            let patience = Instant::now();
            while load.report().failed < 8 {
                assert!(patience.elapsed() < Duration::from_secs(20), "{:?}", load.report());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stop.send_replace(true);
        };
        tokio::join!(load.run(&client, stopped), enough);
        let report = load.report();
        assert_eq!((report.sent, report.first_failures.len()), (report.failed, 5));
        assert!(report.first_failures[0].starts_with("gateway: GET /"), "{report:?}");
    }
}
