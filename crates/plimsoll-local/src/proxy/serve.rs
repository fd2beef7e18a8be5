//! The proxy's process: it listens to its supervisor, and outlives it.

use super::{
    accept,
    control::{Envelope, FromProxy, Hello, ToProxy},
    door::Door,
    state::{Stage, State, lock},
    table::ListenerKey,
    wire::{self, Inbox, MAX_LISTENERS},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::UnixStream as StdUnixStream,
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::mpsc,
    time::timeout,
};

/// Answers of drains on their way: a supervisor runs one drain for each slot, and slots are two for each listener.
const MAX_DRAINS: usize = 2 * MAX_LISTENERS;

/// How long a supervisor may take to read an answer before its connection is given up.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How often idle upstream connections are looked through.
const PRUNE_EVERY: Duration = Duration::from_secs(5);

/// After the grace of a retirement, connections are closed within this time.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// How a proxy runs.
#[derive(Debug, Clone, Copy)]
pub struct ProxyOptions {
    /// Client connections at a time; one more gets 503 and is closed. The default, 20 000, needs with one upstream
    /// connection each 40 000 descriptors, which the usual hard limit of 524 288 (and the memory of small machines,
    /// at some 20 kB a connection) allows; with a lower limit on descriptors the bound is lowered to fit.
    pub max_connections: usize,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self { max_connections: 20_000 }
    }
}

/// A proxy that cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Its socket for later supervisors could not be made.
    #[error("cannot listen for supervisors on {path}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The control connection it was started with is unusable.
    #[error("cannot use the control connection")]
    Control(#[source] io::Error),
}

/// Runs a proxy until it is retired.
///
/// `control` is the connection to the supervisor that started it. When that ends, the proxy goes on by its last table
/// and waits for a supervisor to connect to `socket_path`, which is made with mode 0600 and replaces what was there;
/// a newer connection takes the place of the older.
pub async fn serve(control: StdUnixStream, socket_path: &Path, options: ProxyOptions) -> Result<(), ProxyError> {
    let socket = ControlSocket::open(socket_path)
        .map_err(|source| ProxyError::Socket { path: socket_path.to_owned(), source })?;
    control.set_nonblocking(true).map_err(ProxyError::Control)?;
    let control = UnixStream::from_std(control).map_err(ProxyError::Control)?;
    let max_connections = options.max_connections.min(connections_that_fit(raise_descriptor_limit()));
    let state = State::new(ProxyOptions { max_connections });
    let (answers, mut drained) = mpsc::channel(MAX_DRAINS);
    let mut supervisor = Some(Supervisor { stream: control, inbox: Inbox::default(), number: 0 });
    let mut connected = 0;
    let mut prune = tokio::time::interval(PRUNE_EVERY);
    while !state.retiring() {
        tokio::select! {
            accepted = socket.listener.accept() => if let Ok((stream, _)) = accepted {
                connected += 1;
                supervisor = Some(Supervisor { stream, inbox: Inbox::default(), number: connected });
            } else {
                // Out of descriptors; the pause keeps a loop that cannot help from taking the processor.
                tokio::time::sleep(Duration::from_millis(50)).await;
            },
            asked = ask(&mut supervisor) => {
                let still = match (asked, &supervisor) {
                    (Some((asked, descriptors)), Some(from)) => {
                        from.answer_to(&state, asked, descriptors, &answers).await
                    }
                    _ => false,
                };
                if !still {
                    supervisor = None;
                }
            }
            Some((number, answer)) = drained.recv() => {
                if let Some(to) = supervisor.as_ref().filter(|s| s.number == number)
                    && !to.send(&answer, &[]).await
                {
                    supervisor = None;
                }
            }
            _ = prune.tick() => state.prune(),
        }
    }
    state.at(Stage::Closing).await;
    let mut connections = state.connections.subscribe();
    _ = timeout(CLOSE_LIMIT, connections.wait_for(|n| *n == 0)).await;
    Ok(())
}

type Asked = (Envelope<ToProxy>, Vec<OwnedFd>);

/// The next thing the supervisor asks; `None` when it has gone. Waits for ever without one.
async fn ask(supervisor: &mut Option<Supervisor>) -> Option<Asked> {
    match supervisor {
        None => std::future::pending().await,
        Some(Supervisor { stream, inbox, .. }) => match inbox.next(stream, ToProxy::descriptors).await {
            Ok(asked) => asked,
            Err(error) => {
                tracing::warn!(%error, "the supervisor's connection is given up");
                None
            }
        },
    }
}

struct Supervisor {
    stream: UnixStream,
    inbox: Inbox,
    number: u64,
}

type DrainAnswer = (u64, Envelope<FromProxy>);

