//! Client connections: accepted, counted, served. Nothing that goes wrong with one ends the accepting.

use super::{
    door::Door,
    forward, reply,
    state::{Listening, Stage, State, lock},
    table::ListenerKey,
};
use hyper::{header::HeaderValue, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::io::Errno;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// How long the head of a request may take, from the end of the one before.
const HEAD_LIMIT: Duration = Duration::from_secs(30);

/// Bytes read ahead on a connection, and thereby the longest head of a request.
const MAX_BUFFER: usize = 64 * 1024;

/// Connections that are being told that there are too many. Beyond these they are closed untold.
const MAX_SHEDDING: usize = 64;

/// After the grace, connections only have to be closed.
const CLOSE_LIMIT: Duration = Duration::from_millis(500);

/// What every request of one connection has in common, and its place among the counted connections.
pub(crate) struct Client {
    pub(crate) key: ListenerKey,
    pub(crate) address: HeaderValue,
    state: Arc<State>,
}

impl Client {
    fn new(state: &Arc<State>, key: ListenerKey, peer: SocketAddr) -> Arc<Self> {
        let address = HeaderValue::from_str(&peer.ip().to_string()).expect("an address is printable");
        state.connections.send_modify(|n| *n += 1);
        Arc::new(Self { key, address, state: Arc::clone(state) })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.state.connections.send_modify(|n| *n -= 1);
    }
}

/// Begins to accept on a listener, in place of an earlier one for the same door.
pub(crate) fn listen(state: &Arc<State>, door: Door, listener: std::net::TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = Arc::new(TcpListener::from_std(listener)?);
    let accepting = tokio::spawn(accept(Arc::clone(state), door.key.clone(), Arc::clone(&listener)));
    if let Some(old) = lock(&state.listeners).insert(door, Listening { listener, accepting }) {
        old.accepting.abort();
    }
    Ok(())
}

async fn accept(state: Arc<State>, key: ListenerKey, listener: Arc<TcpListener>) {
    let shedding = Arc::new(tokio::sync::Semaphore::new(MAX_SHEDDING));
    let mut failures = 0;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                failures = 0;
                if *state.connections.borrow() >= state.options.max_connections {
                    if let Ok(permit) = Arc::clone(&shedding).try_acquire_owned() {
                        tokio::spawn(async move {
                            shed(stream).await;
                            drop(permit);
                        });
                    }
                    continue;
                }
                let client = Client::new(&state, key.clone(), peer);
                tokio::spawn(serve(Arc::clone(&state), client, stream));
            }
            Err(error) => {
                if let Some(pause) = back_off(&error, failures) {
                    failures += 1;
                    tracing::warn!(%key, %error, "no connection can be accepted now");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

/// How long to wait after a failed accept: not at all when only that connection is lost, 10 to 100 ms when there are
/// no descriptors or memory, so that connections that end can free some.
fn back_off(error: &io::Error, failures: u32) -> Option<Duration> {
    match Errno::from_io_error(error) {
        Some(Errno::CONNABORTED | Errno::INTR | Errno::CONNRESET | Errno::PROTO) => None,
        _ => Some(Duration::from_millis(10 << failures.min(4)).min(Duration::from_millis(100))),
    }
}

async fn shed(mut stream: TcpStream) {
    let farewell = async {
        stream.write_all(reply::SHED).await?;
        stream.shutdown().await?;
        // Closing with unread bytes would reset the connection, and the answer with it.
        let mut unread = [0; 1024];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    _ = tokio::time::timeout(Duration::from_secs(1), farewell).await;
}

async fn serve(state: Arc<State>, client: Arc<Client>, stream: TcpStream) {
    // Without it, answers in several writes wait for the client's acknowledgements; a failure costs speed only.
    _ = stream.set_nodelay(true);
    let closing = Arc::clone(&state);
    let service = service_fn(move |request| forward::handle(Arc::clone(&state), Arc::clone(&client), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(MAX_BUFFER)
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = &mut connection => ended,
        () = closing.at(Stage::Closing) => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(CLOSE_LIMIT, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a client's connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepting_backs_off_when_descriptors_run_out_and_not_for_one_lost_connection() {
        let wait = |errno: Errno, failures| back_off(&errno.into(), failures).map(|d| d.as_millis());
        assert_eq!([0, 1, 3, 4, 40].map(|n| wait(Errno::MFILE, n)), [10, 20, 80, 100, 100].map(Some));
        assert_eq!(wait(Errno::NFILE, 0), Some(10));
        assert_eq!(wait(Errno::CONNABORTED, 0), None);
    }
}
