//! A registry on loopback, a store with an image in it, and a client.
#![allow(
    dead_code,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "each test file uses a part of this; a registry that is not ours is started, or the test says that it is not"
)]

use plimsoll_core::{Digest, ImageRef, Platform, RetryPolicy};
use plimsoll_http::{Body, Client, ClientOptions, Method, Response};
use plimsoll_oci::{
    BlobStore, Descriptor, IndexSpec, RegistryClient, RegistryOptions, ServiceImage, registry, service_image,
    write_index,
};
use std::{
    collections::BTreeMap,
    env,
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub(crate) const QUICK: RetryPolicy = RetryPolicy {
    attempts: 4,
    base: Duration::from_millis(1),
    factor: 1.0,
    cap: Duration::from_millis(20),
    budget: Duration::from_secs(30),
};

pub(crate) struct Lab {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) store: BlobStore,
    pub(crate) http: Client,
}

impl Lab {
    /// A registry that serves until the test's runtime ends.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let root = dir.path().join("registry");
        tokio::spawn(async move {
            registry::serve(listener, root, registry::Options::default(), std::future::pending()).await.unwrap();
        });
        let store = BlobStore::open(dir.path().join("store")).unwrap();
        let options = ClientOptions { no_proxy: true, follow_redirects: false, ..ClientOptions::default() };
        Self { dir, address, store, http: Client::new(&options).unwrap() }
    }

    pub(crate) fn client(&self) -> RegistryClient {
        let options = RegistryOptions { policy: QUICK, ..RegistryOptions::default() };
        RegistryClient::new(self.http.clone(), options)
    }

    pub(crate) fn image(&self, repository: &str, tag: &str) -> ImageRef {
        format!("{}/{repository}:{tag}", self.address).parse().unwrap()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("registry")
    }

    /// An index of two platforms, whose binaries are `size` bytes of noise.
    pub(crate) fn index(&self, seed: u32, size: usize) -> Descriptor {
        let mut images = Vec::new();
        for (n, platform) in (0..).zip(Platform::ALL) {
            let binary = self.dir.path().join(format!("binary-{n}"));
            std::fs::write(&binary, noise(seed + n, size)).unwrap();
            let service = ServiceImage {
                name: "api",
                binary: &binary,
                platform,
                cmd: vec![],
                env: vec![],
                labels: BTreeMap::new(),
                epoch: 1_700_000_000,
                base: None,
                compression: plimsoll_oci::Compression::Gzip,
            };
            images.push((platform, service_image(&self.store, &service).unwrap()));
        }
        write_index(&self.store, &IndexSpec { images, annotations: BTreeMap::new() }).unwrap()
    }

    /// A raw request; the path begins behind `/v2/`.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Response {
        let url = format!("http://{}/v2/{path}", self.address).parse().unwrap();
        let mut request = self.http.request(Method::from_bytes(method.as_bytes()).unwrap(), url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.http.send(Client::build(request).unwrap()).await.unwrap()
    }

    pub(crate) async fn put_blob(&self, repository: &str, bytes: &'static [u8]) -> Digest {
        let digest = Digest::of(bytes);
        let path = format!("{repository}/blobs/uploads/?digest={digest}");
        assert_eq!(self.ask("POST", &path, &[], bytes).await.status(), 201);
        digest
    }
}

pub(crate) fn noise(seed: u32, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 24) as u8
    })
    .take(size)
    .collect()
}

pub(crate) fn header<'r>(response: &'r Response, name: &str) -> &'r str {
    response.headers().get(name).map_or("", |v| v.to_str().unwrap())
}

/// A server between a client and a registry that answers itself where `fault` says so.
pub(crate) async fn between(
    registry: SocketAddr,
    fault: impl Fn(&axum::http::request::Parts) -> Option<axum::response::Response> + Clone + Send + Sync + 'static,
) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let options = ClientOptions { no_proxy: true, follow_redirects: false, ..ClientOptions::default() };
    let http = Client::new(&options).unwrap();
    let app = axum::Router::new().fallback(move |request: axum::extract::Request| {
        let (http, fault) = (http.clone(), fault.clone());
        async move {
            let (head, body) = request.into_parts();
            if let Some(answer) = fault(&head) {
                // As a server that reads what it refuses, or the client would see a broken line.
                let _ = axum::body::to_bytes(body, usize::MAX).await;
                return answer;
            }
            let url = format!("http://{registry}{}", head.uri).parse().unwrap();
            let mut on = http.request(head.method, url).headers(head.headers);
            on = on.body(Body::wrap_stream(body.into_data_stream()));
            let answer = http.send(Client::build(on).unwrap()).await.unwrap();
            let mut back = axum::response::Response::builder().status(answer.status());
            *back.headers_mut().unwrap() = answer.headers().clone();
            back.body(axum::body::Body::from_stream(futures_util::stream::unfold(answer, |mut answer| async {
                answer.chunk().await.transpose().map(|piece| (piece, answer))
            })))
            .unwrap()
        }
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// Debian's registry, ended with this value.
pub(crate) struct Foreign {
    child: Child,
    pub(crate) address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Foreign {
    /// Starts it, or says why not.
    pub(crate) fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
            directory.path().display()
        );
        let path = directory.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
        match command.spawn() {
            Ok(child) => {
                let found = Self { child, address, _directory: directory };
                let begun = Instant::now();
                while TcpStream::connect(address).is_err() {
                    assert!(begun.elapsed() < Duration::from_secs(30), "docker-registry answers");
                    std::thread::sleep(Duration::from_millis(20));
                }
                Some(found)
            }
            Err(error) => {
                assert!(env::var_os("CI").is_none(), "in CI docker-registry is installed: {error}");
                println!("skipped: docker-registry is not installed, so nothing is pushed to it");
                None
            }
        }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
