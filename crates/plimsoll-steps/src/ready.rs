//! Groups of steps that every release has, added to a graph at once.

use crate::{
    compile::Compile,
    docker_build::DockerBuild,
    image::{Built, Image},
    inputs::Inputs,
    notify::Started,
    trust::repository,
};
use plimsoll_core::config::NoticeEvent;
use plimsoll_engine::{Graph, Handle};
use std::collections::BTreeSet;

/// Adds `compile` for every service and platform and `image` for every service, or `docker-build` for one that has a Dockerfile,
/// and gives the images in dependency order.
pub fn built<'g>(graph: &mut Graph<'g>, inputs: &Inputs) -> Vec<Handle<'g, Built>> {
    let config = inputs.config();
    // A name that is no address leads nobody anywhere.
    let source = Some(repository(inputs)).filter(|address| address.starts_with("http"));
    let mut images = Vec::new();
    for service in inputs.services() {
        let configured = &config.services[&service];
        let project = config.project.name.to_string();
        if let Some(build) = configured.docker_build.clone() {
            let build = DockerBuild {
                service: service.clone(),
                package: configured.package.clone(),
                project,
                source: source.clone(),
                build,
            };
            images.push(graph.pure(service.as_str(), build, ()));
            continue;
        }
        let mut binaries = Vec::new();
        for platform in &config.images.platforms {
            let compile = Compile {
                service: service.clone(),
                package: configured.package.clone(),
                bin: configured.bin.clone().unwrap_or_else(|| service.to_string()),
                platform: *platform,
                afresh: inputs.options.afresh,
                missing: config.profile(inputs.profile).missing_toolchain,
            };
            binaries.push(graph.pure(&format!("{service}/{}", platform.architecture()), compile, ()));
        }
        let image = Image {
            service: service.clone(),
            project,
            source: source.clone(),
            base: config.images.base.clone(),
            compression: config.images.compression,
        };
        images.push(graph.pure(service.as_str(), image, binaries));
    }
    images
}

/// Adds the notice that a run begins, where a channel asks for it: without one, a run that finds nothing to do sends nothing.
pub fn started(graph: &mut Graph<'_>, inputs: &Inputs) {
    let notify = &inputs.config().notify;
    let slack = notify.slack.iter().flat_map(|channel| &channel.events);
    let webhook = notify.webhook.iter().flat_map(|channel| &channel.events);
    if slack.chain(webhook).any(|event| *event == NoticeEvent::Started) {
        graph.effect("", Started::new(inputs), ());
    }
}

/// The packages that the services are built from: what a release checks before it ships them.
pub fn shipped_packages(inputs: &Inputs) -> Vec<String> {
    let packages: BTreeSet<String> = inputs.config().services.values().map(|s| s.package.clone()).collect();
    packages.into_iter().collect()
}
