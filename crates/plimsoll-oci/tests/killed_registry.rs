//! A registry that is killed while others push to it, or whose disk is full: what it says it has is whole.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a process of its own is killed, and what was counted is printed"
)]

mod common;

use common::{Lab, QUICK};
use plimsoll_core::{Digest, ImageRef};
use plimsoll_oci::{
    BlobStore, ManifestView, RegistryClient, RegistryOptions,
    registry::{self, Garbage},
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::{
    collections::BTreeSet,
    env, fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const TRIALS: u32 = 40;
/// Where the process that is started by a test serves, and what.
const SERVE: &str = "PLIMSOLL_TEST_SERVE";

/// Not a test of its own: the process that the others kill.
#[tokio::test]
async fn serves_where_another_test_starts_this_one() {
    let Some(place) = env::var_os(SERVE) else { return };
    let (address, root) = place.to_str().unwrap().split_once(' ').unwrap();
    let listener = TcpListener::bind(address).unwrap();
    registry::serve(listener, root.into(), registry::Options::default(), std::future::pending()).await.unwrap();
}

/// A registry in a process of its own.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start(root: &Path) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "serves_where_another_test_starts_this_one"]);
        command.env(SERVE, format!("{address} {}", root.display())).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "the registry answers");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, address }
    }

    fn image(&self, tag: &str) -> ImageRef {
        format!("{}/shop/web:{tag}", self.address).parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL: nothing is said to it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client(lab: &Lab) -> RegistryClient {
    RegistryClient::new(lab.http.clone(), RegistryOptions { policy: QUICK, ..RegistryOptions::default() })
}

/// Whether every manifest on the disk has all that it names, byte for byte, and every tag its manifest: seen from outside.
fn is_whole(root: &Path) -> usize {
    let repository = root.join("repositories/shop/web");
    let names = |kind: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(repository.join(kind)).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let hex = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let links: BTreeSet<String> = names("_blobs").iter().map(|path| hex(path)).collect();
    let manifests: BTreeSet<String> = names("_manifests").iter().map(|path| hex(path)).collect();
    for path in names("_manifests") {
        let bytes = fs::read(&path).unwrap();
        assert_eq!(Digest::of(&bytes).hex(), hex(&path));
        let view = ManifestView::parse(&bytes).unwrap();
        for blob in view.blobs() {
            assert!(links.contains(blob.digest.hex()), "{} is not in the repository", blob.digest);
            let bytes = fs::read(root.join("blobs/sha256").join(blob.digest.hex())).unwrap();
            assert_eq!(Digest::of(&bytes), blob.digest);
        }
        assert!(view.manifests.iter().all(|child| manifests.contains(child.digest.hex())));
    }
    for path in names("_tags") {
        let digest: Digest = fs::read_to_string(path).unwrap().parse().unwrap();
        assert!(manifests.contains(digest.hex()), "a tag of nothing");
    }
    manifests.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_killed_in_a_push_has_no_manifest_without_its_blobs() {
    let lab = Lab::start();
    let root = lab.dir.path().join("killed");
    let (mut cut, mut whole) = (0, 0);
    for trial in 0..TRIALS {
        let index = lab.index(1000 + 2 * trial, 150_000);
        let process = Process::start(&root);
        let image = process.image(&format!("t{trial}"));
        let (client, store, digest) = (client(&lab), lab.store.clone(), index.digest.clone());
        let pushing = tokio::spawn(async move { client.push_index(&store, &digest, &image, &|_| ()).await.is_ok() });
        // From before the first byte to after the last one.
        tokio::time::sleep(Duration::from_millis(u64::from(trial * 37 % 60))).await;
        drop(process);
        if pushing.await.unwrap() {
            whole += 1;
        } else {
            cut += 1;
        }
        is_whole(&root);
        // The next process takes the same push, and gives all of it back.
        let process = Process::start(&root);
        let image = process.image(&format!("t{trial}"));
        let again = self::client(&lab).push_index(&lab.store, &index.digest, &image, &|_| ()).await.unwrap();
        assert_eq!(self::client(&lab).resolve(&image).await.unwrap().digest, again.digest);
    }
    assert_eq!(is_whole(&root), 3 * TRIALS as usize);
    println!("{TRIALS} pushes to a registry that was killed: {cut} cut off, {whole} done before; all whole afterwards");
    assert!(cut > 0, "some were cut off");
}

/// A small disk of its own, for as long as this lives.
struct Disk(PathBuf);

impl Disk {
    fn at(path: &Path) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        match mount("tmpfs", path, "tmpfs", MountFlags::empty(), c"size=3m,mode=0700") {
            Ok(()) => Some(Self(path.to_owned())),
            Err(error) => {
                // Root of a container may not mount, and nobody can give it that from within.
                let must = env::var_os("CI").is_some() && error != rustix::io::Errno::PERM;
                assert!(!must, "a disk can be mounted here: {error}");
                println!("skipped: no disk to fill can be mounted here ({error})");
                None
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_a_push_and_loses_nothing() {
    let lab = Lab::start();
    let root = lab.dir.path().join("small");
    let Some(disk) = Disk::at(&root) else { return };
    let process = Process::start(&root);
    let client = client(&lab);
    let small = lab.index(2000, 400_000);
    client.push_index(&lab.store, &small.digest, &process.image("small"), &|_| ()).await.unwrap();
    let large = lab.index(2002, 1_200_000);
    // 507, unless the connection ends before the answer is read.
    client.push_index(&lab.store, &large.digest, &process.image("large"), &|_| ()).await.unwrap_err();
    assert_eq!(client.head(&process.image("large")).await.unwrap(), None);
    is_whole(&root);
    let here = BlobStore::open(lab.dir.path().join("pulled")).unwrap();
    for platform in plimsoll_core::Platform::ALL {
        client.pull(&process.image("small"), platform, &here).await.unwrap();
    }
    // What was sent of it is rubbish once nobody wants it any more: then there is room again.
    let garbage = Garbage { grace: Duration::ZERO, untagged: true, dry_run: false };
    let collected = registry::collect(&root, &garbage).unwrap();
    assert!(collected.bytes > 0, "{collected:?}");
    let other = lab.index(2004, 700_000);
    client.push_index(&lab.store, &other.digest, &process.image("other"), &|_| ()).await.unwrap();
    is_whole(&root);
    drop(process);
    drop(disk);
}
