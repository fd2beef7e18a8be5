//! The control socket: accepts commands of this user, answers each.

use crate::supervisor::{
    core::Supervisor,
    protocol::{Answer, Hello, Request, Response, WireError, broken, receive, send},
    proxy_child, registry, verbs,
};
use plimsoll_deploy::TargetError;
use std::{io, os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};
use tokio::{
    io::BufReader,
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};

/// Commands served at a time: more than one person and their CI have, and the next ones wait in the backlog.
const CONNECTIONS: usize = 64;

/// Binds the control socket; nobody can connect before it is for its owner alone.
pub(crate) fn bind(supervisor: &Supervisor) -> io::Result<UnixListener> {
    let path = supervisor.paths.supervisor_socket();
    let fresh = path.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, &path)?;
    Ok(listener)
}

/// Serves until the supervisor is to end.
pub(crate) async fn serve(supervisor: &Arc<Supervisor>, listener: UnixListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut leaving = supervisor.leaving.subscribe();
    loop {
        let place = places.clone().acquire_owned().await.expect("nobody closes this semaphore");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = leaving.wait_for(|l| *l) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let supervisor = supervisor.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(&supervisor, stream).await {
                        tracing::debug!(%error, "a command broke off");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // Out of files or memory: the next try comes when some are free again.
                tracing::error!(%error, "cannot accept a command");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(supervisor: &Arc<Supervisor>, stream: UnixStream) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    while let Some(request) = receive::<Request>(&mut read).await? {
        let last = matches!(request, Request::Down | Request::Shutdown);
        // In a task of its own: a command that is killed leaves no change half done.
        let doing = supervisor.clone();
        let answer = tokio::spawn(async move { answer(&doing, request).await }).await;
        let answer = answer.unwrap_or_else(|e| Err(broken("do what was asked", e)));
        let response: Response = answer.map_err(WireError::from);
        let sent = send(&mut write, &response).await;
        if last {
            supervisor.ending.send_replace(true);
            supervisor.leaving.send_replace(true);
            return sent;
        }
        sent?;
    }
    Ok(())
}

async fn answer(supervisor: &Arc<Supervisor>, request: Request) -> Result<Answer, TargetError> {
    match request {
        Request::Hello => {
            let proxy = supervisor.state().await.proxy.filter(|p| p.adopt().is_some()).map(|p| p.pid);
            let version = env!("CARGO_PKG_VERSION").to_owned();
            Ok(Answer::Hello(Hello { pid: std::process::id(), version, started: supervisor.started, proxy }))
        }
        Request::In(environment, verb) => verbs::perform(supervisor, &environment, verb).await,
        Request::EnsureRegistry { program, args } => {
            registry::ensure(supervisor, &program, &args).await.map(Answer::Url)
        }
        Request::Down => {
            for name in supervisor.state().await.environments.keys() {
                let turn = supervisor.turn(name);
                let _turn = turn.lock().await;
                verbs::end_all(supervisor, name).await?;
            }
            supervisor.clear_engines().await?;
            // The keepers of proxy and registry stop keeping first.
            supervisor.ending.send_replace(true);
            registry::end(supervisor).await;
            proxy_child::end(supervisor).await;
            Ok(Answer::Done)
        }
        Request::Shutdown => Ok(Answer::Done),
    }
}
