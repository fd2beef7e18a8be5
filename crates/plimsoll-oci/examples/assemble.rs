//! Assembles the image of one executable for two platforms: `assemble FILE STORE`. For `benches/images.sh`.

use plimsoll_core::Platform;
use plimsoll_oci::{BlobStore, Compression, IndexSpec, ServiceImage, service_images, write_index};
use std::{collections::BTreeMap, env, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args_os().skip(1).map(PathBuf::from);
    let (Some(binary), Some(store)) = (args.next(), args.next()) else { return Err("assemble FILE STORE".into()) };
    let store = BlobStore::open(store)?;
    let services = Platform::ALL.map(|platform| ServiceImage {
        name: "x",
        binary: &binary,
        platform,
        cmd: Vec::new(),
        env: Vec::new(),
        labels: BTreeMap::new(),
        epoch: 0,
        base: None,
        compression: Compression::Gzip,
    });
    let images = service_images(&store, &services)?;
    write_index(&store, &IndexSpec { images, annotations: BTreeMap::new() })?;
    Ok(())
}
