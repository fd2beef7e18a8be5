//! Which images a Deployment of somebody else runs, by the digests that its pods tell. Pure.

use super::{AdoptError, There, name};
use crate::pods;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use plimsoll_core::{Digest, ImageRef};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Whether a Deployment is on its way from one form to another.
pub(super) fn rolls(deployment: &Value) -> bool {
    let status = |field: &str| deployment["status"][field].as_u64().unwrap_or(0);
    let seen = status("observedGeneration") >= deployment["metadata"]["generation"].as_u64().unwrap_or(0);
    !seen || status("updatedReplicas") < status("replicas") || status("unavailableReplicas") > 0
}

/// The pods that run and that the Service of `deployment` selects.
pub(super) fn pods<'a>(
    there: &'a There,
    selector: &BTreeMap<String, String>,
    deployment: &str,
) -> Result<Vec<&'a Pod>, AdoptError> {
    let selects = |pod: &&Pod| {
        let labels = pod.metadata.labels.as_ref();
        selector.iter().all(|(key, value)| labels.is_some_and(|labels| labels.get(key) == Some(value)))
    };
    let found: Vec<&Pod> = there.pods.iter().filter(selects).filter(|pod| pods::is_running(pod)).collect();
    if found.is_empty() { Err(AdoptError::NoPods(deployment.to_owned())) } else { Ok(found) }
}

/// The images of all containers, by digest. A tag may be another image by the time the copy is stood up.
pub(super) fn pinned(deployment: &Value, pods: &[&Pod]) -> Result<BTreeMap<String, ImageRef>, AdoptError> {
    let pod = &deployment["spec"]["template"]["spec"];
    let lists = ["containers", "initContainers"].into_iter().filter_map(|list| pod[list].as_array());
    let mut pinned = BTreeMap::new();
    for container in lists.flatten() {
        let called = container["name"].as_str().unwrap_or_default();
        let image = container["image"].as_str().unwrap_or_default();
        pinned.insert(called.to_owned(), one(name(deployment), called, image, pods)?);
    }
    Ok(pinned)
}

fn one(deployment: &str, container: &str, image: &str, pods: &[&Pod]) -> Result<ImageRef, AdoptError> {
    let (deployment, container) = (deployment.to_owned(), container.to_owned());
    let told: BTreeSet<&str> = pods
        .iter()
        .flat_map(|pod| statuses(pod))
        .filter(|s| s.name == container)
        .map(|s| s.image_id.as_str())
        .collect();
    let digest = |id: &&str| -> Option<Digest> { id.rsplit_once('@')?.1.parse().ok() };
    if let Some(none) = told.iter().find(|id| digest(id).is_none()) {
        return Err(AdoptError::NoDigest { deployment, container, found: format!("its pods tell `{none}`") });
    }
    let digests: BTreeSet<Digest> = told.iter().filter_map(digest).collect();
    let mut all = digests.into_iter();
    match (all.next(), all.next()) {
        (Some(digest), None) => match whole(image).parse::<ImageRef>() {
            Ok(image) => Ok(image.at(digest)),
            Err(error) => Err(AdoptError::NoDigest { deployment, container, found: error.to_string() }),
        },
        (None, _) => Err(AdoptError::NoDigest { deployment, container, found: "its pods tell none".to_owned() }),
        (Some(one), Some(other)) => {
            let found = [one, other].into_iter().chain(all).map(|digest| digest.to_string()).collect();
            Err(AdoptError::Images { deployment, container, found })
        }
    }
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses)).flatten()
}

/// An image's name with its registry, which is Docker Hub where none is said.
fn whole(image: &str) -> String {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => image.to_owned(),
        Some(_) => format!("docker.io/{image}"),
        None => format!("docker.io/library/{image}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_registry_is_one_of_docker_hub() {
        for (image, expected) in [
            ("nginx", "docker.io/library/nginx"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("acme/web", "docker.io/acme/web"),
            ("localhost:5000/web", "localhost:5000/web"),
            ("ghcr.io/acme/web:1", "ghcr.io/acme/web:1"),
        ] {
            assert_eq!(whole(image), expected);
        }
    }
}
