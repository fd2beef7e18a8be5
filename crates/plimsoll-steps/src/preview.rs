//! The release that the present checkout would make, before anything is built. Pure.
//!
//! Nobody knows the digest of an image that was not built. A service that serves keeps the image it has here, so that all
//! that differs is configuration; one that does not serve yet has a name in its place that no registry has. Neither is
//! meant to be deployed, and nothing does: a [`Goal`](plimsoll_deploy::Goal) takes pushed images.

use crate::{
    inputs::Inputs,
    release::{in_order, service_spec},
};
use plimsoll_core::{Digest, EnvironmentName, ImageRef, RunId};
use plimsoll_deploy::{Release, ReleaseRecord};
use plimsoll_engine::StepError;

/// The release for an environment in which `live` serves.
pub fn preview(
    inputs: &Inputs,
    environment: &EnvironmentName,
    live: Option<&ReleaseRecord>,
    run: &RunId,
) -> Result<Release, StepError> {
    let objects = inputs.objects.get(environment).cloned().unwrap_or_default();
    let services = in_order(inputs, environment)?.into_iter().map(|service| {
        let serves = live.and_then(|live| live.services.get(&service.name)).map(|record| &record.spec);
        let (image, digest) = serves.map_or_else(
            || {
                let digest = Digest::of(b"");
                let name: ImageRef = format!("unbuilt.invalid/{}", service.name).parse().expect("a name is a path");
                (name.at(digest.clone()), digest)
            },
            |spec| (spec.image.clone(), spec.digest.clone()),
        );
        service_spec(&service, image, digest, &objects)
    });
    Ok(Release {
        environment: environment.clone(),
        version: inputs.source.version.clone(),
        revision: inputs.source.revision(),
        run: run.clone(),
        actor: inputs.actor.clone(),
        services: services.collect(),
        approval: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, git::Source};
    use plimsoll_core::{Generation, Slot, Timestamp, config::Profile};
    use plimsoll_deploy::{ReleaseDiff, ServiceDiff, ServiceRecord};

    const CONFIG: &str = "[project]\nname = \"shop\"\n[services.web]\npackage = \"web\"\n[services.web.env]\nLIMIT = \"5\"\n\
                          [environments.production]\ntarget = \"local\"\n";

    fn previewed(config: &str, live: Option<&ReleaseRecord>) -> Release {
        let source = Source {
            version: "1.0.0".to_owned(),
            commit: "abc".to_owned(),
            committed_at: 0,
            repository: None,
            tag: None,
            branch: None,
            dirty: false,
        };
        let inputs =
            Inputs::new("release", config.to_owned(), source, "ada".to_owned(), Profile::Local, Options::default());
        let run = RunId::new(Timestamp::from_millis(0), 0);
        preview(&inputs.unwrap(), &"production".parse().unwrap(), live, &run).unwrap()
    }

    fn record(release: &Release) -> ReleaseRecord {
        let digest = Digest::of(b"built");
        let served = release.services.iter().cloned().map(|mut spec| {
            spec.digest = digest.clone();
            (spec.name.clone(), ServiceRecord { slot: Slot::Blue, spec })
        });
        ReleaseRecord {
            version: release.version.clone(),
            revision: release.revision.clone(),
            run: release.run.clone(),
            actor: release.actor.clone(),
            since: Timestamp::from_millis(0),
            generation: Generation(1),
            approval: None,
            services: served.collect(),
        }
    }

    #[test]
    fn a_checkout_that_says_the_same_differs_in_nothing() {
        let live = record(&previewed(CONFIG, None));
        assert!(ReleaseDiff::between(Some(&live), &previewed(CONFIG, Some(&live))).is_empty());
    }

    #[test]
    fn only_configuration_differs_while_nothing_is_built() {
        let live = record(&previewed(CONFIG, None));
        let next = previewed(&CONFIG.replace("\"5\"", "\"6\""), Some(&live));
        let diff = ReleaseDiff::between(Some(&live), &next);
        let ServiceDiff::Changed { digest: None, config } = &diff.services.values().next().unwrap() else {
            panic!("{diff:?}")
        };
        assert_eq!(config[0].what, "env LIMIT");
        assert!(matches!(ReleaseDiff::between(None, &next).services.values().next(), Some(ServiceDiff::Added { .. })));
    }
}
