//! What a slot runs: an unpacked image with its entry point, and where such things come from.
//!
//! No sandbox: a service runs as the user who runs the supervisor and sees that user's files.

use crate::supervisor::{
    LocalPaths,
    protocol::{broken, refused},
};
use plimsoll_core::{Digest, ImageRef, Platform};
use plimsoll_deploy::TargetError;
use plimsoll_oci::{BlobStore, MAX_MANIFEST, ManifestView, RegistryClient, UnpackLimits, static_executable, unpack};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
};

/// An unpacked image, ready to be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// The executable, as an absolute path on this machine.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// The image's environment variables.
    pub env: BTreeMap<String, String>,
    /// The directory to run in, as an absolute path on this machine.
    pub cwd: PathBuf,
    /// The image's root directory on this machine. Empty of what stood up before this was recorded.
    #[serde(default)]
    pub root: PathBuf,
}

impl Rootfs {
    /// Another program of the image, by its absolute path in there, as a path on this machine.
    pub(crate) fn inside(&self, program: &str) -> Option<PathBuf> {
        let root = self.root.canonicalize().ok()?;
        let found = root.join(program.strip_prefix('/')?).canonicalize().ok()?;
        found.starts_with(&root).then_some(found)
    }
}

/// What a slot runs, and thereby how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Payload {
    /// An unpacked image, as processes of this machine.
    Rootfs(Rootfs),
    /// The image itself, as containers.
    Image {
        /// The socket of the engine that runs them.
        engine: PathBuf,
        /// The image, by digest.
        image: ImageRef,
    },
}

impl Payload {
    /// The engine of containers.
    pub fn engine(&self) -> Option<&Path> {
        match self {
            Self::Rootfs(_) => None,
            Self::Image { engine, .. } => Some(engine),
        }
    }

    /// Whether both are run in the same way; of unpacked images the digest tells which is which.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.engine() == other.engine()
    }
}

/// Where images come from.
pub trait ImageSource: Send + Sync {
    /// Makes the image with this digest ready to be started on `platform`; does nothing when it is ready already.
    fn fetch<'a>(
        &'a self,
        image: &'a ImageRef,
        digest: &'a Digest,
        platform: Platform,
    ) -> Pin<Box<dyn Future<Output = Result<Rootfs, TargetError>> + Send + 'a>>;
}

/// Images of a registry, pulled by digest and unpacked once, below the state directory.
#[derive(Debug, Clone)]
pub struct OciImages {
    root: PathBuf,
    registry: RegistryClient,
}

impl OciImages {
    /// Images pulled by `registry` into the state directory of `paths`.
    pub fn new(paths: &LocalPaths, registry: RegistryClient) -> Self {
        Self { root: paths.images(), registry }
    }

    async fn pull(&self, image: &ImageRef, digest: &Digest, platform: Platform) -> Result<Rootfs, TargetError> {
        let what = format!("fetch {image}");
        let store = BlobStore::open(&self.root).map_err(|e| broken(&what, e))?;
        // What is here already needs no registry: a release is put back also when that is down.
        let manifest = if let Some(manifest) = manifest_here(&store, digest, platform) {
            manifest
        } else {
            let pulled = self.registry.pull(&image.at(digest.clone()), platform, &store).await;
            pulled.map_err(|e| broken(&what, e))?.manifest.digest
        };
        let parent = self.root.join("unpacked");
        let target = parent.join(manifest.hex());
        let unpacking = move || {
            crate::supervisor::create_private(&parent).map_err(|e| broken(&what, e))?;
            let unpacked = unpack(&store, &manifest, &target, UnpackLimits::default()).map_err(|e| broken(&what, e))?;
            runnable(&unpacked, platform).map_err(|reason| refused(what, reason))
        };
        tokio::task::spawn_blocking(unpacking).await.map_err(|e| broken("unpack an image", e))?
    }
}

impl ImageSource for OciImages {
    fn fetch<'a>(
        &'a self,
        image: &'a ImageRef,
        digest: &'a Digest,
        platform: Platform,
    ) -> Pin<Box<dyn Future<Output = Result<Rootfs, TargetError>> + Send + 'a>> {
        Box::pin(self.pull(image, digest, platform))
    }
}

/// The manifest for `platform` behind `digest`, when the store has it with all its parts.
fn manifest_here(store: &BlobStore, digest: &Digest, platform: Platform) -> Option<Digest> {
    let view = |digest: &Digest| ManifestView::parse(&store.read(digest, MAX_MANIFEST).ok()?).ok();
    let found = view(digest)?;
    let manifest = if found.is_index() {
        found.manifests.iter().find(|m| m.platform.as_ref().is_some_and(|p| p.is(platform)))?.digest.clone()
    } else {
        digest.clone()
    };
    view(&manifest)?.blobs().all(|blob| store.contains(&blob.digest)).then_some(manifest)
}

