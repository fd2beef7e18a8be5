//! What is said of one image: the same bytes each time, from what is known of it.

use super::Attest;
use crate::{Made, advisory_database::Known, environment::PushedImage};
use plimsoll_attest::{
    BUNDLE, Bom, Build, Builder, Bundle, CONTENT, CYCLONEDX, Linked, Material, PREDICATE, PROVENANCE, Provenance,
    SIGNATURE, SigningKey, Statement, Told, libraries,
};
use plimsoll_core::{Digest, Fingerprint, Platform};
use plimsoll_engine::{StepError, write_atomically};
use plimsoll_oci::{Artifact, BlobStore, Descriptor, INDEX, MANIFEST, Said};
use plimsoll_scan::{Tool, sarif};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs};

/// The artifact type of a bill of materials as a plain document.
const BOM: &str = "application/vnd.cyclonedx+json";
/// The artifact type of checksums, in the form that `sha256sum --check` reads.
const CHECKSUMS: &str = "application/vnd.plimsoll.checksums.v1+text";
/// The artifact type of a scan.
const SARIF: &str = "application/sarif+json";
/// The annotation that says which key signed.
pub(crate) const KEY: &str = "dev.plimsoll.key";
/// The annotation that says of which sources something is said.
const SOURCE: &str = "dev.plimsoll.source";
/// The largest list of what is linked in that is read.
const MAX_LINKED: u64 = 16 * 1024 * 1024;
/// Plimsoll's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The index of an image, or the manifest of a platform.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) digest: &'a Digest,
    platform: Option<Platform>,
}

/// Whoever says something of an image.
#[derive(Clone, Copy)]
pub(super) struct Saying<'a> {
    pub(super) attest: &'a Attest,
    pub(super) image: &'a PushedImage,
    pub(super) builder: &'a Builder,
    pub(super) key: &'a SigningKey,
    pub(super) store: &'a BlobStore,
}

/// What is linked into the executables, by platform.
pub(super) type LinkedIn = BTreeMap<Platform, Linked>;

