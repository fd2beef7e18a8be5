//! The embedded registry, request by request.

mod common;

use common::{Lab, header};
use plimsoll_core::Digest;
use plimsoll_http::{Response, read_limited};
use plimsoll_oci::{MANIFEST, registry};
use serde_json::{Value, json};
use std::net::TcpListener;

async fn body(response: Response) -> Value {
    serde_json::from_slice(&read_limited(response, 1 << 20).await.unwrap()).unwrap()
}

async fn check_error(response: Response, status: u16, code: &str) {
    assert_eq!(response.status(), status);
    assert_eq!(body(response).await["errors"][0]["code"], code);
}

fn manifest(config: &Digest, size: usize, extra: &Value) -> String {
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": size },
    });
    manifest.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    manifest.to_string()
}

#[tokio::test]
async fn a_blob_goes_in_by_chunks_and_comes_out_by_ranges() {
    let lab = Lab::start();
    assert_eq!(lab.ask("GET", "", &[], "").await.status(), 200);
    let begun = lab.ask("POST", "a/b/blobs/uploads/", &[], "").await;
    assert_eq!(begun.status(), 202);
    let place = header(&begun, "location").trim_start_matches("/v2/").to_owned();
    let chunk = lab.ask("PATCH", &place, &[("content-range", "0-4")], "01234").await;
    assert_eq!((chunk.status().as_u16(), header(&chunk, "range")), (202, "0-4"));
    let again = lab.ask("PATCH", &place, &[("content-range", "0-4")], "01234").await;
    assert_eq!(header(&again, "range"), "0-4");
    check_error(again, 416, "BLOB_UPLOAD_INVALID").await;
    let status = lab.ask("GET", &place, &[], "").await;
    assert_eq!((status.status().as_u16(), header(&status, "range")), (204, "0-4"));
    let digest = Digest::of(b"0123456789");
    let end = format!("{place}?digest={}", digest.as_str().replace(':', "%3A"));
    let done = lab.ask("PUT", &end, &[("content-range", "5-9")], "56789").await;
    assert_eq!((done.status().as_u16(), header(&done, "docker-content-digest")), (201, digest.as_str()));
    check_error(lab.ask("GET", &place, &[], "").await, 404, "BLOB_UPLOAD_UNKNOWN").await;

    let blob = format!("a/b/blobs/{digest}");
    let head = lab.ask("HEAD", &blob, &[], "").await;
    assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, "10"));
    let part = lab.ask("GET", &blob, &[("range", "bytes=2-4")], "").await;
    assert_eq!((part.status().as_u16(), header(&part, "content-range")), (206, "bytes 2-4/10"));
    assert_eq!(read_limited(part, 10).await.unwrap(), "234");
    assert_eq!(lab.ask("GET", &blob, &[("range", "bytes=10-")], "").await.status(), 416);
    assert_eq!(read_limited(lab.ask("GET", &blob, &[], "").await, 10).await.unwrap(), "0123456789");

    let mounted = lab.ask("POST", &format!("c/blobs/uploads/?mount={digest}&from=a/b"), &[], "").await;
    assert_eq!(mounted.status(), 201);
    let absent = format!("c/blobs/uploads/?mount={}&from=a/b", Digest::of(b"absent"));
    assert_eq!(lab.ask("POST", &absent, &[], "").await.status(), 202);
    assert_eq!(lab.ask("DELETE", &blob, &[], "").await.status(), 202);
    check_error(lab.ask("DELETE", &blob, &[], "").await, 404, "BLOB_UNKNOWN").await;
    check_error(lab.ask("GET", &blob, &[], "").await, 404, "BLOB_UNKNOWN").await;
}

