//! The labels of what is ours: by them a later supervisor finds it again, and a person sees what it is.

use plimsoll_local::supervisor::{LocalPaths, Order, project};
use std::collections::HashMap;

/// Which project of this machine it belongs to: a hash of the state directory.
pub(crate) const PROJECT: &str = "dev.plimsoll.project";
/// The environment.
pub(crate) const ENVIRONMENT: &str = "dev.plimsoll.environment";
/// The image's digest, as the release names it.
pub(crate) const DIGEST: &str = "dev.plimsoll.digest";

/// The labels of a container.
pub(crate) fn of_container(order: &Order) -> HashMap<String, String> {
    let slot = &order.place.key.slot;
    HashMap::from(
        [
            (PROJECT, project(&order.place.paths)),
            (ENVIRONMENT, slot.environment.to_string()),
            (DIGEST, order.spec.digest.to_string()),
            ("dev.plimsoll.service", slot.service.to_string()),
            ("dev.plimsoll.slot", slot.slot.to_string()),
            ("dev.plimsoll.replica", order.place.key.n.to_string()),
            ("dev.plimsoll.config", order.spec.config_hash.to_string()),
            ("dev.plimsoll.version", order.version.clone()),
            ("dev.plimsoll.generation", order.generation.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    )
}

/// The question for everything of a project.
pub(crate) fn all_of(paths: &LocalPaths) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{PROJECT}={}", project(paths))])])
}
