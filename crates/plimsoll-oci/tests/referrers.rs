//! What is said of images: beside registries that list it, and beside one that does not.

mod common;

use common::{Foreign, Lab};
use plimsoll_core::{Digest, ImageRef};
use plimsoll_oci::{Artifact, Descriptor, Said, write_artifact};
use std::{collections::BTreeMap, net::SocketAddr};

const KIND: &str = "application/vnd.example.report+json";

fn said(lab: &Lab, subject: &Descriptor, kind: &str, text: &str) -> Digest {
    let layer = Said { media_type: kind.to_owned(), bytes: text.as_bytes().to_vec(), annotations: BTreeMap::new() };
    let artifact = Artifact {
        kind: kind.to_owned(),
        subject: subject.clone(),
        layers: vec![layer],
        annotations: BTreeMap::from([("note".to_owned(), text.to_owned())]),
    };
    write_artifact(&lab.store, &artifact).unwrap().digest
}

async fn all_are_listed(lab: &Lab, registry: SocketAddr) {
    let (client, index) = (lab.client(), lab.index(1, 2000));
    let image: ImageRef = format!("{registry}/said/of:v1").parse().unwrap();
    assert_eq!(client.referrers(&image, &index.digest, None).await.unwrap(), []);
    client.push_index(&lab.store, &index.digest, &image, &|_| ()).await.unwrap();
    // Several at once, as by the jobs of one run.
    let artifacts: Vec<Digest> = (0..6).map(|n| said(lab, &index, KIND, &format!("report {n}"))).collect();
    let other = said(lab, &index, "application/vnd.example.other", "other");
    let attach = |digest: Digest| {
        let (client, image) = (client.clone(), image.clone());
        async move { client.attach(&lab.store, &digest, &image).await.unwrap() }
    };
    futures_util::future::join_all(artifacts.iter().cloned().chain([other.clone()]).map(attach)).await;
    attach(artifacts[0].clone()).await;

    let of_kind = client.referrers(&image, &index.digest, Some(KIND)).await.unwrap();
    let mut digests: Vec<Digest> = of_kind.iter().map(|one| one.descriptor.digest.clone()).collect();
    digests.sort();
    let mut wanted = artifacts.clone();
    wanted.sort();
    assert_eq!(digests, wanted, "each once");
    assert!(of_kind.iter().all(|one| one.annotations["note"].starts_with("report ")));
    let all = client.referrers(&image, &index.digest, None).await.unwrap();
    assert_eq!(all.len(), 7);
    assert_eq!(client.referrers(&image, &other, None).await.unwrap(), [], "nothing is said of that one");
    assert_eq!(client.resolve(&image).await.unwrap(), index, "the image is what it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_at_once_is_all_listed_by_the_embedded_registry() {
    let lab = Lab::start();
    all_are_listed(&lab, lab.address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_without_referrers_has_them_under_a_tag() {
    let lab = Lab::start();
    let Some(foreign) = Foreign::start() else { return };
    all_are_listed(&lab, foreign.address).await;
}