#[tokio::test]
async fn wrong_bytes_never_become_a_blob() {
    let lab = Lab::start();
    let wanted = Digest::of(b"wanted");
    let sent = lab.ask("POST", &format!("a/blobs/uploads/?digest={wanted}"), &[], "others").await;
    check_error(sent, 400, "DIGEST_INVALID").await;
    assert_eq!(lab.ask("HEAD", &format!("a/blobs/{wanted}"), &[], "").await.status(), 404);
    check_error(lab.ask("POST", "a/blobs/uploads/?digest=sha256:../x", &[], "x").await, 400, "DIGEST_INVALID").await;
    let begun = lab.ask("POST", "a/blobs/uploads/", &[], "").await;
    let place = header(&begun, "location").trim_start_matches("/v2/").to_owned();
    check_error(lab.ask("PUT", &place, &[], "x").await, 400, "DIGEST_INVALID").await;
    check_error(lab.ask("GET", &place.replace("a/", "other/"), &[], "").await, 404, "BLOB_UPLOAD_UNKNOWN").await;
    assert_eq!(lab.ask("DELETE", &place, &[], "").await.status(), 204);
    check_error(lab.ask("PATCH", &place, &[], "x").await, 404, "BLOB_UPLOAD_UNKNOWN").await;
    let blobs = lab.root().join("blobs/sha256");
    assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0);
}

#[tokio::test]
async fn a_manifest_needs_its_blobs_and_keeps_them() {
    let lab = Lab::start();
    let config = Digest::of(b"{}");
    let text = manifest(&config, 2, &json!({}));
    let typed = [("content-type", MANIFEST)];
    check_error(lab.ask("PUT", "a/manifests/v1", &typed, text.clone()).await, 400, "MANIFEST_BLOB_UNKNOWN").await;
    check_error(lab.ask("GET", "a/tags/list", &[], "").await, 404, "NAME_UNKNOWN").await;
    lab.put_blob("a", b"{}").await;
    let put = lab.ask("PUT", "a/manifests/v1", &typed, text.clone()).await;
    let digest = Digest::of(text.as_bytes());
    assert_eq!((put.status().as_u16(), header(&put, "docker-content-digest")), (201, digest.as_str()));
    for reference in ["v1", digest.as_str()] {
        let head = lab.ask("HEAD", &format!("a/manifests/{reference}"), &[], "").await;
        assert_eq!(
            (header(&head, "content-type"), header(&head, "docker-content-digest")),
            (MANIFEST, digest.as_str())
        );
        let got = lab.ask("GET", &format!("a/manifests/{reference}"), &[], "").await;
        assert_eq!(read_limited(got, 1 << 20).await.unwrap(), text);
    }
    check_error(lab.ask("DELETE", &format!("a/blobs/{config}"), &[], "").await, 405, "DENIED").await;
    assert_eq!(lab.ask("DELETE", "a/manifests/v1", &[], "").await.status(), 202);
    check_error(lab.ask("GET", "a/manifests/v1", &[], "").await, 404, "MANIFEST_UNKNOWN").await;
    assert_eq!(lab.ask("DELETE", &format!("a/manifests/{digest}"), &[], "").await.status(), 202);
    check_error(lab.ask("GET", &format!("a/manifests/{digest}"), &[], "").await, 404, "MANIFEST_UNKNOWN").await;
    assert_eq!(lab.ask("DELETE", &format!("a/blobs/{config}"), &[], "").await.status(), 202);
}

#[tokio::test]
async fn manifests_that_are_none_are_refused() {
    let lab = Lab::start();
    let config = lab.put_blob("a", b"{}").await;
    let good = manifest(&config, 2, &json!({}));
    for (path, kind, text, status, code) in [
        ("a/manifests/v1", MANIFEST, "<html>".to_owned(), 400, "MANIFEST_INVALID"),
        ("a/manifests/v1", "text/plain", good.clone(), 400, "MANIFEST_INVALID"),
        ("a/manifests/v1", MANIFEST, manifest(&config, 3, &json!({})), 400, "SIZE_INVALID"),
        ("a/manifests/v1", MANIFEST, " ".repeat(5 << 20), 413, "MANIFEST_INVALID"),
        (&format!("a/manifests/{config}"), MANIFEST, good.clone(), 400, "DIGEST_INVALID"),
        ("a/manifests/-v", MANIFEST, good.clone(), 400, "MANIFEST_INVALID"),
        ("A/manifests/v1", MANIFEST, good.clone(), 400, "NAME_INVALID"),
    ] {
        check_error(lab.ask("PUT", path, &[("content-type", kind)], text).await, status, code).await;
    }
    check_error(lab.ask("POST", "a/manifests/v1", &[], "").await, 405, "UNSUPPORTED").await;
}

