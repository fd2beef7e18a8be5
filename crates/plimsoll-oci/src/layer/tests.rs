//! Layers: the same bytes always, and nothing in them that must not be.

use super::*;
use proptest::prelude::*;
use std::{fs, os::unix::fs::PermissionsExt, time::SystemTime};

fn store() -> (tempfile::TempDir, BlobStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path().join("store")).unwrap();
    (dir, store)
}

fn bytes(path: &str, content: &[u8]) -> Entry {
    Entry::new(path, 0o644, Contents::Bytes(content.to_vec()))
}

type Seen = (String, u32, u64, u64, Vec<u8>, Option<String>);

/// Path, mode, owner, time, content and link of every entry, as an independent reader sees them.
fn read_back(store: &BlobStore, layer: &Layer) -> Vec<Seen> {
    let file = store.open_blob(&layer.descriptor.digest).unwrap();
    let reader: Box<dyn Read> = match layer.descriptor.media_type.as_str() {
        descriptor::LAYER => Box::new(file),
        _ => Box::new(flate2::read::GzDecoder::new(file)),
    };
    let mut archive = tar::Archive::new(reader);
    archive
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let header = entry.header();
            let link = entry.link_name().unwrap().map(|l| l.display().to_string());
            let path = entry.path().unwrap().display().to_string();
            (path, header.mode().unwrap(), header.uid().unwrap(), header.mtime().unwrap(), content, link)
        })
        .collect()
}

#[test]
fn the_order_modes_and_times_of_the_source_do_not_show() {
    let (dir, store) = store();
    let build = |name: &str, order: &[&str], mode: u32| {
        let root = dir.path().join(name);
        fs::create_dir(&root).unwrap();
        for (n, file) in (1_u64..).zip(order) {
            let path = root.join(file);
            fs::write(&path, file.repeat(1000)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(n * 1_000_000);
            File::options().read(true).open(&path).unwrap().set_modified(time).unwrap();
        }
        let entries = order.iter().map(|f| Entry::new(format!("d/{f}"), 0o755, Contents::File(root.join(f)))).collect();
        write_layer(&store, entries, 1_700_000_000, Compression::Gzip).unwrap()
    };
    assert_eq!(build("one", &["a", "b", "c"], 0o600), build("two", &["c", "a", "b"], 0o777));
}

#[test]
fn the_bytes_are_the_same_as_ever() {
    let (_dir, store) = store();
    let mut noise = 1_u32;
    let content: Vec<u8> = (0..300_000)
        .map(|n: u32| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if n.is_multiple_of(3) { (noise >> 24) as u8 } else { (n / 64 % 251) as u8 }
        })
        .collect();
    let layer = write_layer(&store, vec![bytes("bin/x", &content)], 42, Compression::Gzip).unwrap();
    // A change of these two is a change of every image's digest: say so in the release notes.
    assert_eq!(layer.diff_id.as_str(), "sha256:46236b3fe71dd6fb94da7ab9cb9cc78754336eae4f9aeae7107607b0601397a4");
    assert_eq!(
        layer.descriptor.digest.as_str(),
        "sha256:500d4b33dea04ecab4defe15b72a389feacb56a628d26e3b1fa9b0d8b6fe9733"
    );
    let head = &store.read(&layer.descriptor.digest, 1 << 20).unwrap()[..10];
    assert_eq!(head, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255], "no name, no time, no system");
}

#[test]
fn every_kind_of_entry_reads_back_with_given_owner_and_time() {
    let (dir, store) = store();
    let file = dir.path().join("f");
    fs::write(&file, vec![7; PIECE + 1]).unwrap();
    let entries = vec![
        Entry { uid: 65_532, ..Entry::new("usr/bin/f", 0o755, Contents::File(file)) },
        Entry::new("tmp", 0o1777, Contents::Dir),
        Entry::new("usr/bin/g", 0o777, Contents::Symlink("f".into())),
        bytes("etc/empty", b""),
    ];
    for compression in [Compression::None, Compression::Gzip] {
        let layer = write_layer(&store, entries.clone(), 99, compression).unwrap();
        let read = read_back(&store, &layer);
        let short: Vec<_> = read.iter().map(|e| (e.0.as_str(), e.1, e.2, e.3, e.4.len(), e.5.as_deref())).collect();
        assert_eq!(
            short,
            [
                ("etc/", 0o755, 0, 99, 0, None),
                ("etc/empty", 0o644, 0, 99, 0, None),
                ("tmp/", 0o1777, 0, 99, 0, None),
                ("usr/", 0o755, 0, 99, 0, None),
                ("usr/bin/", 0o755, 0, 99, 0, None),
                ("usr/bin/f", 0o755, 65_532, 99, PIECE + 1, None),
                ("usr/bin/g", 0o777, 0, 99, 0, Some("f")),
            ]
        );
    }
}

#[test]
fn paths_that_could_leave_the_image_are_refused() {
    for (path, part) in [
        ("", "empty"),
        ("/etc/passwd", "absolute"),
        ("../x", ".."),
        ("a/../b", ".."),
        ("a/..", ".."),
        ("a//b", "empty part"),
        ("a/", "empty part"),
        ("./a", "`.`"),
        ("a\0b", "NUL"),
        (&"x".repeat(256), "255"),
    ] {
        let error = check_path(path).expect_err(path);
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn entries_that_do_not_fit_together_are_refused_and_leave_nothing() {
    let (dir, store) = store();
    for entries in [
        vec![bytes("a", b""), bytes("a", b"")],
        vec![bytes("a", b""), bytes("a/b", b"")],
        vec![bytes(&"x".repeat(200), b"")],
        vec![Entry::new("a", 0o644, Contents::File(dir.path().join("absent")))],
        vec![Entry::new("a", 0o777, Contents::Symlink("x".repeat(101)))],
    ] {
        assert!(write_layer(&store, entries, 0, Compression::Gzip).is_err());
    }
    assert_eq!(store.list().unwrap(), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_path_is_accepted_exactly_when_it_stays_inside(path in r"[a./\\-]{0,12}") {
        let inside = !path.is_empty() && path.split('/').all(|p| !matches!(p, "" | "." | ".."));
        prop_assert_eq!(check_path(&path).is_ok(), inside);
    }

    #[test]
    fn what_went_in_comes_out(files in prop::collection::btree_map("[a-z]{1,8}", prop::collection::vec(any::<u8>(), 0..2000), 0..8)) {
        let (_dir, store) = store();
        let entries: Vec<_> = files.iter().map(|(path, content)| bytes(path, content)).collect();
        let reversed: Vec<_> = entries.iter().rev().cloned().collect();
        let layer = write_layer(&store, entries, 5, Compression::Gzip).unwrap();
        prop_assert_eq!(&write_layer(&store, reversed, 5, Compression::Gzip).unwrap(), &layer);
        let read: BTreeMap<_, _> = read_back(&store, &layer).into_iter().map(|e| (e.0, e.4)).collect();
        prop_assert_eq!(read, files);
    }
}
