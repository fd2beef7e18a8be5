//! `plimsoll.toml`: the services, the environments, and how releases go between them. Pure: text in, values out.
//!
//! [`Config::parse`] reports everything it finds wrong at once, each with line, column, source line and a hint; a
//! configuration that was read is consistent: names exist, dependencies have an order, ports do not clash. What holds for
//! one service in one environment is [`Config::resolved`]. Secrets are references here, never values.
//!
//! ```
//! use plimsoll_core::config::Config;
//!
//! let text = "[project]\nname = \"shop\"\n[services.web]\npackage = \"shop\"\nreplcas = 2\n";
//! let error = Config::parse(text, "plimsoll.toml").unwrap_err().to_string();
//! assert!(error.starts_with("plimsoll.toml:5:1: unknown key `replcas`"));
//! assert!(error.ends_with("hint: did you mean `replicas`?"));
//! ```

mod advisories;
mod cache;
mod canary;
mod capacity;
mod check;
mod delivery;
mod environment;
mod explain;
mod kubernetes;
mod metrics;
mod mistake;
mod order;
mod period;
mod places;
mod resolve;
#[cfg(feature = "schema")]
mod schema;
mod service;
mod signing;
mod values;

#[cfg(test)]
mod tests;

pub use advisories::{Advisories, AdvisoryLimit, IgnoredAdvisory};
pub use cache::{CacheWrite, SharedCache};
pub use canary::{CanarySettings, PrometheusSettings};
pub use capacity::{Access, Autoscale, Resources, Storage};
pub use delivery::{
    ConsoleChannel, Images, LayerCompression, NoticeEvent, Notify, PlatformToolchain, Profile, ProfileRules,
    ProfileSettings, Profiles, RegistryAccess, Severity, SlackChannel, WebhookChannel,
};
pub use environment::{
    ApprovalRule, Environment, Evidence, Gate, ServiceOverride, Slo, Strategy, StrategyKind, Target,
};
pub use kubernetes::{CanaryBy, KubernetesSettings, Render};
pub use metrics::Metrics;
pub use mistake::{ConfigError, Mistake};
pub use period::{Period, PeriodError};
pub use resolve::{ResolvedAutoscale, ResolvedHealth, ResolvedService, ResolvedSmoke, UnknownEnvironment};
#[cfg(feature = "schema")]
pub use schema::json_schema;
pub use service::{Activation, Defaults, DockerBuild, HealthSettings, Method, Service, Smoke, StatePolicy};
pub use signing::Signing;
pub use values::{Base, ProjectName, Registry, SecretSource};

use crate::{EnvironmentName, ServiceName};
use mistake::{Found, MOST_MISTAKES};
use places::Places;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, ops::Range};
use toml::{
    Spanned,
    de::{DeTable, Deserializer},
};

/// The largest file that is read: a thousand services fit, a log file given by mistake does not.
const LARGEST_FILE: usize = 1 << 20;

/// A whole `plimsoll.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Config {
    /// The project.
    pub project: Project,
    /// What holds for every service that does not say otherwise.
    #[serde(default)]
    pub defaults: Defaults,
    /// The services, by name.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "BTreeMap<String, Service>"))]
    pub services: BTreeMap<ServiceName, Service>,
    /// The environments, by name.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "BTreeMap<String, Environment>"))]
    pub environments: BTreeMap<EnvironmentName, Environment>,
    /// Images.
    #[serde(default)]
    pub images: Images,
    /// Registries, by host and port as they stand in references.
    #[serde(default)]
    pub registries: BTreeMap<String, RegistryAccess>,
    /// Signatures.
    #[serde(default)]
    pub signing: Signing,
    /// What is known to be wrong with crates.
    #[serde(default)]
    pub advisories: Advisories,
    /// Outputs of steps that machines share.
    #[serde(default)]
    pub cache: SharedCache,
    /// Notices.
    #[serde(default)]
    pub notify: Notify,
    /// Profiles.
    #[serde(default)]
    pub profiles: Profiles,
}

