//! Typed manifests: small builders that turn what is meant into Kubernetes objects, and refuse nonsense.
//!
//! A builder says what an object is for; what is safe holds without being said: not root, nothing writable, no
//! capabilities, no token, no traffic before readiness. What stands around a workload (a Service, an autoscaler, a
//! budget) is built *of* it, so that it fits. [`objects`] builds many and tells everything that is wrong with any of them
//! at once, each with object, field and reason. Pure.
//!
//! ```
//! use plimsoll_kubernetes::manifest::{Container, Deployment, Labels, Pod, Probe, Service, objects};
//!
//! let labels = Labels::from([("app".to_owned(), "web".to_owned())]);
//! let container = Container::new("web", "shop/web:1").port("http", 8080);
//! let web = Deployment::new("web", Pod::new(&labels, container.clone())).replicas(2);
//! let error = objects(&[&web, &Service::of(&web, "web").port("http", 80)]).unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "Service web: spec.selector: Service web would send traffic to pods that are not ready: they have no readiness probe",
//! );
//!
//! let web = Deployment::new("web", Pod::new(&labels, container.readiness(Probe::http("/ready", "http"))));
//! assert_eq!(objects(&[&web, &Service::of(&web, "web").port("http", 80)]).unwrap().len(), 2);
//! ```

mod account;
mod autoscaler;
mod config_map;
mod container;
mod context;
mod cron_job;
mod deployment;
mod disruption;
mod ingress;
mod meta;
mod mistake;
mod network;
mod pod;
mod priority;
mod probe;
mod resources;
mod schedule;
mod secret;
mod service;
mod stateful_set;
#[cfg(test)]
mod tests;
mod typed;
mod volume;
mod workload;

pub use account::{Role, RoleBinding, ServiceAccount};
pub use autoscaler::{Autoscaler, Scaling};
pub use config_map::ConfigMap;
pub use container::Container;
pub use context::Context;
pub use cron_job::CronJob;
pub use deployment::Deployment;
pub use disruption::Disruption;
pub use ingress::Ingress;
pub use meta::{Labels, Meta};
pub use mistake::{Findings, ManifestError, Mistake, Nonsense};
pub use network::{NetworkPolicy, Peer, Port};
pub use pod::Pod;
pub use priority::PriorityClass;
pub use probe::Probe;
pub use resources::Resources;
pub use secret::{ExternalSecret, Secret};
pub use service::Service;
pub use stateful_set::StatefulSet;
pub use typed::typed;
pub use volume::{Claim, Volume};
pub use workload::{Common, Workload};

use crate::{Object, ObjectError};

/// Something that an object can be built from.
pub trait Build {
    /// Kind and name, such as `Deployment web`.
    fn title(&self) -> String;

    /// The object as it would be, while everything that makes no sense is told to `found`.
    fn render(&self, found: &mut Findings) -> Result<Object, ObjectError>;

    /// The object, if all of it makes sense.
    fn build(&self) -> Result<Object, ManifestError>
    where
        Self: Sized,
    {
        let mut built = objects(&[self])?;
        Ok(built.pop().expect("one object is built from one builder"))
    }
}

/// The objects in this order, or everything that is wrong with any of them.
pub fn objects(builders: &[&dyn Build]) -> Result<Vec<Object>, ManifestError> {
    let (mut objects, mut mistakes) = (Vec::with_capacity(builders.len()), Vec::new());
    for builder in builders {
        let mut found = Findings::of(builder.title());
        let rendered = builder.render(&mut found);
        let named = found.into_mistakes();
        match rendered {
            Ok(object) => objects.push(object),
            // What has no name is no object, and that was told.
            Err(_) if !named.is_empty() => {}
            Err(source) => return Err(ManifestError::Object { object: builder.title(), source }),
        }
        mistakes.extend(named);
    }
    if mistakes.is_empty() { Ok(objects) } else { Err(ManifestError::Nonsense(mistakes)) }
}
