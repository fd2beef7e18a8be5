//! What commands and the supervisor say to each other: one JSON line each way over the control socket.
//!
//! Both ends are the same executable; the format needs no second version beside [`Hello::version`].

use crate::{images::Payload, supervisor::runtime::Login};
use plimsoll_core::{EnvironmentName, Generation, ServiceName, Slot, Timestamp, chain};
use plimsoll_deploy::{
    CutOver, CutOverDone, DrainReport, LockOutcome, LockOwner, Observation, Release, ServiceSpec, SlotView,
    TargetError, Traffic, Weights,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, fmt, io, path::PathBuf};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The longest message: a release of a hundred services with long configurations is a tenth of it.
pub(crate) const MAX_MESSAGE: u64 = 4 << 20;

/// What a command asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Who is there?
    Hello,
    /// Something about one environment.
    In(EnvironmentName, Verb),
    /// Start the registry unless it runs, and say where it is.
    EnsureRegistry { program: PathBuf, args: Vec<String> },
    /// End every process of every environment, the registry and the proxy, then the supervisor.
    Down,
    /// End the supervisor alone; children go on.
    Shutdown,
}

/// The verbs of the target trait.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Verb {
    Observe,
    Lock { owner: LockOwner, lease_ms: u64 },
    Unlock { owner: LockOwner },
    StandUp(Box<StandUp>),
    Endpoints { service: ServiceName, slot: Slot },
    Weigh(Weights),
    CutOver(Box<CutOver>),
    Drain { service: ServiceName, slot: Slot, deadline_ms: u64 },
    Retire { service: ServiceName, slot: Slot },
    Stop { from: Generation, actor: String, reason: Option<String> },
    Backup { service: ServiceName, to: PathBuf, secrets: SecretValues },
    Restore { from: Generation, service: ServiceName, copy: PathBuf, secrets: SecretValues },
    Start { from: Generation, actor: String, secrets: BTreeMap<ServiceName, SecretValues> },
    Traffic { service: ServiceName, slot: Slot },
    Logs { service: ServiceName, slot: Slot, lines: usize },
}

/// Everything a slot needs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StandUp {
    pub(crate) spec: ServiceSpec,
    pub(crate) slot: Slot,
    pub(crate) release: Release,
    pub(crate) payload: Payload,
    pub(crate) secrets: SecretValues,
    pub(crate) login: Option<Login>,
}

/// Secret variables with their values, on their way to a process; never written to a file and never shown.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretValues(pub BTreeMap<String, String>);

impl fmt::Debug for SecretValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Who a supervisor is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Its process id.
    pub pid: u32,
    /// The version of its executable.
    pub version: String,
    /// Since when it runs.
    pub started: Timestamp,
    /// The proxy's process id, while one runs.
    pub proxy: Option<u32>,
}

/// What the supervisor answers when it did what was asked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    Hello(Hello),
    Observation(Box<Observation>),
    Lock(LockOutcome),
    Slot(Box<SlotView>),
    Lines(Vec<String>),
    CutOver(Box<CutOverDone>),
    Drained(DrainReport),
    Generation(Generation),
    Traffic(Box<Traffic>),
    Url(String),
}

/// The answer or the refusal.
pub(crate) type Response = Result<Answer, WireError>;

/// [`TargetError`] in a form that can be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WireError {
    Stale { environment: EnvironmentName, expected: Generation, current: Generation },
    Refused { what: String, reason: String },
    Slot { service: ServiceName, slot: Slot, reason: String, log_tail: Vec<String> },
    Unreachable { what: String, cause: String },
}

impl From<TargetError> for WireError {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::Stale { environment, expected, current } => Self::Stale { environment, expected, current },
            TargetError::Refused { what, reason } => Self::Refused { what, reason },
            TargetError::Slot { service, slot, reason, log_tail } => Self::Slot { service, slot, reason, log_tail },
            TargetError::Unreachable { what, source } => Self::Unreachable { what, cause: chain(source.as_ref()) },
        }
    }
}

impl From<WireError> for TargetError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Stale { environment, expected, current } => Self::Stale { environment, expected, current },
            WireError::Refused { what, reason } => Self::Refused { what, reason },
            WireError::Slot { service, slot, reason, log_tail } => Self::Slot { service, slot, reason, log_tail },
            WireError::Unreachable { what, cause } => Self::Unreachable { what, source: cause.into() },
        }
    }
}

/// Something in the machinery broke: `what` was attempted.
pub(crate) fn broken(
    what: impl Into<String>,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> TargetError {
    TargetError::Unreachable { what: what.into(), source: source.into() }
}

/// A refusal.
pub(crate) fn refused(what: impl Into<String>, reason: impl Into<String>) -> TargetError {
    TargetError::Refused { what: what.into(), reason: reason.into() }
}

/// Reads one message; `None` at the end of the stream.
pub(crate) async fn receive<T: DeserializeOwned>(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    from.take(MAX_MESSAGE).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        let reason =
            if line.len() as u64 == MAX_MESSAGE { "the message is too long" } else { "the message is cut off" };
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    serde_json::from_slice(&line).map(Some).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Writes one message.
pub(crate) async fn send<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), message: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(message).map_err(io::Error::other)?;
    line.push(b'\n');
    to.write_all(&line).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_reads_back_and_a_broken_one_is_an_error() {
        let mut line = Vec::new();
        send(&mut line, &Request::Shutdown).await.unwrap();
        assert!(matches!(receive::<Request>(&mut &line[..]).await.unwrap(), Some(Request::Shutdown)));
        assert!(receive::<Request>(&mut &b""[..]).await.unwrap().is_none());
        for bad in [&b"\"Hel"[..], b"\"Nothing\"\n", b"{}\n"] {
            assert!(receive::<Request>(&mut &bad[..]).await.is_err());
        }
    }

    #[tokio::test]
    async fn an_endless_line_is_refused_at_the_bound() {
        let endless = vec![b'x'; usize::try_from(MAX_MESSAGE).unwrap() + 10];
        let error = receive::<Request>(&mut &endless[..]).await.unwrap_err();
        assert!(error.to_string().contains("too long"));
    }

    #[test]
    fn an_error_crosses_the_socket_unchanged_and_secrets_are_not_shown() {
        let stale = TargetError::Stale {
            environment: "staging".parse().unwrap(),
            expected: Generation(1),
            current: Generation(2),
        };
        let text = stale.to_string();
        assert_eq!(TargetError::from(WireError::from(stale)).to_string(), text);
        let secrets = SecretValues(BTreeMap::from([("TOKEN".to_owned(), "hunter2".to_owned())]));
        assert_eq!(format!("{secrets:?}"), r#"{"TOKEN"}"#);
    }
}
