//! The lame duck: a process that still answers everything and asks each client to go elsewhere.
//!
//! Where traffic is moved by what new connections lead to (a Kubernetes Service selector), clients that keep their
//! connection stay with the process they have. A lame duck says `Connection: close` in every answer and closes web
//! sockets with 1001. It never closes an idle connection: that would race with the request its client may be sending.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::App;

/// The switch, for the deployment.
pub(super) fn routes(app: &Arc<App>) -> Router {
    Router::new().route("/_plimsoll/lame-duck", get(view).post(switch)).with_state(Arc::clone(app))
}

/// What is told about it. The request that asks and its connection are not counted.
#[derive(Serialize)]
struct View {
    on: bool,
    connections: usize,
    in_flight: u64,
}

impl View {
    fn of(app: &App) -> Self {
        let in_flight = app.metrics.in_flight().saturating_sub(1);
        Self { on: app.is_lame_duck(), connections: app.connections.others(), in_flight }
    }
}

#[derive(Deserialize)]
struct Switch {
    on: bool,
}

async fn view(State(app): State<Arc<App>>) -> Json<View> {
    Json(View::of(&app))
}

async fn switch(State(app): State<Arc<App>>, Json(Switch { on }): Json<Switch>) -> Json<View> {
    let changed = app.sent_away.send_replace(on) != on;
    if changed {
        tracing::info!(on, "lame duck");
    }
    Json(View::of(&app))
}

/// Ends each connection after its answer for as long as clients should go elsewhere.
pub(super) async fn say_close(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    // An upgrade names its new protocol in the same header; the web socket itself is sent away by a close frame.
    if app.is_lame_duck() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
