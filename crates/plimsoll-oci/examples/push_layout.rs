//! Pushes the one image of an OCI layout: `push_layout DIRECTORY REGISTRY/REPOSITORY:TAG`. For `benches/images.sh`.

use plimsoll_core::Digest;
use plimsoll_http::{Client, ClientOptions};
use plimsoll_oci::{BlobStore, RegistryClient, RegistryOptions};
use std::{env, fs};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args().skip(1);
    let (Some(layout), Some(image)) = (args.next(), args.next()) else {
        return Err("push_layout DIRECTORY IMAGE".into());
    };
    let index: serde_json::Value = serde_json::from_slice(&fs::read(format!("{layout}/index.json"))?)?;
    let digest: Digest = index["manifests"][0]["digest"].as_str().ok_or("the layout has no image")?.parse()?;
    let client = RegistryClient::new(Client::new(&ClientOptions::default())?, RegistryOptions::default());
    client.push_index(&BlobStore::open(layout)?, &digest, &image.parse()?, &|_| ()).await?;
    Ok(())
}