/// `[project]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Project {
    /// Names the state directory.
    pub name: ProjectName,
    /// Where the sources lie, such as `https://github.com/example/shop`; default: git's remote `origin`.
    #[serde(default)]
    pub repository: Option<String>,
}

impl Config {
    /// Reads a configuration; `file` is the name that errors show.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        if text.len() > LARGEST_FILE {
            let found = Found::new(0..0, "the file is larger than 1 MiB", "is it the right file?");
            return Err(ConfigError::new(file, "", vec![found], &[]));
        }
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            let found = errors.iter().map(|e| describe(e, &[]));
            return Err(ConfigError::new(file, text, found.collect(), &quoted(text)));
        }
        let mut places = Places::of(table.get_ref());
        let (config, mut found) = shape(table, &mut places);
        if let Some(config) = &config {
            found.extend(check::check(config, &places));
        }
        match config {
            Some(config) if found.is_empty() => Ok(config),
            _ => Err(ConfigError::new(file, text, found, places.secrets())),
        }
    }

    /// The rules of a profile: its defaults with what the configuration says instead.
    pub fn profile(&self, profile: Profile) -> ProfileRules {
        let said = match profile {
            Profile::Local => self.profiles.local,
            Profile::Github => self.profiles.github,
        };
        let defaults = profile.defaults();
        ProfileRules {
            missing_toolchain: said.missing_toolchain.unwrap_or(defaults.missing_toolchain),
            evidence: said.evidence.unwrap_or(defaults.evidence),
        }
    }

    /// The least evidence an environment accepts in a profile: the stronger of what both ask for.
    pub fn evidence(&self, environment: &Environment, profile: Profile) -> Evidence {
        environment.approval.evidence.max(self.profile(profile).evidence)
    }
}

/// Reads the types, taking out what is wrong and trying again, so that one look finds all mistakes of shape.
///
/// Bounded by the number of mistakes that are shown; nothing is returned when what is left cannot be read.
fn shape(mut table: Spanned<DeTable<'_>>, places: &mut Places) -> (Option<Config>, Vec<Found>) {
    let mut found = Vec::new();
    // Each mistake can make its table go next, because a key that it needs went: hence twice the number.
    for _ in 0..2 * MOST_MISTAKES {
        let error = match Config::deserialize(Deserializer::from(table.clone())) {
            Ok(config) => {
                places.narrow(table.get_ref());
                return (Some(config), found);
            }
            Err(error) => error,
        };
        let span = error.span().unwrap_or(0..0);
        // A key that was taken out is not missing: what is wrong with it has been told.
        let told = match explain::missing_key(error.message()) {
            Some(key) => places.has_below(&span, key),
            None => explain::is_empty_choice(error.message()) && places.has_any_below(&span),
        };
        if !told {
            let mut one = describe(&error, places.secrets());
            if !places.is_value(&span) {
                one.message = one.message.replacen("unknown value", "unknown key", 1);
            }
            found.push(one);
        }
        if !places::take_out(table.get_mut(), &span) {
            break;
        }
    }
    (None, found)
}

fn describe(error: &toml::de::Error, secrets: &[Range<usize>]) -> Found {
    let span = error.span().unwrap_or(0..0);
    if secrets.iter().any(|secret| secret.start == span.start) {
        let hint = "write `{ env = \"VARIABLE\" }` or `{ file = \"path\" }`";
        return Found::new(span, "expected a reference to a secret, found a text", hint);
    }
    let (message, hint) = explain::explain(error.message());
    Found::new(span, message, hint)
}

/// In a file that cannot be read nobody knows what a text is: what follows the first quote of a line is not shown where the
/// line, or the header above it, speaks of secrets.
fn quoted(text: &str) -> Vec<Range<usize>> {
    let secret =
        |line: &str| ["secret", "webhook", "url", "password", "signing"].iter().any(|word| line.contains(word));
    let mut ranges = Vec::new();
    let mut below = false;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with('[') {
            below = secret(line);
        }
        if let Some(quote) = line.find(['"', '\'']).filter(|_| below || secret(line)) {
            ranges.push(at + quote + 1..at + line.trim_end().len());
        }
        at += line.len();
    }
    ranges
}
