//! What befalls a registry between a person's yes and the cut-over: each is refused by the name of its rule, and production
//! keeps serving what it served.

use crate::{
    pipelines::{GATE, Wish},
    registry::Port,
    world::{World, client, ending, key, look, run_id},
};
use plimsoll_attest::{
    BUNDLE, Build, Builder, Bundle, CYCLONEDX, PROVENANCE, Provenance, SIGNATURE, SigningKey, Statement,
};
use plimsoll_core::{Digest, ImageRef, RunOutcome};
use plimsoll_oci::{Artifact, BlobStore, Descriptor, INDEX, MANIFEST, ManifestView, Said, write_artifact};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The image of `api` as it lies in the registry, where it can be meddled with.
struct Image {
    root: PathBuf,
    blobs: BlobStore,
    index: Digest,
    reference: ImageRef,
}

impl Image {
    fn of(world: &World, port: &Port) -> Self {
        let root = world.registry();
        let tag = fs::read_to_string(root.join("repositories/kairos/api/_tags/1.0.0")).unwrap();
        let index: Digest = tag.trim().parse().unwrap();
        let reference: ImageRef = format!("{}/kairos/api@{index}", port.address()).parse().unwrap();
        Self { blobs: BlobStore::open(&root).unwrap(), root, index, reference }
    }

    fn repository(&self) -> PathBuf {
        self.root.join("repositories/kairos/api")
    }

    /// A manifest's bytes.
    fn bytes(&self, digest: &Digest) -> Vec<u8> {
        fs::read(self.repository().join("_manifests").join(digest.hex())).unwrap()
    }

    fn view(&self, digest: &Digest) -> ManifestView {
        ManifestView::parse(&self.bytes(digest)).unwrap()
    }

    fn manifest(&self) -> Digest {
        self.view(&self.index).manifests[0].digest.clone()
    }

