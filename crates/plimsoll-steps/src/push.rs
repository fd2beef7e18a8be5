//! `push`: every image of the release into the registry, after all checks were green. What the registry has is not sent
//! again; tags are advisory, the digest is what is deployed.

use crate::{
    environment::{Pushed, PushedImage},
    image::Built,
    inputs::Inputs,
};
use futures_util::future::BoxFuture;
use plimsoll_core::{ImageRef, RetryPolicy};
use plimsoll_engine::{Cx, Effect, Step, StepError, World};
use plimsoll_oci::{BlobStore, PushEvent, RegistryClient};
use serde::Serialize;
use std::{collections::BTreeMap, sync::Arc};

/// Where images go: `host[:port]` and the path before each service's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryAddress {
    /// Host with an optional port.
    pub host: String,
    /// Path before the service's name, without slashes at its ends.
    pub prefix: String,
}

/// Finds the registry, starting the embedded one where that is configured. A resource, not a parameter: the embedded
/// registry's port belongs to the machine and not to the plan, and planning must not start anything.
pub struct Registry(pub Box<dyn Fn() -> BoxFuture<'static, Result<RegistryAddress, StepError>> + Send + Sync>);

impl RegistryAddress {
    /// The reference of a service's image, without tag or digest.
    pub fn image(&self, service: &str) -> Result<ImageRef, StepError> {
        let text = format!("{}/{}/{service}", self.host, self.prefix);
        text.parse().map_err(|e| StepError::user("the registry in plimsoll.toml cannot be used").caused_by(&e))
    }
}

/// Pushes all images.
#[derive(Debug, Serialize)]
pub struct Push {
    version: String,
}

impl Push {
    /// The step for the version of `inputs`.
    pub fn new(inputs: &Inputs) -> Self {
        Self { version: inputs.source.version.clone() }
    }

    fn tag(&self) -> String {
        tag_of(&self.version)
    }
}

/// The tag of a version. Versions may hold `+`, tags may not (OCI distribution specification, "Pulling manifests").
pub(crate) fn tag_of(version: &str) -> String {
    version.replace('+', "-")
}

impl Step for Push {
    const NAME: &'static str = "push";
    const VERSION: u32 = 1;
    /// The images, and the verdicts of the checks that must be green before anything leaves the machine.
    type In = (Vec<Built>, Vec<()>, Vec<crate::TestReport>);
    type Out = Pushed;

    fn retry(&self) -> RetryPolicy {
        RetryPolicy::default()
    }
}

impl Effect for Push {
    async fn reconcile(&self, cx: &Cx, (images, ..): &Self::In) -> Result<World<Pushed>, StepError> {
        let (client, address) = (cx.resource::<RegistryClient>()?, (cx.resource::<Registry>()?.0)().await?);
        let mut there = BTreeMap::new();
        for built in images {
            let image = address.image(built.service.as_str())?;
            let tagged = client.head(&image.tagged(&self.tag())).await.map_err(|e| StepError::of(&e))?;
            if tagged.is_none_or(|d| d.digest != built.digest) {
                return Ok(World::NotDone);
            }
            let pushed = PushedImage { image: image.at(built.digest.clone()), built: built.clone() };
            there.insert(built.service.clone(), pushed);
        }
        Ok(World::Done(Pushed::prove(there)))
    }

    async fn act(&self, cx: &Cx, (images, ..): Self::In) -> Result<Pushed, StepError> {
        let (client, address) = (cx.resource::<RegistryClient>()?, (cx.resource::<Registry>()?.0)().await?);
        let store: Arc<BlobStore> = cx.resource()?;
        let mut there = BTreeMap::new();
        for built in images {
            let image = address.image(built.service.as_str())?;
            cx.waiting(format!("the registry to take {}", built.service));
            let moving = |event| {
                if let PushEvent::Moving { bytes, of } = event {
                    cx.progress(built.service.as_str(), bytes, of);
                }
            };
            let report = client
                .push_index(&store, &built.digest, &image.tagged(&self.tag()), &moving)
                .await
                .map_err(|e| StepError::of(&e).during(format!("cannot push {}", built.service)))?;
            cx.log(&format!(
                "{image}@{}: {} blobs sent ({} bytes), {} mounted, {} were there",
                report.digest, report.blobs_sent, report.bytes_sent, report.blobs_mounted, report.blobs_present
            ));
            if report.digest != built.digest {
                return Err(StepError::internal(format!(
                    "{} was built as {} and pushed as {}",
                    image, built.digest, report.digest
                )));
            }
            let pushed = PushedImage { image: image.at(built.digest.clone()), built: built.clone() };
            there.insert(built.service.clone(), pushed);
        }
        Ok(Pushed::prove(there))
    }
}
