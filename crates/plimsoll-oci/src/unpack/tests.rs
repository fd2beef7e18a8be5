//! Unpacking: what an image may do to a directory, and what it may not.

use super::*;
use crate::{Compression, Contents, Descriptor, Entry, ImageSpec, Layer, write_image, write_layer};
use plimsoll_core::Platform;
use std::collections::BTreeMap;

struct Lab {
    dir: tempfile::TempDir,
    store: BlobStore,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path().join("store")).unwrap();
        Self { dir, store }
    }

    fn image(&self, layers: Vec<Layer>) -> Digest {
        let spec = ImageSpec {
            platform: Platform::LinuxAmd64,
            entrypoint: vec!["/bin/x".into()],
            cmd: vec!["serve".into()],
            env: vec!["A=1".into()],
            working_dir: "/tmp".into(),
            user: "65532".into(),
            labels: BTreeMap::new(),
            epoch: 0,
            layers,
        };
        write_image(&self.store, &spec).unwrap().digest
    }

    fn layer(&self, entries: Vec<Entry>) -> Layer {
        write_layer(&self.store, entries, 0, Compression::Gzip).unwrap()
    }

    /// A layer of raw tar headers, as an attacker would write it.
    fn raw(&self, entries: &[(&str, tar::EntryType, &str)]) -> Layer {
        let mut bytes = Vec::new();
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_ustar();
            let is_link = kind.is_symlink() || kind.is_hard_link();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o4755);
            header.set_size(if is_link { 0 } else { content.len() as u64 });
            if is_link {
                header.set_link_name_literal(content).unwrap();
            }
            header.set_cksum();
            bytes.extend(header.as_bytes());
            if !is_link {
                bytes.extend(content.as_bytes());
                bytes.resize(bytes.len().next_multiple_of(512), 0);
            }
        }
        bytes.resize(bytes.len() + 1024, 0);
        let digest = self.store.put(&bytes).unwrap();
        Layer { descriptor: Descriptor::new(LAYER, digest.clone(), bytes.len() as u64), diff_id: digest }
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    fn unpack(&self, layers: Vec<Layer>) -> Result<Rootfs, UnpackError> {
        unpack(&self.store, &self.image(layers), &self.target(), UnpackLimits::default())
    }
}

fn bytes(path: &str, content: &str) -> Entry {
    Entry::new(path, 0o644, Contents::Bytes(content.into()))
}

#[test]
fn an_image_is_unpacked_with_its_modes_and_how_to_run_it() {
    let lab = Lab::new();
    let layer = lab.layer(vec![
        Entry::new("bin/x", 0o755, Contents::Bytes(b"x".into())),
        Entry::new("tmp", 0o1777, Contents::Dir),
        Entry::new("sbin", 0o777, Contents::Symlink("/bin".into())),
    ]);
    let rootfs = lab.unpack(vec![layer]).unwrap();
    assert_eq!((rootfs.entrypoint.as_slice(), rootfs.user.as_str()), (&["/bin/x".to_owned()][..], "65532"));
    let mode = |p: &str| fs::metadata(rootfs.path.join(p)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("bin/x"), mode("tmp")), (0o755, 0o1777));
    assert_eq!(rootfs.resolve("/sbin/x").unwrap(), rootfs.path.join("bin/x"));
    assert_eq!(rootfs.resolve("../../../bin/x").unwrap(), rootfs.path.join("bin/x"));
}

#[test]
fn later_layers_replace_and_hide_what_earlier_ones_put() {
    let lab = Lab::new();
    let lower = lab.layer(vec![bytes("a/one", "1"), bytes("a/two", "2"), bytes("b/one", "1"), bytes("c", "old")]);
    let upper =
        lab.layer(vec![bytes("a/.wh.one", ""), bytes("b/.wh..wh..opq", ""), bytes("b/two", "2"), bytes("c", "new")]);
    let root = lab.unpack(vec![lower, upper]).unwrap().path;
    assert!(!root.join("a/one").exists() && root.join("a/two").exists());
    assert!(!root.join("b/one").exists() && root.join("b/two").exists());
    assert_eq!(fs::read_to_string(root.join("c")).unwrap(), "new");
    assert!(!root.join("a/.wh.one").exists());
}

#[test]
fn nothing_is_written_outside_and_nothing_half_stays() {
    use tar::EntryType::{Link, Regular, Symlink};
    for entries in [
        &[("../evil", Regular, "x")][..],
        &[("/evil", Regular, "x")],
        &[("a/../../evil", Regular, "x")],
        &[("hard", Link, "../../etc/passwd")],
        &[("hard", Link, "/etc/passwd")],
        &[("hard", Link, "absent")],
        &[("loop", Symlink, "loop"), ("loop/x", Regular, "x")],
    ] {
        let lab = Lab::new();
        let layer = lab.raw(entries);
        assert!(matches!(lab.unpack(vec![layer]), Err(UnpackError::Refused { .. })), "{entries:?}");
        let names: Vec<_> = fs::read_dir(lab.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["store"], "{entries:?}");
    }
}

#[test]
fn a_link_that_leads_out_is_followed_inside_only() {
    use tar::EntryType::{Regular, Symlink};
    let lab = Lab::new();
    let outside = lab.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let absolute = outside.to_str().unwrap().to_owned();
    let layer = lab.raw(&[
        ("up", Symlink, "../outside"),
        ("up/evil", Regular, "x"),
        ("abs", Symlink, &absolute),
        ("abs/evil", Regular, "x"),
        ("file", Symlink, "../outside/target"),
        ("file", Regular, "x"),
    ]);
    let root = lab.unpack(vec![layer]).unwrap().path;
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(root.join("outside/evil").is_file() && root.join("file").symlink_metadata().unwrap().is_file());
}

#[test]
fn setuid_bits_are_dropped() {
    let lab = Lab::new();
    let layer = lab.raw(&[("su", tar::EntryType::Regular, "x")]);
    let root = lab.unpack(vec![layer]).unwrap().path;
    assert_eq!(fs::metadata(root.join("su")).unwrap().permissions().mode() & 0o7777, 0o755);
}

#[test]
fn sizes_and_counts_are_bounded() {
    let lab = Lab::new();
    let image = lab.image(vec![lab.layer(vec![bytes("a", &"x".repeat(10_000)), bytes("b", "")])]);
    for (bytes, entries, what) in [(9_000, 10, "bytes"), (1 << 20, 1, "entries")] {
        let error = unpack(&lab.store, &image, &lab.target(), UnpackLimits { bytes, entries }).unwrap_err();
        assert!(matches!(error, UnpackError::TooLarge { what: w, .. } if w == what), "{error:?}");
        assert!(!lab.target().exists());
    }
}

#[test]
fn a_layer_that_is_not_what_the_configuration_says_is_refused() {
    let lab = Lab::new();
    let mut layer = lab.layer(vec![bytes("a", "x")]);
    layer.diff_id = Digest::of(b"other");
    assert!(matches!(lab.unpack(vec![layer]), Err(UnpackError::WrongLayer { .. })));
    assert!(!lab.target().exists());
}

#[test]
fn unpacking_twice_gives_the_same_directory() {
    let lab = Lab::new();
    let layers = vec![lab.layer(vec![bytes("a", "x")])];
    assert_eq!(lab.unpack(layers.clone()).unwrap(), lab.unpack(layers).unwrap());
}
