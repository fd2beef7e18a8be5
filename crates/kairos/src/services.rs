//! What each service does beyond the routes all have.

pub(crate) mod gateway;
pub(crate) mod ingestor;
pub(crate) mod risk;
pub(crate) mod strategy;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use crate::activation::Activation;
use crate::config::Service;
use crate::ledger::LedgerError;
use crate::server::App;
use crate::state::StateError;

/// Why a service cannot begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("open the orders")]
    Ledger(#[from] LedgerError),
    #[error("read the state")]
    State(#[from] StateError),
    #[error("read the prices")]
    Prices(#[from] ingestor::PricesError),
}

/// What a service is made of.
pub(crate) struct Parts {
    /// Its own routes.
    pub(crate) router: Router,
    /// The switch of an exclusive worker.
    pub(crate) activation: Option<Arc<Activation>>,
    /// What must be done before it is ready; may block.
    pub(crate) prepare: Box<dyn FnOnce() -> Result<(), StartError> + Send>,
    /// Work which goes on until the process ends.
    pub(crate) background: Vec<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// Builds the service the configuration is for.
pub(crate) fn build(app: &Arc<App>) -> Result<Parts, StartError> {
    match app.config.service {
        Service::ApiGateway => Ok(gateway::build(app)),
        Service::RiskManager => Ok(risk::build(app)),
        Service::MarketDataIngestor => ingestor::build(app),
        Service::StrategyOrchestrator => Ok(strategy::build(app)),
    }
}

/// Which part of a long list is asked for.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Page {
    /// Only what comes after this number.
    #[serde(default)]
    pub(crate) since: u64,
    /// At most so many; the services bound it further.
    #[serde(default = "default_limit")]
    pub(crate) limit: usize,
}

fn default_limit() -> usize {
    1000
}

/// Why a new order is refused in read-only mode.
pub(crate) const READ_ONLY: &str = "read-only: no new order is taken";

/// A refusal in the form all order routes have.
pub(crate) fn refuse(status: StatusCode, reason: impl Into<String>) -> Response {
    (status, Json(json!({"accepted": false, "reason": reason.into()}))).into_response()
}
