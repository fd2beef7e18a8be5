//! The strategy orchestrator: an exclusive worker which trades each instrument on its moving averages.
//!
//! An order's id follows from the tick it answers, and the tick counts as done only after the risk manager's answer: a
//! crash in between repeats the order under the same id, which the risk manager knows already.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ingestor::{Tick, Ticks};
use super::{Parts, StartError};
use crate::activation::{Activation, Worker};
use crate::client::Call;
use crate::config::Service;
use crate::peers::PeerError;
use crate::risk::{Order, Side};
use crate::server::{App, chain};
use crate::state::{self, StateError};
use crate::strategy::{Crossover, LONG, SHORT};

/// Ticks asked for at once; the next poll brings the rest.
const BATCH: usize = 256;
/// Orders remembered for `/orders/placed`; the risk manager's log has all.
const REMEMBERED: usize = 1000;

/// The state file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Saved {
    /// The last tick which is done.
    last_seq: u64,
    instruments: BTreeMap<String, Crossover>,
}

/// An order the risk manager has answered.
#[derive(Debug, Clone, Serialize)]
struct Placed {
    id: String,
    instrument: String,
    side: Side,
    quantity: u32,
    price: f64,
    generation: u64,
    slot: Option<&'static str>,
    accepted: bool,
    duplicate: bool,
}

#[derive(Debug, Default)]
struct Desk {
    now: Saved,
    placed: VecDeque<Placed>,
}

struct Strategy {
    app: Arc<App>,
    path: Option<PathBuf>,
    desk: Mutex<Desk>,
}

/// What came of one tick.
enum Outcome {
    Done,
    /// The same tick must be tried again.
    Retry,
    /// A later generation trades elsewhere.
    Fenced,
}

/// Why there are no ticks, or an order has no answer.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("the market-data-ingestor answered no ticks")]
    Shape(#[from] serde_json::Error),
    #[error("the risk-manager answered {0}")]
    Status(StatusCode),
}

pub(super) fn build(app: &Arc<App>) -> Parts {
    for counter in ["kairos_signals_total", "kairos_orders_placed_total"] {
        app.metrics.add(counter, 0);
    }
    let path = app.config.state_dir.as_ref().map(|directory| directory.join("strategy.json"));
    let strategy = Arc::new(Strategy { app: Arc::clone(app), path, desk: Mutex::default() });
    let activation = Arc::new(Activation::new(&app.config, Arc::clone(&strategy) as Arc<dyn Worker>));
    let router = Router::new()
        .route("/strategies", get(strategies))
        .route("/orders/placed", get(placed))
        .with_state((Arc::clone(&strategy), Arc::clone(&activation)));
    let work = work(Arc::clone(&strategy), Arc::clone(&activation));
    // A damaged state should stop the start and not the activation.
    let prepare = Box::new(move || strategy.saved().map(|_| ()).map_err(StartError::State));
    Parts { router, activation: Some(activation), prepare, background: vec![Box::pin(work)] }
}

/// Polls for ticks while active; ends with the process.
async fn work(strategy: Arc<Strategy>, activation: Arc<Activation>) {
    let mut interval = tokio::time::interval(strategy.app.config.tick);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = false;
    loop {
        interval.tick().await;
        let fetched = {
            let _permit = activation.permit().await;
            strategy.fetch().await
        };
        let worked = match fetched {
            Ok(ticks) => strategy.batch(ticks, &activation).await,
            Err(error) => Err(error),
        };
        match worked {
            Ok(()) => told = false,
            // Once per outage; at ten polls a second the log would be nothing else.
            Err(error) if !told => {
                tracing::warn!(error = chain(&error), "waiting for another service");
                told = true;
            }
            Err(_) => {}
        }
    }
}

impl Strategy {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Every change is complete before the next call that could panic.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saved(&self) -> Result<Option<Saved>, StateError> {
        self.path.as_deref().map_or(Ok(None), state::load)
    }

    async fn fetch(&self) -> Result<Ticks, CallError> {
        let since = self.desk().now.last_seq;
        let path = format!("/ticks?since={since}&limit={BATCH}");
        let answer = self.app.peers.get(Service::MarketDataIngestor, &path).await?;
        let ticks: Ticks = serde_json::from_slice(&answer.body)?;
        if ticks.active && ticks.last_seq < since {
            tracing::warn!(since, last_seq = ticks.last_seq, "the ticks began anew: windows are forgotten");
            self.desk().now = Saved { last_seq: ticks.last_seq, ..Saved::default() };
        }
        Ok(ticks)
    }

