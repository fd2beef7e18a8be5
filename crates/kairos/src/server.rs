//! A process's life: configuration, listener, routes, background work, and an orderly end.
//!
//! What the four services have in common; their own routes come from `services`, the routes all have from `common`.

mod app;
mod common;
mod connections;
mod lame_duck;
mod read_only;

use std::future::IntoFuture;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::activation::{Activation, ActivationError};
use crate::config::{ActivationMode, Config, ConfigError, Service, Sources};
use crate::metrics;
use crate::reload;
use crate::services::{self, Parts, StartError};
use crate::telemetry;

pub(crate) use app::{App, Phase};

/// Why a service ended in another way than by a signal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// Bad configuration: exit code 2.
    #[error("cannot start")]
    Config(#[from] ConfigError),
    /// The port is taken or the address is not this machine's: exit code 3.
    #[error("cannot listen on port {port} of {host}")]
    Listen {
        /// As configured.
        host: String,
        /// As configured.
        port: u16,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// State, price file or log cannot be used: exit code 1.
    #[error("cannot begin to serve")]
    Start(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The system refused something every process needs: exit code 1.
    #[error("cannot run")]
    System(#[from] std::io::Error),
    /// Work in the background ended by itself: exit code 1.
    #[error("background work ended unexpectedly")]
    Background,
}

impl RunError {
    /// 2 for configuration, 3 for the port, else 1.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) => ExitCode::from(2),
            Self::Listen { .. } => ExitCode::from(3),
            Self::Start(_) | Self::System(_) | Self::Background => ExitCode::FAILURE,
        }
    }
}

/// An error and its causes in one line each after a colon.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Runs `service` until SIGTERM or SIGINT. Once per process.
pub(crate) fn run(service: Service) -> Result<(), RunError> {
    let sources = Sources::from_environment();
    let values = sources.values()?;
    let config = Config::from_values_and_key(service, &values)?;
    telemetry::init(config.log_format, config.at_start.log_level);
    // 32 blocking threads are more than one disk answers at once; what waits for them is bounded by the services.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(32).build()?;
    let ended = runtime.block_on(live(App::new(config, sources, values)));
    if let Err(error) = &ended {
        tracing::error!(error = chain(error), "ended");
    }
    // What still runs is past its time; a blocking file call is at most one sync long.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn live(app: App) -> Result<(), RunError> {
    let app = Arc::new(app);
    let (host, port) = (app.config.host.clone(), app.config.port);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = match TcpListener::bind((host.as_str(), port)).await {
        Ok(listener) => listener,
        Err(source) => return Err(RunError::Listen { host, port, source }),
    };
    let address = listener.local_addr()?;
    tracing::info!(
        address = %address,
        service = app.config.service.name(),
        version = app.config.service_version,
        slot = app.config.slot_name(),
        config = ?app.config,
        "listening"
    );
    let Parts { router, activation, prepare, background } =
        services::build(&app).map_err(|source: StartError| RunError::Start(source.into()))?;
    let router =
        common::add(router, &app, activation.clone()).merge(lame_duck::routes(&app)).merge(read_only::routes(&app));

    let mut tasks = JoinSet::new();
    let heart = Arc::clone(&app);
    tasks.spawn(async move { heart.peers.heartbeat().await });
    tasks.spawn(reload::follow(Arc::clone(&app)));
    for work in background {
        tasks.spawn(work);
    }
    let mut serving = tokio::spawn(serve(listener, router, Arc::clone(&app)));
    let ready = tokio::task::spawn_blocking(prepare);

    let ended = tokio::select! {
        failure = become_ready(ready, &app, activation.as_deref()) => Err(failure),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = tasks.join_next() => Err(RunError::Background),
        _ = &mut serving => Err(RunError::Background),
    };
    let lame_duck = if ended.is_ok() { app.config.lame_duck } else { Duration::ZERO };
    let leave = async {
        linger(lame_duck, &app).await;
        tracing::info!("stopping");
        app.phase.send_replace(Phase::Stopping);
        drain(&mut serving, &app).await;
    };
    // Exclusive work ends at once: its successor waits for it, and not for the clients of this process.
    let ((), flushed) = tokio::join!(leave, finish_work(activation.as_deref()));
    flushed?;
    // An activation that was already on its way when the signal came may have won the race with the first one.
    finish_work(activation.as_deref()).await?;
    tracing::info!("stopped");
    ended
}

/// Ends only with a failure: a service which is ready stays so.
async fn become_ready(
    prepared: tokio::task::JoinHandle<Result<(), StartError>>,
    app: &App,
    activation: Option<&Activation>,
) -> RunError {
    match prepared.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return RunError::Start(error.into()),
        Err(panicked) => return RunError::Start(panicked.into()),
    }
    app.phase.send_if_modified(|phase| {
        let starting = *phase == Phase::Starting;
        if starting {
            *phase = Phase::Serving;
        }
        starting
    });
    tracing::info!("ready");
    let Some(activation) = activation else { return std::future::pending().await };
    let mut begun = false;
    let mut pause = tokio::time::interval(Duration::from_millis(500));
    // For as long as the process lives; each turn waits for a tick.
    loop {
        let identity = crate::identity::read(&app.config).await;
        let wanted = match app.config.activation {
            ActivationMode::Always => Some(identity.generation.unwrap_or(0)).filter(|_| !begun),
            // What it was told since counts for more than the file, which may be a minute old.
            ActivationMode::Managed => {
                identity.active.filter(|g| activation.view().highest_seen.is_none_or(|h| *g > h))
            }
        };
        if let Some(generation) = wanted {
            match activation.activate(generation).await {
                Ok(_) | Err(ActivationError::Stale { .. }) => begun = true,
                // The one before may take its time to end; this one is passive until then, however long that is.
                Err(ActivationError::Held) => {}
                Err(error) => return RunError::Start(error.into()),
            }
        }
        pause.tick().await;
    }
}

