//! The release that an environment is to serve, from the configuration and what was pushed. Pure.

use crate::{
    environment::{Environment, Gated, Pushed},
    inputs::Inputs,
};
use plimsoll_core::{
    Digest, EnvironmentName, Fingerprint, ImageRef, RunId, ServiceName,
    config::{self, CanarySettings, Method, ResolvedService, SecretSource, StrategyKind},
};
use plimsoll_deploy::{
    Access, Activation, ApprovalRecord, Autoscale, Canary, Evidence, Health, Metrics, Policy, Release, Resources,
    ServiceSpec, SmokeRequest, StatePolicy, Storage,
};
use plimsoll_engine::StepError;
use std::{collections::BTreeMap, time::Duration};

/// The parameters of a step that deploys: everything of the release but the images. Serialised into the plan hash, so
/// that an approval covers the rendered configuration.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(crate) struct Rendered {
    /// The environment's name.
    pub environment: String,
    /// The release's version.
    pub version: String,
    /// Its commit.
    pub revision: String,
    /// Who deploys it.
    pub actor: String,
    /// The services in dependency order, as configured for this environment.
    pub services: Vec<ResolvedService>,
    /// How the deployment is judged.
    pub policy: Policy,
    /// The objects that a chart or an overlay made of each service.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub objects: BTreeMap<ServiceName, Vec<serde_json::Value>>,
}

/// How long a deployment may take that tries nothing first.
const DEPLOYING: Duration = Duration::from_mins(30);

/// A canary as it is configured.
fn canary(settings: &CanarySettings) -> Canary {
    Canary {
        steps: settings.steps.clone(),
        services: settings.services.clone(),
        step: settings.step.duration(),
        hold: settings.hold.duration(),
        max_error_diff_pp: settings.max_error_diff,
        max_p99_diff_ms: settings.max_p99_diff.millis(),
        abort_error_ratio: settings.abort_error_ratio,
        abort_error_pct: settings.abort_error_pct,
        error_rate: settings.error_rate,
        min_requests: settings.min_requests,
        count_probes: settings.count_probes,
        ..Canary::default()
    }
}

/// What a deployment to an environment must keep to, without a canary.
pub fn policy(environment: &config::Environment) -> Policy {
    let slo = &environment.slo;
    Policy {
        watch: Duration::from_millis(slo.watch.millis()),
        max_error_pct: slo.max_error_pct,
        max_p99_ms: Some(slo.max_p99.millis()),
        probes_per_second: u32::from(slo.probe_rate),
        ..Policy::default()
    }
}

impl Rendered {
    /// Renders the configuration of `E`.
    pub(crate) fn of<E: Environment>(inputs: &Inputs) -> Result<Self, StepError> {
        let (config, name) = (inputs.config(), E::name());
        let services = in_order(inputs, &name)?;
        let environment = config.environments.get(&name).expect("a resolved environment is configured");
        agrees::<E>(environment.gate)?;
        let policy = Policy {
            drain: !inputs.options.no_drain,
            canary: (environment.strategy.kind == StrategyKind::Canary).then(|| canary(&environment.canary)),
            ..policy(environment)
        };
        Ok(Self {
            environment: name.to_string(),
            version: inputs.source.version.clone(),
            revision: inputs.source.revision(),
            actor: inputs.actor.clone(),
            services,
            policy,
            objects: inputs.objects.get(&name).cloned().unwrap_or_default(),
        })
    }

    /// How long a deployment may take: what every step may, and a canary's time.
    pub(crate) fn timeout(&self) -> Duration {
        DEPLOYING + self.policy.canary.as_ref().map_or(Duration::ZERO, |canary| canary.hold)
    }

    /// The release with the images that were pushed for it.
    pub(crate) fn release(
        &self,
        pushed: &Pushed,
        run: &RunId,
        approval: Option<ApprovalRecord>,
    ) -> Result<Release, StepError> {
        let spec = |service: &ResolvedService| {
            let image = pushed.images().get(&service.name);
            let image = image.ok_or_else(|| StepError::internal(format!("nothing was pushed for {}", service.name)))?;
            Ok(service_spec(service, image.image.clone(), image.built.digest.clone(), &self.objects))
        };
        let services = self.services.iter().map(spec).collect::<Result<Vec<_>, StepError>>()?;
        Ok(Release {
            environment: self.environment.parse().expect("it was rendered from a checked name"),
            version: self.version.clone(),
            revision: self.revision.clone(),
            run: run.clone(),
            actor: self.actor.clone(),
            services,
            approval,
        })
    }
}

/// Refuses a configuration that says another gate than the environment's type: who reads only one of the two must not be misled.
fn agrees<E: Environment>(gate: Option<config::Gate>) -> Result<(), StepError> {
    let says = match gate {
        None => return Ok(()),
        Some(config::Gate::Approval) => true,
        Some(config::Gate::Open) => false,
    };
    if says == E::Gate::APPROVAL {
        return Ok(());
    }
    let (toml, typed) = if says { ("approval", "open") } else { ("open", "approval") };
    let error =
        StepError::user(format!("plimsoll.toml says gate = \"{toml}\" for {}, its pipeline says {typed}", E::NAME));
    Err(error.with_hint("change `type Gate` of the environment in the pipelines, or the configuration"))
}

