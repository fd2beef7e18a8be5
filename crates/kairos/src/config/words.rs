//! The words a configuration is made of: services, environments, slots, and a value that is never shown.

use std::fmt;

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
pub struct Secret(pub(super) String);

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
