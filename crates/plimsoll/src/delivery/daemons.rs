//! The long-lived processes, started by hidden verbs: supervisor, proxy, registry. They get everything as arguments, because
//! they are started with a cleared environment.

use plimsoll_local::{
    LocalPaths, proxy,
    supervisor::{self, Launch, Options},
};
use std::{
    ffi::OsString,
    net::TcpListener,
    os::{fd::AsFd, unix::net::UnixStream},
    path::Path,
    process::ExitCode,
    sync::Arc,
};
use tracing_subscriber::filter::LevelFilter;

pub(crate) const SUPERVISOR: &str = "__supervisor";
const PROXY: &str = "__proxy";
const REGISTRY: &str = "__registry";

/// How the supervisor of `state` is started from `program`.
pub(crate) fn supervisor_launch(program: &Path, state: &Path) -> Launch {
    Launch { program: program.to_owned(), args: vec![SUPERVISOR.to_owned(), state.display().to_string()] }
}

/// How the embedded registry over `root` is started from `program`.
pub(crate) fn registry_launch(program: &Path, root: &Path) -> Launch {
    Launch { program: program.to_owned(), args: vec![REGISTRY.to_owned(), root.display().to_string()] }
}

/// Plays one of the long-lived processes, if the arguments ask for one.
#[expect(clippy::disallowed_methods, reason = "standard error of these processes is their log file")]
pub(crate) fn hidden(args: &[OsString]) -> Option<ExitCode> {
    let verb = args.first()?.to_str()?;
    if ![SUPERVISOR, PROXY, REGISTRY].contains(&verb) {
        return None;
    }
    let place = args.get(1).map_or(Path::new(""), Path::new);
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::INFO)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        // On a full disk a line is lost. Saying so would mean to print where nothing can be written, which panics.
        .log_internal_errors(false)
        .init();
    let result =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Into::into).and_then(|runtime| {
            runtime.block_on(async {
                match verb {
                    SUPERVISOR => supervise(place).await,
                    PROXY => route(place).await,
                    _ => serve_registry(place).await,
                }
            })
        });
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = &*error, "{verb} ends");
            ExitCode::FAILURE
        }
    })
}

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn supervise(state: &Path) -> Outcome {
    let args = vec![PROXY.to_owned(), state.display().to_string()];
    let proxy = Launch { program: std::env::current_exe()?, args };
    Ok(supervisor::serve(
        LocalPaths::new(state),
        Options { proxy, containers: Some(Arc::new(plimsoll_docker::Containers::default())) },
    )
    .await?)
}

async fn route(state: &Path) -> Outcome {
    let control = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    Ok(proxy::serve(control, &LocalPaths::new(state).proxy_socket(), proxy::ProxyOptions::default()).await?)
}

async fn serve_registry(root: &Path) -> Outcome {
    let listener = TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let shutdown = async move {
        terminate.recv().await;
    };
    Ok(plimsoll_oci::registry::serve(listener, root.to_owned(), plimsoll_oci::registry::Options::default(), shutdown)
        .await?)
}
