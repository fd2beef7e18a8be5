//! Images for two platforms: both are in the index, and the one of the other platform runs, under an emulator here. And what
//! `image` hands out, read by skopeo and run by an engine.

use crate::{
    fixture::tool,
    place::{Place, Ran},
    plain::registry_port,
    world::{eventually, get},
};
use serde_json::Value;
use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A process that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn missing(place: &Place) -> Option<String> {
    let findings = place.json(&["doctor", "--json"]);
    let findings = findings["findings"].as_array().unwrap().iter();
    let mut bad = findings.filter(|finding| {
        let name = finding["name"].as_str().unwrap();
        (name.starts_with("compiler for") || name.starts_with("run linux/")) && finding["verdict"] != "ok"
    });
    bad.next().map(|finding| format!("{}: {}", finding["name"], finding["found"]))
}

/// A place whose images are pushed for both platforms; nothing, where nobody can compile for both.
pub(crate) fn pushed_for_both() -> Option<Place> {
    let place = Place::new();
    let own = if env::consts::ARCH == "aarch64" { "linux/arm64" } else { "linux/amd64" };
    place.configure(&format!("\"{own}\""), "\"linux/amd64\", \"linux/arm64\"");
    if let Some(missing) = missing(&place) {
        // What CI installs is for machines of this kind.
        let must = env::var_os("CI").is_some() && env::consts::ARCH == "x86_64";
        assert!(!must, "in CI both platforms are built: {missing}");
        println!("skipped: {missing}");
        return None;
    }
    place.run(&["push"]).expect(0);
    Some(place)
}

#[test]
fn the_image_of_the_other_platform_is_in_the_index_and_its_executable_runs() {
    let Some(place) = pushed_for_both() else { return };
    let (other, emulator) = match env::consts::ARCH {
        "aarch64" => ("amd64", "qemu-x86_64-static"),
        _ => ("arm64", "qemu-aarch64-static"),
    };
    let web = format!("docker://127.0.0.1:{}/shop/web", registry_port(&place));
    let tags: Value = serde_json::from_str(&skopeo(&["list-tags", "--tls-verify=false", &web])).unwrap();
    let image = format!("{web}:{}", tags["Tags"][0].as_str().unwrap());
    let index: Value = serde_json::from_str(&skopeo(&["inspect", "--raw", "--tls-verify=false", &image])).unwrap();
    let platforms = index["manifests"].as_array().unwrap().iter().map(|manifest| &manifest["platform"]["architecture"]);
    assert_eq!(platforms.collect::<Vec<_>>(), ["amd64", "arm64"]);

    let directory = place.beside("pulled");
    let to = format!("dir:{}", directory.display());
    skopeo(&["copy", "--quiet", "--src-tls-verify=false", "--override-arch", other, &image, &to]);
    let web = executable(&directory);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(emulator);
    command.arg(&web).env("PORT", port.to_string()).stdout(Stdio::null());
    let _running = Running(command.spawn().unwrap());
    let url = format!("http://127.0.0.1:{port}");
    eventually("the emulated service answers", Duration::from_secs(20), || get(&url, "/health").is_ok());
}

fn skopeo(args: &[&str]) -> String {
    Ran::of(Command::new("skopeo").args(args).output().unwrap()).expect(0).out
}

/// Unpacks what skopeo copied into a directory; gives the service's executable.
fn executable(directory: &Path) -> PathBuf {
    let manifest: Value = serde_json::from_slice(&fs::read(directory.join("manifest.json")).unwrap()).unwrap();
    for layer in manifest["layers"].as_array().unwrap() {
        let blob = layer["digest"].as_str().unwrap().trim_start_matches("sha256:");
        tool("tar", &["-xzf", blob], directory);
    }
    directory.join("bin/web")
}

