//! The routes every service has: health, readiness, status, metrics, version, activation, and two diagnostics.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{App, Phase, chain};
use crate::activation::{Activation, ActivationError, View};
use crate::identity;
use crate::metrics::CONTENT_TYPE;

/// The longest answer of `/slow`.
const SLOWEST: Duration = Duration::from_secs(30);

/// How long a peer has to answer a close frame: a slow network's round trip, many times over.
const CLOSING: Duration = Duration::from_secs(5);

/// Adds the common routes to a service's own.
pub(super) fn add(router: Router, app: &Arc<App>, activation: Option<Arc<Activation>>) -> Router {
    let shared = Shared { app: Arc::clone(app), activation };
    let mut common = Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .route("/slow", get(slow))
        .route("/ws", get(socket));
    if shared.activation.is_some() {
        common = common
            .route("/_plimsoll/activate", post(activate))
            .route("/_plimsoll/deactivate", post(deactivate))
            .route("/_plimsoll/activation", get(view));
    }
    router
        .merge(common.with_state(shared))
        .fallback(|| async { (StatusCode::NOT_FOUND, Json(json!({"reason": "there is nothing at this path"}))) })
}

#[derive(Clone)]
struct Shared {
    app: Arc<App>,
    activation: Option<Arc<Activation>>,
}

impl Shared {
    /// A service which is not exclusive always works.
    fn active(&self) -> bool {
        self.activation.as_ref().is_none_or(|activation| activation.view().active)
    }

    async fn tag(&self) -> Value {
        let identity = identity::read(&self.app.config).await;
        json!({"slot": self.app.config.slot_name(), "version": identity.version})
    }
}

async fn health(State(shared): State<Shared>) -> Json<Value> {
    let identity = identity::read(&shared.app.config).await;
    Json(json!({"status": "ok", "service": shared.app.config.service.name(), "version": identity.version}))
}

async fn ready(State(shared): State<Shared>) -> Response {
    let phase = *shared.app.phase.borrow();
    let (status, name) = match phase {
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        Phase::Serving => (StatusCode::OK, "serving"),
        Phase::Leaving | Phase::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    };
    let service = shared.app.config.service.name();
    (status, Json(json!({"ready": phase == Phase::Serving, "phase": name, "service": service}))).into_response()
}

async fn status(State(shared): State<Shared>) -> Json<Value> {
    let app = &shared.app;
    let identity = identity::read(&app.config).await;
    Json(json!({
        "service": app.config.service.name(),
        "version": identity.version,
        "environment": identity.environment,
        "slot": app.config.slot_name(),
        "uptime_seconds": app.started.elapsed().as_secs(),
        "started_at": app.started_at,
        "trading_enabled": app.live().enable_trading,
        "read_only": app.is_read_only(),
        "active": shared.active(),
        "log_level": app.live().log_level,
        "config": app.reload.view(),
        "api_endpoint": app.config.api_endpoint,
        "dependencies": app.peers.view(),
        "build": {
            "package": env!("CARGO_PKG_VERSION"),
            "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
            "os": std::env::consts::OS,
            "architecture": std::env::consts::ARCH,
        },
    }))
}

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let app = &shared.app;
    let uptime = i64::try_from(app.started.elapsed().as_secs()).unwrap_or(i64::MAX);
    app.metrics.set("kairos_active", i64::from(shared.active()));
    app.metrics.set("kairos_read_only", i64::from(app.is_read_only()));
    app.metrics.set("kairos_config_valid", i64::from(app.reload.is_valid()));
    app.metrics.set("kairos_uptime_seconds", uptime);
    app.peers.measure();
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], app.metrics.render())
}

async fn version(State(shared): State<Shared>) -> Json<Value> {
    let app = &shared.app;
    let identity = identity::read(&app.config).await;
    Json(json!({
        "service": app.config.service.name(),
        "version": identity.version,
        "revision": identity.revision,
        "run": identity.run,
        "environment": identity.environment,
        "slot": app.config.slot_name(),
        "generation": identity.generation,
        "started_at": app.started_at,
    }))
}

#[derive(Deserialize)]
struct Slow {
    ms: u64,
}

async fn slow(State(shared): State<Shared>, Query(Slow { ms }): Query<Slow>) -> Json<Value> {
    tokio::time::sleep(Duration::from_millis(ms).min(SLOWEST)).await;
    Json(shared.tag().await)
}

async fn socket(State(shared): State<Shared>, upgrade: WebSocketUpgrade) -> Response {
    // An echo of texts needs no more; it bounds what one client can make this process hold.
    upgrade.max_message_size(64 * 1024).on_upgrade(move |socket| async move {
        let _open = Open::new(Arc::clone(&shared.app));
        // A peer that is gone needs no answer; there is nothing else to do about it.
        let _ = echo(socket, &shared).await;
    })
}

/// Counts one open socket for as long as it lives.
struct Open(Arc<App>);

impl Open {
    fn new(app: Arc<App>) -> Self {
        app.sockets.send_modify(|open| *open += 1);
        Self(app)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.sockets.send_modify(|open| *open -= 1);
    }
}

async fn echo(mut socket: WebSocket, shared: &Shared) -> Result<(), axum::Error> {
    socket.send(Message::text(shared.tag().await.to_string())).await?;
    loop {
        let received = tokio::select! {
            received = socket.recv() => received,
            () = shared.app.lame_duck() => {
                let reason = "going away".into();
                socket.send(Message::Close(Some(CloseFrame { code: close_code::AWAY, reason }))).await?;
                // The peer's own close frame ends the stream.
                let closed = async { while socket.recv().await.is_some_and(|received| received.is_ok()) {} };
                // A peer that says nothing more is not waited for any longer than that.
                let _ = tokio::time::timeout(CLOSING, closed).await;
                return Ok(());
            }
        };
        match received.transpose()? {
            Some(Message::Text(text)) => socket.send(Message::Text(text)).await?,
            Some(Message::Close(_)) | None => return Ok(()),
            Some(_) => {}
        }
    }
}

#[derive(Deserialize)]
struct Generation {
    generation: u64,
}

async fn activate(State(shared): State<Shared>, Json(message): Json<Generation>) -> Response {
    let Some(activation) = &shared.activation else { return StatusCode::NOT_FOUND.into_response() };
    if *shared.app.phase.borrow() != Phase::Serving {
        let reason = json!({"active": false, "reason": "the service is starting or stopping"});
        return (StatusCode::SERVICE_UNAVAILABLE, Json(reason)).into_response();
    }
    told(activation, activation.activate(message.generation).await, message.generation)
}

async fn deactivate(State(shared): State<Shared>, Json(message): Json<Generation>) -> Response {
    let Some(activation) = &shared.activation else { return StatusCode::NOT_FOUND.into_response() };
    told(activation, activation.deactivate(message.generation).await, message.generation)
}

async fn view(State(shared): State<Shared>) -> Response {
    match &shared.activation {
        Some(activation) => Json(activation.view()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn told(activation: &Activation, outcome: Result<View, ActivationError>, generation: u64) -> Response {
    match outcome {
        Ok(View { active, .. }) => {
            tracing::info!(active, generation, "activation");
            Json(json!({"active": active, "generation": generation})).into_response()
        }
        Err(error) => {
            let status = match error {
                ActivationError::Stale { .. } | ActivationError::Held => StatusCode::CONFLICT,
                ActivationError::Lock { .. } | ActivationError::State(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            let reason = chain(&error);
            tracing::warn!(generation, reason, "activation refused");
            let answer = json!({"active": activation.view().active, "reason": reason});
            (status, Json(answer)).into_response()
        }
    }
}
