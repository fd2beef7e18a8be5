//! Asks services how they are, from outside: for health checks in images that have nothing else to ask with.

use std::time::Duration;

use axum::http::{StatusCode, Uri};

use crate::client::{Call, Client};
use crate::server::chain;

/// For all of one question: shorter than any health check waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where a question goes: plain HTTP, with a host.
#[derive(Debug, Clone)]
pub(crate) struct Url(String);

/// Why something is no [`Url`].
#[derive(Debug, thiserror::Error)]
#[error("no URL such as http://127.0.0.1:8080/health")]
pub(crate) struct NoUrl;

impl Url {
    /// Reads one.
    pub(crate) fn parse(text: &str) -> Result<Self, NoUrl> {
        let uri: Uri = text.parse().map_err(|_| NoUrl)?;
        let usable = uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty());
        if usable { Ok(Self(text.to_owned())) } else { Err(NoUrl) }
    }
}

/// Why not all is well: one line for each URL that is not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unhealthy {
    #[error("{}", .0.join("\n"))]
    Answers(Vec<String>),
    #[error("cannot ask")]
    System(#[from] std::io::Error),
}

/// Asks each URL once, at the same time as the others.
pub(crate) fn ask(urls: &[Url]) -> Result<(), Unhealthy> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = Client::new();
    let reasons = runtime.block_on(futures_util::future::join_all(urls.iter().map(|url| reason(&client, url))));
    // A name that is still being looked up would hold it up beyond its time.
    runtime.shutdown_background();
    let reasons: Vec<String> = reasons.into_iter().flatten().collect();
    if reasons.is_empty() { Ok(()) } else { Err(Unhealthy::Answers(reasons)) }
}

/// Why a URL is not well; none if it is.
async fn reason(client: &Client, Url(url): &Url) -> Option<String> {
    match tokio::time::timeout(PATIENCE, client.send(url, &Call::get(""))).await {
        Ok(Ok(answer)) if answer.status == StatusCode::OK => None,
        Ok(Ok(answer)) => Some(format!("{url}: the answer is {}", answer.status)),
        Ok(Err(error)) => Some(chain(&error)),
        Err(_) => Some(format!("{url}: no answer within {} ms", PATIENCE.as_millis())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_with_a_host_is_asked() {
        for text in ["http://127.0.0.1:8080/health", "http://risk-manager", "http://[::1]:80/ready?x=1"] {
            assert!(Url::parse(text).is_ok(), "{text}");
        }
        for text in
            ["", "/health", "127.0.0.1:8080", "127.0.0.1:8080/health", "https://a/health", "http://", "http:///x"]
        {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }
}
