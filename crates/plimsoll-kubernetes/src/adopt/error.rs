//! Why a service cannot be adopted, in words.

use crate::{object::ObjectError, slot::SlotError};
use plimsoll_core::ServiceName;

/// Why a service cannot be adopted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// Two copies of a worker would do its work twice.
    #[error("its activation is exclusive: beside the Deployment that works already, a copy would do its work twice")]
    Exclusive,
    /// There is no Service of that name.
    #[error("there is no Service {0}")]
    NoService(ServiceName),
    /// It is no Service whose selector can be moved.
    #[error("Service {service} {why}: no selector of it could be moved from one slot to the other")]
    NoSelector {
        /// Its name.
        service: ServiceName,
        /// What it is instead.
        why: &'static str,
    },
    /// It belongs to another environment.
    #[error("Service {service} is of the environment {environment}")]
    Other {
        /// Its name.
        service: ServiceName,
        /// Whose it is.
        environment: String,
    },
    /// A StatefulSet serves it.
    #[error("StatefulSet {0} serves it, whose volumes two copies cannot share")]
    StatefulSet(String),
    /// No Deployment has pods that the Service selects.
    #[error("no Deployment has pods with the labels {selector}, which Service {service} selects")]
    NoDeployment {
        /// The Service.
        service: ServiceName,
        /// What it selects.
        selector: String,
    },
    /// More than one has.
    #[error("Service {service} selects pods of several Deployments: {}", .found.join(", "))]
    Several {
        /// The Service.
        service: ServiceName,
        /// The Deployments.
        found: Vec<String>,
    },
    /// It does not stand still.
    #[error("Deployment {0} does not stand still: a rollout has not finished, or pods are not available")]
    Rollout(String),
    /// What it runs cannot be told.
    #[error("Deployment {0} has no pod that runs: what it runs cannot be told")]
    NoPods(String),
    /// Nothing says when a pod may get traffic.
    #[error("the container {container} of Deployment {deployment} has no readiness probe")]
    NoReadiness {
        /// The Deployment.
        deployment: String,
        /// Its container.
        container: String,
    },
    /// Its pods run different images.
    #[error("pods of Deployment {deployment} run different images in the container {container}: {}", .found.join(", "))]
    Images {
        /// The Deployment.
        deployment: String,
        /// The container.
        container: String,
        /// The digests.
        found: Vec<String>,
    },
    /// An image without a digest of a registry.
    #[error(
        "the image of the container {container} of Deployment {deployment} has no digest that a registry knows: {found}"
    )]
    NoDigest {
        /// The Deployment.
        deployment: String,
        /// The container.
        container: String,
        /// What its pods tell.
        found: String,
    },
    /// Without one of the labels the copy would not be what it is.
    #[error(
        "a pod of the copy must lack one of the labels {selector} until the cut-over, and the network policies {} go by each of them",
        .policies.join(", ")
    )]
    Policies {
        /// What the Service selects.
        selector: String,
        /// The policies that name these labels.
        policies: Vec<String>,
    },
    /// The name of a copy is taken.
    #[error("{0} is there, and is not this environment's: its name is that of a slot")]
    Taken(String),
    /// The objects do not make a slot.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// Something is no Kubernetes object.
    #[error("{0}")]
    Object(String),
}

impl From<ObjectError> for AdoptError {
    fn from(error: ObjectError) -> Self {
        Self::Object(error.to_string())
    }
}