impl<'a> Saying<'a> {
    /// Of what something is said.
    pub(super) fn subjects(&self) -> impl Iterator<Item = Subject<'a>> {
        let built = &self.image.built;
        let platforms = built.platforms.iter().map(|(platform, digest)| Subject { digest, platform: Some(*platform) });
        std::iter::once(Subject { digest: &built.digest, platform: None }).chain(platforms)
    }

    /// What is linked in, out of the store.
    pub(super) fn linked(&self) -> Result<LinkedIn, StepError> {
        let read = |(platform, made): (&Platform, &Made)| {
            let bytes = self.store.read(&made.of, MAX_LINKED).map_err(|e| StepError::of(&e))?;
            let linked = serde_json::from_slice(&bytes)
                .map_err(|e| StepError::internal("what is linked in was written and does not read").caused_by(&e))?;
            Ok((*platform, linked))
        };
        self.image.built.made.iter().map(read).collect()
    }

    /// The digests of all artifacts, by subject. Kept beside the store, a kilobyte for each image: making them all again, only
    /// to find that they are there, would take most of the time of a release that changes nothing.
    pub(super) fn digests(&self) -> Result<BTreeMap<Digest, Vec<Digest>>, StepError> {
        let known = (self.attest, &self.image.built, self.builder, self.key.public().hint(), VERSION);
        let print = Fingerprint::of(&serde_json::to_vec(&known).expect("names and digests are plain data"));
        let path = self.store.root().join("said").join(print.to_string());
        if let Some(kept) = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            return Ok(kept);
        }
        let linked = self.linked()?;
        let digests = self.subjects().map(|subject| {
            let artifacts = self.artifacts(subject, &linked)?;
            let digests = artifacts.iter().map(Artifact::digest).collect::<Result<_, _>>();
            Ok((subject.digest.clone(), digests.map_err(|e| StepError::of(&e))?))
        });
        let digests: BTreeMap<Digest, Vec<Digest>> = digests.collect::<Result<_, StepError>>()?;
        // Without it the next run makes them again, and nothing else.
        let _ = write_atomically(&path, &serde_json::to_vec(&digests).expect("digests are plain data"));
        Ok(digests)
    }

    /// What is known on this day to be wrong with what is linked in, as SARIF; nothing where nobody knows what is.
    pub(super) fn scan(
        &self,
        of: Subject<'_>,
        linked: &LinkedIn,
        known: &Known,
    ) -> Option<Result<Artifact, StepError>> {
        if linked.is_empty() {
            return None;
        }
        let tool = Tool { name: "advisories".to_owned(), version: VERSION.to_owned() };
        let report = sarif(&tool, &known.findings(&libraries(&self.bom(of, linked))));
        let annotations = [
            ("org.opencontainers.image.title", "advisories.sarif".to_owned()),
            ("org.opencontainers.image.description", known.name.clone()),
        ];
        let annotations = annotations.map(|(key, value)| (key.to_owned(), value)).into();
        let layers =
            vec![Said { media_type: SARIF.to_owned(), bytes: report.into_bytes(), annotations: BTreeMap::new() }];
        let subject = self.descriptor(of);
        Some(subject.map(|subject| Artifact { kind: SARIF.to_owned(), subject, layers, annotations }))
    }

    fn descriptor(&self, of: Subject<'_>) -> Result<Descriptor, StepError> {
        let size = self.store.size(of.digest).map_err(|e| StepError::of(&e))?;
        let media_type = if of.platform.is_some() { MANIFEST } else { INDEX };
        Ok(Descriptor::new(media_type, of.digest.clone(), size))
    }

    /// All that is said of a subject.
    pub(super) fn artifacts(&self, of: Subject<'_>, linked: &LinkedIn) -> Result<Vec<Artifact>, StepError> {
        let subject = self.descriptor(of)?;
        let mut artifacts = Vec::new();
        let mut said = |kind: &str, media_type: &str, bytes: Vec<u8>, annotations: BTreeMap<String, String>| {
            let layers = vec![Said { media_type: media_type.to_owned(), bytes, annotations: BTreeMap::new() }];
            artifacts.push(Artifact { kind: kind.to_owned(), subject: subject.clone(), layers, annotations });
        };
        let title = |name: &str| BTreeMap::from([("org.opencontainers.image.title".to_owned(), name.to_owned())]);
        let mut signed = vec![(SIGNATURE, json!({})), (PROVENANCE, self.provenance(of.platform))];
        // Nobody knows what a Dockerfile links in where cargo does not.
        if !linked.is_empty() {
            let bom = self.bom(of, linked);
            said(BOM, BOM, serde_json::to_vec(&bom).expect("a document is plain data"), title("bom.cdx.json"));
            signed.push((CYCLONEDX, bom));
        }
        if let Some(sums) = self.checksums(of.platform) {
            said(CHECKSUMS, "text/plain", sums.into_bytes(), title("SHA256SUMS"));
        }
        for (kind, predicate) in signed {
            let bundle = Bundle::sign(self.key, &Statement::of(of.digest, kind, predicate));
            let annotations = [
                (CONTENT, "dsse-envelope".to_owned()),
                (PREDICATE, kind.to_owned()),
                (KEY, self.key.public().hint()),
                (SOURCE, format!("{}@{}", self.attest.repository, self.image.built.revision)),
            ];
            let annotations = annotations.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            said(BUNDLE, BUNDLE, bundle.to_bytes(), annotations);
        }
        Ok(artifacts)
    }

    /// Whether a bundle is a provenance by this key, of the same sources and by the same builder, of whatever run.
    pub(super) fn is_told_by(&self, bundle: &[u8], subject: &Digest) -> bool {
        let Ok(statement) = Bundle::open(bundle, std::slice::from_ref(self.key.public())) else { return false };
        let told = Told::read(&statement.predicate);
        let source = (self.attest.repository.clone(), self.image.built.revision.clone());
        statement.predicate_type == PROVENANCE
            && statement.is_about(subject)
            && told.sources.contains(&source)
            && told.builder.as_deref() == Some(self.builder.id.as_str())
    }

    /// What was made for a platform, or for all of them.
    fn made(&self, platform: Option<Platform>) -> impl Iterator<Item = (&'a Platform, &'a Made)> {
        self.image.built.made.iter().filter(move |(of, _)| platform.is_none_or(|wanted| wanted == **of))
    }

    fn provenance(&self, platform: Option<Platform>) -> Value {
        let built = &self.image.built;
        let files: BTreeMap<_, _> = self.made(platform).flat_map(|(_, made)| &made.files).collect();
        let how = Build {
            repository: self.attest.repository.clone(),
            revision: built.revision.clone(),
            parameters: self.attest.parameters.get(&built.service).cloned().unwrap_or_default(),
            toolchains: self.made(platform).map(|(of, made)| (of.to_string(), made.with.clone())).collect(),
            materials: files.into_iter().map(|(p, d)| Material { path: p.clone(), digest: d.clone() }).collect(),
        };
        Provenance { build: how, builder: self.builder.clone(), version: VERSION.to_owned() }.predicate()
    }

    fn bom(&self, of: Subject<'_>, linked: &LinkedIn) -> Value {
        let built = &self.image.built;
        let linked = linked.iter().filter(|(platform, _)| of.platform.is_none_or(|wanted| wanted == **platform));
        let committed = jiff::Timestamp::from_second(built.committed_at).unwrap_or_default();
        let bom = Bom {
            name: format!("{}/{}", self.attest.project, built.service),
            subject: of.digest.clone(),
            committed_at: committed.to_string(),
            linked: linked.map(|(platform, linked)| (platform.to_string(), linked.clone())).collect(),
            version: VERSION.to_owned(),
        };
        bom.document()
    }

    /// The executables' checksums, by their paths in the image; below the platform's name where there is more than one.
    fn checksums(&self, platform: Option<Platform>) -> Option<String> {
        let line = |(of, made): (&Platform, &Made)| {
            let directory = if platform.is_some() { String::new() } else { format!("{of}/") };
            Some(format!("{}  {directory}bin/{}\n", made.executable.as_ref()?.hex(), self.image.built.service))
        };
        let lines: Option<String> = self.made(platform).map(line).collect();
        lines.filter(|lines| !lines.is_empty())
    }
}
