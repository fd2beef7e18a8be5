//! Clients that are not ours: skopeo and the `oci-client` library.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "another client is started, or the test says that it is not there"
)]

mod common;

use common::Lab;
use plimsoll_oci::ManifestView;
use std::process::Command;

async fn skopeo(arguments: Vec<String>) -> bool {
    let run = tokio::task::spawn_blocking(move || Command::new("skopeo").args(arguments).output());
    match run.await.unwrap() {
        Ok(output) => {
            assert!(output.status.success(), "skopeo: {}", String::from_utf8_lossy(&output.stderr));
            true
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "in CI skopeo is installed");
            println!("skipped: skopeo cannot be started ({error})");
            false
        }
    }
}

#[tokio::test]
async fn skopeo_copies_an_image_out_and_in_again() {
    let lab = Lab::start();
    let index = lab.index(11, 100_000);
    let image = lab.image("kairos/api", "v1");
    lab.client().push_index(&lab.store, &index.digest, &image, &|_| ()).await.unwrap();
    let layout = format!("oci:{}:v1", lab.dir.path().join("layout").display());
    let copy = |from: String, to: String| {
        let fixed = ["copy", "--all", "--preserve-digests", "--insecure-policy", "--src-tls-verify=false"];
        let mut arguments: Vec<String> = fixed.map(str::to_owned).to_vec();
        arguments.extend(["--dest-tls-verify=false".to_owned(), from, to]);
        skopeo(arguments)
    };
    if !copy(format!("docker://{image}"), layout.clone()).await {
        return;
    }
    let second = lab.image("copied/api", "v2");
    assert!(copy(layout, format!("docker://{second}")).await);
    assert_eq!(lab.client().head(&second).await.unwrap(), Some(index));
    let dir = format!("dir:{}", lab.dir.path().join("dir").display());
    assert!(copy(format!("docker://{second}"), dir).await);
    let arguments = ["inspect", "--tls-verify=false", &format!("docker://{second}")];
    assert!(skopeo(arguments.map(str::to_owned).to_vec()).await);
}

#[tokio::test]
async fn another_client_library_pulls_what_we_pushed() {
    let lab = Lab::start();
    let index = lab.index(13, 10_000);
    let image = lab.image("a", "v1");
    lab.client().push_index(&lab.store, &index.digest, &image, &|_| ()).await.unwrap();
    let config =
        oci_client::client::ClientConfig { protocol: oci_client::client::ClientProtocol::Http, ..Default::default() };
    let client = oci_client::Client::new(config);
    let reference: oci_client::Reference = image.to_string().parse().unwrap();
    let anonymous = oci_client::secrets::RegistryAuth::Anonymous;
    let (bytes, digest) = client.pull_manifest_raw(&reference, &anonymous, &[plimsoll_oci::INDEX]).await.unwrap();
    assert_eq!(digest, index.digest.as_str());
    assert_eq!(ManifestView::parse(&bytes).unwrap().manifests.len(), 2);
}
