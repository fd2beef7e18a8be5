//! Single requests from the supervisor to a replica: is it ready, and take or give up the environment.
//!
//! One connection per request, no redirect followed, no retry: callers decide what an answer means.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use plimsoll_core::Generation;
use std::{net::SocketAddr, time::Duration};
use tokio::net::TcpStream;

/// Why there was no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("broken answer: {0}")]
    Broken(#[from] hyper::Error),
    #[error("the path `{0}` is no path")]
    Path(String),
}

/// A health question that takes longer than this is answered with no.
pub(crate) const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a worker may take to finish what it holds before it gives up the environment.
pub(crate) const HANDOVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Which way an exclusive replica is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Activate,
    Deactivate,
}

impl Order {
    const fn path(self) -> &'static str {
        match self {
            Self::Activate => "/_plimsoll/activate",
            Self::Deactivate => "/_plimsoll/deactivate",
        }
    }
}

/// The status that `path` answers with.
pub(crate) async fn status(at: SocketAddr, path: &str) -> Result<u16, ProbeError> {
    send(at, Method::GET, path, String::new(), HEALTH_TIMEOUT).await
}

/// Tells a replica to take or give up `generation`; true when it said 200.
pub(crate) async fn order(at: SocketAddr, order: Order, generation: Generation) -> Result<bool, ProbeError> {
    let body = format!("{{\"generation\": {generation}}}");
    Ok(send(at, Method::POST, order.path(), body, HANDOVER_TIMEOUT).await? == 200)
}

async fn send(at: SocketAddr, method: Method, path: &str, body: String, limit: Duration) -> Result<u16, ProbeError> {
    tokio::time::timeout(limit, exchange(at, method, path, body)).await.map_err(|_| ProbeError::Late(limit))?
}

async fn exchange(at: SocketAddr, method: Method, path: &str, body: String) -> Result<u16, ProbeError> {
    // Longer answers are cut off: only the status matters.
    const BODY_LIMIT: usize = 64 << 10;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, at.to_string())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| ProbeError::Path(path.to_owned()))?;
    let stream = TcpStream::connect(at).await.map_err(ProbeError::Connect)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let outcome = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        // Read to its end, so that the replica does not see its client hang up.
        let _ = Limited::new(answer.into_body(), BODY_LIMIT).collect().await;
        Ok(status)
    }
    .await;
    driver.abort();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn one_answer(answer: &'static str) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 1024];
            let _ = stream.read(&mut bytes).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        at
    }

    #[tokio::test]
    async fn a_redirect_is_reported_as_such_and_not_followed() {
        let at = one_answer("HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(status(at, "/ready").await.unwrap(), 302);
    }

    #[tokio::test]
    async fn a_refusing_port_and_a_mute_one_are_errors() {
        let port = crate::supervisor::ports::free().unwrap();
        let refusing = (std::net::Ipv4Addr::LOCALHOST, port).into();
        assert!(matches!(status(refusing, "/ready").await, Err(ProbeError::Connect(_))));
        let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = mute.local_addr().unwrap();
        assert!(matches!(status(at, "/ready").await, Err(ProbeError::Late(_))));
    }
}
