//! What the steps of a release need from outside: blob store, registry, targets, somebody to ask. Making them starts
//! nothing and sends nothing; the local target starts its supervisor, and the registry, when a step first asks.

use super::{cache, daemons, registries, signing, terminal::Terminal};
use crate::{cli_error::CliError, report::RunReporter, session::Session};
use plimsoll_core::{
    EnvironmentName, Secret,
    config::{Registry as RegistryConfig, Target as TargetConfig},
};
use plimsoll_deploy::{Meter, Prometheus, Queries, SecretSource, Target};
use plimsoll_engine::{Resources, Sharing, StepError};
use plimsoll_http::{Client, ClientOptions};
use plimsoll_local::{LocalPaths, LocalTarget, OciImages, supervisor::Launch};
use plimsoll_oci::{BlobStore, RegistryClient};
use plimsoll_process::Environment;
use plimsoll_steps::{Asker, Asking, Inputs, Machine, Origins, Registry, RegistryAddress, Targets, Workspace};
use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

/// Everything that talks to environments and registries.
pub(crate) struct Delivery {
    pub(crate) targets: BTreeMap<EnvironmentName, Arc<dyn Target>>,
    /// What runs on this machine: the first local environment speaks for its supervisor, and the embedded registry.
    pub(crate) local: Option<Arc<LocalTarget>>,
    pub(crate) http: Client,
    /// Asks replicas themselves, which may have an address of another network of this machine.
    pub(crate) prober: Client,
    meters: BTreeMap<EnvironmentName, Arc<dyn Meter>>,
    pub(crate) registry: RegistryClient,
    registry_launch: Launch,
}

impl Delivery {
    /// Clients for all configured environments.
    pub(crate) fn open(session: &Session) -> Result<Self, StepError> {
        let options = ClientOptions { follow_redirects: false, ..ClientOptions::default() };
        let http = Client::new(&options).map_err(|e| StepError::of(&e))?;
        // Asks where targets say that their replicas are: containers have addresses of networks inside this machine, which
        // plain HTTP does not leave, and no proxy of the environment leads to.
        let probing = ClientOptions { plain_http: true, no_proxy: true, ..options.clone() };
        let prober = Client::new(&probing).map_err(|e| StepError::of(&e))?;
        let registry = registries::client(session, &options, http.clone())?;
        // The kept copy: cargo may replace the executable that runs now while the supervisor still lives.
        let own = std::env::current_exe().and_then(|own| session.state.keep_executable(&own));
        let program = own
            .map(|print| session.state.executable_path(&print))
            .map_err(|e| StepError::external("cannot keep this executable for the supervisor").caused_by(&e))?;
        let paths = LocalPaths::new(session.state.path());
        let images = Arc::new(OciImages::new(&paths, registry.clone()));
        let launch = daemons::supervisor_launch(&program, session.state.path());
        let secrets = secrets(&session.environment, session.root.clone());
        let mut targets: BTreeMap<EnvironmentName, Arc<dyn Target>> = BTreeMap::new();
        let mut local = None;
        for (name, environment) in &session.config.environments {
            match environment.target {
                TargetConfig::Local => {
                    let secrets = Arc::clone(&secrets);
                    let target = LocalTarget::new(paths.clone(), name.clone(), launch.clone(), images.clone(), secrets);
                    let target = Arc::new(target);
                    local.get_or_insert_with(|| Arc::clone(&target));
                    targets.insert(name.clone(), target);
                }
                #[cfg(feature = "kubernetes")]
                TargetConfig::Kubernetes => {
                    let target = super::kubernetes::target(session, name, environment, Arc::clone(&secrets));
                    targets.insert(name.clone(), Arc::new(target));
                }
                #[cfg(not(feature = "kubernetes"))]
                TargetConfig::Kubernetes => return Err(without("kubernetes", name)),
                TargetConfig::Docker => {
                    let engine = engine(&session.environment)?;
                    let (paths, launch, secrets) = (paths.clone(), launch.clone(), Arc::clone(&secrets));
                    let registry = registry.clone();
                    let target = LocalTarget::in_containers(paths, name.clone(), launch, engine, registry, secrets);
                    let target = Arc::new(target);
                    local.get_or_insert_with(|| Arc::clone(&target));
                    targets.insert(name.clone(), target);
                }
            }
        }
        let registry_launch = daemons::registry_launch(&program, &session.state.path().join("registry"));
        let meters = meters(session, &prober, &secrets);
        Ok(Self { targets, local, http, prober, meters, registry, registry_launch })
    }

    /// The target of an environment that the configuration names.
    pub(crate) fn target(&self, session: &Session, name: &str) -> Result<Arc<dyn Target>, CliError> {
        let name = session.environment_name(name)?;
        Ok(Arc::clone(self.targets.get(&name).expect("every configured environment has a target")))
    }

    /// Where this project's images lie.
    pub(crate) async fn registry_address(&self, session: &Session) -> Result<RegistryAddress, StepError> {
        (self.locator(session).0)().await
    }

