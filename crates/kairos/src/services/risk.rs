//! The risk manager: decides each order, keeps the orders, tells positions.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{Page, Parts, READ_ONLY, refuse};
use crate::config::Live;
use crate::ledger::{Compat, Ledger, LedgerError};
use crate::risk::{Limits, Order, Record, Verdict, total_profit};
use crate::server::{App, chain};

/// Calls that may wait for the log. At a few milliseconds per sync, the last of them is served within a second.
const WAITING: usize = 256;
/// Below the two seconds after which the gateway gives up, so that it hears the reason.
const PATIENCE: Duration = Duration::from_millis(1800);
/// Orders in one page: about half a megabyte.
const LONGEST_PAGE: usize = 1000;

pub(super) fn build(app: &Arc<App>) -> Parts {
    for counter in [
        "kairos_orders_accepted_total",
        "kairos_orders_refused_total",
        "kairos_orders_duplicate_total",
        "kairos_orders_stale_total",
    ] {
        app.metrics.add(counter, 0);
    }
    let desk =
        Arc::new(Desk { app: Arc::clone(app), ledger: Mutex::default(), waiting: Arc::new(Semaphore::new(WAITING)) });
    let router = Router::new()
        .route("/orders", get(orders).post(order))
        .route("/positions", get(positions))
        .route("/_plimsoll/compat", get(compat))
        .with_state(Arc::clone(&desk));
    let prepare = Box::new(move || {
        let ledger = Ledger::open(desk.app.config.state_dir.as_deref(), desk.app.config.state_schema)?;
        *desk.ledger.lock().unwrap_or_else(PoisonError::into_inner) = Some(ledger);
        Ok(())
    });
    Parts { router, activation: None, prepare, background: Vec::new() }
}

struct Desk {
    app: Arc<App>,
    /// None until the log has been read.
    ledger: Mutex<Option<Ledger>>,
    waiting: Arc<Semaphore>,
}

/// Why the log was not asked, or has no answer.
enum Unavailable {
    Starting,
    Busy,
    Late,
    Ledger(LedgerError),
}

impl IntoResponse for Unavailable {
    fn into_response(self) -> Response {
        let reason = match self {
            Self::Starting => "the order database is still being read".to_owned(),
            Self::Busy => format!("{WAITING} calls are waiting for the order database"),
            Self::Late => "the order database is slow: send the same id again to learn the decision".to_owned(),
            Self::Ledger(error) => {
                let reason = chain(&error);
                tracing::error!(reason, "order database");
                reason
            }
        };
        refuse(StatusCode::SERVICE_UNAVAILABLE, reason)
    }
}

impl Desk {
    /// Runs `work` on the ledger, on a blocking thread, one at a time.
    async fn with_ledger<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&Ledger, &App) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let place = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| Unavailable::Busy)?;
        let begun = Instant::now();
        let task = tokio::task::spawn_blocking(move || {
            // The place in the queue is given back when the work is done, also when nobody waits any longer.
            let _place = place;
            let ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            let ledger = ledger.as_ref().ok_or(Unavailable::Starting)?;
            // Nobody waits any longer: an order that was answered with 503 should not be decided after all.
            if begun.elapsed() >= PATIENCE {
                return Err(Unavailable::Late);
            }
            work(ledger, &self.app).map_err(Unavailable::Ledger)
        });
        match tokio::time::timeout(PATIENCE, task).await {
            Ok(done) => done.expect("the ledger does not panic"),
            Err(_) => Err(Unavailable::Late),
        }
    }
}

async fn order(State(desk): State<Arc<Desk>>, body: Bytes) -> Response {
    let order: Order = match serde_json::from_slice(&body) {
        Ok(order) => order,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, format!("no order: {error}")),
    };
    let decided = Arc::clone(&desk)
        .with_ledger(move |ledger, app| {
            ledger.decide(&order, limits(&app.live()), app.config.slot_name(), app.is_read_only())
        })
        .await;
    match decided {
        Ok(verdict) => answer(verdict, &desk.app),
        Err(unavailable) => unavailable.into_response(),
    }
}

fn limits(live: &Live) -> Limits {
    Limits { max_position: live.max_position_size, max_loss: live.starting_equity * live.risk_limit_pct / 100.0 }
}

fn answer(verdict: Verdict, app: &App) -> Response {
    match verdict {
        Verdict::Decided(record) => {
            let Record { accepted, position, reason, .. } = &record;
            let counter = if *accepted { "kairos_orders_accepted_total" } else { "kairos_orders_refused_total" };
            app.metrics.add(counter, 1);
            tracing::info!(id = record.order.id, accepted, position, reason, "order");
            decision(&record, false)
        }
        Verdict::Known(record) => {
            app.metrics.add("kairos_orders_duplicate_total", 1);
            decision(&record, true)
        }
        Verdict::Mismatch => refuse(StatusCode::CONFLICT, "this id has been used for another order"),
        Verdict::Stale { highest } => {
            app.metrics.add("kairos_orders_stale_total", 1);
            refuse(StatusCode::CONFLICT, format!("stale generation: {highest} has been seen"))
        }
        Verdict::ReadOnly => refuse(StatusCode::SERVICE_UNAVAILABLE, READ_ONLY),
        Verdict::Malformed(reason) => refuse(StatusCode::UNPROCESSABLE_ENTITY, reason),
    }
}

fn decision(record: &Record, duplicate: bool) -> Response {
    let status = if record.accepted { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    let mut answer = json!({"accepted": record.accepted, "position": record.position, "duplicate": duplicate});
    if let Some(reason) = &record.reason {
        answer["reason"] = json!(reason);
    }
    (status, Json(answer)).into_response()
}

async fn positions(State(desk): State<Arc<Desk>>) -> Result<Json<Value>, Unavailable> {
    let told = desk.with_ledger(|ledger, app| {
        let holdings = ledger.holdings()?;
        let Limits { max_position, max_loss } = limits(&app.live());
        Ok(json!({
            "positions": holdings,
            "profit": total_profit(&holdings),
            "max_position_size": max_position,
            "max_loss": max_loss,
        }))
    });
    told.await.map(Json)
}

/// Which versions can read the state as it is now.
async fn compat(State(desk): State<Arc<Desk>>) -> Result<Json<Compat>, Unavailable> {
    desk.with_ledger(|ledger, _| ledger.compat()).await.map(Json)
}

/// Orders are numbered from 1 in the order of their decisions; `since` is the last number a reader has.
async fn orders(State(desk): State<Arc<Desk>>, Query(page): Query<Page>) -> Result<Json<Value>, Unavailable> {
    let told = desk.with_ledger(move |ledger, _| {
        let found = ledger.orders(page.since, page.limit.min(LONGEST_PAGE))?;
        Ok(json!({"orders": found.records, "total": found.total, "next": found.next}))
    });
    told.await.map(Json)
}
