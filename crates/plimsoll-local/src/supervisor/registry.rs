//! The embedded registry as a child: started on demand, found again, started again whenever it ends, on one port for ever.
//!
//! The child is any program that accepts connections on a listening socket given as its standard input. When a
//! supervisor dies, that socket lives on in the child alone, which goes on serving; the next supervisor looks after the
//! child, and listens on the port itself only once the child has ended.

use crate::supervisor::{
    backoff::Backoff,
    core::{Supervisor, url},
    logs, ports,
    protocol::{broken, refused},
    state::AuxiliaryState,
};
use plimsoll_core::chain;
use plimsoll_deploy::TargetError;
use plimsoll_process::{Adopted, Cmd, Detached, spawn_detached};
use std::{net::TcpListener, os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

/// The port, once a keeper looks after it.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    port: Mutex<Option<u16>>,
}

/// Uploads that take longer than this to finish begin again.
const GRACE: Duration = Duration::from_secs(2);

/// A registry that lives shorter than this counts towards a crash loop.
const SETTLED: Duration = Duration::from_secs(1);

/// Starts the registry unless it runs, and returns its base URL. Another `program` takes effect at its next start.
pub(crate) async fn ensure(
    supervisor: &Arc<Supervisor>,
    program: &Path,
    args: &[String],
) -> Result<String, TargetError> {
    let mut kept = supervisor.registry.port.lock().await;
    let known = supervisor.state().await.registry;
    // A release that changes nothing asks too, and must not wait for a disk.
    if let (Some(port), Some(known)) = (*kept, &known)
        && known.program == program
        && known.args == args
    {
        return Ok(url(port));
    }
    let wanted = known.as_ref().map_or(0, |k| k.port);
    let process = known.and_then(|k| k.process);
    let (listener, running) = match (*kept, adopt(process.as_ref(), wanted).await) {
        (Some(_), _) => (None, None),
        (None, Some(running)) => (None, Some(running)),
        (None, None) => (Some(listen(wanted)?), None),
    };
    let port = match &listener {
        Some(bound) => bound.local_addr().map_err(|e| broken("read the registry's port", e))?.port(),
        None => wanted,
    };
    supervisor
        .change(|state| {
            let (program, args) = (program.to_owned(), args.to_vec());
            // The one in the state now: a keeper may have started another meanwhile.
            let process = state.registry.take().and_then(|known| known.process);
            state.registry = Some(AuxiliaryState { program, args, port, process });
            Ok(())
        })
        .await?;
    if kept.replace(port).is_none() {
        tokio::spawn(keep(supervisor.clone(), port, listener, running));
    }
    Ok(url(port))
}

/// The registry that an earlier supervisor started, when it runs and has its port.
async fn adopt(process: Option<&Detached>, port: u16) -> Option<Adopted> {
    let running = process?.adopt()?;
    let pid = running.identity().pid;
    if ports::belongs(port, pid).await {
        return Some(running);
    }
    tracing::error!(pid, port, "the registry does not listen on its port and is replaced");
    let _ = running.kill_tree(GRACE).await;
    None
}

fn listen(port: u16) -> Result<TcpListener, TargetError> {
    ports::listen(std::net::Ipv4Addr::LOCALHOST, port).map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => {
            let reason = format!("{} listens there already", ports::describe_owner(port));
            refused(format!("listen on port {port} for the registry"), reason)
        }
        _ => broken("listen for the registry", e),
    })
}

/// Keeps a registry running until the supervisor ends.
async fn keep(supervisor: Arc<Supervisor>, port: u16, mut listener: Option<TcpListener>, adopted: Option<Adopted>) {
    let mut backoff = Backoff::with_clients_waiting();
    let mut running = adopted;
    let mut ending = supervisor.ending.subscribe();
    let mut quick = 0_u32;
    while !*ending.borrow() {
        let started = Instant::now();
        let process = match running.take() {
            Some(process) => Ok(process),
            None => start(&supervisor, port, &mut listener).await,
        };
        match process {
            Ok(process) => {
                tokio::select! {
                    seen = process.wait_exit() => tracing::error!(?seen, "the registry ended and is started again"),
                    _ = ending.wait_for(|e| *e) => return,
                }
                let _ = process.kill_tree(Duration::ZERO).await;
            }
            Err(error) => tracing::error!(error = chain(&error), "the registry cannot be started"),
        }
        // The first restart is at once: clients wait. A registry that cannot live is not restarted in a hot loop.
        let life = started.elapsed();
        quick = if life >= SETTLED { 0 } else { quick + 1 };
        if quick > 1 {
            tokio::select! {
                () = sleep(backoff.after(life)) => {}
                _ = ending.wait_for(|e| *e) => return,
            }
        }
    }
}

async fn start(supervisor: &Supervisor, port: u16, listener: &mut Option<TcpListener>) -> Result<Adopted, TargetError> {
    let what = "start the registry";
    let bound = match listener {
        Some(bound) => bound,
        None => listener.insert(listen(port)?),
    };
    let known = supervisor.state().await.registry.ok_or_else(|| broken(what, "the state has no registry"))?;
    let stdin = OwnedFd::from(bound.try_clone().map_err(|e| broken(what, e))?);
    let log = logs::open(&supervisor.paths.root().join("logs/registry.log")).map_err(|e| broken(what, e))?;
    let errors = log.try_clone().map_err(|e| broken(what, e))?;
    let command = Cmd::new(&known.program).args(&known.args).cwd(supervisor.paths.root());
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
