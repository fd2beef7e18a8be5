//! The supervisor: owns the public listeners and all processes of the local target, and outlives the commands that
//! talk to it.
//!
//! One per state directory. When it dies, its children and the proxy go on; the next one finds them again by process
//! id, start time and boot. It decides nothing about releases: it does what [`crate::LocalTarget`] asks, and keeps it so.

mod asking;
mod backoff;
mod copying;
mod core;
mod cutover;
mod handover;
mod identity;
mod lease;
mod logs;
mod paths;
mod peek;
mod place;
mod ports;
mod probe;
mod processes;
pub(crate) mod protocol;
mod proxy_child;
mod recover;
mod registry;
mod replica;
mod router;
mod running;
mod runtime;
mod server;
mod state;
mod traffic;
mod verbs;
mod view;
mod weigh;

pub use paths::LocalPaths;
pub use place::{ReplicaKey, SlotKey, project};
pub use protocol::{Hello, SecretValues};
pub use runtime::{
    Container, Doing, Inside, Instance, JOB_TAIL, Job, JobKind, Keep, Login, Order, Place, Running, Runtime,
    RuntimeError,
};
pub use state::StateError;

pub(crate) use logs::{open as open_log, tail as tail_log};
pub(crate) use paths::create_private;
pub(crate) use peek::peek;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::{fs::File, io, path::PathBuf, sync::Arc};
use tokio::signal::unix::{SignalKind, signal};

/// How a helper process is started: an executable with arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The executable, as an absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
}

/// What a supervisor must know beside its state directory.
#[derive(Debug, Clone)]
pub struct Options {
    /// How the proxy is started; it finds its connection to the supervisor on standard input.
    pub proxy: Launch,
    /// How containers are run, where this executable can.
    pub containers: Option<Arc<dyn Runtime>>,
}

/// Why a supervisor does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another one works on this state directory.
    #[error("another supervisor works on `{}`", root.display())]
    Running {
        /// The state directory.
        root: PathBuf,
    },
    /// The state cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// Something it needs cannot be made.
    #[error("cannot {what} in `{}`", root.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The state directory.
        root: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What the state names cannot be restored.
    #[error("cannot restore what ran before")]
    Recover(#[source] plimsoll_deploy::TargetError),
}

/// Whether a process that the state names still runs. A state that cannot be read may name some.
pub(crate) fn anything_runs(paths: &LocalPaths) -> bool {
    state::load(&paths.state_file()).map_or(true, |loaded| loaded.state.anything_runs())
}

/// Runs the supervisor of `paths` until it is told to end, by its socket or by SIGTERM. Children go on then, unless it was
/// told to end them. Needs a multi-threaded tokio runtime.
pub async fn serve(paths: LocalPaths, options: Options) -> Result<(), ServeError> {
    let root = paths.root().to_owned();
    let io = |what| {
        let root = root.clone();
        move |source| ServeError::Io { what, root, source }
    };
    paths.create().map_err(io("make the state directory"))?;
    // Held until the process ends, however it does.
    let lock = File::options().create(true).truncate(false).write(true).open(paths.supervisor_lock());
    let lock = lock.map_err(io("open the lock file"))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(ServeError::Running { root });
    }
    let loaded = state::load(&paths.state_file())?;
    if let Some(reason) = &loaded.from_old {
        let file = paths.state_file();
        tracing::error!(reason, file = %file.display(), "the newest state is unreadable: going on from the one before it");
        // Out of the way, so that the next write does not make the damaged one the one before.
        match std::fs::rename(&file, file.with_extension("json.damaged")) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io("move the damaged state away")(e)),
            _ => {}
        }
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(io("wait for signals"))?;
    // A terminal that closes does not end what it started.
    let _hangup = signal(SignalKind::hangup()).map_err(io("wait for signals"))?;
    let supervisor = core::Supervisor::new(paths, options, loaded.state);
    recover::recover(&supervisor).await.map_err(ServeError::Recover)?;
    let listener = server::bind(&supervisor).map_err(io("listen for commands"))?;
    tokio::select! {
        () = server::serve(&supervisor, listener) => {}
        _ = terminate.recv() => { supervisor.ending.send_replace(true); }
    }
    let _ = std::fs::remove_file(supervisor.paths.supervisor_socket());
    drop(lock);
    Ok(())
}
