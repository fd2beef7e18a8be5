//! `attest`: what every image of the release is made of, how it was built, and a signature, as signed statements beside it in
//! the registry, for each platform and for the index.
//!
//! The statements are Sigstore bundles, which `cosign` reads; the bill of materials, the checksums of what is in an image, and
//! what was known to be wrong with it on that day lie there as plain documents, too. What is there already, by the same key and of the same sources, is not said again.

mod saying;

pub(crate) use saying::KEY;

use crate::{
    advisory_database::{AdvisorySource, Known},
    environment::{Attested, Pushed, PushedImage, Signer},
    inputs::Inputs,
    trust::{Trust, repository},
};
use futures_util::future::try_join_all;
use plimsoll_attest::{Builder, PREDICATE, PROVENANCE, SigningKey};
use plimsoll_core::{
    Digest, RetryPolicy, ServiceName,
    config::{Advisories, Base},
};
use plimsoll_engine::{Cx, Effect, Step, StepError, World};
use plimsoll_oci::{Artifact, BlobStore, Referrer, RegistryClient, write_artifact};
use saying::{LinkedIn, Saying, Subject};
use serde::Serialize;
use std::collections::BTreeMap;

/// Provenances that are read because they may be the same as one that is to be said.
const MAX_ALIKE: usize = 8;

/// Says of every image what it is made of, and signs it.
#[derive(Debug, Serialize)]
pub struct Attest {
    project: String,
    repository: String,
    advisories: Advisories,
    /// What somebody chose for each service.
    parameters: BTreeMap<ServiceName, BTreeMap<String, String>>,
}

impl Attest {
    /// The step for the services of `inputs`.
    pub fn new(inputs: &Inputs) -> Self {
        let config = inputs.config();
        let chosen = config.services.iter().map(|(name, service)| {
            let mut chosen = BTreeMap::from([
                ("service".to_owned(), name.to_string()),
                ("package".to_owned(), service.package.clone()),
            ]);
            if let Some(build) = &service.docker_build {
                chosen.insert("dockerfile".to_owned(), build.dockerfile.clone());
                chosen.extend(build.target.iter().map(|target| ("target".to_owned(), target.clone())));
            } else {
                chosen.insert("bin".to_owned(), service.bin.clone().unwrap_or_else(|| name.to_string()));
                if let Base::Image(base) = &config.images.base {
                    chosen.insert("base".to_owned(), base.to_string());
                }
            }
            (name.clone(), chosen)
        });
        let parameters = chosen.collect();
        let advisories = config.advisories.clone();
        Self { project: config.project.name.to_string(), repository: repository(inputs), advisories, parameters }
    }
}

impl Step for Attest {
    const NAME: &'static str = "attest";
    const VERSION: u32 = 1;
    type In = Pushed;
    type Out = Attested;

    fn retry(&self) -> RetryPolicy {
        RetryPolicy::default()
    }
}

impl Effect for Attest {
    async fn reconcile(&self, cx: &Cx, pushed: &Pushed) -> Result<World<Attested>, StepError> {
        let (client, trust) = (cx.resource::<RegistryClient>()?, cx.resource::<Trust>()?);
        let (store, key) = (cx.resource::<BlobStore>()?, trust.signer()?);
        let sayings = pushed.images().values().map(|image| self.saying(image, trust.builder(), &key, &store));
        let said = sayings.map(|saying| {
            let client = &client;
            async move {
                let digests = saying.digests()?;
                let missing = saying.subjects().map(|subject| {
                    let digests = &digests;
                    async move {
                        let listed = listed(client, saying.image, subject).await?;
                        Ok::<_, StepError>(
                            lacks(&digests[subject.digest], &listed)
                                && !missing(client, &saying, subject, &listed, &saying.linked()?).await?.is_empty(),
                        )
                    }
                });
                Ok::<_, StepError>(try_join_all(missing).await?.contains(&true))
            }
        });
        let missing = try_join_all(said).await?.contains(&true);
        let signer = Signer(key.public().to_pem());
        Ok(if missing { World::NotDone } else { World::Done(Attested::prove(pushed.clone(), signer)) })
    }

