//! `attest`: what every image of the release is made of, how it was built, and a signature, as signed statements beside it in
//! the registry, for each platform and for the index.
//!
//! The statements are Sigstore bundles, which `cosign` reads; the bill of materials and the checksums of what is in an
//! image lie there as plain documents, too. What is there already, by the same key and of the same sources, is not said again.

use crate::{
    environment::{Attested, Pushed, PushedImage, Signer},
    image::Built,
    inputs::Inputs,
    trust::{Trust, repository},
};
use futures_util::future::try_join_all;
use plimsoll_attest::{
    BUNDLE, Bom, Build, Bundle, CONTENT, CYCLONEDX, Linked, Material, PREDICATE, PROVENANCE, Provenance, SIGNATURE,
    SigningKey, Statement, Told,
};
use plimsoll_core::{Digest, Platform, RetryPolicy, ServiceName, config::Base};
use plimsoll_engine::{Cx, Effect, Step, StepError, World};
use plimsoll_oci::{Artifact, BlobStore, Descriptor, INDEX, MANIFEST, RegistryClient, Said, write_artifact};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The artifact type of a bill of materials as a plain document.
const BOM: &str = "application/vnd.cyclonedx+json";
/// The artifact type of checksums, in the form that `sha256sum --check` reads.
const CHECKSUMS: &str = "application/vnd.plimsoll.checksums.v1+text";
/// The annotation that says which key signed.
pub(crate) const KEY: &str = "dev.plimsoll.key";
/// The annotation that says of which sources something is said.
const SOURCE: &str = "dev.plimsoll.source";
/// The largest list of what is linked in that is read.
const MAX_LINKED: u64 = 16 * 1024 * 1024;
/// Provenances that are read because they may be the same as one that is to be said.
const MAX_ALIKE: usize = 8;

/// Says of every image what it is made of, and signs it.
#[derive(Debug, Serialize)]
pub struct Attest {
    project: String,
    repository: String,
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
        Self { project: config.project.name.to_string(), repository: repository(inputs), parameters }
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
        let (client, trust, store) =
            (cx.resource::<RegistryClient>()?, cx.resource::<Trust>()?, cx.resource::<BlobStore>()?);
        let key = trust.signer()?;
        let said = try_join_all(pushed.images().values().map(|image| {
            let (client, trust, store, key) = (&client, &trust, &store, &key);
            async move {
                let linked = linked(store, image)?;
                let missing = subjects(image).map(|subject| {
                    let about = About { image, subject, linked: &linked, trust };
                    async move { self.missing(client, store, &about, key).await }
                });
                Ok::<_, StepError>(try_join_all(missing).await?.iter().all(Vec::is_empty))
            }
        }));
        let done = said.await?.into_iter().all(|said| said);
        let signer = Signer(key.public().to_pem());
        Ok(if done { World::Done(Attested::prove(pushed.clone(), signer)) } else { World::NotDone })
    }

    async fn act(&self, cx: &Cx, pushed: Pushed) -> Result<Attested, StepError> {
        let (client, trust) = (cx.resource::<RegistryClient>()?, cx.resource::<Trust>()?);
        let (store, key) = (cx.resource::<BlobStore>()?, trust.signer()?);
        for (name, image) in pushed.images() {
            cx.waiting(format!("the registry to take what is said of {name}"));
            let linked = linked(&store, image)?;
            for subject in subjects(image) {
                let about = About { image, subject, linked: &linked, trust: &trust };
                let missing = self.missing(&client, &store, &about, &key).await?;
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

/// An image or index, with what is known of it.
struct About<'a> {
    image: &'a PushedImage,
    subject: Subject<'a>,
    linked: &'a BTreeMap<Platform, Linked>,
    trust: &'a Trust,
}

/// The index of an image, or the manifest of a platform.
#[derive(Clone, Copy)]
struct Subject<'a> {
    digest: &'a Digest,
    platform: Option<Platform>,
}

fn subjects(image: &PushedImage) -> impl Iterator<Item = Subject<'_>> {
    let index = Subject { digest: &image.built.digest, platform: None };
    let platforms =
        image.built.platforms.iter().map(|(platform, digest)| Subject { digest, platform: Some(*platform) });
    std::iter::once(index).chain(platforms)
}

/// What is linked into the executables, by platform.
fn linked(store: &BlobStore, image: &PushedImage) -> Result<BTreeMap<Platform, Linked>, StepError> {
    let read = |(platform, made): (&Platform, &crate::Made)| {
        let bytes = store.read(&made.of, MAX_LINKED).map_err(|e| StepError::of(&e))?;
        let linked = serde_json::from_slice(&bytes)
            .map_err(|e| StepError::internal("what is linked in was written and does not read").caused_by(&e))?;
        Ok((*platform, linked))
    };
    image.built.made.iter().map(read).collect()
}

impl Attest {
    /// What is to be pushed beside an image and is not there yet.
    ///
    /// Artifacts are the same bytes each time, so one that the registry lists by its digest is there. Only a provenance may be
    /// another one of the same sources by the same builder, of an earlier run: it is read, and believed by its signature.
    async fn missing(
        &self,
        client: &RegistryClient,
        store: &BlobStore,
        about: &About<'_>,
        key: &SigningKey,
    ) -> Result<Vec<Artifact>, StepError> {
        let image = &about.image.image;
        let listed = client.referrers(image, about.subject.digest, None).await.map_err(|e| StepError::of(&e))?;
        let mut missing = Vec::new();
        for artifact in self.artifacts(store, about, key)? {
            let digest = artifact.digest().map_err(|e| StepError::of(&e))?;
            if listed.iter().any(|one| one.descriptor.digest == digest) {
                continue;
            }
            let alike = listed.iter().filter(|one| one.annotations == artifact.annotations);
            let is_provenance = artifact.annotations.get(PREDICATE).is_some_and(|kind| kind == PROVENANCE);
            let mut there = false;
            for one in alike.filter(|_| is_provenance).take(MAX_ALIKE) {
                let read = client.artifact(image, &one.descriptor.digest).await;
                there |= read.is_ok_and(|bundle| self.tells(about, &bundle, key));
            }
            if !there {
                missing.push(artifact);
            }
        }
        Ok(missing)
    }