    /// Another byte in the middle of a file.
    fn change(path: &Path) {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    /// Nothing is said of the image any more.
    fn silence(&self) {
        fs::remove_dir_all(self.repository().join("_referrers")).unwrap();
    }

    /// Says what a release says, by `key` and of sources in `repository` at `revision`.
    async fn say(&self, world: &World, key: &SigningKey, repository: &str, revision: &str) {
        let (client, store) = (client(), world.store());
        let (repository, revision) = (repository.to_owned(), revision.to_owned());
        let (parameters, toolchains) = (BTreeMap::new(), BTreeMap::new());
        let build = Build { repository, revision, parameters, toolchains, materials: Vec::new() };
        let provenance = Provenance { build, builder: Builder::local(), version: "1".into() }.predicate();
        for (media_type, digest) in [(INDEX, self.index.clone()), (MANIFEST, self.manifest())] {
            let bom = json!({ "bomFormat": "CycloneDX", "components": [{ "name": "serde", "version": "1.0.0", "purl": "pkg:cargo/serde@1.0.0" }] });
            for (kind, predicate) in [(SIGNATURE, json!({})), (PROVENANCE, provenance.clone()), (CYCLONEDX, bom)] {
                let bytes = Bundle::sign(key, &Statement::of(&digest, kind, predicate)).to_bytes();
                let layers = vec![Said { media_type: BUNDLE.into(), bytes, annotations: BTreeMap::new() }];
                let subject = Descriptor::new(media_type, digest.clone(), self.bytes(&digest).len() as u64);
                let artifact = Artifact { kind: BUNDLE.into(), subject, layers, annotations: BTreeMap::new() };
                let written = write_artifact(&store, &artifact).unwrap();
                client.attach(&store, &written.digest, &self.reference).await.unwrap();
            }
        }
    }
}

/// Approves a release, lets `befall` happen, goes on, and expects a refusal that says all of `expected`.
async fn check(befall: impl AsyncFnOnce(&World, &Image), expected: &[&str]) {
    let port = Port::take();
    let world = World::at(&port).await;
    let release = Wish::default().release();
    world.start_until(&release, &run_id(1), GATE).await;
    befall(&world, &Image::of(&world, &port)).await;
    let report = world.resume(&release, &run_id(1)).await;
    assert_eq!(report.outcome, RunOutcome::Failed);
    let told = ending(&report, "promote[production]");
    for part in [&["the policy refuses api"], expected].concat() {
        assert!(told.contains(part), "`{part}` is missing in: {told}");
    }
    assert!(look(&world.production).live.is_none());
    assert!(!world.production.fake.calls().iter().any(|call| call.starts_with("stand_up")));
}

#[tokio::test]
async fn a_layer_that_was_changed_is_refused() {
    let change = async |_: &World, image: &Image| {
        let layer = image.view(&image.manifest()).layers[0].digest.clone();
        Image::change(&image.blobs.path(&layer));
    };
    check(change, &["api content: it was changed", "other bytes than its digest says"]).await;
}

#[tokio::test]
async fn a_tag_that_was_moved_is_refused() {
    let change = async |_: &World, image: &Image| {
        fs::write(image.repository().join("_tags/1.0.0"), image.manifest().to_string()).unwrap();
    };
    check(change, &["api tag: the tag 1.0.0 was moved: it names sha256:"]).await;
}

#[tokio::test]
async fn a_signature_by_another_key_is_refused() {
    let change = async |world: &World, image: &Image| {
        image.silence();
        image.say(world, &key(8), "urn:plimsoll:project:kairos", "1.0.0").await;
    };
    check(change, &["api signature: there is no signature that is believed", "none of the trusted keys"]).await;
}

#[tokio::test]
async fn a_provenance_of_another_repository_is_refused() {
    let change = async |world: &World, image: &Image| {
        image.silence();
        image.say(world, &key(7), "https://h.example/other", "1.0.0").await;
    };
    check(change, &["api provenance:", "https://h.example/other at 1.0.0", "not from urn:plimsoll:project:kairos"])
        .await;
}

#[tokio::test]
async fn a_provenance_of_another_commit_is_refused() {
    let change = async |world: &World, image: &Image| {
        image.silence();
        image.say(world, &key(7), "urn:plimsoll:project:kairos", "0.9.0").await;
    };
    check(change, &["api provenance:", "at 0.9.0", "at 1.0.0"]).await;
}

#[tokio::test]
async fn a_library_that_became_known_to_be_vulnerable_is_refused() {
    let change = async |world: &World, image: &Image| {
        image.silence();
        image.say(world, &key(7), "urn:plimsoll:project:kairos", "1.0.0").await;
        let database = world.dir.path().join("advisories/crates/serde");
        fs::create_dir_all(&database).unwrap();
        let advisory = "```toml\n[advisory]\nid = \"RUSTSEC-2026-0001\"\npackage = \"serde\"\ndate = \"2026-01-01\"\n\
                        [versions]\npatched = [\">= 1.0.1\"]\n```\n\n# Reads on\n\nIt does.\n";
        fs::write(database.join("RUSTSEC-2026-0001.md"), advisory).unwrap();
    };
    let told = "api advisories: RUSTSEC-2026-0001: serde 1.0.0: Reads on (of unknown severity; mended in >=1.0.1)";
    check(change, &[told]).await;
}

#[tokio::test]
async fn a_digest_that_is_no_longer_in_the_registry_is_refused() {
    let change = async |_: &World, image: &Image| {
        fs::remove_file(image.repository().join("_manifests").join(image.index.hex())).unwrap();
    };
    check(change, &["api content: the registry has not all of it any more", "404"]).await;
}

#[tokio::test]
async fn statements_that_were_changed_or_taken_away_are_refused() {
    let silence = async |_: &World, image: &Image| image.silence();
    check(silence, &["api signature: there is no signature", "api provenance: there is no", "api bom: there is no"])
        .await;
    let change = async |_: &World, image: &Image| {
        let listed = image.repository().join("_referrers").join(image.index.hex());
        for referrer in fs::read_dir(listed).unwrap() {
            let name = referrer.unwrap().file_name().into_string().unwrap();
            let digest: Digest = format!("sha256:{name}").parse().unwrap();
            let bundle = image.view(&digest).layers[0].digest.clone();
            Image::change(&image.blobs.path(&bundle));
        }
    };
    check(change, &["api signature: there is no signature"]).await;
}

#[tokio::test]
async fn what_somebody_pretends_to_have_said_is_said_all_the_same() {
    let port = Port::take();
    let world = World::at(&port).await;
    let release = Wish::default().release();
    world.start_until(&release, &run_id(1), "push").await;
    let image = Image::of(&world, &port);
    for kind in [SIGNATURE, PROVENANCE, CYCLONEDX] {
        for (media_type, digest) in [(INDEX, image.index.clone()), (MANIFEST, image.manifest())] {
            let annotations = [
                ("dev.sigstore.bundle.content", "dsse-envelope".to_owned()),
                ("dev.sigstore.bundle.predicateType", kind.to_owned()),
                ("dev.plimsoll.key", key(7).public().hint()),
                ("dev.plimsoll.source", "urn:plimsoll:project:kairos@1.0.0".to_owned()),
            ];
            let annotations = annotations.map(|(key, value)| (key.to_owned(), value)).into();
            let layers = vec![Said { media_type: BUNDLE.into(), bytes: b"{}".to_vec(), annotations: BTreeMap::new() }];
            let subject = Descriptor::new(media_type, digest.clone(), image.bytes(&digest).len() as u64);
            let artifact = Artifact { kind: BUNDLE.into(), subject, layers, annotations };
            let written = write_artifact(&world.store(), &artifact).unwrap();
            client().attach(&world.store(), &written.digest, &image.reference).await.unwrap();
        }
    }
    assert_eq!(world.resume(&release, &run_id(1)).await.outcome, RunOutcome::Succeeded);
}

#[tokio::test]
async fn what_others_say_beside_it_changes_nothing() {
    let port = Port::take();
    let world = World::at(&port).await;
    let release = Wish::default().release();
    world.start_until(&release, &run_id(1), GATE).await;
    let image = Image::of(&world, &port);
    image.say(&world, &key(8), "https://h.example/other", "0.9.0").await;
    assert_eq!(world.resume(&release, &run_id(1)).await.outcome, RunOutcome::Succeeded);
    assert_eq!(look(&world.production).live.unwrap().version, "1.0.0");
}
