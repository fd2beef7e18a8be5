//! HTTP from service to service: plain, pooled, and with a bound on time and size of each call.

use std::time::Duration;

use axum::http::{HeaderValue, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A whole call. Longer and a client of ours would rather hear that the service behind is gone.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The largest answer between services is a page of a few thousand ticks or orders.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("no answer from {url} within {} ms", TIMEOUT.as_millis())]
    Timeout { url: String },
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
    #[error("{url} answered something unexpected")]
    Shape {
        url: String,
        #[source]
        source: serde_json::Error,
    },
}

/// An answer, of whatever status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<HeaderValue>,
    pub(crate) body: Bytes,
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

    /// GET, the answer as it is.
    pub(crate) async fn get(&self, url: &str) -> Result<Answer, ClientError> {
        self.call(url, Request::get(url).body(Full::default())).await
    }

    /// GET, the answer read as `T` whatever its status is.
    pub(crate) async fn get_json<T: DeserializeOwned>(&self, url: &str) -> Result<T, ClientError> {
        let answer = self.get(url).await?;
        serde_json::from_slice(&answer.body).map_err(|source| ClientError::Shape { url: url.to_owned(), source })
    }

    /// POST of a JSON body.
    pub(crate) async fn post<T: Serialize + Sync>(&self, url: &str, body: &T) -> Result<Answer, ClientError> {
        let body = serde_json::to_vec(body).expect("bodies have string keys and no failing serializer");
        let request = Request::post(url).header(header::CONTENT_TYPE, "application/json").body(Full::from(body));
        self.call(url, request).await
    }

    async fn call(
        &self,
        url: &str,
        request: Result<Request<Full<Bytes>>, axum::http::Error>,
    ) -> Result<Answer, ClientError> {
        let request = request.map_err(|source| ClientError::Url { url: url.to_owned(), source })?;
        let exchange = async {
            let response = self.0.request(request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await?.to_bytes();
            Ok(Answer { status: head.status, content_type: head.headers.get(header::CONTENT_TYPE).cloned(), body })
        };
        match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(answer) => answer.map_err(|source| ClientError::Call { url: url.to_owned(), source }),
            Err(_) => Err(ClientError::Timeout { url: url.to_owned() }),
        }
    }
}
