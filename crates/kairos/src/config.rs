//! What a service is told: environment variables, over an optional TOML file, checked before anything starts.
//!
//! Not a place for defaults of single endpoints; those live beside them. All mistakes are collected, so that one
//! failed start names every one of them.

#![expect(clippy::disallowed_methods, reason = "the one place where a service reads its environment")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ledger::Schema;

mod error;
mod reader;
#[cfg(test)]
mod tests;
mod words;

pub use error::{ConfigError, Problem};
use reader::Reader;
pub(crate) use reader::is_instrument;
pub use words::{ActivationMode, DeployEnv, LogFormat, Secret, Service, Slot};

/// Everything a service is told, checked. Field names are the variables' names.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which service this is.
    pub service: Service,
    /// Address or name to listen on.
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// Where this runs.
    pub deploy_env: DeployEnv,
    /// Where clients find the environment from outside.
    pub api_endpoint: Option<String>,
    /// Whether the service begins in read-only mode.
    pub read_only: bool,
    /// How logs look.
    pub log_format: LogFormat,
    /// Where state is kept; in memory when absent.
    pub state_dir: Option<PathBuf>,
    /// What the risk manager takes itself for.
    pub(crate) state_schema: Schema,
    /// Where the other services are, each with one address per replica.
    pub peers: BTreeMap<Service, Vec<Address>>,
    /// Where this process is; it prefers replicas there.
    pub zone: Option<String>,
    /// The version told when no identity file tells one.
    pub service_version: String,
    /// Which copy this is.
    pub slot: Option<Slot>,
    /// The identity file (`PLIMSOLL_IDENTITY`), read at each question.
    pub identity: Option<PathBuf>,
    /// How long clients are sent elsewhere after SIGTERM before the listener is closed.
    pub lame_duck: Duration,
    /// How long requests in flight may take after that.
    pub drain_grace: Duration,
    /// When set, the gateway takes orders only with this key.
    pub api_key: Option<Secret>,
    /// Where that key is instead, and read again when it changes.
    pub api_key_file: Option<PathBuf>,
    /// How long the key before is accepted beside a new one.
    pub api_key_grace: Duration,
    /// Who decides when an exclusive worker works.
    pub activation: ActivationMode,
    /// Prices to replay (`instrument,price` lines) in place of the random walk.
    pub price_file: Option<PathBuf>,
    /// Seed of the random walk.
    pub seed: u64,
    /// Time between ticks, and between the polls of the strategy.
    pub tick: Duration,
    /// What is traded.
    pub instruments: Vec<String>,
    /// What may change while the service runs, as it was at the start.
    pub at_start: Live,
}

/// One replica of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Base URL without a trailing slash.
    pub url: String,
    /// Where it is.
    pub zone: Option<String>,
}

/// What a changed configuration file changes without a restart.
#[derive(Debug, Clone, PartialEq)]
pub struct Live {
    /// Shares, either way, per instrument.
    pub max_position_size: u32,
    /// Largest loss, as per cent of `starting_equity`.
    pub risk_limit_pct: f64,
    /// Money at the start.
    pub starting_equity: f64,
    /// Whether orders may be placed.
    pub enable_trading: bool,
    /// Shares per order of the strategy.
    pub order_size: u32,
    /// The least important log lines that are written.
    pub log_level: &'static str,
}

/// The variables of [`Live`].
pub(crate) const LIVE: &[&str] =
    &["MAX_POSITION_SIZE", "RISK_LIMIT_PCT", "STARTING_EQUITY", "ENABLE_TRADING", "ORDER_SIZE", "LOG_LEVEL"];

/// Every variable read; the file has the same names in lower case.
const VARIABLES: &[&str] = &[
    "HOST",
    "PORT",
    "DEPLOY_ENV",
    "API_ENDPOINT",
    "MAX_POSITION_SIZE",
    "RISK_LIMIT_PCT",
    "STARTING_EQUITY",
    "ENABLE_TRADING",
    "READ_ONLY",
    "LOG_FORMAT",
    "LOG_LEVEL",
    "STATE_DIR",
    "STATE_SCHEMA",
    "RISK_MANAGER_URL",
    "MARKET_DATA_INGESTOR_URL",
    "STRATEGY_ORCHESTRATOR_URL",
    "API_GATEWAY_URL",
    "ZONE",
    "SERVICE_VERSION",
    "SERVICE_SLOT",
    "PLIMSOLL_IDENTITY",
    "LAME_DUCK_MS",
    "DRAIN_GRACE_MS",
    "KAIROS_API_KEY",
    "KAIROS_API_KEY_FILE",
    "KAIROS_API_KEY_GRACE_MS",
    "ACTIVATION",
    "PLIMSOLL_ACTIVATION",
    "PRICE_FILE",
    "SEED",
    "TICK_MS",
    "INSTRUMENTS",
    "ORDER_SIZE",
];

impl Config {
    /// Checks values and reads the file of the key they name.
    pub(crate) fn from_values_and_key(
        service: Service,
        values: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let mut config = Self::from_values(service, values)?;
        if let Some(path) = &config.api_key_file {
            config.api_key = Some(read_key(path)?);
        }
        Ok(config)
    }

