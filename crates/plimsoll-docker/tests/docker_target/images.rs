//! Images for the tests: the service as a static executable, in one image per version, in an embedded registry of this process.

use crate::engine;
use plimsoll_core::{Digest, ImageRef, Platform};
use plimsoll_http::{Client, ClientOptions};
use plimsoll_oci::{BlobStore, IndexSpec, RegistryClient, RegistryOptions, ServiceImage, service_image, write_index};
use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::{Mutex, OnceLock},
};

/// The registry with what was pushed to it.
struct Shelf {
    directory: tempfile::TempDir,
    address: String,
    pushed: Mutex<BTreeMap<u32, Digest>>,
}

static SHELF: OnceLock<Shelf> = OnceLock::new();

fn shelf() -> &'static Shelf {
    SHELF.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let root = directory.path().join("registry");
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            listener.set_nonblocking(true).unwrap();
            runtime
                .block_on(plimsoll_oci::registry::serve(
                    listener,
                    root,
                    plimsoll_oci::registry::Options::default(),
                    std::future::pending(),
                ))
                .unwrap();
        });
        let program = directory.path().join("service");
        aside(compile(&program));
        Shelf { directory, address, pushed: Mutex::default() }
    })
}

/// Does something on a thread of its own: the caller's may be a runtime's, which must not wait.
fn aside<T: Send>(doing: impl Future<Output = T> + Send) -> T {
    let work = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(doing);
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

async fn compile(program: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/docker_target/service.rs");
    let (source, program) = (source.to_string_lossy(), program.to_string_lossy());
    let flags = ["--edition", "2024", "-C", "opt-level=1", "-C", "target-feature=+crt-static", "-o"];
    engine::run("rustc", &[&flags[..], &[&*program, &*source]].concat()).await;
}

/// The image's name in the registry.
pub(crate) fn name() -> ImageRef {
    format!("{}/plimsoll-test/service:1", shelf().address).parse().unwrap()
}

/// The digest of an index of `version`, pushed when it was not yet.
pub(crate) fn version(version: u32) -> Digest {
    let shelf = shelf();
    let mut pushed = shelf.pushed.lock().unwrap();
    if let Some(digest) = pushed.get(&version) {
        return digest.clone();
    }
    let store = BlobStore::open(shelf.directory.path().join("blobs")).unwrap();
    let platform = Platform::host().unwrap();
    let image = ServiceImage {
        name: "service",
        binary: &shelf.directory.path().join("service"),
        platform,
        cmd: Vec::new(),
        env: vec![format!("VERSION={version}"), "N=from the image".to_owned()],
        labels: BTreeMap::new(),
        epoch: 1_700_000_000,
        base: None,
        compression: plimsoll_oci::Compression::Gzip,
    };
    let image = service_image(&store, &image).unwrap();
    let index = IndexSpec { images: vec![(platform, image)], annotations: BTreeMap::new() };
    let digest = write_index(&store, &index).unwrap().digest;
    let options = ClientOptions { plain_http: true, no_proxy: true, ..ClientOptions::default() };
    let client = RegistryClient::new(Client::new(&options).unwrap(), RegistryOptions::default());
    let name = name().tagged(&version.to_string());
    aside(async { client.push_index(&store, &digest, &name, &|_| ()).await.unwrap() });
    pushed.insert(version, digest.clone());
    digest
}

/// The registry behind a door that asks for `ann:hunter2` (Basic, RFC 7617): an address.
pub(crate) fn guarded() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            std::thread::spawn(move || guard(near));
        }
    });
    address
}

fn guard(mut near: TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    // The head of a request; what asks is an engine.
    while !head.ends_with(b"\r\n\r\n") && head.len() < 64 << 10 {
        let mut byte = [0];
        near.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    // "ann:hunter2" in base64.
    if !String::from_utf8_lossy(&head).contains("Basic YW5uOmh1bnRlcjI=") {
        let refusal = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"test\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        return near.write_all(refusal.as_bytes());
    }
    let mut far = TcpStream::connect(&shelf().address)?;
    far.write_all(&head)?;
    let (mut from, mut to) = (near.try_clone()?, far.try_clone()?);
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    std::io::copy(&mut far, &mut near).map(drop)
}

/// Removes from the engine what it pulled from here.
pub(crate) fn forget() {
    let Some(shelf) = SHELF.get() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let pushed: Vec<String> = shelf.pushed.lock().unwrap().values().map(|d| format!("service@{d}")).collect();
        let all = engine::docker(&["images", "--digests", "--format", "{{.ID}} {{.Repository}}@{{.Digest}}"]).await;
        let ours = all.lines().filter(|line| pushed.iter().any(|end| line.ends_with(end)));
        // One image may have several names.
        for id in ours.filter_map(|line| line.split(' ').next()).collect::<std::collections::BTreeSet<_>>() {
            engine::docker(&["rmi", "--force", id]).await;
        }
    });
}
