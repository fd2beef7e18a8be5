//! The answers the proxy gives itself: short JSON objects that say what is wrong and with which service.

use super::{body::OutBody, table::ListenerKey};
use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use plimsoll_core::Slot;
use std::time::Duration;

/// Written to a connection beyond the bound on connections, before it is closed.
pub(crate) const SHED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\
Content-Length: 32\r\nRetry-After: 1\r\nConnection: close\r\n\r\n{\"error\":\"too many connections\"}";

fn json(status: StatusCode, key: &ListenerKey, error: &str) -> Response<OutBody> {
    let body = serde_json::json!({ "error": error, "service": key.service, "environment": key.environment });
    let mut response = Response::new(OutBody::Own(Some(Bytes::from(body.to_string()))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(crate) fn plain(status: StatusCode) -> Response<OutBody> {
    let mut response = Response::new(OutBody::Own(None));
    *response.status_mut() = status;
    response
}

/// What a path that is nobody's gets.
pub(crate) fn not_found() -> Response<OutBody> {
    plain(StatusCode::NOT_FOUND)
}

/// Nobody can answer now.
pub(crate) fn unavailable(key: &ListenerKey, why: &str) -> Response<OutBody> {
    let mut response = json(StatusCode::SERVICE_UNAVAILABLE, key, why);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// The replica went away and the request cannot be sent again.
pub(crate) fn broken(key: &ListenerKey) -> Response<OutBody> {
    json(StatusCode::BAD_GATEWAY, key, "the replica closed the connection before it answered")
}

/// The request's body is longer than the route allows. The rest of it is not read.
pub(crate) fn too_long(key: &ListenerKey) -> Response<OutBody> {
    let mut response = json(StatusCode::PAYLOAD_TOO_LARGE, key, "the request is longer than this service allows");
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The head of the response took too long.
pub(crate) fn timed_out(key: &ListenerKey, limit: Duration) -> Response<OutBody> {
    json(StatusCode::GATEWAY_TIMEOUT, key, &format!("no answer within {} ms", limit.as_millis()))
}

/// The drain of the slot reached its deadline first.
pub(crate) fn drained(key: &ListenerKey, slot: Slot) -> Response<OutBody> {
    json(
        StatusCode::GATEWAY_TIMEOUT,
        key,
        &format!("the drain of slot {slot} reached its deadline before an answer came"),
    )
}

#[cfg(test)]
mod tests {
    use super::SHED;

    #[test]
    fn the_answer_to_a_shed_connection_has_the_length_it_states() {
        let text = std::str::from_utf8(SHED).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
