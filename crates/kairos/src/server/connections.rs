//! How many connections are open: a listener that counts what it accepts until it is closed.
//!
//! An upgraded connection is still the same one, so a web socket counts for as long as it lives.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The number of open connections; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connections(Arc<AtomicUsize>);

impl Connections {
    /// How many are open beside the one on which this is asked.
    pub(crate) fn others(&self) -> usize {
        self.0.load(Ordering::SeqCst).saturating_sub(1)
    }

    fn open(&self) -> Open {
        self.0.fetch_add(1, Ordering::SeqCst);
        Open(self.clone())
    }
}

/// One open connection.
struct Open(Connections);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A listener whose connections are counted.
pub(super) struct Counted<L> {
    listener: L,
    connections: Connections,
}

impl<L> Counted<L> {
    pub(super) fn new(listener: L, connections: Connections) -> Self {
        Self { listener, connections }
    }
}

impl<L: Listener> Listener for Counted<L>
where
    L::Io: AsyncRead + AsyncWrite,
{
    type Io = Connection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (io, address) = self.listener.accept().await;
        (Connection { io, _open: self.connections.open() }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that is counted until it is dropped.
pub(super) struct Connection<Io> {
    io: Io,
    _open: Open,
}

impl<Io: AsyncRead + Unpin> AsyncRead for Connection<Io> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, into)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Connection<Io> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
