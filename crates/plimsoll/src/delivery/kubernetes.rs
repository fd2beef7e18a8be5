//! Environments in a cluster: their targets, and the objects that a chart or an overlay makes for them.

use crate::session::Session;
use plimsoll_core::{
    EnvironmentName,
    config::{Environment, KubernetesSettings, Period, Render, Target as TargetConfig},
};
use plimsoll_deploy::{Release, SecretSource, ServiceSpec};
use plimsoll_engine::StepError;
use plimsoll_kubernetes::{
    Access, KubernetesTarget, Object, Source,
    manifest::{Context, typed},
};
use plimsoll_steps::RenderedObjects;
use std::{path::PathBuf, sync::Arc};

/// What charts are rendered for unless the configuration says otherwise: the oldest version whose objects this knows.
const VERSION: &str = "1.33";

/// The target of an environment in a cluster, for what only such a one can be asked.
pub(super) fn target_of(session: &Session, name: &EnvironmentName) -> KubernetesTarget {
    let environment = session.config.environments.get(name).expect("the name was looked up in the configuration");
    target(session, name, environment, super::resources::secrets(&session.environment, session.root.clone()))
}

/// The target of an environment.
pub(super) fn target(
    session: &Session,
    name: &EnvironmentName,
    environment: &Environment,
    secrets: SecretSource,
) -> KubernetesTarget {
    let settings = &environment.kubernetes;
    let access = Access { kubeconfig: kubeconfig(session), context: settings.context.clone() };
    let render = objects(session.config.project.name.to_string(), settings.lame_duck);
    KubernetesTarget::new(access, name.clone(), namespace(session, name, settings), secrets, render)
        .canary_by(settings.canary_by)
}

fn namespace(session: &Session, name: &EnvironmentName, settings: &KubernetesSettings) -> String {
    settings.namespace(session.config.project.name.as_str(), name.as_str())
}

/// `kubectl` with the options that lead to the namespace of an environment.
pub(super) fn place(session: &Session, name: &EnvironmentName) -> String {
    let settings = &session.config.environments[name].kubernetes;
    let context = settings.context.as_ref().map(|context| format!(" --context {context}")).unwrap_or_default();
    format!("kubectl{context} -n {}", namespace(session, name, settings))
}

/// The files that `KUBECONFIG` names, else the one in the home directory.
fn kubeconfig(session: &Session) -> Vec<PathBuf> {
    match session.environment.get("KUBECONFIG").filter(|value| !value.is_empty()) {
        Some(value) => std::env::split_paths(value).filter(|path| !path.as_os_str().is_empty()).collect(),
        None => {
            session.environment.get("HOME").map(|home| PathBuf::from(home).join(".kube/config")).into_iter().collect()
        }
    }
}

/// Makes the objects of a service: those that came with the release, else typed ones.
fn objects(project: String, lame_duck: Option<Period>) -> plimsoll_kubernetes::Render {
    let seconds = lame_duck.map(|period| u32::try_from(period.millis().div_ceil(1000)).unwrap_or(u32::MAX));
    Arc::new(move |spec: &ServiceSpec, release: &Release| {
        if spec.objects.is_empty() {
            let context = Context::new(project.clone(), release.environment.clone(), &release.services);
            let context = match seconds {
                Some(seconds) => context.lame_duck(seconds),
                None => context,
            };
            return typed(spec, &context).map_err(|e| e.to_string());
        }
        spec.objects.iter().map(|value| Object::try_from(value.clone()).map_err(|e| e.to_string())).collect()
    })
}

/// Renders the charts and overlays of all environments that have one.
pub(crate) async fn rendered(session: &Session) -> Result<RenderedObjects, StepError> {
    let services: Vec<_> = session.config.services_in_order().into_iter().cloned().collect();
    let mut all = RenderedObjects::new();
    for (name, environment) in &session.config.environments {
        let Some(source) = source(session, name, environment) else { continue };
        let cannot = || format!("cannot make the objects of {name}");
        let objects = plimsoll_kubernetes::render(&source, &session.environment)
            .await
            .map_err(|e| StepError::user(cannot()).caused_by(&e))?;
        let given = plimsoll_kubernetes::by_service(&objects, &services);
        let given = given.map_err(|e| StepError::user(cannot()).caused_by(&e))?;
        let plain =
            given.into_iter().map(|(service, objects)| (service, objects.into_iter().map(Into::into).collect()));
        all.insert(name.clone(), plain.collect());
    }
    Ok(all)
}

fn source(session: &Session, name: &EnvironmentName, environment: &Environment) -> Option<Source> {
    let settings = &environment.kubernetes;
    let in_workspace = |path: &String| session.root.join(path);
    match (environment.target, settings.render) {
        (TargetConfig::Kubernetes, Render::Helm) => Some(Source::Helm {
            chart: in_workspace(settings.chart.as_ref()?),
            values: settings.values.iter().map(in_workspace).collect(),
            release: session.config.project.name.to_string(),
            namespace: namespace(session, name, settings),
            version: settings.version.clone().unwrap_or_else(|| VERSION.to_owned()),
        }),
        (TargetConfig::Kubernetes, Render::Kustomize) => {
            Some(Source::Kustomize { overlay: in_workspace(settings.overlay.as_ref()?) })
        }
        _ => None,
    }
}
