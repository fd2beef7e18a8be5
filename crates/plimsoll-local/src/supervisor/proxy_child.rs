//! The proxy as a child: found again or started, and started again whenever it ends.
//!
//! While it is down, clients' connects wait in the listeners, which belong to the supervisor.

use crate::{
    proxy::ProxyClient,
    supervisor::{backoff::Backoff, core::Supervisor, logs, protocol::broken},
};
use plimsoll_core::chain;
use plimsoll_deploy::TargetError;
use plimsoll_process::{Adopted, Cmd, spawn_detached};
use std::{collections::BTreeSet, os::fd::OwnedFd, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// A proxy that does not answer its supervisor within this time is as good as dead.
const ANSWER: Duration = Duration::from_secs(5);

/// Connects to the proxy that the state names, when it still runs, and takes its listeners back.
pub(crate) async fn adopt(supervisor: &Arc<Supervisor>) -> Option<Adopted> {
    let process = supervisor.state().await.proxy?.adopt()?;
    match timeout(ANSWER, take_over(supervisor)).await {
        Ok(Ok(())) => Some(process),
        outcome => {
            let reason =
                outcome.map_or_else(|_| "no answer".to_owned(), |r| r.err().map_or_else(String::new, |e| chain(&e)));
            tracing::error!(reason, "the running proxy cannot be taken over and is replaced");
            let _ = process.kill_tree(Duration::ZERO).await;
            None
        }
    }
}

async fn take_over(supervisor: &Supervisor) -> Result<(), TargetError> {
    let socket = supervisor.paths.proxy_socket();
    let client = Arc::new(ProxyClient::connect(&socket).await.map_err(|e| broken("connect to the proxy", e))?);
    let hello = client.hello().await.map_err(|e| broken("greet the proxy", e))?;
    let mut listening = BTreeSet::new();
    for (door, listener) in client.take_listeners().await.map_err(|e| broken("take the listeners back", e))? {
        supervisor.take_listener(door.clone(), listener);
        listening.insert(door);
    }
    supervisor.router.connect(client, listening, hello.version).await;
    Ok(())
}

/// Keeps a proxy running until the supervisor ends.
pub(crate) async fn keep(supervisor: Arc<Supervisor>, adopted: Option<Adopted>) {
    let mut backoff = Backoff::with_clients_waiting();
    let mut running = adopted;
    let mut ending = supervisor.ending.subscribe();
    let mut quick = 0_u32;
    while !*ending.borrow() {
        let started = Instant::now();
        let process = match running.take() {
            Some(process) => Ok(process),
            None => start(&supervisor).await,
        };
        match process {
            Ok(process) => {
                tokio::select! {
                    _ = process.wait_exit() => {}
                    _ = ending.wait_for(|e| *e) => return,
                }
                supervisor.router.disconnect().await;
                tracing::error!(pid = process.identity().pid, "the proxy ended and is started again");
                let _ = process.kill_tree(Duration::ZERO).await;
            }
            Err(error) => tracing::error!(error = chain(&error), "the proxy cannot be started"),
        }
        // The first restart is at once: clients wait. A proxy that cannot live is not restarted in a hot loop.
        let life = started.elapsed();
        quick = if life >= Duration::from_secs(1) { 0 } else { quick + 1 };
        if quick > 1 {
            tokio::select! {
                () = sleep(backoff.after(life)) => {}
                _ = ending.wait_for(|e| *e) => return,
            }
        }
    }
}

async fn start(supervisor: &Arc<Supervisor>) -> Result<Adopted, TargetError> {
    let what = "start the proxy";
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(|e| broken(what, e))?;
    let log = logs::open(&supervisor.paths.proxy_log()).map_err(|e| broken(what, e))?;
    let errors = log.try_clone().map_err(|e| broken(what, e))?;
    let launch = &supervisor.options.proxy;
    let command = Cmd::new(&launch.program).args(&launch.args).cwd(supervisor.paths.root());
    let started = spawn_detached(&command, log, errors, Some(OwnedFd::from(theirs))).map_err(|e| broken(what, e))?;
    // Written down before anything is routed: a proxy that nobody knows of would keep the listeners.
    supervisor
        .change(|state| {
            state.proxy = Some(started.clone());
            Ok(())
        })
        .await?;
    let process = started.adopt().ok_or_else(|| broken(what, "it ended at once"))?;
    let client = Arc::new(ProxyClient::from_stream(ours).map_err(|e| broken(what, e))?);
    let greeted = timeout(ANSWER, client.hello()).await;
    match greeted {
        Ok(Ok(hello)) => {
            supervisor.router.connect(client, hello.listeners.into_iter().collect(), hello.version).await;
            Ok(process)
        }
        Ok(Err(error)) => {
            let _ = process.kill_tree(Duration::ZERO).await;
            Err(broken("greet the proxy", error))
        }
        Err(late) => {
            let _ = process.kill_tree(Duration::ZERO).await;
            Err(broken("greet the proxy", late))
        }
    }
}

/// Ends the proxy: what is in flight may finish for a second, then it is killed.
pub(crate) async fn end(supervisor: &Supervisor) {
    const GRACE: Duration = Duration::from_secs(1);
    if let Some(process) = supervisor.state().await.proxy.and_then(|p| p.adopt()) {
        let _ = process.kill_tree(GRACE).await;
    }
}