    async fn act(&self, cx: &Cx, pushed: Pushed) -> Result<Attested, StepError> {
        let (client, trust) = (cx.resource::<RegistryClient>()?, cx.resource::<Trust>()?);
        let (store, key) = (cx.resource::<BlobStore>()?, trust.signer()?);
        let known = self.known(cx).await?;
        for (name, image) in pushed.images() {
            cx.waiting(format!("the registry to take what is said of {name}"));
            let saying = self.saying(image, trust.builder(), &key, &store);
            let linked = saying.linked()?;
            for subject in saying.subjects() {
                let listed = listed(&client, image, subject).await?;
                let mut missing = missing(&client, &saying, subject, &listed, &linked).await?;
                if !missing.is_empty() {
                    // What is known of it today is said along with what always holds, and not said again tomorrow.
                    let scan = known.as_ref().and_then(|known| saying.scan(subject, &linked, known));
                    missing.extend(scan.transpose()?);
                }
                for artifact in &missing {
                    let written = write_artifact(&store, artifact).map_err(|e| StepError::of(&e))?;
                    let attached = client.attach(&store, &written.digest, &image.image).await;
                    attached
                        .map_err(|e| StepError::of(&e).during(format!("cannot say of {name} what it is made of")))?;
                }
                cx.log(&format!("{name} {}: {} artifacts by {}", subject.digest.short(), missing.len(), key.public()));
            }
        }
        Ok(Attested::prove(pushed, Signer(key.public().to_pem())))
    }
}

impl Attest {
    /// What is known of crates, if anything is; without it no scan is said.
    async fn known(&self, cx: &Cx) -> Result<Option<Known>, StepError> {
        let source = AdvisorySource::new(cx.root(), &self.advisories);
        match source.known(cx.environment(), cx.cancel(), cx.now()).await {
            Ok(known) => Ok(Some(known)),
            Err(error) if self.advisories.required || cx.cancel().is_cancelled() => Err(error),
            Err(error) => {
                cx.note(format!("the images get no scan for vulnerabilities: {error}"));
                Ok(None)
            }
        }
    }

    fn saying<'a>(
        &'a self,
        image: &'a PushedImage,
        builder: &'a Builder,
        key: &'a SigningKey,
        store: &'a BlobStore,
    ) -> Saying<'a> {
        Saying { attest: self, image, builder, key, store }
    }
}

async fn listed(
    client: &RegistryClient,
    image: &PushedImage,
    subject: Subject<'_>,
) -> Result<Vec<Referrer>, StepError> {
    client.referrers(&image.image, subject.digest, None).await.map_err(|e| StepError::of(&e))
}

/// Whether one of the artifacts is not listed.
fn lacks(digests: &[Digest], listed: &[Referrer]) -> bool {
    !digests.iter().all(|digest| listed.iter().any(|one| one.descriptor.digest == *digest))
}

/// What is to be pushed beside an image and is not there yet.
///
/// Artifacts are the same bytes each time, so one that the registry lists by its digest is there. Only a provenance may be
/// another one of the same sources by the same builder, of an earlier run: it is read, and believed by its signature.
async fn missing(
    client: &RegistryClient,
    saying: &Saying<'_>,
    subject: Subject<'_>,
    listed: &[Referrer],
    linked: &LinkedIn,
) -> Result<Vec<Artifact>, StepError> {
    let mut missing = Vec::new();
    for artifact in saying.artifacts(subject, linked)? {
        let digest = artifact.digest().map_err(|e| StepError::of(&e))?;
        let mut there = !lacks(&[digest], listed);
        let may_be_another = artifact.annotations.get(PREDICATE).is_some_and(|kind| kind == PROVENANCE);
        let alike = listed.iter().filter(|one| may_be_another && one.annotations == artifact.annotations);
        for one in alike.take(MAX_ALIKE) {
            if there {
                break;
            }
            let read = client.artifact(&saying.image.image, &one.descriptor.digest).await;
            there = read.is_ok_and(|bundle| saying.is_told_by(&bundle, subject.digest));
        }
        if !there {
            missing.push(artifact);
        }
    }
    Ok(missing)
}
