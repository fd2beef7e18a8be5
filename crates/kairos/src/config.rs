//! What a service is told: environment variables, over an optional TOML file, checked before anything starts.
//!
//! Not a place for defaults of single endpoints; those live beside them. All mistakes are collected, so that one
//! failed start names every one of them.

#![expect(clippy::disallowed_methods, reason = "the one place where a service reads its environment")]

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use axum::http::Uri;

#[cfg(test)]
mod tests;

/// The four services, each a binary of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// What clients talk to.
    ApiGateway,
    /// Decides orders.
    RiskManager,
    /// Produces prices.
    MarketDataIngestor,
    /// Places orders by itself.
    StrategyOrchestrator,
}

impl Service {
    /// The name of the binary, as in logs, metrics and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ApiGateway => "api-gateway",
            Self::RiskManager => "risk-manager",
            Self::MarketDataIngestor => "market-data-ingestor",
            Self::StrategyOrchestrator => "strategy-orchestrator",
        }
    }

    /// The variable which tells the others where this service is.
    pub const fn url_variable(self) -> &'static str {
        match self {
            Self::ApiGateway => "API_GATEWAY_URL",
            Self::RiskManager => "RISK_MANAGER_URL",
            Self::MarketDataIngestor => "MARKET_DATA_INGESTOR_URL",
            Self::StrategyOrchestrator => "STRATEGY_ORCHESTRATOR_URL",
        }
    }

    /// The services this one calls.
    pub const fn dependencies(self) -> &'static [Self] {
        match self {
            Self::ApiGateway => &[Self::RiskManager, Self::MarketDataIngestor, Self::StrategyOrchestrator],
            Self::StrategyOrchestrator => &[Self::MarketDataIngestor, Self::RiskManager],
            Self::RiskManager | Self::MarketDataIngestor => &[],
        }
    }
}

/// Where a service is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeployEnv {
    /// A developer's machine.
    Development,
    /// The rehearsal.
    Staging,
    /// The real thing: stricter rules, and trading is off unless switched on.
    Production,
}

impl DeployEnv {
    /// The name as `DEPLOY_ENV` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }
}

/// How log lines look on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Which of two deployed copies this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// `blue`
    Blue,
    /// `green`
    Green,
}

impl Slot {
    /// The name as `SERVICE_SLOT` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }
}

/// Who decides when an exclusive worker works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationMode {
    /// The deployment: passive until it says so.
    Managed,
    /// Nobody: it works from its start.
    Always,
}

/// A value never shown: its `Debug` is a mask.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Whether `given` is this secret. Takes the same time wherever they differ.
    pub fn matches(&self, given: &[u8]) -> bool {
        let own = self.0.as_bytes();
        own.len() == given.len() && own.iter().zip(given).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

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
    /// Shares, either way, per instrument.
    pub max_position_size: u32,
    /// Largest loss, as per cent of `starting_equity`.
    pub risk_limit_pct: f64,
    /// Money at the start.
    pub starting_equity: f64,
    /// Whether orders may be placed.
    pub enable_trading: bool,
    /// Whether the service begins in read-only mode.
    pub read_only: bool,
    /// How logs look.
    pub log_format: LogFormat,
    /// Where state is kept; in memory when absent.
    pub state_dir: Option<PathBuf>,
    /// Where the other services are: base URLs without a trailing slash.
    pub peers: BTreeMap<Service, String>,
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
    /// Shares per order of the strategy.
    pub order_size: u32,
}

