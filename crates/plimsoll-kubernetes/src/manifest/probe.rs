//! Questions to a container: has it started, can it take traffic, does it live.

use super::mistake::{Findings, Nonsense};
use k8s_openapi::{
    api::core::v1::{HTTPGetAction, Probe as Typed, TCPSocketAction},
    apimachinery::pkg::util::intstr::IntOrString,
};

/// A question to a port of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    path: Option<String>,
    port: String,
    period: u32,
    timeout: u32,
    failures: u32,
}

impl Probe {
    /// A GET of `path` at a named port: every second, answered within a second, three failures count.
    pub fn http(path: impl Into<String>, port: impl Into<String>) -> Self {
        Self { path: Some(path.into()), port: port.into(), period: 1, timeout: 1, failures: 3 }
    }

    /// A connect to a named port: every ten seconds, accepted within five, three failures count.
    pub fn tcp(port: impl Into<String>) -> Self {
        Self { path: None, port: port.into(), period: 10, timeout: 5, failures: 3 }
    }

    /// Asks every so many seconds.
    pub const fn period(mut self, seconds: u32) -> Self {
        self.period = seconds;
        self
    }

    /// Gives an answer so many seconds.
    pub const fn timeout(mut self, seconds: u32) -> Self {
        self.timeout = seconds;
        self
    }

    /// So many failures one after the other count.
    pub const fn failures(mut self, failures: u32) -> Self {
        self.failures = failures;
        self
    }

    pub(super) fn checked(&self, field: &str, ports: &[&str], container: &str, found: &mut Findings) -> Typed {
        for (key, number) in
            [("periodSeconds", self.period), ("timeoutSeconds", self.timeout), ("failureThreshold", self.failures)]
        {
            let below = || Nonsense::Below { number: i64::from(number), least: 1 };
            found.unless(number >= 1, format!("{field}.{key}"), below);
        }
        let (timeout, period) = (self.timeout, self.period);
        found.unless(timeout <= period, format!("{field}.timeoutSeconds"), || Nonsense::TimeoutOverPeriod {
            timeout,
            period,
        });
        let no_port = || Nonsense::NoPort { port: self.port.clone(), workload: format!("`{container}`") };
        found.unless(ports.contains(&self.port.as_str()), format!("{field}.port"), no_port);
        let port = IntOrString::String(self.port.clone());
        Typed {
            http_get: self.path.clone().map(|path| HTTPGetAction {
                path: Some(path),
                port: port.clone(),
                ..HTTPGetAction::default()
            }),
            tcp_socket: self.path.is_none().then(|| TCPSocketAction { port, ..TCPSocketAction::default() }),
            period_seconds: Some(number(self.period)),
            timeout_seconds: Some(number(self.timeout)),
            failure_threshold: Some(number(self.failures)),
            ..Typed::default()
        }
    }
}

/// The API's numbers are signed; what is larger than it can hold is the most it can hold.
pub(super) fn number(value: impl Into<i64>) -> i32 {
    i32::try_from(value.into()).unwrap_or(i32::MAX)
}