/// How an unpacked image is started here, or why it cannot be, in a sentence.
fn runnable(image: &plimsoll_oci::Rootfs, platform: Platform) -> Result<Rootfs, String> {
    let mut command = image.entrypoint.iter().chain(&image.cmd);
    let name = command.next().ok_or("the image names no command: set its Entrypoint")?;
    let env: BTreeMap<String, String> = image
        .env
        .iter()
        .filter_map(|pair| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect();
    let inside = |path: &str| image.resolve(path).ok().filter(|p| p.exists());
    let cwd = if image.working_dir.is_empty() { "/" } else { &image.working_dir };
    let cwd = inside(cwd).ok_or_else(|| format!("its working directory `{cwd}` is not in the image"))?;
    let program = candidates(name, &env, Path::new(&image.working_dir)).iter().find_map(|path| inside(path));
    let program = program.ok_or_else(|| format!("its command `{name}` is not in the image"))?;
    static_executable(&program, platform).map_err(|e| {
        format!("{e}; this target runs static executables only: build for a musl target, or use a docker target")
    })?;
    Ok(Rootfs { program, args: command.cloned().collect(), env, cwd, root: image.path.clone() })
}

/// Where a command may lie inside an image.
fn candidates(name: &str, env: &BTreeMap<String, String>, cwd: &Path) -> Vec<String> {
    // What container runtimes assume when an image says nothing.
    const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    if name.contains('/') {
        // An absolute name replaces what it is joined to.
        return vec![Path::new("/").join(cwd).join(name).to_string_lossy().into_owned()];
    }
    let path = env.get("PATH").map_or(PATH, String::as_str);
    path.split(':')
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| format!("{directory}/{name}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(root: &Path, entrypoint: &str) -> plimsoll_oci::Rootfs {
        plimsoll_oci::Rootfs {
            path: root.to_owned(),
            entrypoint: vec![entrypoint.to_owned(), "--first".to_owned()],
            cmd: vec!["second".to_owned()],
            env: vec!["PATH=/tools:relative".to_owned(), "A=b=c".to_owned()],
            working_dir: String::new(),
            user: String::new(),
        }
    }

    #[test]
    fn a_command_is_looked_for_inside_the_image_only() {
        let env = BTreeMap::from([("PATH".to_owned(), "/tools:relative:/bin".to_owned())]);
        assert_eq!(candidates("serve", &env, Path::new("")), ["/tools/serve", "/bin/serve"]);
        assert_eq!(candidates("/serve", &env, Path::new("/app")), ["/serve"]);
        assert_eq!(candidates("./serve", &env, Path::new("/app")), ["/app/./serve"]);
        assert_eq!(candidates("serve", &BTreeMap::new(), Path::new("")).len(), 6);
    }

    #[test]
    fn another_program_is_looked_for_inside_the_image_only() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("bin")).unwrap();
        std::fs::write(root.path().join("bin/tool"), "").unwrap();
        std::os::unix::fs::symlink("/bin/sh", root.path().join("bin/shell")).unwrap();
        let found = |program: &str, root: &Path| {
            let [here, empty] = [(); 2].map(|()| PathBuf::new());
            Rootfs { program: here, args: Vec::new(), env: BTreeMap::new(), cwd: empty, root: root.to_owned() }
                .inside(program)
        };
        assert!(found("/bin/tool", root.path()).is_some_and(|path| path.ends_with("bin/tool")));
        for outside in ["/bin/absent", "/bin/shell", "/../../../../bin/sh", "bin/tool"] {
            assert_eq!(found(outside, root.path()), None, "{outside}");
        }
        assert_eq!(found("/bin/sh", Path::new("")), None, "of an old state nothing is known");
    }

    #[test]
    fn what_cannot_run_is_refused_in_a_sentence() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("tools")).unwrap();
        std::fs::write(root.path().join("tools/script"), "#!/bin/sh\n").unwrap();
        for (entrypoint, part) in [("script", "static executables only"), ("absent", "`absent` is not in the image")] {
            let reason = runnable(&image(root.path(), entrypoint), Platform::LinuxAmd64).unwrap_err();
            assert!(reason.contains(part), "{reason}");
        }
        let lost = plimsoll_oci::Rootfs { working_dir: "/nowhere".to_owned(), ..image(root.path(), "script") };
        assert!(runnable(&lost, Platform::LinuxAmd64).unwrap_err().contains("`/nowhere`"));
    }
}
