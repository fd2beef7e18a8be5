//! What the proxy does to the heads of requests and responses, and which paths it keeps to itself. Pure.

use hyper::{
    HeaderMap,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE},
};

/// Marks a request as a probe: counted apart from real traffic.
pub(crate) const PROBE: HeaderName = HeaderName::from_static("x-plimsoll-probe");
/// Names the slot that answered.
pub(crate) const SLOT: HeaderName = HeaderName::from_static("x-plimsoll-slot");
/// Names the release that answered.
pub(crate) const RELEASE: HeaderName = HeaderName::from_static("x-plimsoll-release");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The protocol a request asks to change to, if it does (RFC 9110 §7.8).
pub(crate) fn wanted_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    if !headers.contains_key(UPGRADE) {
        return None;
    }
    let asks = connection_options(headers).any(|option| option.eq_ignore_ascii_case("upgrade"));
    if asks { headers.get(UPGRADE).cloned() } else { None }
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(CONNECTION).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim)
}

/// Removes the fields that are for one connection only (RFC 9110 §7.6.1), those that `Connection` names included.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        // Host and Content-Length say what the message is; no client may have them dropped on the way.
        let named: Vec<HeaderName> = connection_options(headers)
            .filter_map(|option| option.parse().ok())
            .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

/// Rewrites a request's fields for the service: hop-by-hop fields go, the forwarding fields come. An earlier proxy's
/// `X-Forwarded-For` is appended to; protocol and host are what *this* proxy saw, whatever the client claims.
pub(crate) fn for_service(headers: &mut HeaderMap, client: &HeaderValue, upgrade: Option<HeaderValue>) {
    strip_hop_by_hop(headers);
    // The proxy answers `100 Continue` itself, when it begins to read the body.
    headers.remove(EXPECT);
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
    let chain = if headers.contains_key(&FORWARDED_FOR) {
        let mut chain = Vec::new();
        for value in headers.get_all(&FORWARDED_FOR) {
            chain.extend_from_slice(value.as_bytes());
            chain.extend_from_slice(b", ");
        }
        chain.extend_from_slice(client.as_bytes());
        HeaderValue::from_bytes(&chain).unwrap_or_else(|_| client.clone())
    } else {
        client.clone()
    };
    headers.insert(FORWARDED_FOR, chain);
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    match headers.get(HOST).cloned() {
        Some(host) => headers.insert(FORWARDED_HOST, host),
        None => headers.remove(FORWARDED_HOST),
    };
}

/// Whether a path leads to a service's control endpoints, `/_plimsoll/…`, in any spelling a service might understand:
/// percent-encoded (once or several times), with dot segments, doubled or backward slashes, path parameters.
pub(crate) fn is_control_path(path: &str) -> bool {
    let plain = !path.contains('%') && !contains_ignoring_case(path.as_bytes(), b"_plimsoll");
    if plain {
        return false;
    }
    let mut bytes = path.as_bytes().to_vec();
    // A service decodes once; gateways before or behind may each do so once more. Eight is beyond any chain.
    for _ in 0..8 {
        if leads_to_control(&bytes) {
            return true;
        }
        let decoded = percent_decode(&bytes);
        if decoded == bytes {
            return false;
        }
        bytes = decoded;
    }
    // Still encoded after eight rounds: nothing but evasion looks like this.
    true
}

fn contains_ignoring_case(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}

fn leads_to_control(path: &[u8]) -> bool {
    let mut depth = 0_usize;
    for segment in path.split(|b| matches!(b, b'/' | b'\\')) {
        let name = segment.split(|b| *b == b';').next().unwrap_or_default();
        match name {
            b"" | b"." => {}
            b".." => depth = depth.saturating_sub(1),
            _ if depth == 0 && name.eq_ignore_ascii_case(b"_plimsoll") => return true,
            _ => depth += 1,
        }
    }
    false
}

fn percent_decode(bytes: &[u8]) -> Vec<u8> {
    let hex = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if let (b'%', [high, low, after @ ..]) = (*first, tail)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            decoded.push(high * 16 + low);
            rest = after;
            continue;
        }
        decoded.push(*first);
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        lines.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse::<HeaderValue>().unwrap())).collect()
    }

    #[test]
    fn control_paths_are_found_in_every_spelling() {
        for path in [
            "/_plimsoll/health",
            "/_plimsoll",
            "/%5fplimsoll/x",
            "/%5Fplimsoll/x",
            "/x/../_plimsoll/",
            "//_plimsoll/x",
            "/./_plimsoll/x",
            "/x/%2e%2e/_plimsoll/",
            "/x%2f..%2f_plimsoll/",
            "/%255fplimsoll/",
            "/%25255fplimsoll/",
            "/_PLIMSOLL/x",
            "/_plimsoll;v=1/x",
            "/\\_plimsoll\\x",
            "/..%5c_plimsoll/x",
            "/_plimsoll/../x",
            "/%2525252525252525255fplimsoll",
        ] {
            assert!(is_control_path(path), "{path}");
        }
    }

    #[test]
    fn other_paths_are_not_taken_for_control_paths() {
        for path in
            ["/", "/a/_plimsoll/b", "/_plimsolls", "/plimsoll", "/100%", "/%zz", "/a%20b", "*", "/?q=/_plimsoll/"]
        {
            let path = path.split('?').next().unwrap();
            assert!(!is_control_path(path), "{path}");
        }
    }

    #[test]
    fn fields_of_one_connection_do_not_pass_and_essential_ones_cannot_be_dropped() {
        let mut map = headers(&[
            ("connection", "close, X-Secret , content-length, host"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-connection", "keep-alive"),
            ("host", "shop.example"),
            ("content-length", "3"),
            ("x-forwarded-proto", "https"),
            ("expect", "100-continue"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
        ]);
        for_service(&mut map, &HeaderValue::from_static("127.0.0.1"), None);
        let expected = headers(&[
            ("host", "shop.example"),
            ("content-length", "3"),
            ("x-forwarded-for", "10.0.0.1, 10.0.0.2, 127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "shop.example"),
        ]);
        assert_eq!(map, expected);
    }

    #[test]
    fn an_upgrade_is_wanted_only_when_connection_says_so() {
        assert!(wanted_upgrade(&headers(&[("upgrade", "websocket")])).is_none());
        assert!(wanted_upgrade(&headers(&[("connection", "Upgrade")])).is_none());
        let both = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        let protocol = wanted_upgrade(&both).unwrap();
        let mut map = both;
        for_service(&mut map, &HeaderValue::from_static("127.0.0.1"), Some(protocol));
        assert_eq!(map.get(UPGRADE).unwrap(), "websocket");
        assert_eq!(map.get(CONNECTION).unwrap(), "upgrade");
    }
}
