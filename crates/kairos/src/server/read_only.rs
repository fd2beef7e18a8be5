//! The switch of read-only mode: no new order is taken, everything can be read, and a decided order still has its answer.
//!
//! For a backup's last seconds, a damaged disk, or a look at what would be lost. `READ_ONLY` is how it begins.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::App;
use crate::config::Service;

/// The switch, on the services that take orders.
pub(super) fn routes(app: &Arc<App>) -> Router {
    match app.config.service {
        Service::ApiGateway | Service::RiskManager => {
            Router::new().route("/_plimsoll/read-only", get(view).post(switch)).with_state(Arc::clone(app))
        }
        Service::MarketDataIngestor | Service::StrategyOrchestrator => Router::new(),
    }
}

#[derive(Serialize, Deserialize)]
struct Switch {
    on: bool,
}

async fn view(State(app): State<Arc<App>>) -> Json<Switch> {
    Json(Switch { on: app.is_read_only() })
}

async fn switch(State(app): State<Arc<App>>, Json(Switch { on }): Json<Switch>) -> Json<Switch> {
    if app.read_only.swap(on, Ordering::SeqCst) != on {
        tracing::info!(on, "read-only");
    }
    Json(Switch { on })
}