    fn locator(&self, session: &Session) -> Registry {
        let project = session.config.project.name.to_string();
        if let RegistryConfig::Remote { host, prefix } = &session.config.images.registry {
            let prefix = if prefix.is_empty() { project } else { prefix.clone() };
            let address = RegistryAddress { host: host.clone(), prefix };
            return Registry(Box::new(move || {
                let address = address.clone();
                Box::pin(async move { Ok(address) })
            }));
        }
        let (target, launch) = (self.local.clone(), self.registry_launch.clone());
        Registry(Box::new(move || {
            let (target, launch, prefix) = (target.clone(), launch.clone(), project.clone());
            Box::pin(async move {
                let target =
                    target.ok_or_else(|| StepError::user("the embedded registry needs a local environment"))?;
                let url = target.ensure_registry(launch).await.map_err(|e| StepError::of(&e))?;
                let host = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
                Ok(RegistryAddress { host, prefix })
            })
        }))
    }
}

/// The resources of a run that may ship.
pub(crate) async fn resources(
    session: &Session,
    inputs: &Inputs,
    workspace: &Workspace,
    reporter: &Arc<RunReporter>,
) -> Result<Resources, StepError> {
    let delivery = Delivery::open(session)?;
    let store = BlobStore::open(session.cache.join("cache/blobs")).map_err(|e| StepError::of(&e))?;
    let origins =
        Origins::load(workspace, inputs.config(), &session.environment, &inputs.source, &session.cache).await?;
    let locator = delivery.locator(session);
    let trust = signing::trust(session);
    let asker = Terminal::new(session, reporter).await.map(|t| Arc::new(t) as Arc<dyn Asker>);
    let store = Arc::new(store);
    let shared = cache::shared(session, &delivery.registry, Arc::clone(&store), &trust.builder().id);
    let resources = match shared {
        Some(shared) => Resources::new().with(Arc::new(Sharing(Arc::new(shared)))),
        None => Resources::new(),
    };
    Ok(resources
        .with(Arc::new(locator))
        .with(store)
        .with(Arc::new(trust))
        .with(Arc::new(origins))
        .with(Arc::new(Machine::look(workspace.sysroot(), &session.environment, &session.config.images.toolchains)))
        .with(Arc::new(Targets::new(delivery.targets, Arc::new(delivery.prober)).metered(delivery.meters)))
        .with(Arc::new(delivery.http))
        .with(Arc::new(delivery.registry))
        .with(Arc::new(Asking(asker))))
}

/// The answer to a target that was left out of this executable.
#[cfg(not(feature = "kubernetes"))]
pub(super) fn without(feature: &str, environment: &EnvironmentName) -> StepError {
    StepError::user(format!(
        "environment {environment} has the target {feature}, which was left out of this executable"
    ))
    .with_hint(format!("add the feature `{feature}` of `plimsoll` to your xtask"))
}

/// The socket of the engine that runs containers.
pub(crate) fn engine(environment: &Environment) -> Result<PathBuf, StepError> {
    let host = environment.get("DOCKER_HOST").map(|value| value.to_string_lossy());
    plimsoll_docker::socket(host.as_deref()).map_err(|e| StepError::of(&e))
}

/// Who counts the requests of environments that name a Prometheus for their canary.
fn meters(session: &Session, client: &Client, secrets: &SecretSource) -> BTreeMap<EnvironmentName, Arc<dyn Meter>> {
    let mut meters: BTreeMap<EnvironmentName, Arc<dyn Meter>> = BTreeMap::new();
    for (name, environment) in &session.config.environments {
        let Some(settings) = &environment.canary.prometheus else { continue };
        let (requests, failed) = (settings.requests.clone(), settings.failed.clone());
        let queries = Queries { requests, failed, latency: settings.latency.clone() };
        let token = settings.token.as_ref().map(|token| (token.to_string(), Arc::clone(secrets)));
        let meter = Prometheus::new(client.clone(), settings.url.clone(), name.clone(), queries, token);
        meters.insert(name.clone(), Arc::new(meter));
    }
    meters
}

/// Resolves `env:NAME` and `file:PATH`; a relative path is one in the workspace.
pub(crate) fn secrets(environment: &Arc<Environment>, root: PathBuf) -> SecretSource {
    let environment = Arc::clone(environment);
    Arc::new(move |source: &str| match source.split_once(':') {
        Some(("env", name)) => environment
            .get(name)
            .map(|v| Secret::new(v.to_string_lossy()))
            .ok_or_else(|| format!("the environment variable {name} is not set")),
        Some(("file", path)) => fs::read_to_string(root.join(path))
            .map(|text| Secret::new(text.trim_end_matches('\n')))
            .map_err(|e| format!("{path} cannot be read: {e}")),
        _ => Err("it is neither `env:NAME` nor `file:PATH`".to_owned()),
    })
}