/// One mistake: which variable, what it says, what it may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Name of the variable.
    pub variable: &'static str,
    /// Its value, absent when it is not set.
    pub value: Option<String>,
    /// What is allowed.
    pub allowed: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value:?}: allowed is {}", self.variable, self.allowed),
            None => write!(f, "{} is not set: allowed is {}", self.variable, self.allowed),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Values that break a rule; all of them.
    #[error("the configuration has {} mistake(s):{}", .0.len(), lines(.0))]
    Invalid(Vec<Problem>),
    /// The file named by `KAIROS_CONFIG` is not readable.
    #[error("read the configuration file {}", path.display())]
    Read {
        /// As `KAIROS_CONFIG` names it.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML.
    #[error("parse the configuration file {}", path.display())]
    Parse {
        /// As `KAIROS_CONFIG` names it.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// It has a key nobody reads, or one which is no plain value.
    #[error("the configuration file {} has the key {key:?}, which is not one of: {}", path.display(), VARIABLES.join(", ").to_lowercase())]
    Key {
        /// As `KAIROS_CONFIG` names it.
        path: PathBuf,
        /// The key.
        key: String,
    },
}

/// One problem a line, each on a new one.
fn lines(problems: &[Problem]) -> String {
    problems.iter().flat_map(|problem| ["\n  ".to_owned(), problem.to_string()]).collect()
}

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
    "STATE_DIR",
    "RISK_MANAGER_URL",
    "MARKET_DATA_INGESTOR_URL",
    "STRATEGY_ORCHESTRATOR_URL",
    "API_GATEWAY_URL",
    "SERVICE_VERSION",
    "SERVICE_SLOT",
    "PLIMSOLL_IDENTITY",
    "LAME_DUCK_MS",
    "DRAIN_GRACE_MS",
    "KAIROS_API_KEY",
    "ACTIVATION",
    "PRICE_FILE",
    "SEED",
    "TICK_MS",
    "INSTRUMENTS",
    "ORDER_SIZE",
];

impl Config {
    /// Reads the process's environment and the file it names.
    pub fn from_environment(service: Service) -> Result<Self, ConfigError> {
        Self::from_values(service, &values()?)
    }

    /// The state directory alone, for work on a state that needs no service.
    pub(crate) fn state_directory() -> Result<PathBuf, ConfigError> {
        let values = values()?;
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
            // The upper bounds keep positions within 32 bits, with room for the sum of a position and an order.
            max_position_size: read.number("MAX_POSITION_SIZE", Some(1000), 1..=1_000_000_000),
            risk_limit_pct: read.percentage("RISK_LIMIT_PCT", 2.0),
            starting_equity: read.number("STARTING_EQUITY", Some(1_000_000.0), 1.0..=1e15),
            enable_trading: read.choice("ENABLE_TRADING", &[("true", true), ("false", false)], !production),
            read_only: read.choice("READ_ONLY", &[("true", true), ("false", false)], false),
            log_format: read.choice(
                "LOG_FORMAT",
                &[("json", LogFormat::Json), ("text", LogFormat::Text)],
                LogFormat::Json,
            ),
            state_dir: read.text("STATE_DIR").map(PathBuf::from),
            peers: services.into_iter().filter_map(|s| Some((s, read.peer(s.url_variable())?))).collect(),
            service_version: read.text("SERVICE_VERSION").unwrap_or(env!("CARGO_PKG_VERSION")).to_owned(),
            slot: read.choice("SERVICE_SLOT", &[("blue", Some(Slot::Blue)), ("green", Some(Slot::Green))], None),
            identity: read.text("PLIMSOLL_IDENTITY").map(PathBuf::from),
            lame_duck: Duration::from_millis(read.number("LAME_DUCK_MS", Some(0), 0..=600_000)),
            drain_grace: Duration::from_millis(read.number("DRAIN_GRACE_MS", Some(10_000), 0..=600_000)),
            api_key: read.text("KAIROS_API_KEY").map(|key| Secret(key.to_owned())),
            activation: read.choice(
                "ACTIVATION",
                &[("managed", ActivationMode::Managed), ("always", ActivationMode::Always)],
                ActivationMode::Managed,
            ),
            price_file: read.text("PRICE_FILE").map(PathBuf::from),
            seed: read.number("SEED", Some(42), 0..=u64::MAX),
            tick: Duration::from_millis(read.number("TICK_MS", Some(100), 1..=60_000)),
            instruments: read.instruments(),
            order_size: read.number("ORDER_SIZE", Some(10), 1..=1_000_000_000),
        };
        if read.problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(read.problems)) }
    }

    /// The slot's name, if there is one.
    pub fn slot_name(&self) -> Option<&'static str> {
        self.slot.map(Slot::name)
    }
}

