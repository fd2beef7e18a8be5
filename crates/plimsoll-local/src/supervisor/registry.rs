//! The embedded registry as a child: its listener belongs to the supervisor, so its port never changes.
//!
//! The child is any program that accepts connections on a listening socket given as its standard input.

use crate::supervisor::{
    backoff::Backoff,
    core::{Supervisor, url},
    logs, ports,
    protocol::{broken, chain, refused},
    state::AuxiliaryState,
};
use plimsoll_deploy::TargetError;
use plimsoll_process::{Adopted, Cmd, spawn_detached};
use std::{
    net::TcpListener,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

/// The listener, once it is bound.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    listener: Mutex<Option<Arc<TcpListener>>>,
}

/// Uploads that take longer than this to finish begin again.
const GRACE: Duration = Duration::from_secs(2);

/// Starts the registry unless it runs, and returns its base URL.
pub(crate) async fn ensure(
    supervisor: &Arc<Supervisor>,
    program: &Path,
    args: &[String],
) -> Result<String, TargetError> {
    let mut listener = supervisor.registry.listener.lock().await;
    if let Some(bound) = &*listener {
        let port = bound.local_addr().map_err(|e| broken("read the registry's port", e))?.port();
        return Ok(url(port));
    }
    let known = supervisor.state().await.registry;
    let wanted = known.as_ref().map_or(0, |k| k.port);
    let adopted = known.as_ref().and_then(|k| k.process.as_ref()).and_then(plimsoll_process::Detached::adopt);
    if let Some(process) = adopted {
        // Its listener died with the supervisor before this one and lives only in that process: there is no way to get
        // it back, so the process makes way.
        process.kill_tree(GRACE).await.map_err(|e| broken("end the registry before this one", e))?;
    }
    let bound = ports::listen(wanted).map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => {
            let reason = format!("{} listens there already", ports::describe_owner(wanted));
            refused(format!("listen on port {wanted} for the registry"), reason)
        }
        _ => broken("listen for the registry", e),
    })?;
    let port = bound.local_addr().map_err(|e| broken("read the registry's port", e))?.port();
    let (program, args) = (program.to_owned(), args.to_vec());
    supervisor
        .change(|state| {
            state.registry = Some(AuxiliaryState { program: program.clone(), args: args.clone(), port, process: None });
            Ok(())
        })
        .await?;
    let bound = Arc::new(bound);
    *listener = Some(bound.clone());
    tokio::spawn(keep(supervisor.clone(), bound, program, args));
    Ok(url(port))
}

async fn keep(supervisor: Arc<Supervisor>, listener: Arc<TcpListener>, program: PathBuf, args: Vec<String>) {
    let mut backoff = Backoff::default();
    let mut ending = supervisor.ending.subscribe();
    while !*ending.borrow() {
        let started = Instant::now();
        match start(&supervisor, &listener, &program, &args).await {
            Ok(process) => {
                tokio::select! {
                    seen = process.wait_exit() => tracing::error!(?seen, "the registry ended and is started again"),
                    _ = ending.wait_for(|e| *e) => return,
                }
                let _ = process.kill_tree(Duration::ZERO).await;
            }
            Err(error) => tracing::error!(error = chain(&error), "the registry cannot be started"),
        }
        tokio::select! {
            () = sleep(backoff.after(started.elapsed())) => {}
            _ = ending.wait_for(|e| *e) => return,
        }
    }
}

async fn start(
    supervisor: &Supervisor,
    listener: &TcpListener,
    program: &Path,
    args: &[String],
) -> Result<Adopted, TargetError> {
    let what = "start the registry";
    let stdin = OwnedFd::from(listener.try_clone().map_err(|e| broken(what, e))?);
    let log = logs::open(&supervisor.paths.root().join("logs/registry.log")).map_err(|e| broken(what, e))?;
    let errors = log.try_clone().map_err(|e| broken(what, e))?;
    let command = Cmd::new(program).args(args).cwd(supervisor.paths.root());
    let started = spawn_detached(&command, log, errors, Some(stdin)).map_err(|e| broken(what, e))?;
    supervisor
        .change(|state| {
            if let Some(registry) = &mut state.registry {
                registry.process = Some(started.clone());
            }
            Ok(())
        })
        .await?;
    started.adopt().ok_or_else(|| broken(what, "it ended at once"))
}

/// Ends the registry; its port stays reserved in the state.
pub(crate) async fn end(supervisor: &Supervisor) {
    let known = supervisor.state().await.registry;
    if let Some(process) = known.and_then(|k| k.process).and_then(|p| p.adopt()) {
        let _ = process.kill_tree(GRACE).await;
    }
}
