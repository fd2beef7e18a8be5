//! Connections to replicas. A connection has no task of its own: whoever uses it drives it, so a request and its
//! upstream connection run on one thread and dropping the request closes the connection.

use super::body::UpBody;
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1::{Builder, SendRequest},
    rt::{Read, ReadBufCursor, Write},
};
use hyper_util::rt::TokioIo;
use rustix::net::RecvFlags;
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::net::TcpStream;

/// Idle connections kept for one replica: as many as a busy replica has requests at a time, and few enough that
/// hundreds of replicas fit into the process's table of files.
const MAX_IDLE: usize = 256;

/// A connection that was not used for so long is closed before the replica does it: common servers wait 60 s or more.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// Replicas are on this machine: a connect that takes longer means a full backlog, and waiting makes it no better.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// The connections to one replica that wait for a request, the one used last on top.
#[derive(Debug, Default)]
pub(crate) struct Idle(Mutex<Vec<(Instant, Pooled)>>);

impl Idle {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, Pooled)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn put(&self, pooled: Pooled) {
        let mut idle = self.lock();
        if idle.len() < MAX_IDLE {
            idle.push((Instant::now(), pooled));
        }
    }

    pub(crate) fn take(&self) -> Option<Pooled> {
        self.lock().pop().map(|(_, pooled)| pooled)
    }

    pub(crate) fn clear(&self) {
        let closed = std::mem::take(&mut *self.lock());
        drop(closed);
    }

    /// Closes those that were not used for long.
    pub(crate) fn prune(&self) {
        self.lock().retain(|(since, _)| since.elapsed() < IDLE_LIMIT);
    }
}

/// A connection to a replica, ready for a request.
pub(crate) struct Pooled {
    sender: SendRequest<UpBody>,
    /// `None` when the connection has ended or was upgraded.
    connection: Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
    look: Arc<AtomicBool>,
}

impl std::fmt::Debug for Pooled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pooled").field("ended", &self.connection.is_none()).finish_non_exhaustive()
    }
}

/// A request that got no response head.
pub(crate) struct Unanswered {
    /// The request itself, when not a byte of it was written.
    pub(crate) unsent: Option<Request<UpBody>>,
    pub(crate) error: hyper::Error,
}

impl Pooled {
    /// Connects to a replica.
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        let look = Arc::new(AtomicBool::new(false));
        let io = UpIo { inner: TokioIo::new(stream), look: Arc::clone(&look) };
        let (sender, connection) =
            Builder::new().max_buf_size(64 * 1024).handshake(io).await.map_err(io::Error::other)?;
        Ok(Self { sender, connection: Some(Box::pin(connection.with_upgrades())), look })
    }

    /// Lets the connection read and write. Whether it has ended.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        let ended = match &mut self.connection {
            None => return true,
            Some(connection) => connection.as_mut().poll(cx).is_ready(),
        };
        if ended {
            self.connection = None;
        }
        ended
    }

    /// Whether the connection can take a request. With `look`, asks the socket itself, so that an end the replica has
    /// sent is seen even when the runtime has not been told of it yet: a system call that is worth it for a request
    /// that cannot be sent again.
    pub(crate) fn is_ready(&mut self, cx: &mut Context<'_>, look: bool) -> bool {
        self.look.store(look, Ordering::Relaxed);
        let ended = self.drive(cx);
        self.look.store(false, Ordering::Relaxed);
        !ended && matches!(self.sender.poll_ready(cx), Poll::Ready(Ok(())))
    }

    /// Whether it has come to rest after a response, and may be kept.
    pub(crate) fn is_idle(&mut self, cx: &mut Context<'_>) -> bool {
        !self.drive(cx) && matches!(self.sender.poll_ready(cx), Poll::Ready(Ok(())))
    }

    /// Sends a request and waits for the head of the response.
    pub(crate) async fn send(&mut self, request: Request<UpBody>) -> Result<Response<Incoming>, Unanswered> {
        let response = self.sender.try_send_request(request);
        tokio::pin!(response);
        std::future::poll_fn(|cx| {
            // First the connection, then its answer: the answer is there as soon as the connection has read it.
            if let Some(connection) = &mut self.connection
                && connection.as_mut().poll(cx).is_ready()
            {
                self.connection = None;
            }
            response.as_mut().poll(cx)
        })
        .await
        .map_err(|mut failed| Unanswered { unsent: failed.take_message(), error: failed.into_error() })
    }

    /// Drives the connection to its end: how an upgrade is completed.
    pub(crate) async fn run(mut self) {
        std::future::poll_fn(|cx| if self.drive(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

/// The socket of an upstream connection.
pub(crate) struct UpIo {
    inner: TokioIo<TcpStream>,
    /// While set, a read first looks whether the other end has closed.
    look: Arc<AtomicBool>,
}

impl UpIo {
    /// The socket itself.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.inner.into_inner()
    }
}

impl Read for UpIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.look.swap(false, Ordering::Relaxed) {
            let mut byte = [0_u8];
            let peeked = rustix::net::recv(self.inner.inner(), &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
            match peeked {
                Ok((_, 0)) => return Poll::Ready(Ok(())),
                Err(rustix::io::Errno::AGAIN) | Ok(_) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl Write for UpIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
}
