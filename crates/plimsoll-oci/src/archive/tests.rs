//! Archives as engines of several ages write them, whole and damaged.

use super::*;
use crate::{ManifestView, UnpackLimits};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use std::io::{Cursor, Write as _};

/// A layer with one file, as plain tar.
fn tarred(name: &str, text: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    tar.into_inner().unwrap()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn configuration(diff_ids: &[Digest]) -> Value {
    let config = json!({"Cmd": ["/bin/api"], "Healthcheck": {"Test": ["NONE"]}});
    json!({"os": "linux", "architecture": "amd64", "config": config, "rootfs": {"type": "layers", "diff_ids": diff_ids}})
}

/// An archive of these files; an empty one with a target is a link.
fn archive(files: &[(&str, &[u8], Option<&str>)]) -> Cursor<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes, link) in files {
        let mut header = tar::Header::new_gnu();
        if let Some(to) = link {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, path, to).unwrap();
        } else {
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, *bytes).unwrap();
        }
    }
    Cursor::new(tar.into_inner().unwrap())
}

fn listed(layers: &[&str]) -> Vec<u8> {
    json!([{"Config": "config.json", "RepoTags": null, "Layers": layers}]).to_string().into_bytes()
}

#[test]
fn images_of_old_engines_and_new_ones_are_the_same_image() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlobStore::open(directory.path().join("blobs")).unwrap();
    let [one, two] = [tarred("one", "1"), tarred("two", "2")];
    let config = configuration(&[&one, &two, &one].map(|layer| Digest::of(layer))).to_string();
    // Manifest last, layers as directories, one of them a link.
    let old = archive(&[
        ("config.json", config.as_bytes(), None),
        ("a/layer.tar", &one, None),
        ("b/layer.tar", &two, None),
        ("c/layer.tar", b"", Some("../a/layer.tar")),
        ("manifest.json", &listed(&["a/layer.tar", "b/layer.tar", "c/layer.tar"]), None),
    ]);
    // Blobs by digest, with what belongs to other readers.
    let new = archive(&[
        ("oci-layout", b"{}", None),
        ("blobs/sha256/1", &one, None),
        ("blobs/sha256/2", &two, None),
        ("config.json", config.as_bytes(), None),
        ("manifest.json", &listed(&["blobs/sha256/1", "blobs/sha256/2", "blobs/sha256/1"]), None),
    ]);
    let (platform, old) = import_archive(&store, old).unwrap();
    assert_eq!((platform, &old), (Platform::LinuxAmd64, &import_archive(&store, new).unwrap().1));

    let manifest = store.read(&old.digest, MAX_MANIFEST).unwrap();
    let view = ManifestView::parse(&manifest).unwrap();
    assert_eq!(view.layers.len(), 3);
    // What the specification has no word for, as a health check, is kept.
    assert_eq!(store.read(&view.config.unwrap().digest, MAX_MANIFEST).unwrap(), config.as_bytes());
    let root = directory.path().join("root");
    crate::unpack(&store, &old.digest, &root, UnpackLimits::default()).unwrap();
    assert_eq!(std::fs::read_to_string(root.join("two")).unwrap(), "2");
}

#[test]
fn compressed_layers_are_taken_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlobStore::open(directory.path()).unwrap();
    let one = tarred("one", "1");
    let packed = gzipped(&one);
    let config = configuration(&[Digest::of(&one)]).to_string();
    let files = archive(&[
        ("layer", &packed, None),
        ("config.json", config.as_bytes(), None),
        ("manifest.json", &listed(&["layer"]), None),
    ]);
    import_archive(&store, files).unwrap();
    assert!(store.contains(&Digest::of(&packed)));
}

#[test]
fn what_is_not_whole_is_refused_by_name_and_no_manifest_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let store = BlobStore::open(directory.path()).unwrap();
    let one = tarred("one", "1");
    let right = configuration(&[Digest::of(&one)]);
    let wrong = configuration(&[Digest::of(b"other")]);
    let mut strange = right.clone();
    strange["architecture"] = json!("s390x");
    let two = json!([{"Config": "a", "Layers": []}, {"Config": "b", "Layers": []}]).to_string();
    let with = |config: &Value, layer: &str, manifest: &[u8]| {
        archive(&[
            ("layer", &one, None),
            ("config.json", config.to_string().as_bytes(), None),
            ("manifest.json", if manifest.is_empty() { listed(&[layer]) } else { manifest.to_vec() }.as_slice(), None),
        ])
    };
    for (files, says) in [
        (archive(&[("layer", &one, None)]), "it has no `manifest.json`"),
        (with(&right, "absent", b""), "it has no `absent`"),
        (with(&wrong, "layer", b""), "its configuration names"),
        (with(&strange, "layer", b""), "linux/s390x"),
        (with(&right, "layer", two.as_bytes()), "it has 2 images"),
        (with(&right, "layer", b"{"), "`manifest.json`: "),
        (with(&json!({"os": "linux"}), "layer", b""), "`config.json`: "),
    ] {
        let refused = import_archive(&store, files).unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    }
    let mut torn = with(&right, "layer", b"").into_inner();
    torn.truncate(700);
    assert!(import_archive(&store, Cursor::new(torn)).is_err());
    let blobs = store.list().unwrap();
    assert!(
        blobs.iter().all(|digest| store.read(digest, MAX_MANIFEST).unwrap().starts_with(&[0x1f, 0x8b])),
        "{blobs:?}"
    );
}