    /// One permit per tick, so that a deactivation waits for one order at most.
    async fn batch(&self, ticks: Ticks, activation: &Activation) -> Result<(), CallError> {
        for tick in ticks.ticks {
            let Some(permit) = activation.permit_now().await else { return Ok(()) };
            match self.tick(&tick, permit.generation).await? {
                Outcome::Done => {}
                Outcome::Retry => return Ok(()),
                Outcome::Fenced => {
                    drop(permit);
                    tracing::warn!("fenced: a later generation trades");
                    if let Err(error) = activation.stop().await {
                        tracing::error!(error = chain(&error), "state not flushed");
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn tick(&self, tick: &Tick, generation: u64) -> Result<Outcome, CallError> {
        let mut crossover = {
            let desk = self.desk();
            if tick.seq <= desk.now.last_seq {
                return Ok(Outcome::Done);
            }
            desk.now.instruments.get(&tick.instrument).cloned().unwrap_or_default()
        };
        let side = crossover.push(tick.price);
        let order = side.filter(|_| self.app.live().enable_trading).map(|side| self.order(tick, side, generation));
        let placed = match &order {
            Some(order) => match self.place(order, generation).await? {
                Some(placed) => Some(placed),
                None => return Ok(Outcome::Fenced),
            },
            None => None,
        };
        let acknowledged = placed.is_some();
        {
            let mut desk = self.desk();
            desk.now.last_seq = tick.seq;
            desk.now.instruments.insert(tick.instrument.clone(), crossover);
            desk.placed.extend(placed);
            if desk.placed.len() > REMEMBERED {
                desk.placed.pop_front();
            }
        }
        self.app.metrics.add("kairos_signals_total", u64::from(side.is_some()));
        if acknowledged && let Err(error) = tokio::task::block_in_place(|| self.flush()) {
            tracing::error!(error = chain(&error), "state not saved");
            return Ok(Outcome::Retry);
        }
        Ok(Outcome::Done)
    }

    fn order(&self, tick: &Tick, side: Side, generation: u64) -> Order {
        Order {
            id: format!("strategy-{}-{}", tick.instrument, tick.seq),
            instrument: tick.instrument.clone(),
            side,
            quantity: self.app.live().order_size,
            price: tick.price,
            generation: Some(generation),
            placed_by: self.app.config.slot_name().map(str::to_owned),
            placer: Some(Service::StrategyOrchestrator.name().to_owned()),
        }
    }

    /// None when fenced; an error when the risk manager has not decided.
    async fn place(&self, order: &Order, generation: u64) -> Result<Option<Placed>, CallError> {
        let answer = self.app.peers.call(Service::RiskManager, Call::order(order, true)).await?;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let stale = body["reason"].as_str().is_some_and(|reason| reason.starts_with("stale generation"));
        match answer.status {
            StatusCode::CONFLICT if stale => return Ok(None),
            StatusCode::OK | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::CONFLICT => {}
            status => return Err(CallError::Status(status)),
        }
        let accepted = body["accepted"].as_bool().unwrap_or(false);
        self.app.metrics.add("kairos_orders_placed_total", 1);
        tracing::info!(id = order.id, accepted, generation, "order placed");
        Ok(Some(Placed {
            id: order.id.clone(),
            instrument: order.instrument.clone(),
            side: order.side,
            quantity: order.quantity,
            price: order.price,
            generation,
            slot: self.app.config.slot_name(),
            accepted,
            duplicate: body["duplicate"].as_bool().unwrap_or(false),
        }))
    }
}

impl Worker for Strategy {
    fn resume(&self) -> Result<(), StateError> {
        if let Some(saved) = self.saved()? {
            self.desk().now = saved;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StateError> {
        let Some(path) = &self.path else { return Ok(()) };
        let now = self.desk().now.clone();
        state::save(path, &now)
    }
}

type Shared = (Arc<Strategy>, Arc<Activation>);

async fn strategies(State((strategy, activation)): State<Shared>) -> Json<Value> {
    let view = activation.view();
    let live = strategy.app.live();
    let desk = strategy.desk();
    let instruments: Vec<&String> = desk.now.instruments.keys().collect();
    Json(json!({
        "strategies": [{
            "name": "moving-average-crossover",
            "short": SHORT,
            "long": LONG,
            "order_size": live.order_size,
            "instruments": instruments,
            "last_seq": desk.now.last_seq,
            "orders_placed": desk.placed.len(),
        }],
        "active": view.active,
        "generation": view.generation,
        "trading_enabled": live.enable_trading,
    }))
}

async fn placed(State((strategy, _)): State<Shared>) -> Json<Value> {
    let desk = strategy.desk();
    Json(json!({"orders": desk.placed}))
}
