//! HTTP from service to service: plain, pooled, and with a bound on the size of each answer.

use std::time::Duration;

use axum::http::{HeaderValue, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;

/// One attempt. Longer and a client of ours would rather hear that the service behind is gone.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(2);
/// The largest answer between services is a page of a few thousand ticks or orders.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("no answer from {url} within {} ms", TIMEOUT.as_millis())]
    Timeout { url: String },
    #[error("the circuit to {url} is open")]
    Open { url: String },
    #[error("call {url}")]
    Call {
        url: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{url} is no URL")]
    Url {
        url: String,
        #[source]
        source: axum::http::Error,
    },
}

/// An answer, of whatever status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<HeaderValue>,
    pub(crate) body: Bytes,
}

/// A call, before it is known who answers it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// With the query.
    path: String,
    /// JSON; without one it is a GET.
    body: Option<Bytes>,
    /// Whether it may be sent again after a failure.
    pub(crate) repeatable: bool,
}

impl Call {
    /// A GET.
    pub(crate) fn get(path: &str) -> Self {
        Self { path: path.to_owned(), body: None, repeatable: true }
    }

    /// A POST of an order. The risk manager remembers ids: one that has an id is safe to repeat.
    pub(crate) fn order<T: Serialize>(order: &T, has_id: bool) -> Self {
        let body = serde_json::to_vec(order).expect("bodies have string keys and no failing serializer");
        Self { path: "/orders".to_owned(), body: Some(body.into()), repeatable: has_id }
    }
}

/// A pool of connections; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Client(Pool<HttpConnector, Full<Bytes>>);

impl Client {
    /// An empty pool.
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        // Idle connections end before a usual server or proxy closes them, which would race with the next call.
        let idle = Duration::from_secs(5);
        Self(
            Pool::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(idle)
                .pool_max_idle_per_host(16)
                .build(connector),
        )
    }

    /// Sends a call to the service at `base`. The caller bounds its time.
    pub(crate) async fn send(&self, base: &str, call: &Call) -> Result<Answer, ClientError> {
        let url = format!("{base}{}", call.path);
        let request = match &call.body {
            None => Request::get(&url).body(Full::default()),
            Some(body) => {
                let request = Request::post(&url).header(header::CONTENT_TYPE, "application/json");
                request.body(Full::from(body.clone()))
            }
        };
        let request = request.map_err(|source| ClientError::Url { url: url.clone(), source })?;
        let exchange = async {
            let response = self.0.request(request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await?.to_bytes();
            Ok(Answer { status: head.status, content_type: head.headers.get(header::CONTENT_TYPE).cloned(), body })
        };
        exchange.await.map_err(|source| ClientError::Call { url, source })
    }
}
