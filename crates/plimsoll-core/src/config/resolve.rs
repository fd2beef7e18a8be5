//! What holds for a service in one environment: built-in defaults, `[defaults]`, the service, the environment, and the
//! environment's override for the service, each over the one before.

use super::{
    Activation, Autoscale, Config, Environment, HealthSettings, Method, Metrics, Period, Resources, SecretSource,
    Service, Smoke, StatePolicy, Storage, Target, explain::choice,
};
use crate::{BackupCommands, Classify, EnvironmentName, ErrorClass, ServiceName, StateSchema};
use serde::Serialize;
use std::collections::BTreeMap;

/// One service of one environment, everything decided.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResolvedService {
    /// Its name.
    pub name: ServiceName,
    /// What it runs on. Not named for the default, so that what runs as processes keeps its hash from before there was a choice.
    #[serde(skip_serializing_if = "Target::is_default")]
    pub target: Target,
    /// The cargo package it is built from.
    pub package: String,
    /// The binary of that package.
    pub bin: String,
    /// How many processes serve it.
    pub replicas: u16,
    /// The port clients use; `None` lets the target choose one and keep it.
    pub port: Option<u16>,
    /// Plain environment variables.
    pub env: BTreeMap<String, String>,
    /// Environment variables whose values are secret, by where the values come from.
    pub secrets: BTreeMap<String, SecretSource>,
    /// The services it calls.
    pub depends_on: Vec<ServiceName>,
    /// When a replica counts as ready.
    pub health: ResolvedHealth,
    /// Idempotent requests that show the service works.
    pub smoke: Vec<ResolvedSmoke>,
    /// Whether it may work while its slot is standby.
    pub activation: Activation,
    /// Who shares its state directory.
    pub state: StatePolicy,
    /// How long requests in flight may take to finish when its slot is drained, in milliseconds.
    pub drain_ms: u64,
    /// How long a process may take to end after SIGTERM before it is killed, in milliseconds.
    pub stop_grace_ms: u64,
    /// What one replica is promised of a cluster, and what it may take. What is not said is not written, here and below:
    /// a configuration without it keeps its hash.
    #[serde(skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// How many replicas a cluster gives it, by load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<ResolvedAutoscale>,
    /// The volume a cluster gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// Where its replicas tell what they answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// Which versions can read its state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<StateSchema>,
    /// How its state is copied and put back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupCommands>,
}

/// How many replicas there are, by load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ResolvedAutoscale {
    /// The fewest.
    pub min: u16,
    /// The most.
    pub max: u16,
    /// The wanted average use of processor time, in per cent of what a replica is promised.
    pub cpu_pct: Option<u16>,
    /// The wanted average use of memory, in per cent of what a replica is promised.
    pub memory_pct: Option<u16>,
    /// How long less load must last before there are fewer, in whole seconds.
    pub scale_down_after_s: u32,
}

/// When a replica counts as ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResolvedHealth {
    /// Path answering 200 when the replica can take traffic.
    pub path: String,
    /// How long a replica may take to become ready, in milliseconds.
    pub deadline_ms: u64,
    /// Time between two questions, in milliseconds.
    pub interval_ms: u64,
}

/// A request and what its answer must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResolvedSmoke {
    /// `GET` or `HEAD`.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The expected status.
    pub status: u16,
    /// Text the body must contain.
    pub contains: Option<String>,
    /// JSON pointers into the body and the values they must have.
    pub json: BTreeMap<String, serde_json::Value>,
    /// Response headers that must be there with these values.
    pub headers: BTreeMap<String, String>,
    /// The longest acceptable time to the whole answer, in milliseconds.
    pub max_ms: Option<u64>,
}

/// An environment the configuration does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no environment `{name}` in the configuration ({hint})")]
pub struct UnknownEnvironment {
    /// The name that was asked for.
    pub name: EnvironmentName,
    /// The nearest name, or all there are.
    pub hint: String,
}

impl Classify for UnknownEnvironment {
    fn class(&self) -> ErrorClass {
        ErrorClass::User
    }
}

impl Config {
    /// An environment by its name.
    pub fn environment(&self, name: &EnvironmentName) -> Result<&Environment, UnknownEnvironment> {
        self.environments.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.environments.keys().map(EnvironmentName::as_str).collect();
            UnknownEnvironment { name: name.clone(), hint: choice(name.as_str(), &names, "it has none") }
        })
    }

    /// Every service as it is in this environment, in dependency order: what others depend on comes first.
    pub fn resolved(&self, environment: &EnvironmentName) -> Result<Vec<ResolvedService>, UnknownEnvironment> {
        let environment = self.environment(environment)?;
        let names = self.services_in_order().into_iter();
        Ok(names.map(|name| self.resolve(name, &self.services[name], environment)).collect())
    }

    fn resolve(&self, name: &ServiceName, service: &Service, environment: &Environment) -> ResolvedService {
        let defaults = &self.defaults;
        let here = environment.services.get(name).cloned().unwrap_or_default();
        let ten = Period::from_secs(10);
        let env = [&defaults.env, &service.env, &environment.env, &here.env].into_iter().flatten();
        ResolvedService {
            name: name.clone(),
            target: environment.target,
            package: service.package.clone(),
            bin: service.bin.clone().unwrap_or_else(|| name.to_string()),
            replicas: here.replicas.or(service.replicas).or(defaults.replicas).unwrap_or(1),
            port: here.port.or(service.port),
            env: env.map(|(key, value)| (key.clone(), value.clone())).collect(),
            secrets: service.secrets.clone(),
            depends_on: service.depends_on.clone(),
            health: health(&service.health, &defaults.health),
            smoke: service.smoke.iter().map(smoke).collect(),
            activation: service.activation,
            state: service.state,
            drain_ms: here.drain.or(service.drain).or(defaults.drain).unwrap_or(ten).millis(),
            stop_grace_ms: service.stop_grace.or(defaults.stop_grace).unwrap_or(ten).millis(),
            resources: here.resources.or(service.resources).or(defaults.resources),
            autoscale: here.autoscale.or(service.autoscale).map(autoscale),
            storage: here.storage.or_else(|| service.storage.clone()),
            metrics: service.metrics.clone(),
            schema: service.schema,
            backup: service.backup.clone(),
        }
    }
}

fn autoscale(settings: Autoscale) -> ResolvedAutoscale {
    let Autoscale { min, max, cpu_pct, memory_pct, scale_down_after } = settings;
    let after = scale_down_after.unwrap_or(Period::from_secs(300)).millis() / 1_000;
    let scale_down_after_s = u32::try_from(after).expect("no period is longer than 30 days");
    ResolvedAutoscale { min, max, cpu_pct, memory_pct, scale_down_after_s }
}

fn health(own: &HealthSettings, defaults: &HealthSettings) -> ResolvedHealth {
    let path = own.path.as_deref().or(defaults.path.as_deref()).unwrap_or("/ready");
    ResolvedHealth {
        path: path.to_owned(),
        deadline_ms: own.deadline.or(defaults.deadline).unwrap_or(Period::from_secs(30)).millis(),
        interval_ms: own.interval.or(defaults.interval).unwrap_or(Period::from_millis(100)).millis(),
    }
}

fn smoke(smoke: &Smoke) -> ResolvedSmoke {
    ResolvedSmoke {
        method: smoke.method,
        path: smoke.path.clone(),
        status: smoke.status,
        contains: smoke.contains.clone(),
        json: smoke.json.clone(),
        headers: smoke.headers.clone(),
        max_ms: smoke.within.map(Period::millis),
    }
}