async fn serve(listener: TcpListener, router: Router, app: Arc<App>) -> std::io::Result<()> {
    // Small answers should not wait for the acknowledgement of the ones before.
    let listener = connections::Counted::new(
        listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        }),
        app.connections.clone(),
    );
    // Orders are below one kilobyte; 64 leave room for whatever a client adds.
    let router = router
        .layer(from_fn_with_state(app.metrics.clone(), metrics::measure))
        .layer(from_fn_with_state(Arc::clone(&app), lame_duck::say_close))
        .layer(DefaultBodyLimit::max(64 * 1024));
    axum::serve(listener, router).with_graceful_shutdown(async move { app.stopping().await }).into_future().await
}

/// The time in which clients are sent elsewhere, answer by answer, while new connections are still taken.
async fn linger(lame_duck: Duration, app: &App) {
    if lame_duck.is_zero() {
        return;
    }
    tracing::info!(lame_duck_ms = u64::try_from(lame_duck.as_millis()).unwrap_or(u64::MAX), "leaving");
    app.phase.send_replace(Phase::Leaving);
    tokio::time::sleep(lame_duck).await;
}

/// Waits for requests and web sockets in flight, at most the grace.
async fn drain(serving: &mut tokio::task::JoinHandle<std::io::Result<()>>, app: &App) {
    let mut sockets = app.sockets.subscribe();
    let all = async {
        if !serving.is_finished() {
            // Its own failure was seen before, or no longer matters.
            let _ = serving.await;
        }
        let _ = sockets.wait_for(|open| *open == 0).await;
    };
    if tokio::time::timeout(app.config.drain_grace, all).await.is_err() {
        let grace = u64::try_from(app.config.drain_grace.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(drain_grace_ms = grace, "requests were still in flight at the end of the grace");
    }
}

async fn finish_work(activation: Option<&Activation>) -> Result<(), RunError> {
    let Some(activation) = activation else { return Ok(()) };
    activation.stop().await.map(|_| ()).map_err(|error| RunError::Start(error.into()))
}
