//! Pushes over lines that break and to registries that lose answers: what is there in the end is what was pushed, once.

#![expect(clippy::disallowed_macros, reason = "what was counted is printed")]

mod common;

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use common::{Foreign, Lab, QUICK, between};
use plimsoll_core::{ImageRef, RetryPolicy, Secret};
use plimsoll_oci::{AuthSource, ClientError, Credentials, PushReport, RegistryClient, RegistryOptions};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The binaries of the images that are pushed, in bytes: some boundaries of 64 KiB.
const SIZE: usize = 700_000;
const STEP: usize = 64 * 1024;

/// What happens to a line.
#[derive(Debug, Clone, Copy)]
enum Line {
    /// Reset after so many bytes from the client, once.
    Cut(usize),
    /// Every line is reset after so many bytes from the client.
    AllCut(usize),
    /// The first request that begins with this arrives, and its answer is lost.
    AnswerLost(&'static [u8]),
}

/// A line to `registry` with a fault.
async fn broken(registry: SocketAddr, fault: Line) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let left = Arc::new(AtomicUsize::new(1));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let left = Arc::clone(&left);
            tokio::spawn(async move {
                let server = TcpStream::connect(registry).await.unwrap();
                carry(client, server, fault, &left).await;
            });
        }
    });
    address
}

async fn carry(mut client: TcpStream, server: TcpStream, fault: Line, left: &AtomicUsize) {
    let (mut from, mut to) = server.into_split();
    let (mut up, mut down) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let (mut sent, mut lose) = (0, false);
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    loop {
        tokio::select! {
            read = client.read(&mut up) => match read {
                Ok(count) if count > 0 => {
                    if let Line::AnswerLost(start) = fault {
                        lose = lose || up[..count].starts_with(start) && take();
                    }
                    sent += count;
                    let over = match fault {
                        Line::Cut(most) => sent > most && take(),
                        Line::AllCut(most) => sent > most,
                        Line::AnswerLost(_) => false,
                    };
                    if to.write_all(&up[..count]).await.is_err() || over {
                        break;
                    }
                }
                _ => break,
            },
            read = from.read(&mut down) => match read {
                Ok(count) if count > 0 && !lose => {
                    if client.write_all(&down[..count]).await.is_err() {
                        break;
                    }
                }
                _ => break,
            },
        }
    }
    let _ = client.set_zero_linger();
}

fn at(address: SocketAddr, repository: &str) -> ImageRef {
    format!("{address}/{repository}:v1").parse().unwrap()
}

async fn push(lab: &Lab, seed: u32, image: &ImageRef) -> Result<PushReport, ClientError> {
    let index = lab.index(seed, SIZE);
    lab.client().push_index(&lab.store, &index.digest, image, &|_| ()).await
}

/// What `registry` has of the image is whole: every byte is read back and hashed.
async fn is_whole(lab: &Lab, registry: SocketAddr, repository: &str, report: &PushReport) {
    let here = plimsoll_oci::BlobStore::open(tempfile::tempdir_in(lab.dir.path()).unwrap().keep()).unwrap();
    let image = at(registry, repository);
    assert_eq!(lab.client().resolve(&image).await.unwrap().digest, report.digest);
    for platform in plimsoll_core::Platform::ALL {
        lab.client().pull(&image, platform, &here).await.unwrap();
    }
}