#[tokio::test]
async fn tags_are_listed_in_pages() {
    let lab = Lab::start();
    let config = lab.put_blob("a", b"{}").await;
    for tag in ["c", "a", "b"] {
        let put = lab.ask("PUT", &format!("a/manifests/{tag}"), &[], manifest(&config, 2, &json!({}))).await;
        assert_eq!(put.status(), 201);
    }
    let page = lab.ask("GET", "a/tags/list?n=2", &[], "").await;
    assert_eq!(header(&page, "link"), "</v2/a/tags/list?n=2&last=b>; rel=\"next\"");
    assert_eq!(body(page).await, json!({ "name": "a", "tags": ["a", "b"] }));
    let page = lab.ask("GET", "a/tags/list?n=2&last=b", &[], "").await;
    assert_eq!(header(&page, "link"), "");
    assert_eq!(body(page).await["tags"], json!(["c"]));
    check_error(lab.ask("GET", "a/tags/list?n=x", &[], "").await, 400, "PAGINATION_NUMBER_INVALID").await;
}

#[tokio::test]
async fn referrers_pushed_at_the_same_time_are_all_listed() {
    let lab = Lab::start();
    let config = lab.put_blob("a", b"{}").await;
    let subject = json!({ "mediaType": MANIFEST, "digest": Digest::of(b"subject"), "size": 7 });
    let put = |kind: &'static str| {
        let extra = json!({ "subject": subject, "artifactType": kind, "annotations": { "for": kind } });
        let text = manifest(&config, 2, &extra);
        let lab = &lab;
        async move {
            let path = format!("a/manifests/{}", Digest::of(text.as_bytes()));
            let response = lab.ask("PUT", &path, &[("content-type", MANIFEST)], text).await;
            assert_eq!(header(&response, "oci-subject"), Digest::of(b"subject").as_str());
        }
    };
    futures_util::future::join_all(["x/sbom", "x/signature", "x/scan"].map(put)).await;
    let path = format!("a/referrers/{}", Digest::of(b"subject"));
    assert_eq!(body(lab.ask("GET", &path, &[], "").await).await["manifests"].as_array().unwrap().len(), 3);
    let filtered = lab.ask("GET", &format!("{path}?artifactType=x/sbom"), &[], "").await;
    assert_eq!(header(&filtered, "oci-filters-applied"), "artifactType");
    let filtered = body(filtered).await;
    assert_eq!(filtered["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(filtered["manifests"][0]["annotations"]["for"], "x/sbom");
    let none = body(lab.ask("GET", &format!("a/referrers/{config}"), &[], "").await).await;
    assert_eq!(none["manifests"], json!([]));
}

#[tokio::test]
async fn an_upload_survives_a_restart_and_a_killed_write_shows_nothing() {
    let lab = Lab::start();
    let begun = lab.ask("POST", "a/blobs/uploads/", &[], "").await;
    let place = header(&begun, "location").trim_start_matches("/v2/").to_owned();
    lab.ask("PATCH", &place, &[], "half").await;
    // What a killed process leaves: an unfinished file beside the blobs, never among them.
    std::fs::write(lab.root().join("tmp/left"), "x").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let second = Lab { address: listener.local_addr().unwrap(), ..lab };
    let root = second.root();
    tokio::spawn(
        async move { registry::serve(listener, root, registry::Options::default(), std::future::pending()).await },
    );
    let status = second.ask("GET", &place, &[], "").await;
    assert_eq!(header(&status, "range"), "0-3");
    let digest = Digest::of(b"halfhalf");
    let done = second.ask("PUT", &format!("{place}?digest={digest}"), &[], "half").await;
    assert_eq!(done.status(), 201);
    let names: Vec<_> = std::fs::read_dir(second.root().join("blobs/sha256")).unwrap().collect();
    assert_eq!(names.len(), 1);
}

#[tokio::test]
async fn a_registry_that_others_could_reach_is_refused() {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let refused =
        registry::serve(listener, dir.path().to_owned(), registry::Options::default(), std::future::pending()).await;
    assert!(matches!(refused, Err(registry::RegistryError::Open { .. })));
}
