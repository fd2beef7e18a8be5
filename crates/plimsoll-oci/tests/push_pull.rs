//! Push and pull against the embedded registry, and against ones that lie.

mod common;

use axum::{
    body::Body,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use common::{Lab, QUICK, between};
use plimsoll_core::{Classify, Digest, ErrorClass, ImageRef, Platform, Secret};
use plimsoll_oci::{
    AuthSource, BlobStore, ClientError, Credentials, HostOptions, ManifestView, PushEvent, RegistryClient,
    RegistryOptions, UnpackLimits, unpack,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A server that answers as `answer` says.
async fn liar(answer: impl Fn(Request) -> Response + Clone + Send + Sync + 'static) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new().fallback(move |request: Request| std::future::ready(answer(request)));
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

#[tokio::test]
async fn an_image_arrives_whole_and_the_second_push_sends_no_blob() {
    let lab = Lab::start();
    let index = lab.index(1, 300_000);
    let image = lab.image("kairos/api", "0.1.0");
    let client = lab.client();
    assert_eq!(client.head(&image).await.unwrap(), None);
    let (worker, store, target, digest) = (client.clone(), lab.store.clone(), image.clone(), index.digest.clone());
    let task = tokio::spawn(async move { worker.push_index(&store, &digest, &target, &|_| ()).await });
    let first = task.await.unwrap().unwrap();
    // One base layer for both platforms, and for each a binary and a configuration.
    assert_eq!((first.blobs_sent, first.blobs_present), (5, 0));
    assert!(first.bytes_sent > 600_000);
    let second = client.push_index(&lab.store, &index.digest, &image, &|_| ()).await.unwrap();
    assert_eq!((second.blobs_sent, second.blobs_present, second.bytes_sent), (0, 5, 0));
    assert_eq!(client.head(&image).await.unwrap(), Some(index.clone()));
    assert_eq!(client.resolve(&image.at(index.digest.clone())).await.unwrap(), index);

    let here = BlobStore::open(lab.dir.path().join("pulled")).unwrap();
    let pulled = client.pull(&image, Platform::LinuxArm64, &here).await.unwrap();
    assert_eq!(pulled.index, Some(index.digest));
    let again = client.pull(&image, Platform::LinuxArm64, &here).await.unwrap();
    assert_eq!(again.bytes_received, 0);
    let rootfs =
        unpack(&here, &pulled.manifest.digest, &lab.dir.path().join("rootfs"), UnpackLimits::default()).unwrap();
    assert_eq!(std::fs::read(rootfs.resolve("/bin/api").unwrap()).unwrap(), common::noise(2, 300_000));
}

#[tokio::test]
async fn a_tampered_blob_is_refused_and_not_kept() {
    let lab = Lab::start();
    let index = lab.index(3, 1000);
    let (image, client) = (lab.image("a", "v1"), lab.client());
    client.push_index(&lab.store, &index.digest, &image, &|_| ()).await.unwrap();
    let manifest = client.pull(&image, Platform::LinuxAmd64, &lab.store).await.unwrap().manifest;
    let view = ManifestView::parse(&lab.store.read(&manifest.digest, 1 << 20).unwrap()).unwrap();
    let victim = &view.layers[1].digest;
    let path = lab.root().join("blobs/sha256").join(victim.hex());
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let here = BlobStore::open(lab.dir.path().join("pulled")).unwrap();
    let error = client.pull(&image, Platform::LinuxAmd64, &here).await.unwrap_err();
    assert!(matches!(error, ClientError::Store(plimsoll_oci::BlobError::WrongDigest { .. })), "{error:?}");
    assert!(!here.contains(victim) && !here.contains(&manifest.digest));
}

#[tokio::test]
async fn garbage_for_a_manifest_is_a_data_error_that_is_not_asked_for_again() {
    let lab = Lab::start();
    let manifest = r#"{"schemaVersion":2,"manifests":[]}"#;
    let other = Digest::of(b"other").to_string();
    for (kind, header, text) in [
        ("text/html", "", "<html>welcome</html>"),
        ("text/html", "", manifest),
        (plimsoll_oci::INDEX, other.as_str(), manifest),
        (plimsoll_oci::MANIFEST, "", manifest),
        (plimsoll_oci::INDEX, "", &manifest[..10]),
    ] {
        let asked = Arc::new(AtomicUsize::new(0));
        let (count, kind, header, text) = (asked.clone(), kind.to_owned(), header.to_owned(), text.to_owned());
        let address = liar(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            let mut headers = axum::http::HeaderMap::new();
            headers.insert("content-type", kind.parse().unwrap());
            if !header.is_empty() {
                headers.insert("docker-content-digest", header.parse().unwrap());
            }
            (headers, text.clone()).into_response()
        })
        .await;
        let image: ImageRef = format!("{address}/a:v1").parse().unwrap();
        let error = lab.client().pull(&image, Platform::LinuxAmd64, &lab.store).await.unwrap_err();
        assert!(matches!(error, ClientError::Data { .. } | ClientError::Manifest { .. }), "{error:?}");
        assert_eq!((asked.load(Ordering::Relaxed), error.class()), (1, ErrorClass::External));
    }
    assert_eq!(lab.store.list().unwrap(), []);
}

#[tokio::test]
async fn an_image_for_another_machine_is_refused() {
    let lab = Lab::start();
    let index = lab.index(5, 100);
    let client = lab.client();
    let view = ManifestView::parse(&lab.store.read(&index.digest, 1 << 20).unwrap()).unwrap();
    let arm = view.manifests.iter().find(|m| m.platform.as_ref().unwrap().is(Platform::LinuxArm64)).unwrap();
    let image = lab.image("a", "arm");
    client.push_index(&lab.store, &arm.digest, &image, &|_| ()).await.unwrap();
    let here = BlobStore::open(lab.dir.path().join("pulled")).unwrap();
    let error = client.pull(&image, Platform::LinuxAmd64, &here).await.unwrap_err();
    assert!(matches!(error, ClientError::Platform { .. }), "{error:?}");
}

#[tokio::test]
async fn credentials_go_to_the_registry_and_not_to_where_an_upload_lies() {
    let lab = Lab::start();
    let index = lab.index(7, 100);
    let abroad: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = abroad.clone();
    let storage = liar(move |request| {
        seen.lock().unwrap().push(format!("{:?}", request.headers()));
        StatusCode::CREATED.into_response()
    })
    .await;
    let home = liar(move |request| {
        if request.headers().get("authorization").is_none() {
            return (StatusCode::UNAUTHORIZED, [("www-authenticate", "Basic realm=\"x\"")]).into_response();
        }
        match (request.method().as_str(), request.uri().path().contains("/blobs/")) {
            ("HEAD", true) => StatusCode::NOT_FOUND.into_response(),
            ("POST", _) => {
                (StatusCode::ACCEPTED, [("location", format!("http://{storage}/put?sig=1"))]).into_response()
            }
            _ => (StatusCode::CREATED, Body::empty()).into_response(),
        }
    })
    .await;
    let credentials = Credentials { username: "me".into(), password: Secret::new("s3cret") };
    let options = RegistryOptions { auth: AuthSource::Fixed(credentials), policy: QUICK, ..RegistryOptions::default() };
    let image: ImageRef = format!("{home}/a:v1").parse().unwrap();
    let client = RegistryClient::new(lab.http.clone(), options);
    let report = client.push_index(&lab.store, &index.digest, &image, &|_| ()).await.unwrap();
    assert_eq!(report.blobs_sent, 5);
    let abroad = abroad.lock().unwrap().clone();
    assert_eq!(abroad.len(), 5);
    assert!(abroad.iter().all(|headers| !headers.contains("authorization")), "{abroad:?}");
    let anonymous = lab.client().push_index(&lab.store, &index.digest, &image, &|_| ()).await.unwrap_err();
    assert!(matches!(anonymous, ClientError::Denied { .. }), "{anonymous:?}");
}

#[tokio::test]
async fn a_token_is_fetched_once_and_with_the_right_scope() {
    let lab = Lab::start();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = asked.clone();
    let tokens = liar(move |request| {
        seen.lock().unwrap().push(request.uri().to_string());
        r#"{"access_token":"t0ken"}"#.into_response()
    })
    .await;
    let home = liar(move |request| {
        if request.headers().get("authorization").is_none_or(|a| a != "Bearer t0ken") {
            let challenge = format!("Bearer realm=\"http://{tokens}/token\",service=\"s\"");
            return (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response();
        }
        StatusCode::NOT_FOUND.into_response()
    })
    .await;
    let image: ImageRef = format!("{home}/a/b:v1").parse().unwrap();
    let client = lab.client();
    assert_eq!(client.head(&image).await.unwrap(), None);
    assert_eq!(client.head(&image).await.unwrap(), None);
    assert_eq!(*asked.lock().unwrap(), ["/token?service=s&scope=repository%3Aa%2Fb%3Apull"]);
}

#[tokio::test]
async fn a_registry_that_takes_no_whole_blob_gets_chunks_and_lost_answers_are_found_out() {
    let lab = Lab::start();
    let index = lab.index(9, 50_000);
    // Stands before the real registry: refuses whole blobs, and loses the answer to every first chunk it passed on.
    let (real, http, lost) = (lab.address, lab.http.clone(), Arc::new(AtomicUsize::new(0)));
    let counter = lost.clone();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new().fallback(move |request: Request| {
        let (http, lost) = (http.clone(), counter.clone());
        async move {
            let (head, body) = request.into_parts();
            let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            if head.method == "PUT" && head.uri.path().contains("/uploads/") && !bytes.is_empty() {
                return StatusCode::METHOD_NOT_ALLOWED.into_response();
            }
            let url = format!("http://{real}{}", head.uri).parse().unwrap();
            let patch = head.method == "PATCH";
            let request = http.request(head.method, url).headers(head.headers).body(bytes);
            let answer = http.send(plimsoll_http::Client::build(request).unwrap()).await.unwrap();
            if patch && lost.fetch_add(1, Ordering::Relaxed) % 2 == 0 {
                return StatusCode::BAD_GATEWAY.into_response();
            }
            let (status, headers) = (answer.status(), answer.headers().clone());
            (status, headers, plimsoll_http::read_limited(answer, 1 << 20).await.unwrap()).into_response()
        }
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    let image: ImageRef = format!("{address}/a:v1").parse().unwrap();
    let report = lab.client().push_index(&lab.store, &index.digest, &image, &|_| ()).await.unwrap();
    assert_eq!(report.blobs_sent, 5);
    assert!(lost.load(Ordering::Relaxed) >= 5);
    let here = BlobStore::open(lab.dir.path().join("pulled")).unwrap();
    lab.client().pull(&lab.image("a", "v1"), Platform::LinuxAmd64, &here).await.unwrap();
}

#[tokio::test]
async fn an_image_by_digest_comes_from_the_first_mirror_that_has_it_and_one_by_tag_from_its_own_registry() {
    let (own, mirror, empty) = (Lab::start(), Lab::start(), Lab::start());
    let index = own.index(1, 10_000);
    let image = own.image("shop/api", "1");
    own.client().push_index(&own.store, &index.digest, &image, &|_| ()).await.unwrap();
    let there = mirror.image("copies/shop/api", "1");
    mirror.client().push_index(&own.store, &index.digest, &there, &|_| ()).await.unwrap();
    let path = |lab: &Lab| format!("{}/copies", lab.image("x", "1").registry);
    let client = |mirrors: Vec<String>| {
        let host = HostOptions { mirrors, ..HostOptions::default() };
        let hosts = [(image.registry.clone(), host)].into();
        RegistryClient::new(own.http.clone(), RegistryOptions { policy: QUICK, hosts, ..RegistryOptions::default() })
    };
    let gone = "127.0.0.1:9/copies".to_owned();
    for (mirrors, wanted, from) in [
        (vec![path(&mirror)], image.at(index.digest.clone()), &there.registry),
        (vec![gone.clone(), path(&empty), path(&mirror)], image.at(index.digest.clone()), &there.registry),
        (vec![gone, path(&empty)], image.at(index.digest.clone()), &image.registry),
        (vec![path(&mirror)], image.clone(), &image.registry),
    ] {
        let here = tempfile::tempdir().unwrap();
        let store = BlobStore::open(here.path()).unwrap();
        let pulled = client(mirrors.clone()).pull(&wanted, Platform::LinuxArm64, &store).await.unwrap();
        assert_eq!(&pulled.from, from, "{mirrors:?} {wanted}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_push_tells_how_many_bytes_of_how_many_went_out() {
    let lab = Lab::start();
    let index = lab.index(1, 300_000);
    // Each answer takes so long that some of it is seen on the way.
    let slow = between(lab.address, |_| {
        std::thread::sleep(std::time::Duration::from_millis(150));
        None
    })
    .await;
    let image: ImageRef = format!("{slow}/kairos/api:1").parse().unwrap();
    let told = Mutex::new(Vec::new());
    let tell = |event| {
        if let PushEvent::Moving { bytes, of } = event {
            told.lock().unwrap().push((bytes, of));
        }
    };
    let report = lab.client().push_index(&lab.store, &index.digest, &image, &tell).await.unwrap();
    let told = told.into_inner().unwrap();
    assert!(told.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{told:?}");
    assert!(told.iter().any(|(bytes, of)| *bytes > 0 && *of == report.bytes_sent), "{told:?} {report:?}");
}