impl Supervisor {
    /// Sends an answer. `false` when the supervisor cannot be reached.
    async fn send(&self, answer: &Envelope<FromProxy>, descriptors: &[BorrowedFd<'_>]) -> bool {
        matches!(timeout(ANSWER_LIMIT, wire::send(&self.stream, answer, descriptors)).await, Ok(Ok(())))
    }

    /// Does what is asked and answers. `false` when the supervisor cannot be reached.
    async fn answer_to(
        &self,
        state: &Arc<State>,
        asked: Envelope<ToProxy>,
        descriptors: Vec<OwnedFd>,
        drains: &mpsc::Sender<DrainAnswer>,
    ) -> bool {
        let Envelope { id, body } = asked;
        let refused = |reason| FromProxy::Refused { reason, current: state.version() };
        let body = match body {
            ToProxy::Hello => FromProxy::Hello(hello(state)),
            ToProxy::Listen { door } => listen(state, door, descriptors).map_or_else(refused, |()| FromProxy::Done),
            ToProxy::Route { table } => state.route(table).map_or_else(refused, |()| FromProxy::Done),
            ToProxy::Stats => FromProxy::Stats { slots: state.stats() },
            ToProxy::TakeListeners => return self.give_listeners(state, id).await,
            ToProxy::Retire { grace_ms } => {
                let sent = self.send(&Envelope { id, body: FromProxy::Done }, &[]).await;
                retire(state, Duration::from_millis(grace_ms)).await;
                return sent;
            }
            ToProxy::Drain { environment, service, slot, deadline_ms } => {
                let key = ListenerKey { environment, service };
                match state.drain(&key, slot, Duration::from_millis(deadline_ms)) {
                    Err(reason) => refused(reason),
                    Ok(end) => {
                        let (drains, number) = (drains.clone(), self.number);
                        tokio::spawn(async move {
                            let body = FromProxy::Drained(end.await);
                            // Fails only when the proxy ends, and then nobody waits.
                            _ = drains.send((number, Envelope { id, body })).await;
                        });
                        return true;
                    }
                }
            }
        };
        self.send(&Envelope { id, body }, &[]).await
    }

    async fn give_listeners(&self, state: &State, id: u64) -> bool {
        let held: Vec<_> =
            lock(&state.listeners).iter().map(|(door, l)| (door.clone(), Arc::clone(&l.listener))).collect();
        let descriptors: Vec<_> = held.iter().map(|(_, listener)| listener.as_fd()).collect();
        let doors = held.iter().map(|(door, _)| door.clone()).collect();
        self.send(&Envelope { id, body: FromProxy::Listeners { doors } }, &descriptors).await
    }
}

fn listen(state: &Arc<State>, door: Door, descriptors: Vec<OwnedFd>) -> Result<(), String> {
    let held = lock(&state.listeners);
    if held.len() >= MAX_LISTENERS && !held.contains_key(&door) {
        return Err(format!("the proxy holds {MAX_LISTENERS} listeners already"));
    }
    drop(held);
    let descriptor = descriptors.into_iter().next().ok_or("no listener was sent along")?;
    if !rustix::net::sockopt::socket_acceptconn(&descriptor).unwrap_or(false) {
        return Err("the descriptor sent along does not listen".into());
    }
    accept::listen(state, door, descriptor.into()).map_err(|error| format!("the listener cannot be used: {error}"))
}

/// Stops accepting; the rest happens by itself: each connection ends after its next answer, or when the grace is over.
async fn retire(state: &Arc<State>, grace: Duration) {
    let listeners = std::mem::take(&mut *lock(&state.listeners));
    for held in listeners.into_values() {
        held.accepting.abort();
        // Waited for, because it may be accepting a connection at this moment, which must be counted before it is
        // decided that none is left.
        _ = held.accepting.await;
    }
    state.stage.send_replace(Stage::Retiring);
    // Requests that wait in a pause look again, and see that they wait for nothing.
    state.changed.send_modify(|_| {});
    let state = Arc::clone(state);
    tokio::spawn(async move {
        let mut connections = state.connections.subscribe();
        _ = timeout(grace, connections.wait_for(|n| *n == 0)).await;
        state.stage.send_replace(Stage::Closing);
    });
}

fn hello(state: &State) -> Hello {
    let listeners = lock(&state.listeners).keys().cloned().collect();
    Hello { pid: std::process::id(), start: start_identity(), version: state.version(), listeners }
}

/// The boot's id and the process's start in clock ticks since then; empty parts where `/proc` is not mounted.
fn start_identity() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, second field, may hold spaces and parentheses; the start time is the 20th field after it.
    let ticks = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19)).unwrap_or_default();
    format!("{}:{ticks}", boot.trim())
}

/// Raises the limit on open files as far as it may be, and gives it.
fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    now.unwrap_or(u64::MAX)
}

/// How many client connections a number of descriptors allows: two each, and some for everything else.
fn connections_that_fit(descriptors: u64) -> usize {
    usize::try_from(descriptors.saturating_sub(256) / 2).unwrap_or(usize::MAX).max(16)
}

/// The socket later supervisors connect to. Its file is removed when dropped, unless another proxy has replaced it.
struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl ControlSocket {
    fn open(path: &Path) -> io::Result<Self> {
        // Made beside and renamed, so that nobody finds it with another mode or finds none while one replaces another.
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(format!(".{}", std::process::id()));
        let fresh = PathBuf::from(fresh);
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&fresh)?;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
        let inode = std::fs::symlink_metadata(&fresh)?.ino();
        std::fs::rename(&fresh, path)?;
        Ok(Self { listener, path: path.to_owned(), inode })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_on_connections_leaves_descriptors_for_everything_else() {
        assert_eq!(connections_that_fit(1024), 384);
        assert_eq!(connections_that_fit(0), 16);
        assert!(connections_that_fit(524_288) > 20_000);
    }

    #[test]
    fn the_start_identity_has_both_parts_and_does_not_change() {
        let identity = start_identity();
        let (boot, start) = identity.split_once(':').unwrap();
        assert!(boot.len() == 36 && start.parse::<u64>().unwrap() > 0, "{identity}");
        assert_eq!(identity, start_identity());
    }
}
