//! The supervisor's end of a control connection. Calls may run at the same time: a drain does not hold up a new table.

use super::{
    control::{Drained, Envelope, FromProxy, Hello, ToProxy},
    door::Door,
    stats::SlotStats,
    table::{ListenerKey, RoutingTable},
    wire::{self, Inbox, WireError},
};
use plimsoll_core::Slot;
use std::{
    collections::HashMap,
    io,
    net::TcpListener,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::UnixStream,
    sync::{Mutex as AsyncMutex, oneshot},
    task::AbortHandle,
};

/// How long a proxy may take to answer; it answers at once, so one that takes longer hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A call that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ProxyClientError {
    /// No proxy could be connected to.
    #[error("no proxy answers at {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection could not be used.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The proxy refused.
    #[error("the proxy, at table version {current}, refused: {reason}")]
    Refused {
        /// Why.
        reason: String,
        /// The version of the table in effect.
        current: u64,
    },
    /// The answer did not come in time.
    #[error("the proxy did not answer within {} s", limit.as_secs())]
    Silent {
        /// How long it was waited for.
        limit: Duration,
    },
    /// The answer was to another question.
    #[error("the proxy answered something else: {answer:?}")]
    Unexpected {
        /// What it answered.
        answer: Box<FromProxy>,
    },
}

type Answer = (FromProxy, Vec<OwnedFd>);
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>>;

/// A control connection to a proxy.
#[derive(Debug)]
pub struct ProxyClient {
    stream: Arc<UnixStream>,
    next: AsyncMutex<u64>,
    /// Who waits for which answer; `None` once the connection has ended.
    waiting: Waiting,
    reader: AbortHandle,
}

impl Drop for ProxyClient {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl ProxyClient {
    /// Connects to a running proxy. The connection takes the place of an earlier supervisor's.
    pub async fn connect(path: &Path) -> Result<Self, ProxyClientError> {
        let stream = UnixStream::connect(path).await;
        stream.map(Self::new).map_err(|source| ProxyClientError::Connect { path: path.to_owned(), source })
    }

    /// Uses the other end of the connection that a proxy was started with.
    pub fn from_stream(stream: StdUnixStream) -> Result<Self, ProxyClientError> {
        stream.set_nonblocking(true).map_err(WireError::Io)?;
        Ok(Self::new(UnixStream::from_std(stream).map_err(WireError::Io)?))
    }

    fn new(stream: UnixStream) -> Self {
        let stream = Arc::new(stream);
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let reader = tokio::spawn(read(Arc::clone(&stream), Arc::clone(&waiting))).abort_handle();
        Self { stream, next: AsyncMutex::new(0), waiting, reader }
    }

    /// Who the proxy is and what it holds.
    pub async fn hello(&self) -> Result<Hello, ProxyClientError> {
        match self.call(ToProxy::Hello, None, ANSWER_LIMIT).await? {
            (FromProxy::Hello(hello), _) => Ok(hello),
            (other, _) => Err(unexpected(other)),
        }
    }

    /// Hands over a listener, of which the caller keeps its own copy.
    pub async fn listen(&self, door: impl Into<Door>, listener: &TcpListener) -> Result<(), ProxyClientError> {
        self.done(ToProxy::Listen { door: door.into() }, Some(listener.as_fd())).await
    }

    /// Puts a table into effect. When this returns, every new request sees it.
    pub async fn route(&self, table: RoutingTable) -> Result<(), ProxyClientError> {
        self.done(ToProxy::Route { table }, None).await
    }

    /// Empties a slot that the table in effect does not send requests to. Returns when nothing is in flight on it, at
    /// the latest shortly after `deadline`.
    pub async fn drain(&self, key: &ListenerKey, slot: Slot, deadline: Duration) -> Result<Drained, ProxyClientError> {
        let ask = ToProxy::Drain {
            environment: key.environment.clone(),
            service: key.service.clone(),
            slot,
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        };
        match self.call(ask, None, deadline.saturating_add(ANSWER_LIMIT)).await? {
            (FromProxy::Drained(drained), _) => Ok(drained),
            (other, _) => Err(unexpected(other)),
        }
    }

    /// The counters of every slot that was ever routed to.
    pub async fn stats(&self) -> Result<Vec<SlotStats>, ProxyClientError> {
        match self.call(ToProxy::Stats, None, ANSWER_LIMIT).await? {
            (FromProxy::Stats { slots }, _) => Ok(slots),
            (other, _) => Err(unexpected(other)),
        }
    }

    /// Copies of the proxy's listeners. The proxy keeps serving.
    pub async fn take_listeners(&self) -> Result<Vec<(Door, TcpListener)>, ProxyClientError> {
        match self.call(ToProxy::TakeListeners, None, ANSWER_LIMIT).await? {
            (FromProxy::Listeners { doors }, descriptors) => {
                Ok(doors.into_iter().zip(descriptors.into_iter().map(TcpListener::from)).collect())
            }
            (other, _) => Err(unexpected(other)),
        }
    }

    /// Has the proxy finish and end; returns when it has begun to.
    pub async fn retire(&self, grace: Duration) -> Result<(), ProxyClientError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.done(ToProxy::Retire { grace_ms }, None).await
    }

    async fn done(&self, ask: ToProxy, descriptor: Option<BorrowedFd<'_>>) -> Result<(), ProxyClientError> {
        match self.call(ask, descriptor, ANSWER_LIMIT).await? {
            (FromProxy::Done, _) => Ok(()),
            (other, _) => Err(unexpected(other)),
        }
    }

    async fn call(
        &self,
        body: ToProxy,
        descriptor: Option<BorrowedFd<'_>>,
        limit: Duration,
    ) -> Result<Answer, ProxyClientError> {
        let exchange = async {
            let answer = {
                let mut id = self.next.lock().await;
                *id += 1;
                let (sender, answer) = oneshot::channel();
                lock(&self.waiting).as_mut().ok_or(WireError::Closed)?.insert(*id, sender);
                wire::send(&self.stream, &Envelope { id: *id, body }, descriptor.as_slice()).await?;
                answer
            };
            answer.await.map_err(|_| WireError::Closed)
        };
        let answer = tokio::time::timeout(limit, exchange).await.map_err(|_| ProxyClientError::Silent { limit })??;
        match answer {
            (FromProxy::Refused { reason, current }, _) => Err(ProxyClientError::Refused { reason, current }),
            answer => Ok(answer),
        }
    }
}

fn unexpected(answer: FromProxy) -> ProxyClientError {
    ProxyClientError::Unexpected { answer: Box::new(answer) }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands answers to those who wait, until the connection ends; then everyone learns that it has.
async fn read(stream: Arc<UnixStream>, waiting: Waiting) {
    let mut inbox = Inbox::default();
    while let Ok(Some((Envelope { id, body }, descriptors))) = inbox.next(&stream, FromProxy::descriptors).await {
        let asked = lock(&waiting).as_mut().and_then(|waiting| waiting.remove(&id));
        if let Some(asked) = asked {
            // Whoever asked may have given up waiting.
            _ = asked.send((body, descriptors));
        }
    }
    lock(&waiting).take();
}
