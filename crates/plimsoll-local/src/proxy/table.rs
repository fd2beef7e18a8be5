//! The routing table: which backend of which service answers a request. Values and pure choices only; the counters,
//! pools and connections that belong to a backend are in `target`.

use plimsoll_core::{EnvironmentName, ServiceName, Slot};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, net::SocketAddr, str::FromStr};

/// Names a listener, and thereby the service whose requests arrive at it. As text `environment/service`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ListenerKey {
    /// The environment the service belongs to.
    pub environment: EnvironmentName,
    /// The service that answers.
    pub service: ServiceName,
}

/// A listener key that is not `environment/service`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no listener key: it has the form environment/service")]
pub struct ListenerKeyError(String);

impl FromStr for ListenerKey {
    type Err = ListenerKeyError;

    fn from_str(text: &str) -> Result<Self, ListenerKeyError> {
        let bad = || ListenerKeyError(text.to_owned());
        let (environment, service) = text.split_once('/').ok_or_else(bad)?;
        Ok(Self { environment: environment.parse().map_err(|_| bad())?, service: service.parse().map_err(|_| bad())? })
    }
}

impl TryFrom<String> for ListenerKey {
    type Error = ListenerKeyError;

    fn try_from(text: String) -> Result<Self, ListenerKeyError> {
        text.parse()
    }
}

impl From<ListenerKey> for String {
    fn from(key: ListenerKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for ListenerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.environment, self.service)
    }
}

/// Where every request goes: one table for all services, replaced as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RoutingTable {
    /// Grows with every change. A table older than the current one is refused.
    pub version: u64,
    /// One route for each listener.
    pub routes: BTreeMap<ListenerKey, Route>,
}

/// How the requests of one service are answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The backend that answers; without one, requests get 503.
    pub live: Option<Backend>,
    /// The backend that gets `canary_percent` of the requests.
    pub standby: Option<Backend>,
    /// Share of the requests that goes to `standby`, 0 to 100.
    pub canary_percent: u8,
    /// While set, requests wait in the proxy.
    pub paused: Option<Pause>,
    /// Longest request body in bytes; a longer one gets 413. `None` means no limit.
    pub max_body_bytes: Option<u64>,
    /// Milliseconds until the head of the response must have come, else the client gets 504.
    pub request_timeout_ms: u64,
}

/// The replicas of one release in one slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// The slot it runs in.
    pub slot: Slot,
    /// The release, as responses name it in `x-plimsoll-release`.
    pub release: String,
    /// Where the replicas listen.
    pub replicas: Vec<SocketAddr>,
}

/// How long and how many requests wait while a service is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Milliseconds a request waits before it gets 503.
    pub max_ms: u64,
    /// Requests that may wait at a time; another one gets 503 at once.
    pub max_queued: usize,
}

/// What is to become of a table that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It takes effect.
    Take,
    /// It is the table in effect already.
    Same,
    /// It is refused, for this reason.
    Refuse(String),
}

impl RoutingTable {
    /// Whether `next` may replace this table.
    pub(crate) fn judge(&self, next: &Self) -> Verdict {
        if next == self {
            return Verdict::Same;
        }
        if next.version < self.version || (next.version == self.version && !self.routes.is_empty()) {
            return Verdict::Refuse(format!(
                "table version {} does not follow version {}, which is in effect",
                next.version, self.version
            ));
        }
        match next.routes.iter().find_map(|(key, route)| route.fault().map(|fault| format!("{key}: {fault}"))) {
            Some(reason) => Verdict::Refuse(reason),
            None => Verdict::Take,
        }
    }
}

impl Route {
    fn fault(&self) -> Option<String> {
        if self.canary_percent > 100 {
            return Some(format!("a canary of {} per cent", self.canary_percent));
        }
        let unprintable = |b: &Backend| !b.release.bytes().all(|c| c.is_ascii_graphic());
        self.live.iter().chain(&self.standby).find(|b| unprintable(b)).map(|b| {
            format!(
                "the release `{}` cannot be a header value: it may have printable ASCII only",
                b.release.escape_debug()
            )
        })
    }

    /// Whether requests may be sent to `slot` by this route.
    pub(crate) fn sends_to(&self, slot: Slot) -> bool {
        self.live.as_ref().is_some_and(|b| b.slot == slot)
            || (self.canary_percent > 0 && self.standby.as_ref().is_some_and(|b| b.slot == slot))
    }
}

/// Whether the `n`th request goes to the canary. Exact over each hundred requests, and spread within it.
pub(crate) fn is_canary(n: u64, percent: u8) -> bool {
    // 37 is coprime to 100, so a hundred consecutive numbers hit each remainder once, far apart.
    (n.wrapping_mul(37)) % 100 < u64::from(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(version: u64, release: &str, canary_percent: u8) -> RoutingTable {
        let live = Backend { slot: Slot::Blue, release: release.into(), replicas: vec![] };
        let route = Route {
            live: Some(live),
            standby: None,
            canary_percent,
            paused: None,
            max_body_bytes: None,
            request_timeout_ms: 1,
        };
        RoutingTable { version, routes: [("production/api".parse().unwrap(), route)].into() }
    }

    #[test]
    fn a_table_survives_json_and_its_keys_are_readable() {
        let table = table(3, "r1", 5);
        let json = serde_json::to_string(&table).unwrap();
        assert!(json.contains(r#""production/api":{"#), "{json}");
        assert_eq!(serde_json::from_str::<RoutingTable>(&json).unwrap(), table);
    }

    #[test]
    fn only_a_newer_sound_table_is_taken() {
        let now = table(5, "r1", 0);
        assert_eq!(now.judge(&table(6, "r2", 100)), Verdict::Take);
        assert_eq!(now.judge(&now), Verdict::Same);
        for bad in [table(4, "r2", 0), table(5, "r2", 0), table(6, "r2", 101), table(6, "r\n2", 0)] {
            assert!(matches!(now.judge(&bad), Verdict::Refuse(_)), "{bad:?}");
        }
    }

    #[test]
    fn a_canary_gets_its_share_of_each_hundred() {
        for percent in 0..=100_u8 {
            for start in [0, 41, 100] {
                let hits = (start..start + 100).filter(|n| is_canary(*n, percent)).count();
                assert_eq!(hits, usize::from(percent));
            }
        }
    }

    #[test]
    fn a_key_without_both_names_is_refused() {
        for bad in ["", "api", "a/b/c", "/api", "production/", "Production/api"] {
            assert!(bad.parse::<ListenerKey>().is_err(), "{bad}");
        }
    }
}