/// The services as configured for an environment, in dependency order.
pub(crate) fn in_order(inputs: &Inputs, environment: &EnvironmentName) -> Result<Vec<ResolvedService>, StepError> {
    let resolved = inputs.config().resolved(environment).map_err(|e| StepError::of(&e))?;
    let ordered = inputs.services();
    Ok(ordered.iter().filter_map(|s| resolved.iter().find(|r| r.name == *s).cloned()).collect())
}

/// What a target needs to run a service with this image.
pub fn service_spec(
    service: &ResolvedService,
    image: ImageRef,
    digest: Digest,
    objects: &BTreeMap<ServiceName, Vec<serde_json::Value>>,
) -> ServiceSpec {
    let objects = objects.get(&service.name).cloned().unwrap_or_default();
    let mut text = serde_json::to_string(service).expect("a resolved service is plain data");
    if !objects.is_empty() {
        text.push_str(&serde_json::to_string(&objects).expect("objects are plain data"));
    }
    ServiceSpec {
        name: service.name.clone(),
        image,
        digest,
        replicas: service.replicas,
        public_port: service.port,
        env: service.env.clone(),
        secret_env: service.secrets.iter().map(|(name, source)| (name.clone(), source_name(source))).collect(),
        depends_on: service.depends_on.clone(),
        health: Health {
            path: service.health.path.clone(),
            deadline_ms: service.health.deadline_ms,
            interval_ms: service.health.interval_ms,
        },
        smoke: service.smoke.iter().map(smoke).collect(),
        activation: match service.activation {
            config::Activation::Traffic => Activation::Traffic,
            config::Activation::Exclusive => Activation::Exclusive,
        },
        state: match service.state {
            config::StatePolicy::Shared => StatePolicy::Shared,
            config::StatePolicy::PerSlot => StatePolicy::PerSlot,
            config::StatePolicy::External => StatePolicy::External,
        },
        drain_ms: service.drain_ms,
        stop_grace_ms: service.stop_grace_ms,
        resources: resources(service.resources),
        autoscale: service.autoscale.map(autoscale),
        storage: service.storage.as_ref().map(storage),
        metrics: service.metrics.as_ref().map(metrics),
        schema: service.schema,
        backup: service.backup.clone(),
        config_hash: Fingerprint::of(text.as_bytes()),
        objects,
    }
}

fn resources(of: config::Resources) -> Resources {
    let config::Resources { cpu, memory, cpu_limit, memory_limit } = of;
    Resources { cpu, memory, cpu_limit, memory_limit }
}

fn autoscale(of: config::ResolvedAutoscale) -> Autoscale {
    let config::ResolvedAutoscale { min, max, cpu_pct, memory_pct, scale_down_after_s } = of;
    Autoscale { min, max, cpu_pct, memory_pct, scale_down_after_s }
}

fn metrics(of: &config::Metrics) -> Metrics {
    let usual = Metrics::default();
    let config::Metrics { path, port, requests, status, duration, route, ignore, probe } = of.clone();
    Metrics {
        path: path.unwrap_or(usual.path),
        port,
        requests: requests.unwrap_or(usual.requests),
        status: status.unwrap_or(usual.status),
        duration: duration.unwrap_or(usual.duration),
        route: route.unwrap_or(usual.route),
        ignore: ignore.unwrap_or(usual.ignore),
        probe: probe.unwrap_or(usual.probe),
    }
}

fn storage(of: &config::Storage) -> Storage {
    let access = match of.access {
        config::Access::ReadWriteOnce => Access::ReadWriteOnce,
        config::Access::ReadWriteMany => Access::ReadWriteMany,
        config::Access::ReadWriteOncePod => Access::ReadWriteOncePod,
    };
    Storage { size: of.size, class: of.class.clone(), access }
}

/// The name under which a target looks a secret up: `env:NAME` or `file:PATH`.
fn source_name(source: &SecretSource) -> String {
    match source {
        SecretSource::Env(name) => format!("env:{name}"),
        SecretSource::File(path) => format!("file:{path}"),
    }
}

fn smoke(request: &config::ResolvedSmoke) -> SmokeRequest {
    SmokeRequest {
        method: match request.method {
            Method::Get => "GET",
            Method::Head => "HEAD",
        }
        .to_owned(),
        path: request.path.clone(),
        status: request.status,
        contains: request.contains.clone(),
        json: request.json.clone(),
        headers: request.headers.clone(),
        max_ms: request.max_ms,
    }
}

/// The kinds of evidence, from the configuration's words to the record's.
pub(crate) fn evidence(word: config::Evidence) -> Evidence {
    match word {
        config::Evidence::None => Evidence::None,
        config::Evidence::Terminal => Evidence::Terminal,
        config::Evidence::SshSignature => Evidence::SshSignature,
        config::Evidence::SlackSigned => Evidence::SlackSigned,
        config::Evidence::GithubReview => Evidence::GithubReview,
    }
}