    /// Whether a bundle is a provenance by this key, of the same sources and by the same builder.
    fn tells(&self, about: &About<'_>, bundle: &[u8], key: &SigningKey) -> bool {
        let Ok(statement) = Bundle::open(bundle, std::slice::from_ref(key.public())) else { return false };
        let told = Told::read(&statement.predicate);
        let source = (self.repository.clone(), about.image.built.revision.clone());
        statement.predicate_type == PROVENANCE
            && statement.is_about(about.subject.digest)
            && told.sources.contains(&source)
            && told.builder.as_deref() == Some(about.trust.builder().id.as_str())
    }

    /// All that is said of an image.
    fn artifacts(&self, store: &BlobStore, about: &About<'_>, key: &SigningKey) -> Result<Vec<Artifact>, StepError> {
        let subject = descriptor(store, about.subject)?;
        let mut artifacts = Vec::new();
        let mut said = |kind: &str, media_type: &str, bytes: Vec<u8>, annotations: BTreeMap<String, String>| {
            let layers = vec![Said { media_type: media_type.to_owned(), bytes, annotations: BTreeMap::new() }];
            artifacts.push(Artifact { kind: kind.to_owned(), subject: subject.clone(), layers, annotations });
        };
        let mut signed = vec![(SIGNATURE, json!({})), (PROVENANCE, self.provenance(about))];
        // Nobody knows what a Dockerfile links in where cargo does not.
        if !about.linked.is_empty() {
            let bom = self.bom(about);
            let bytes = serde_json::to_vec(&bom).expect("a document is plain data");
            let title = ("org.opencontainers.image.title".to_owned(), "bom.cdx.json".to_owned());
            said(BOM, BOM, bytes, BTreeMap::from([title]));
            signed.push((CYCLONEDX, bom));
        }
        if let Some(sums) = checksums(&about.image.built, about.subject.platform) {
            let title = ("org.opencontainers.image.title".to_owned(), "SHA256SUMS".to_owned());
            said(CHECKSUMS, "text/plain", sums.into_bytes(), BTreeMap::from([title]));
        }
        for (kind, predicate) in signed {
            let bundle = Bundle::sign(key, &Statement::of(about.subject.digest, kind, predicate));
            let annotations = [
                (CONTENT, "dsse-envelope".to_owned()),
                (PREDICATE, kind.to_owned()),
                (KEY, key.public().hint()),
                (SOURCE, format!("{}@{}", self.repository, about.image.built.revision)),
            ];
            let annotations = annotations.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            said(BUNDLE, BUNDLE, bundle.to_bytes(), annotations);
        }
        Ok(artifacts)
    }

    fn provenance(&self, about: &About<'_>) -> Value {
        let (built, platform) = (&about.image.built, about.subject.platform);
        let made: Vec<_> = built.made.iter().filter(|(of, _)| platform.is_none_or(|wanted| wanted == **of)).collect();
        let files: BTreeMap<_, _> = made.iter().flat_map(|(_, made)| &made.files).collect();
        let how = Build {
            repository: self.repository.clone(),
            revision: built.revision.clone(),
            parameters: self.parameters.get(&built.service).cloned().unwrap_or_default(),
            toolchains: made.iter().map(|(platform, made)| (platform.to_string(), made.with.clone())).collect(),
            materials: files.into_iter().map(|(p, d)| Material { path: p.clone(), digest: d.clone() }).collect(),
        };
        let builder = about.trust.builder().clone();
        Provenance { build: how, builder, version: env!("CARGO_PKG_VERSION").to_owned() }.predicate()
    }

    fn bom(&self, about: &About<'_>) -> Value {
        let (built, platform) = (&about.image.built, about.subject.platform);
        let linked = about.linked.iter().filter(|(of, _)| platform.is_none_or(|wanted| wanted == **of));
        let committed = jiff::Timestamp::from_second(built.committed_at).unwrap_or_default();
        let bom = Bom {
            name: format!("{}/{}", self.project, built.service),
            subject: about.subject.digest.clone(),
            committed_at: committed.to_string(),
            linked: linked.map(|(platform, linked)| (platform.to_string(), linked.clone())).collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        bom.document()
    }
}

/// The executables' checksums, by their paths in the image; below the platform's name where there is more than one.
fn checksums(built: &Built, platform: Option<Platform>) -> Option<String> {
    let made = built.made.iter().filter(|(of, _)| platform.is_none_or(|wanted| wanted == **of));
    let line = |(of, made): (&Platform, &crate::Made)| {
        let directory = if platform.is_some() { String::new() } else { format!("{of}/") };
        Some(format!("{}  {directory}bin/{}\n", made.executable.as_ref()?.hex(), built.service))
    };
    let lines: Option<String> = made.map(line).collect();
    lines.filter(|lines| !lines.is_empty())
}

fn descriptor(store: &BlobStore, subject: Subject<'_>) -> Result<Descriptor, StepError> {
    let size = store.size(subject.digest).map_err(|e| StepError::of(&e))?;
    let media_type = if subject.platform.is_some() { MANIFEST } else { INDEX };
    Ok(Descriptor::new(media_type, subject.digest.clone(), size))
}
