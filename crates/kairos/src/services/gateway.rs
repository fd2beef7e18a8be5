//! The gateway: what clients see. It decides nothing about an order; without the risk manager there is no order.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{Parts, READ_ONLY, refuse};
use crate::client::{Answer, Call};
use crate::config::Service;
use crate::peers::PeerError;
use crate::server::{App, chain};

pub(super) fn build(app: &Arc<App>) -> Parts {
    for counter in ["kairos_orders_routed_total", "kairos_orders_unroutable_total"] {
        app.metrics.add(counter, 0);
    }
    let router = Router::new()
        .route("/", get(summary))
        .route("/orders", get(orders).post(order))
        .route("/positions", get(positions))
        .route("/prices", get(prices))
        .route("/strategies", get(strategies))
        .with_state(Arc::clone(app));
    Parts { router, activation: None, prepare: Box::new(|| Ok(())), background: Vec::new() }
}

/// Hands an upstream's answer on as it is, refusals included.
fn pass_on(answer: Result<Answer, PeerError>) -> Response {
    match answer {
        Ok(Answer { status, content_type, body }) => {
            let json = HeaderValue::from_static("application/json");
            (status, [(header::CONTENT_TYPE, content_type.unwrap_or(json))], body).into_response()
        }
        Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, chain(&error)),
    }
}

async fn order(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Response {
    let given = headers.get("x-api-key").map_or(&[][..], HeaderValue::as_bytes);
    if !app.reload.keys().accept(given, Instant::now()) {
        return refuse(StatusCode::UNAUTHORIZED, "the header x-api-key is missing or wrong");
    }
    if !app.live().enable_trading {
        return refuse(StatusCode::FORBIDDEN, "trading is off");
    }
    if app.is_read_only() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, READ_ONLY);
    }
    let mut order: Value = match serde_json::from_slice(&body) {
        Ok(order @ Value::Object(_)) => order,
        Ok(_) => return refuse(StatusCode::BAD_REQUEST, "no order: not a JSON object"),
        Err(error) => return refuse(StatusCode::BAD_REQUEST, format!("no order: {error}")),
    };
    if order["price"].is_null() {
        match latest_price(&app, order["instrument"].as_str().unwrap_or_default()).await {
            Ok(price) => order["price"] = json!(price),
            Err(reason) => {
                app.metrics.add("kairos_orders_unroutable_total", 1);
                return refuse(StatusCode::SERVICE_UNAVAILABLE, reason);
            }
        }
    }
    let call = Call::order(&order, order["id"].is_string());
    let answer = app.peers.call(Service::RiskManager, call).await;
    let counter = if answer.is_ok() { "kairos_orders_routed_total" } else { "kairos_orders_unroutable_total" };
    app.metrics.add(counter, 1);
    pass_on(answer)
}

async fn latest_price(app: &App, instrument: &str) -> Result<f64, String> {
    let answer = app.peers.get(Service::MarketDataIngestor, "/prices").await.map_err(|error| chain(&error))?;
    let prices: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    prices["prices"][instrument]["price"].as_f64().ok_or_else(|| format!("there is no price of {instrument:?}"))
}

fn with_query(uri: &axum::http::Uri) -> &str {
    uri.path_and_query().map_or("/", axum::http::uri::PathAndQuery::as_str)
}

async fn orders(State(app): State<Arc<App>>, uri: axum::http::Uri) -> Response {
    pass_on(app.peers.get(Service::RiskManager, with_query(&uri)).await)
}

async fn positions(State(app): State<Arc<App>>) -> Response {
    pass_on(app.peers.get(Service::RiskManager, "/positions").await)
}

async fn prices(State(app): State<Arc<App>>) -> Response {
    pass_on(app.peers.get(Service::MarketDataIngestor, "/prices").await)
}

async fn strategies(State(app): State<Arc<App>>) -> Response {
    pass_on(app.peers.get(Service::StrategyOrchestrator, "/strategies").await)
}

/// All three answers at once; one that is missing is told in its place and spoils nothing.
async fn summary(State(app): State<Arc<App>>) -> Json<Value> {
    let part = async |service, path| match app.peers.get(service, path).await {
        Ok(answer) => serde_json::from_slice(&answer.body).unwrap_or_default(),
        Err(error) => json!({"reason": chain(&error)}),
    };
    let (positions, prices, strategies) = tokio::join!(
        part(Service::RiskManager, "/positions"),
        part(Service::MarketDataIngestor, "/prices"),
        part(Service::StrategyOrchestrator, "/strategies"),
    );
    let identity = crate::identity::read(&app.config).await;
    Json(json!({
        "service": app.config.service.name(),
        "version": identity.version,
        "environment": identity.environment,
        "trading_enabled": app.live().enable_trading,
        "positions": positions,
        "prices": prices,
        "strategies": strategies,
    }))
}
