//! What may be spoken to in plain text, and where a redirect may lead. Pure decisions.

use reqwest::Url;
use std::net::IpAddr;

/// Redirects followed at most; registries need two (blob, then storage).
pub const MAX_REDIRECTS: usize = 5;

/// Whether `host` (a name or an address, IPv6 with or without brackets, no port) is this machine alone.
pub fn is_loopback_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The same of a host with a port behind it, or without one.
pub fn is_loopback_authority(authority: &str) -> bool {
    let port = |(_, port): &(&str, &str)| port.bytes().all(|b| b.is_ascii_digit());
    is_loopback_host(authority.rsplit_once(':').filter(port).map_or(authority, |(host, _)| host))
}

/// Whether a request to `url` may be sent at all.
pub(crate) fn may_send(url: &Url, plain_http: bool) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => plain_http || url.host_str().is_some_and(is_loopback_host),
        _ => false,
    }
}

/// Whether a redirect that came from `from` may lead to `to`: never from TLS to plain text, never from another machine to
/// this one's loopback (a server elsewhere must not steer requests at local ones).
pub(crate) fn may_follow(from: &Url, to: &Url, plain_http: bool) -> bool {
    let local = |url: &Url| url.host_str().is_some_and(is_loopback_host);
    may_send(to, plain_http) && !(from.scheme() == "https" && to.scheme() == "http") && (local(from) || !local(to))
}

/// `https://host:port/path` of a URL: no user, password, query or fragment, and bounded.
pub(crate) fn shown(url: &Url) -> String {
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    let text = format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or(""), url.path());
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().expect(text)
    }

    #[test]
    fn a_port_does_not_change_whose_host_it_is() {
        for (text, local) in [
            ("localhost", true),
            ("127.0.0.1:5000", true),
            ("[::1]", true),
            ("[::1]:80", true),
            ("r.example:127", false),
            ("127.0.0.1.example:80", false),
        ] {
            assert_eq!(is_loopback_authority(text), local, "{text}");
        }
    }

    #[test]
    fn only_loopback_is_spoken_to_in_plain_text() {
        for (text, may) in [
            ("http://127.0.0.1:5000/v2/", true),
            ("http://127.9.9.9/", true),
            ("http://[::1]:80/", true),
            ("http://localhost/", true),
            ("http://localhost.example.org/", false),
            ("http://10.0.0.1/", false),
            ("https://10.0.0.1/", true),
            ("ftp://127.0.0.1/", false),
        ] {
            assert_eq!(may_send(&url(text), false), may, "{text}");
        }
        assert!(may_send(&url("http://10.0.0.1/"), true));
    }

    #[test]
    fn a_redirect_neither_drops_tls_nor_reaches_into_this_machine() {
        for (from, to, may) in [
            ("https://a.io/", "https://b.io/", true),
            ("https://a.io/", "http://127.0.0.1/", false),
            ("https://a.io/", "https://127.0.0.1/", false),
            ("http://127.0.0.1/", "http://localhost:9/", true),
            ("http://127.0.0.1/", "https://a.io/", true),
            ("http://127.0.0.1/", "http://a.io/", false),
        ] {
            assert_eq!(may_follow(&url(from), &url(to), false), may, "{from} -> {to}");
        }
    }

    #[test]
    fn what_is_shown_of_a_url_holds_no_secret() {
        assert_eq!(shown(&url("https://u:p@h.io:8443/a/b?token=t#f")), "https://h.io:8443/a/b");
    }
}
