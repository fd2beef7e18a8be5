//! How long an image of a 10 MB binary takes, and a push of 500 MB to the embedded registry.
//!
//! `cargo run --release -p plimsoll-oci --example image_speed -- FILE` measures the image of FILE; the push is of noise.

#![expect(clippy::disallowed_macros, reason = "the figures are the result")]

use plimsoll_core::Platform;
use plimsoll_http::{Client, ClientOptions};
use plimsoll_oci::{
    BlobStore, Compression, Contents, Entry, ImageSpec, RegistryClient, RegistryOptions, ServiceImage, registry,
    service_image, write_image, write_layer,
};
use std::{collections::BTreeMap, path::PathBuf, time::Instant};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let store = BlobStore::open(dir.path().join("store"))?;
    let binary = std::env::args().nth(1).map_or_else(std::env::current_exe, |path| Ok(PathBuf::from(path)))?;
    let bytes = std::fs::metadata(&binary)?.len();
    let start = Instant::now();
    let service = ServiceImage {
        name: "x",
        binary: &binary,
        platform: Platform::LinuxAmd64,
        cmd: vec![],
        env: vec![],
        labels: BTreeMap::new(),
        epoch: 0,
        base: None,
        compression: plimsoll_oci::Compression::Gzip,
    };
    service_image(&store, &service)?;
    println!("image of {bytes} bytes: {:?}", start.elapsed());

    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()
    })
    .take(500 << 17)
    .flatten()
    .collect();
    let file = dir.path().join("noise");
    std::fs::write(&file, &noise)?;
    drop(noise);
    let layer = write_layer(&store, vec![Entry::new("noise", 0o644, Contents::File(file))], 0, Compression::None)?;
    let spec = ImageSpec {
        platform: Platform::LinuxAmd64,
        entrypoint: vec![],
        cmd: vec![],
        env: vec![],
        working_dir: String::new(),
        user: String::new(),
        labels: BTreeMap::new(),
        epoch: 0,
        layers: vec![layer],
    };
    let manifest = write_image(&store, &spec)?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let image = format!("{}/speed:v1", listener.local_addr()?).parse()?;
    tokio::spawn(registry::serve(
        listener,
        dir.path().join("registry"),
        registry::Options::default(),
        std::future::pending(),
    ));
    let client = RegistryClient::new(Client::new(&ClientOptions::default())?, RegistryOptions::default());
    let start = Instant::now();
    let report = client.push_index(&store, &manifest.digest, &image, &|_| ()).await?;
    println!("push of {} bytes: {:?}", report.bytes_sent, start.elapsed());
    Ok(())
}
