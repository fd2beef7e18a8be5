//! Rubbish is collected while others push: nothing that somebody was told is there may go before they name it.

#![expect(clippy::disallowed_macros, reason = "what was counted is printed")]

mod common;

use common::{Lab, QUICK, header};
use plimsoll_core::Digest;
use plimsoll_oci::{
    MANIFEST, RegistryClient, RegistryOptions,
    registry::{self, Collected, Garbage},
};
use serde_json::json;
use std::{
    fs::{self, File},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

const HOUR: Duration = Duration::from_hours(1);
const TRIALS: usize = 150;

fn garbage(untagged: bool) -> Garbage {
    Garbage { grace: HOUR, untagged, dry_run: false }
}

/// Lets everything below a directory be a day old.
fn age(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            age(&path);
        } else if let Ok(file) = File::options().append(true).open(&path) {
            file.set_modified(SystemTime::now() - 24 * HOUR).unwrap();
        }
    }
}

fn manifest(config: &Digest, size: usize, note: &str) -> String {
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": [], "annotations": { "note": note },
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": size },
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_names_goes_when_it_is_old_and_what_is_named_stays() {
    let lab = Lab::start();
    let image = lab.image("a", "v1");
    let index = lab.index(1, 3000);
    lab.client().push_index(&lab.store, &index.digest, &image, &|_| ()).await.unwrap();
    let lost = lab.put_blob("a", b"lost").await;
    let begun = lab.ask("POST", "a/blobs/uploads/", &[], "").await;
    let place = header(&begun, "location").trim_start_matches("/v2/").to_owned();
    lab.ask("PATCH", &place, &[], "half").await;
    assert_eq!(registry::collect(&lab.root(), &garbage(true)).unwrap(), Collected::default(), "all of it is young");

    age(&lab.root());
    let expected = Collected { manifests: 0, links: 1, blobs: 1, uploads: 1, bytes: 8 };
    let dry = Garbage { dry_run: true, ..garbage(true) };
    assert_eq!(registry::collect(&lab.root(), &dry).unwrap(), expected);
    assert_eq!(lab.ask("HEAD", &format!("a/blobs/{lost}"), &[], "").await.status(), 200, "it was counted only");
    assert_eq!(registry::collect(&lab.root(), &garbage(true)).unwrap().links, 0, "somebody has just asked for it");
    age(&lab.root());
    let collected = registry::collect(&lab.root(), &garbage(true)).unwrap();
    assert_eq!((collected.links, collected.blobs, collected.bytes), (1, 1, 4));
    assert_eq!(lab.ask("HEAD", &format!("a/blobs/{lost}"), &[], "").await.status(), 404);
    let half = Digest::of(b"half");
    let gone = lab.ask("PUT", &format!("{place}?digest={half}"), &[], "").await;
    assert_eq!(gone.status(), 404, "an upload that was given up");

    // Without its tag the index goes when that is asked for, with its images and their blobs.
    assert_eq!(lab.ask("DELETE", "a/manifests/v1", &[], "").await.status(), 202);
    age(&lab.root());
    assert_eq!(registry::collect(&lab.root(), &garbage(false)).unwrap(), Collected::default());
    let collected = registry::collect(&lab.root(), &garbage(true)).unwrap();
    assert_eq!(collected.manifests, 3);
    assert_eq!(fs::read_dir(lab.root().join("blobs/sha256")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tag_leads_to_stays_and_so_do_its_referrers() {
    let lab = Lab::start();
    let config = lab.put_blob("a", b"{}").await;
    let put = async |path: &str, text: String| {
        let digest = Digest::of(text.as_bytes());
        let path = if path.is_empty() { digest.to_string() } else { path.to_owned() };
        let put = lab.ask("PUT", &format!("a/manifests/{path}"), &[("content-type", MANIFEST)], text).await;
        assert_eq!(put.status(), 201);
        digest
    };
    let referrer = |subject: &Digest, note: &str| {
        let mut value: serde_json::Value = serde_json::from_str(&manifest(&config, 2, note)).unwrap();
        value["subject"] = json!({ "mediaType": MANIFEST, "digest": subject, "size": 7 });
        value.to_string()
    };
    let tagged = put("v1", manifest(&config, 2, "tagged")).await;
    let signature = put("", referrer(&tagged, "signature")).await;
    let of_signature = put("", referrer(&signature, "time")).await;
    let other = put("", manifest(&config, 2, "other")).await;
    let of_other = put("", referrer(&other, "signature")).await;
    age(&lab.root());
    assert_eq!(registry::collect(&lab.root(), &garbage(true)).unwrap().manifests, 2);
    for (digest, status) in [(tagged, 200), (signature, 200), (of_signature, 200), (other, 404), (of_other, 404)] {
        assert_eq!(lab.ask("HEAD", &format!("a/manifests/{digest}"), &[], "").await.status(), status);
    }
}

/// Blobs that are old and named by nothing are pushed again, mounted or asked for while rubbish is collected all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_push_loses_a_blob_to_a_collection_beside_it() {
    let lab = Lab::start();
    let (root, done) = (lab.root(), std::sync::Arc::new(AtomicBool::new(false)));
    let (ended, at) = (done.clone(), root.clone());
    let collector = std::thread::spawn(move || {
        let (mut runs, mut links) = (0, 0);
        while !ended.load(Ordering::Relaxed) {
            links += registry::collect(&at, &garbage(true)).unwrap().links;
            runs += 1;
        }
        (runs, links)
    });
    let (mut present, mut mounted) = (0, 0);
    for trial in 0..TRIALS {
        let bytes: &'static [u8] = format!("blob {trial}").leak().as_bytes();
        let blob = lab.put_blob("from", bytes).await;
        if trial % 2 == 0 {
            lab.put_blob("to", bytes).await;
        }
        age(&root);
        let path = format!("to/blobs/{blob}");
        let is_there = if trial % 2 == 0 {
            lab.ask("HEAD", &path, &[], "").await.status() == 200
        } else {
            let mount = format!("to/blobs/uploads/?mount={blob}&from=from");
            lab.ask("POST", &mount, &[], "").await.status() == 201
        };
        if is_there {
            if trial % 2 == 0 { present += 1 } else { mounted += 1 }
        } else {
            lab.put_blob("to", bytes).await;
        }
        let text = manifest(&blob, bytes.len(), "kept");
        let put = lab.ask("PUT", &format!("to/manifests/t{trial}"), &[("content-type", MANIFEST)], text).await;
        assert_eq!(put.status(), 201, "trial {trial}: {}", if is_there { "it was there" } else { "it was sent" });
    }
    done.store(true, Ordering::Relaxed);
    let (runs, links) = collector.join().unwrap();
    println!(
        "{TRIALS} pushes beside {runs} collections of {links} blobs: {present} were there, {mounted} were mounted"
    );
    assert!(links > 0, "something was collected meanwhile");
    let options = RegistryOptions { policy: QUICK, ..RegistryOptions::default() };
    let client = RegistryClient::new(lab.http.clone(), options);
    for trial in 0..TRIALS {
        let found = client.resolve(&lab.image("to", &format!("t{trial}"))).await.unwrap();
        let bytes = format!("blob {trial}");
        let blob = lab.ask("GET", &format!("to/blobs/{}", Digest::of(bytes.as_bytes())), &[], "").await;
        assert_eq!(blob.status(), 200, "{}", found.digest);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_pushes_of_one_tag_one_wins_whole() {
    let lab = Lab::start();
    let config = lab.put_blob("a", b"{}").await;
    for trial in 0..TRIALS {
        let texts = ["one", "two"].map(|note| manifest(&config, 2, &format!("{note} {trial}")));
        let put = |text: &String| {
            let (lab, text) = (&lab, text.clone());
            async move { lab.ask("PUT", "a/manifests/v1", &[("content-type", MANIFEST)], text).await.status() }
        };
        let (one, two) = tokio::join!(put(&texts[0]), put(&texts[1]));
        assert_eq!((one.as_u16(), two.as_u16()), (201, 201));
        let got = lab.ask("GET", "a/manifests/v1", &[], "").await;
        let digest = header(&got, "docker-content-digest").to_owned();
        assert!(texts.iter().any(|text| Digest::of(text.as_bytes()).as_str() == digest), "trial {trial}");
    }
}