    /// The state directory alone, for work on a state that needs no service.
    pub(crate) fn state_directory() -> Result<PathBuf, ConfigError> {
        let values = Sources::from_environment().values()?;
        let mut read = Reader { values: &values, problems: Vec::new() };
        read.text("STATE_DIR").map(PathBuf::from).ok_or_else(|| {
            read.refuse("STATE_DIR", "the directory with the state to work on");
            ConfigError::Invalid(read.problems)
        })
    }

    /// Checks values by variable name. An empty value counts as absent.
    pub fn from_values(service: Service, values: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let mut read = Reader { values, problems: Vec::new() };
        let environments = [DeployEnv::Development, DeployEnv::Staging, DeployEnv::Production].map(|e| (e.name(), e));
        let deploy_env = read.choice("DEPLOY_ENV", &environments, DeployEnv::Development);
        let production = deploy_env == DeployEnv::Production;
        let services =
            [Service::ApiGateway, Service::RiskManager, Service::MarketDataIngestor, Service::StrategyOrchestrator];
        let config = Self {
            service,
            host: read.text("HOST").unwrap_or("127.0.0.1").to_owned(),
            port: read.number("PORT", None, 0..=u16::MAX),
            deploy_env,
            api_endpoint: read.endpoint(production),
            read_only: read.choice("READ_ONLY", &[("true", true), ("false", false)], false),
            log_format: read.choice(
                "LOG_FORMAT",
                &[("json", LogFormat::Json), ("text", LogFormat::Text)],
                LogFormat::Json,
            ),
            state_dir: read.text("STATE_DIR").map(PathBuf::from),
            state_schema: Schema::new(read.number("STATE_SCHEMA", Some(3), 2..=3)),
            peers: services.into_iter().filter_map(|s| Some((s, read.addresses(s.url_variable())?))).collect(),
            zone: read.zone(),
            service_version: read.text("SERVICE_VERSION").unwrap_or(env!("CARGO_PKG_VERSION")).to_owned(),
            slot: read.choice("SERVICE_SLOT", &[("blue", Some(Slot::Blue)), ("green", Some(Slot::Green))], None),
            identity: read.text("PLIMSOLL_IDENTITY").map(PathBuf::from),
            lame_duck: Duration::from_millis(read.number("LAME_DUCK_MS", Some(0), 0..=600_000)),
            drain_grace: Duration::from_millis(read.number("DRAIN_GRACE_MS", Some(10_000), 0..=600_000)),
            api_key: read.text("KAIROS_API_KEY").map(|key| Secret(key.to_owned())),
            api_key_file: read.text("KAIROS_API_KEY_FILE").map(PathBuf::from),
            api_key_grace: Duration::from_millis(read.number("KAIROS_API_KEY_GRACE_MS", Some(300_000), 0..=86_400_000)),
            activation: read.activation(),
            price_file: read.text("PRICE_FILE").map(PathBuf::from),
            seed: read.number("SEED", Some(42), 0..=u64::MAX),
            tick: Duration::from_millis(read.number("TICK_MS", Some(100), 1..=60_000)),
            instruments: read.instruments(),
            at_start: Live::read(&mut read, production),
        };
        if config.api_key.is_some() && config.api_key_file.is_some() {
            read.problems.push(Problem {
                variable: "KAIROS_API_KEY_FILE",
                value: read.text("KAIROS_API_KEY_FILE").map(str::to_owned),
                allowed: "a file, where KAIROS_API_KEY is not set".to_owned(),
            });
        }
        if read.problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(read.problems)) }
    }

    /// The slot's name, if there is one.
    pub fn slot_name(&self) -> Option<&'static str> {
        self.slot.map(Slot::name)
    }
}

/// Where values come from: the environment as it was at the start, over a file, which may change.
pub(crate) struct Sources {
    environment: BTreeMap<String, String>,
    pub(crate) file: Option<PathBuf>,
}

impl Sources {
    pub(crate) fn from_environment() -> Self {
        // A value that is not UTF-8 is kept, visibly damaged, so that its check refuses it instead of its absence.
        let text = |name: &str| Some((name.to_owned(), std::env::var_os(name)?.to_string_lossy().into_owned()));
        let environment = VARIABLES.iter().filter_map(|name| text(name)).collect();
        let file = std::env::var_os("KAIROS_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
        Self { environment, file }
    }

    /// The values now.
    pub(crate) fn values(&self) -> Result<BTreeMap<String, String>, ConfigError> {
        let mut values = match &self.file {
            Some(path) => read_file(path.clone())?,
            None => BTreeMap::new(),
        };
        values.extend(self.environment.clone());
        Ok(values)
    }
}

/// Reads a key that is alone in its file.
pub(crate) fn read_key(path: &Path) -> Result<Secret, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    match text.trim() {
        "" => Err(ConfigError::NoKey { path: path.to_owned() }),
        key => Ok(Secret(key.to_owned())),
    }
}

fn read_file(path: PathBuf) -> Result<BTreeMap<String, String>, ConfigError> {
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(ConfigError::Read { path, source }),
    };
    let table: toml::Table = match toml::from_str(&text) {
        Ok(table) => table,
        Err(source) => return Err(ConfigError::Parse { path, source: Box::new(source) }),
    };
    let mut values = BTreeMap::new();
    for (key, value) in table {
        let name = key.to_uppercase();
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            _ => return Err(ConfigError::Key { path, key }),
        };
        if !VARIABLES.contains(&name.as_str()) {
            return Err(ConfigError::Key { path, key });
        }
        values.insert(name, value);
    }
    Ok(values)
}
