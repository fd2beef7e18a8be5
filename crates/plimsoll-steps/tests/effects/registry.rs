//! The embedded registry on loopback. All worlds of one test have it at one address, one after the other: references name
//! the port, and what the harness compares holds references.

use plimsoll_oci::registry;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{sync::oneshot, task::JoinHandle};

/// Idle connections are closed at once, and nothing else is open when a world ends.
const PATIENCE: Duration = Duration::from_secs(10);

/// A port of this machine, and the registry that answers there.
pub(crate) struct Port {
    listener: TcpListener,
    serving: RefCell<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Port {
    pub(crate) fn take() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { listener, serving: RefCell::default() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// From now on, the registry here is the one in `root`. It serves until the next one or the end of the test's runtime.
    pub(crate) async fn serve(&self, root: PathBuf) {
        let before = self.serving.take();
        if let Some((stop, task)) = before {
            drop(stop);
            tokio::time::timeout(PATIENCE, task).await.expect("the registry ends when it is told to").unwrap();
        }
        let listener = self.listener.try_clone().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let shutdown = async { drop(stopped.await) };
            registry::serve(listener, root, registry::Options::default(), shutdown).await.unwrap();
        });
        self.serving.replace(Some((stop, task)));
    }
}

/// The tags with their digests, and the manifests, as they lie in the registry's directory.
pub(crate) fn contents(root: &Path) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    collect(&root.join("repositories"), root, &mut seen);
    seen
}

fn collect(dir: &Path, root: &Path, seen: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            collect(&path, root, seen);
        } else if name.contains("/_tags/") {
            seen.insert(name, fs::read_to_string(&path).unwrap());
        } else {
            seen.insert(name, "there".to_owned());
        }
    }
}