async fn every_boundary(name: &str, lab: &Lab, registry: SocketAddr) {
    let mut trials = 0;
    for (seed, most) in (10..).step_by(2).zip((STEP..2 * SIZE).step_by(STEP)) {
        let repository = format!("cut/{most}");
        let line = broken(registry, Line::Cut(most)).await;
        let report = push(lab, seed, &at(line, &repository)).await.unwrap();
        is_whole(lab, registry, &repository, &report).await;
        trials += 1;
    }
    println!("{name}: {trials} pushes whose line was reset at another boundary of 64 KiB, all whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_reset_at_any_boundary_is_gone_on_with() {
    let lab = Lab::start();
    every_boundary("the embedded registry", &lab, lab.address).await;
    if let Some(foreign) = Foreign::start() {
        every_boundary("docker-registry", &lab, foreign.address).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_all_reset_after_a_part_carry_a_blob_in_parts() {
    let lab = Lab::start();
    let line = broken(lab.address, Line::AllCut(STEP)).await;
    let report = push(&lab, 90, &at(line, "parts")).await.unwrap();
    is_whole(&lab, lab.address, "parts", &report).await;
    assert!(report.requests > 20, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_sends_nothing_twice_into_a_blob() {
    let lab = Lab::start();
    let foreign = Foreign::start();
    let starts = [&b"POST "[..], b"PUT ", b"PATCH ", b"HEAD ", b"PUT /v2/lost/manifests"];
    for (seed, start) in (100..).step_by(2).zip(starts) {
        for registry in [Some(lab.address), foreign.as_ref().map(|foreign| foreign.address)].into_iter().flatten() {
            let line = broken(registry, Line::AnswerLost(start)).await;
            let report = push(&lab, seed, &at(line, "lost")).await.unwrap();
            is_whole(&lab, registry, "lost", &report).await;
        }
    }
}

/// Answers the first `times` requests with a method by a status.
fn refusing(
    method: &'static str,
    times: usize,
    status: StatusCode,
    headers: HeaderMap,
) -> impl Fn(&Parts) -> Option<Response> + Clone + Send + Sync {
    let left = Arc::new(AtomicUsize::new(times));
    move |head: &Parts| {
        let ours = head.method.as_str() == method;
        let take = |left: usize| left.checked_sub(1);
        let refuse = ours && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        refuse.then(|| (status, headers.clone()).into_response())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_fails_in_the_middle_is_asked_how_far_it_is() {
    let lab = Lab::start();
    for (seed, (method, status)) in (200..).step_by(2).zip([
        ("PUT", 500),
        ("PUT", 503),
        ("PUT", 413),
        ("PATCH", 500),
        ("PATCH", 416),
        ("PATCH", 502),
        ("POST", 503),
    ]) {
        let refuse = refusing(method, 1, StatusCode::from_u16(status).unwrap(), HeaderMap::new());
        // A chunk is sent only where one piece was not taken.
        let whole = refusing("PUT", usize::from(method == "PATCH"), StatusCode::PAYLOAD_TOO_LARGE, HeaderMap::new());
        let line = between(lab.address, move |head: &Parts| refuse(head).or_else(|| whole(head))).await;
        let repository = format!("fails/{seed}");
        let report = push(&lab, seed, &at(line, &repository)).await;
        let report = report.unwrap_or_else(|error| panic!("{method} {status}: {error:?}"));
        is_whole(&lab, lab.address, &repository, &report).await;
    }
}

/// A registry whose tokens are good for so many requests, and that answers by `status` then.
fn forgetful(
    good_for: usize,
    status: StatusCode,
    tokens: Arc<AtomicUsize>,
) -> impl Fn(&Parts) -> Option<Response> + Clone {
    let used = Arc::new(Mutex::new((0_usize, 0_usize)));
    move |head: &Parts| {
        if head.uri.path() == "/token" {
            let number = tokens.fetch_add(1, Ordering::Relaxed) + 1;
            *used.lock().unwrap() = (number, 0);
            return Some(format!(r#"{{"token":"t{number}"}}"#).into_response());
        }
        let mut used = used.lock().unwrap();
        let shown = head.headers.get("authorization").and_then(|value| value.to_str().ok());
        if used.0 > 0 && shown == Some(&format!("Bearer t{}", used.0)) && used.1 < good_for {
            used.1 += 1;
            return None;
        }
        // The first time it must say where tokens are; later only a registry that is kind does.
        let status = if shown.is_none() { StatusCode::UNAUTHORIZED } else { status };
        let mut headers = HeaderMap::new();
        if status == StatusCode::UNAUTHORIZED {
            let host = head.headers["host"].to_str().unwrap();
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
            headers.insert("www-authenticate", HeaderValue::from_str(&challenge).unwrap());
        }
        Some((status, headers).into_response())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_in_the_middle_is_renewed_once_each_time() {
    let lab = Lab::start();
    let credentials = Credentials { username: "ci".to_owned(), password: Secret::new("secret") };
    let mut trials = 0;
    // Three blobs are sent at once: each must find the new one good.
    for good_for in [8, 9, 11, 14, 20] {
        for status in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
            let tokens = Arc::new(AtomicUsize::new(0));
            let line = between(lab.address, forgetful(good_for, status, Arc::clone(&tokens))).await;
            let auth = AuthSource::Fixed(credentials.clone());
            let client = RegistryClient::new(
                lab.http.clone(),
                RegistryOptions { auth, policy: QUICK, ..RegistryOptions::default() },
            );
            let repository = format!("token/{good_for}-{}", status.as_u16());
            let index = lab.index(300 + 2 * trials, 20_000);
            let report = client.push_index(&lab.store, &index.digest, &at(line, &repository), &|_| ()).await.unwrap();
            is_whole(&lab, lab.address, &repository, &report).await;
            let (asked, sent) = (tokens.load(Ordering::Relaxed), usize::try_from(report.requests).unwrap());
            assert!(asked <= 1 + sent.div_ceil(good_for), "{asked} tokens for {sent} requests of {good_for} each");
            trials += 1;
        }
    }
    println!("{trials} pushes with tokens that ended, all whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_never_push_is_told_so_after_two_tokens() {
    let lab = Lab::start();
    for status in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
        let tokens = Arc::new(AtomicUsize::new(0));
        let line = between(lab.address, forgetful(0, status, Arc::clone(&tokens))).await;
        let error = push(&lab, 400, &at(line, "never")).await.unwrap_err();
        let denied = matches!(&error, ClientError::Denied { .. })
            || matches!(&error, ClientError::Refused { status, .. } if *status == StatusCode::FORBIDDEN);
        assert!(denied, "{error:?}");
        // Three blobs are looked for at once.
        assert!(tokens.load(Ordering::Relaxed) <= 6, "{tokens:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_repository_has_is_mounted_and_what_may_not_be_is_sent() {
    let lab = Lab::start();
    let client = lab.client();
    let index = lab.index(500, 50_000);
    let to = |image: ImageRef| {
        let (client, store, digest) = (client.clone(), lab.store.clone(), index.digest.clone());
        async move { client.push_index(&store, &digest, &image, &|_| ()).await.unwrap() }
    };
    let first = to(lab.image("one", "v1")).await;
    let second = to(lab.image("two", "v1")).await;
    assert_eq!((first.blobs_sent, first.blobs_mounted), (5, 0));
    assert_eq!((second.blobs_sent, second.blobs_mounted, second.bytes_sent), (0, 5, 0));
    is_whole(&lab, lab.address, "two", &second).await;
    // A registry that refuses to mount gets the bytes.
    let refuse = |head: &Parts| {
        let mounts = head.uri.query().is_some_and(|query| query.contains("mount="));
        mounts.then(|| StatusCode::FORBIDDEN.into_response())
    };
    let line = between(lab.address, refuse).await;
    assert_eq!(to(at(line, "three")).await.blobs_sent, 5);
    let fourth = to(at(line, "four")).await;
    assert_eq!((fourth.blobs_sent, fourth.blobs_mounted), (5, 0));
    is_whole(&lab, lab.address, "four", &fourth).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_asks_to_wait_is_left_alone_by_all_pushes() {
    let lab = Lab::start();
    let options = RegistryOptions { policy: RetryPolicy::default(), ..RegistryOptions::default() };
    let client = RegistryClient::new(lab.http.clone(), options);
    let first = Arc::new(Mutex::new(None::<Instant>));
    let told = Arc::clone(&first);
    let line = between(lab.address, move |head: &Parts| {
        let mut first = told.lock().unwrap();
        (head.method == "PUT" && first.is_none()).then(|| {
            *first = Some(Instant::now());
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "2")]).into_response()
        })
    })
    .await;
    let indexes: Vec<_> = (0..3).map(|n| lab.index(600 + 2 * n, 1000)).collect();
    let pushes = indexes.iter().enumerate().map(|(number, index)| {
        let (client, store, image) = (client.clone(), lab.store.clone(), at(line, &format!("wait/{number}")));
        async move {
            client.push_index(&store, &index.digest, &image, &|_| ()).await.unwrap();
            Instant::now()
        }
    });
    // None of them had sent a manifest when the first blob was refused: each had to wait.
    let ends = futures_util::future::join_all(pushes).await;
    let first = first.lock().unwrap().unwrap();
    let after: Vec<Duration> = ends.iter().map(|end| end.duration_since(first)).collect();
    assert!(after.iter().all(|after| *after >= Duration::from_millis(1900)), "some did not wait: {after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_are_read_in_every_form_and_a_huge_one_is_told() {
    let lab = Lab::start();
    let date = "Wed, 21 Oct 2015 07:28:00 GMT";
    for (seed, header) in (700..).step_by(2).zip(["0", date, "", "soon"]) {
        let headers = HeaderMap::from_iter([(axum::http::header::RETRY_AFTER, HeaderValue::from_static(header))]);
        // The last request of a push is for its tag.
        let line = between(lab.address, refusing("PUT", 2, StatusCode::TOO_MANY_REQUESTS, headers)).await;
        let repository = format!("form/{seed}");
        let report = push(&lab, seed, &at(line, &repository)).await.unwrap();
        is_whole(&lab, lab.address, &repository, &report).await;
    }
    let headers = HeaderMap::from_iter([(axum::http::header::RETRY_AFTER, HeaderValue::from_static("86400"))]);
    let line = between(lab.address, refusing("HEAD", usize::MAX, StatusCode::TOO_MANY_REQUESTS, headers)).await;
    let error = push(&lab, 800, &at(line, "huge")).await.unwrap_err().to_string();
    assert!(error.contains("429") && error.contains("it asks to wait for 86400 s"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_lie_elsewhere_are_fetched_there_without_credentials() {
    let lab = Lab::start();
    let index = lab.index(900, 30_000);
    lab.client().push_index(&lab.store, &index.digest, &lab.image("a", "v1"), &|_| ()).await.unwrap();
    let shown = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&shown);
    let elsewhere = between(lab.address, move |head: &Parts| {
        counter.fetch_add(usize::from(head.headers.contains_key("authorization")), Ordering::Relaxed);
        None
    })
    .await;
    let tokens = Arc::new(AtomicUsize::new(0));
    let ask = forgetful(usize::MAX, StatusCode::UNAUTHORIZED, Arc::clone(&tokens));
    let (sent_on, circles) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, circle) = (Arc::clone(&sent_on), Arc::clone(&circles));
    let registry = between(lab.address, move |head: &Parts| {
        let path = head.uri.path().to_owned();
        ask(head).or_else(|| {
            let to = if path.starts_with("/v2/round/") {
                circle.fetch_add(1, Ordering::Relaxed);
                path
            } else if path.contains("/blobs/") {
                count.fetch_add(1, Ordering::Relaxed);
                format!("http://{elsewhere}{path}?signature=1")
            } else {
                return None;
            };
            Some((StatusCode::TEMPORARY_REDIRECT, [("location", to)]).into_response())
        })
    })
    .await;
    let credentials = Credentials { username: "ci".to_owned(), password: Secret::new("secret") };
    let options = RegistryOptions { auth: AuthSource::Fixed(credentials), policy: QUICK, ..RegistryOptions::default() };
    let client = RegistryClient::new(lab.http.clone(), options);
    let here = plimsoll_oci::BlobStore::open(lab.dir.path().join("pulled")).unwrap();
    client.pull(&at(registry, "a"), plimsoll_core::Platform::LinuxAmd64, &here).await.unwrap();
    assert_eq!(
        (sent_on.load(Ordering::Relaxed), shown.load(Ordering::Relaxed)),
        (3, 0),
        "led there, credentials shown"
    );
    assert_eq!(tokens.load(Ordering::Relaxed), 1);
    let round = client.resolve(&at(registry, "round")).await.unwrap_err().to_string();
    assert!(round.contains("without end") && circles.load(Ordering::Relaxed) <= 6, "{round}: {circles:?}");
}
