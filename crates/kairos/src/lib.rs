//! Kairos: four small paper-trading services, the payload Plimsoll ships.
//!
//! One library, four binaries of a few lines. The services talk HTTP to each other and nothing else:
//!
//! - `api-gateway` is what clients see: it routes orders and gathers the answers of the other three.
//! - `risk-manager` decides each order against position and loss limits and keeps the orders.
//! - `market-data-ingestor` produces prices; one process at a time does (an *exclusive* worker).
//! - `strategy-orchestrator` trades a moving-average crossover; exclusive as well.
//!
//! Deciding lives in pure modules (`risk`, `strategy`, `walk`, most of [`Config`]); the rest is a thin shell around it.
//! Nothing here is TLS, needs a C library, or trades real money.

mod activation;
mod client;
mod command;
mod config;
mod health;
mod identity;
mod ledger;
mod maintenance;
mod metrics;
mod peers;
mod reload;
mod risk;
mod server;
mod services;
mod state;
mod strategy;
mod telemetry;
mod walk;

pub use command::main;
pub use config::{
    ActivationMode, Address, Config, ConfigError, DeployEnv, Live, LogFormat, Problem, Secret, Service, Slot,
};