/// The environment's values, over those of the file it names.
fn values() -> Result<BTreeMap<String, String>, ConfigError> {
    let mut values = match std::env::var_os("KAIROS_CONFIG").filter(|path| !path.is_empty()) {
        Some(path) => read_file(PathBuf::from(path))?,
        None => BTreeMap::new(),
    };
    for name in VARIABLES {
        // A value that is not UTF-8 is kept, visibly damaged, so that its check refuses it instead of its absence.
        if let Some(value) = std::env::var_os(name) {
            values.insert((*name).to_owned(), value.to_string_lossy().into_owned());
        }
    }
    Ok(values)
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

/// Whether a text names an instrument: 1 to 16 capital letters, digits, dots or dashes.
pub(crate) fn is_instrument(text: &str) -> bool {
    (1..=16).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'.' || b == b'-')
}

/// Takes values out and notes what is wrong with them; a wrong one yields some value, never used.
struct Reader<'a> {
    values: &'a BTreeMap<String, String>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn text(&self, variable: &'static str) -> Option<&'a str> {
        self.values.get(variable).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    fn refuse(&mut self, variable: &'static str, allowed: impl Into<String>) {
        let value = self.text(variable).map(str::to_owned);
        self.problems.push(Problem { variable, value, allowed: allowed.into() });
    }

    fn number<T>(&mut self, variable: &'static str, default: Option<T>, range: RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + Copy + fmt::Display,
    {
        let found = match (self.text(variable), default) {
            (Some(text), _) => text.parse().ok().filter(|number| range.contains(number)),
            (None, default) => default,
        };
        found.unwrap_or_else(|| {
            self.refuse(variable, format!("a number from {} to {}", range.start(), range.end()));
            *range.start()
        })
    }

    fn percentage(&mut self, variable: &'static str, default: f64) -> f64 {
        let Some(text) = self.text(variable) else { return default };
        match text.parse::<f64>() {
            Ok(number) if number > 0.0 && number <= 100.0 => number,
            _ => {
                self.refuse(variable, "a number above 0 and up to 100");
                default
            }
        }
    }

    fn choice<T: Copy>(&mut self, variable: &'static str, options: &[(&str, T)], default: T) -> T {
        let Some(text) = self.text(variable) else { return default };
        if let Some((_, value)) = options.iter().find(|(name, _)| *name == text) {
            return *value;
        }
        let names: Vec<&str> = options.iter().map(|(name, _)| *name).collect();
        self.refuse(variable, names.join(" or "));
        default
    }

    fn endpoint(&mut self, production: bool) -> Option<String> {
        let text = self.text("API_ENDPOINT")?;
        let uri = text.parse::<Uri>().ok();
        match uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.host()?))) {
            Some(("http" | "https", host)) if !(production && is_this_machine(host)) => Some(text.to_owned()),
            Some(("http" | "https", _)) => {
                self.refuse("API_ENDPOINT", "in production an http or https URL of another host than this machine");
                None
            }
            _ => {
                self.refuse("API_ENDPOINT", "an http or https URL with a host");
                None
            }
        }
    }

    /// Services talk plain HTTP to each other, so nothing else is accepted.
    fn peer(&mut self, variable: &'static str) -> Option<String> {
        let text = self.text(variable)?;
        let uri = text.parse::<Uri>().ok();
        let plain =
            uri.is_some_and(|uri| uri.scheme_str() == Some("http") && uri.host().is_some() && uri.query().is_none());
        if !plain {
            self.refuse(variable, "an http URL with a host and without a query, such as http://127.0.0.1:8080");
            return None;
        }
        Some(text.trim_end_matches('/').to_owned())
    }

    fn instruments(&mut self) -> Vec<String> {
        let text = self.text("INSTRUMENTS").unwrap_or("AAPL,MSFT,GOOG");
        let list: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        let distinct: std::collections::BTreeSet<&String> = list.iter().collect();
        // 64 instruments keep 64 rounds in the ring of 4096 ticks: three times what the strategy looks back.
        if list.len() > 64 || distinct.len() != list.len() || !list.iter().all(|name| is_instrument(name)) {
            self.refuse(
                "INSTRUMENTS",
                "1 to 64 different names, comma between, each 1 to 16 capital letters, digits, dots or dashes",
            );
        }
        list
    }
}

/// Whether a URL's host can only mean the machine that reads it.
fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    let by_address = host.parse::<IpAddr>().is_ok_and(|address| {
        let address = address.to_canonical();
        address.is_loopback() || address.is_unspecified()
    });
    // `127.1` is no address to the parser, yet resolvers take it for one.
    by_address || host == "localhost" || host.ends_with(".localhost") || host.starts_with("127.")
}