#[test]
fn an_image_is_built_on_a_pinned_base_and_stored_as_zstd_where_that_is_configured() {
    let place = Place::new();
    place.run(&["push"]).expect(0);
    let host = format!("127.0.0.1:{}", registry_port(&place));
    let worker = format!("docker://{host}/shop/worker");
    let tags: Value = serde_json::from_str(&skopeo(&["list-tags", "--tls-verify=false", &worker])).unwrap();
    let inspect = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}"];
    let digest = skopeo(&[&inspect[..], &[&format!("{worker}:{}", tags["Tags"][0].as_str().unwrap())]].concat());
    let config = place.repository().join("plimsoll.toml");
    let text = fs::read_to_string(&config).unwrap();
    let images = format!("base = \"{host}/shop/worker@{}\"\ncompression = \"zstd\"\n", digest.trim());
    fs::write(&config, text.replacen("[images]\n", &format!("[images]\n{images}"), 1)).unwrap();
    let layout = place.beside("out").join("layout");
    place.run(&["image", "--output", layout.to_str().unwrap()]).expect(0);
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let names = index["manifests"].as_array().unwrap().iter();
    let mut names = names.map(|m| m["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap());
    let web = names.find(|name| name.starts_with("shop/web:")).unwrap();
    let copied = place.beside("copied");
    skopeo(&["copy", "--quiet", &format!("oci:{}:{web}", layout.display()), &format!("dir:{}", copied.display())]);
    let manifest: Value = serde_json::from_slice(&fs::read(copied.join("manifest.json")).unwrap()).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    let kinds: Vec<&str> =
        layers.iter().map(|layer| layer["mediaType"].as_str().unwrap().rsplit_once('+').unwrap().1).collect();
    // What all services share and the worker's own come with the base; the service's own is on top.
    assert_eq!(kinds, ["gzip", "gzip", "zstd"]);
    for layer in layers {
        let blob = layer["digest"].as_str().unwrap().trim_start_matches("sha256:");
        let how = if layer["mediaType"].as_str().unwrap().ends_with("zstd") { "--zstd" } else { "--gzip" };
        tool("tar", &["-x", how, "-f", blob], &copied);
    }
    assert!(copied.join("bin/web").is_file() && copied.join("bin/worker").is_file());
    // It runs as any other.
    place.run(&["release", "--yes"]).expect(0);
    place.status().live("production").answers();
}

#[test]
fn images_are_handed_out_as_files_and_to_an_engine() {
    let place = Place::new();
    let (archive, layout) = (place.beside("out").join("images.tar"), place.beside("out").join("layout"));
    let said = place.run(&["image", "--output", archive.to_str().unwrap()]).expect(0);
    assert!(said.out.contains("2 images in"), "{}", said.text());
    place.run(&["image", "--output", layout.to_str().unwrap()]).expect(0);
    place.run(&["image", "--output", layout.to_str().unwrap()]).expect(2).says("is not empty");
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let names = index["manifests"].as_array().unwrap().iter();
    let names: Vec<&str> =
        names.map(|m| m["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap()).collect();
    let web = names.iter().find(|name| name.starts_with("shop/web:")).unwrap();
    let digest = |from: String| {
        let inspected: Value = serde_json::from_str(&skopeo(&["inspect", "--config", &from])).unwrap();
        inspected["rootfs"]["diff_ids"].clone()
    };
    let wanted = digest(format!("oci:{}:{web}", layout.display()));
    assert_eq!(digest(format!("docker-archive:{}:docker.io/{web}", archive.display())), wanted);
    assert_eq!(digest(format!("oci-archive:{}:{web}", archive.display())), wanted);

    if !Command::new("docker").arg("version").output().is_ok_and(|output| output.status.success()) {
        assert!(env::var_os("CI").is_none(), "no Docker Engine answers");
        println!("skipped: no Docker Engine answers");
        return;
    }
    place.run(&["image", "--load"]).expect(0).says(web);
    let told = tool("docker", &["image", "inspect", "--format", "{{json .RootFS.Layers}}", web], &layout);
    for name in names {
        tool("docker", &["image", "rm", name], &layout);
    }
    assert_eq!(serde_json::from_str::<Value>(&told).unwrap(), wanted);
}
