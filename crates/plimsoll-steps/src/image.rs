//! `image`: a service's multi-platform OCI image, without a daemon.

use crate::{
    compile::Compiled,
    made::Made,
    origin::{Origin, Origins},
};
use plimsoll_core::{
    Digest, Platform, ServiceName,
    config::{Base, LayerCompression},
};
use plimsoll_engine::{Cx, Pure, Reads, Step, StepError};
use plimsoll_oci::{
    BlobStore, Compression, Descriptor, IndexSpec, MAX_MANIFEST, ManifestView, RegistryClient, ServiceImage,
    service_images, write_index,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Assembles one service's image.
#[derive(Debug, Serialize)]
pub struct Image {
    /// The service.
    pub service: ServiceName,
    /// The project, for the image's title.
    pub project: String,
    /// The web address of the sources, if they have one.
    pub source: Option<String>,
    /// What the image is built on.
    pub base: Base,
    /// How its layers are stored.
    pub compression: LayerCompression,
}

/// An image in the blob store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Built {
    /// The service.
    pub service: ServiceName,
    /// The digest of the index.
    pub digest: Digest,
    /// The digest of each platform's manifest.
    pub platforms: BTreeMap<Platform, Digest>,
    /// The commit its sources come from.
    pub revision: String,
    /// When it was committed, in seconds since 1970.
    #[serde(default)]
    pub committed_at: i64,
    /// What each platform's executable was made with and of.
    #[serde(default)]
    pub made: BTreeMap<Platform, Made>,
}

impl Step for Image {
    const NAME: &'static str = "image";
    const VERSION: u32 = 4;
    type In = Vec<Compiled>;
    type Out = Built;
}

// Not shared between machines: what it is made of is, and putting that together takes less time than fetching it.
impl Pure for Image {
    fn reads(&self, cx: &Cx) -> Result<Reads, StepError> {
        let mut reads = Reads::nothing();
        let origin = cx.resource::<Origins>()?.of(&self.service)?.clone();
        reads.add("commit", origin.revision.as_bytes());
        reads.add("commit time", &origin.committed_at.to_le_bytes());
        Ok(reads)
    }

    async fn run(&self, cx: &Cx, binaries: Vec<Compiled>) -> Result<Built, StepError> {
        let outside = binaries.iter().flat_map(|binary| match binary {
            Compiled::Binary { outside, .. } => outside.iter().cloned().collect(),
            Compiled::LeftOut { .. } => Vec::new(),
        });
        let origin = cx.resource::<Origins>()?.of(&self.service)?.clone().with(cx, &outside.collect()).await?;
        let store = cx.resource::<BlobStore>()?;
        let labels = labels(&self.project, &self.service, &origin, self.source.as_deref());
        let epoch = u64::try_from(origin.committed_at).unwrap_or(0);
        let service = self.service.clone();
        let made = binaries.iter().filter_map(|binary| match binary {
            Compiled::Binary { platform, made, .. } => Some((*platform, made.clone())),
            Compiled::LeftOut { .. } => None,
        });
        let made = made.collect();
        let compression = match self.compression {
            LayerCompression::Gzip => Compression::Gzip,
            LayerCompression::Zstd => Compression::Zstd,
        };
        let mut bases = self.bases(cx, &store, &binaries).await?;
        let built = cx.blocking(move || {
            let compiled = binaries.iter().filter_map(|binary| match binary {
                Compiled::Binary { platform, digest, .. } => Some((*platform, store.path(digest))),
                Compiled::LeftOut { .. } => None,
            });
            let compiled: Vec<_> = compiled.collect();
            let images = compiled.iter().map(|(platform, binary)| ServiceImage {
                name: service.as_str(),
                binary,
                platform: *platform,
                cmd: Vec::new(),
                env: Vec::new(),
                labels: labels.clone(),
                epoch,
                base: bases.remove(platform),
                compression,
            });
            let images = service_images(&store, &images.collect::<Vec<_>>())?;
            let platforms = images.iter().map(|(p, d)| (*p, d.digest.clone())).collect();
            let index = write_index(&store, &IndexSpec { images, annotations: labels })?;
            Ok::<_, plimsoll_oci::ImageError>((index.digest, platforms))
        });
        let (digest, platforms): (Digest, BTreeMap<Platform, Digest>) = built.await?.map_err(|e| StepError::of(&e))?;
        if platforms.is_empty() {
            return Err(StepError::user(format!("no platform of {} can be compiled for here", self.service)));
        }
        Ok(Built {
            service: self.service.clone(),
            digest,
            platforms,
            revision: origin.revision,
            committed_at: origin.committed_at,
            made,
        })
    }

    fn usable(&self, cx: &Cx, built: &Built) -> bool {
        is_stored(cx, built)
    }
}

impl Image {
    /// What each platform's image is built on, pulled by its digest; nothing where that is nothing.
    async fn bases(
        &self,
        cx: &Cx,
        store: &BlobStore,
        binaries: &[Compiled],
    ) -> Result<BTreeMap<Platform, plimsoll_oci::Base>, StepError> {
        let Base::Image(base) = &self.base else { return Ok(BTreeMap::new()) };
        let client = cx.resource::<RegistryClient>()?;
        let mut bases = BTreeMap::new();
        for binary in binaries {
            let Compiled::Binary { platform, .. } = binary else { continue };
            cx.waiting(format!("{} to hand out {base} for {platform}", base.registry));
            let pulled = client.pull(base, *platform, store).await;
            let pulled = pulled.map_err(|e| StepError::of(&e).during(format!("cannot pull the base {base}")))?;
            let base = plimsoll_oci::Base::read(store, &pulled.manifest.digest).map_err(|e| StepError::of(&e))?;
            bases.insert(*platform, base);
        }
        Ok(bases)
    }
}

/// What images are labelled with, and indexes annotated (OCI image specification, "Pre-Defined Annotation Keys").
pub(crate) fn labels(
    project: &str,
    service: &ServiceName,
    origin: &Origin,
    source: Option<&str>,
) -> BTreeMap<String, String> {
    let created = jiff::Timestamp::from_second(origin.committed_at).unwrap_or_default();
    let labels = [
        ("title", Some(format!("{project}/{service}"))),
        ("revision", Some(origin.revision.clone())),
        ("created", Some(created.to_string())),
        ("source", source.map(str::to_owned)),
    ];
    labels.into_iter().filter_map(|(key, value)| Some((format!("org.opencontainers.image.{key}"), value?))).collect()
}

/// Whether an image still lies in the blob store, with all that belongs to it.
pub(crate) fn is_stored(cx: &Cx, built: &Built) -> bool {
    cx.resource::<BlobStore>()
        .is_ok_and(|store| holds(&store, &built.digest, 3) && built.made.values().all(|made| store.contains(&made.of)))
}

/// Whether the store has the manifest or index and all it names. An index names manifests and those name blobs: two levels
/// below the first, and no more are followed.
fn holds(store: &BlobStore, digest: &Digest, depth: u8) -> bool {
    let Ok(bytes) = store.read(digest, MAX_MANIFEST) else { return false };
    let Ok(view) = ManifestView::parse(&bytes) else { return false };
    let part = |d: &Descriptor| {
        if view.is_index() { depth > 1 && holds(store, &d.digest, depth - 1) } else { store.contains(&d.digest) }
    };
    view.blobs().all(part) && view.manifests.iter().all(part)
}
