//! An image's layers unpacked into a directory, safely: nothing is written outside it, sizes and counts are bounded, and a
//! directory that exists is whole, because it is unpacked beside and renamed.
//!
//! Owners are not applied (Plimsoll does not run as root), devices and FIFOs are left out, setuid bits are dropped. Links are
//! resolved here, inside the root, never by the system: nobody else writes into the directory while it is unpacked.

use crate::{
    BlobError, BlobStore, DOCKER_LAYER_GZIP, LAYER, LAYER_GZIP, LAYER_ZSTD, MAX_MANIFEST, ManifestError, ManifestView,
};
use plimsoll_core::{Classify, Digest, ErrorClass, Hasher};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

mod place;

/// Bounds on what is unpacked.
#[derive(Debug, Clone, Copy)]
pub struct UnpackLimits {
    /// Bytes in all layers together, unpacked.
    pub bytes: u64,
    /// Entries in all layers together.
    pub entries: u64,
}

impl Default for UnpackLimits {
    /// 4 GiB and 500,000 entries: several times a full distribution's image.
    fn default() -> Self {
        Self { bytes: 4 << 30, entries: 500_000 }
    }
}

/// An unpacked image and how to run it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// The directory.
    pub path: PathBuf,
    /// The command that always runs.
    pub entrypoint: Vec<String>,
    /// Its default arguments.
    pub cmd: Vec<String>,
    /// `NAME=value` pairs.
    pub env: Vec<String>,
    /// The working directory inside; empty for `/`.
    pub working_dir: String,
    /// The user; empty for root.
    pub user: String,
}

impl Rootfs {
    /// Where `path`, a path inside the image, lies on this machine; links are followed inside the image only.
    pub fn resolve(&self, path: &str) -> Result<PathBuf, UnpackError> {
        place::resolve(&self.path, path, place::Last::Follow).map_err(|reason| UnpackError::refused(path, reason))
    }
}

/// Why an image could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// An entry that must not be unpacked.
    #[error("the image's entry `{path}` is refused: {reason}")]
    Refused {
        /// The entry's path, as it stands there.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// The image is too large.
    #[error("the image has more than {limit} {what}")]
    TooLarge {
        /// `bytes` or `entries`.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// A layer is not what the configuration says.
    #[error("layer {layer} is not what the image's configuration says")]
    WrongLayer {
        /// The layer's digest.
        layer: Digest,
    },
    /// A media type that cannot be read.
    #[error("layers of type `{media_type}` cannot be unpacked")]
    MediaType {
        /// The type.
        media_type: String,
    },
    /// A layer is no tar archive.
    #[error("layer {layer} does not read as an archive")]
    Archive {
        /// The layer's digest.
        layer: Digest,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// The disk refused.
    #[error("cannot write `{path}`")]
    Write {
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The manifest does not read.
    #[error("the image's manifest is unusable")]
    Manifest(#[from] ManifestError),
    /// The configuration does not read.
    #[error("the image's configuration does not read as one")]
    Config(#[source] serde_json::Error),
    /// A part is missing or damaged.
    #[error("the image is incomplete")]
    Store(#[from] BlobError),
}

impl UnpackError {
    pub(crate) fn refused(path: &str, reason: &'static str) -> Self {
        Self::Refused { path: path.chars().take(300).collect(), reason }
    }
}

impl Classify for UnpackError {
    fn class(&self) -> ErrorClass {
        ErrorClass::External
    }
}

#[derive(Deserialize, Default)]
struct ConfigFile {
    #[serde(default)]
    config: Option<RunConfig>,
    rootfs: RootfsIds,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct RunConfig {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
}

#[derive(Deserialize, Default)]
struct RootfsIds {
    diff_ids: Vec<Digest>,
}

/// Unpacks the image whose manifest is `manifest` into `target`, which must not exist; if it does, it is taken as unpacked
/// already. The parent directory must exist.
pub fn unpack(
    store: &BlobStore,
    manifest: &Digest,
    target: &Path,
    limits: UnpackLimits,
) -> Result<Rootfs, UnpackError> {
    let view = ManifestView::parse(&store.read(manifest, MAX_MANIFEST)?)?;
    let config = view.config.as_ref().ok_or(ManifestError::Contradiction("has no configuration"))?;
    let config: ConfigFile =
        serde_json::from_slice(&store.read(&config.digest, MAX_MANIFEST)?).map_err(UnpackError::Config)?;
    if config.rootfs.diff_ids.len() != view.layers.len() {
        return Err(ManifestError::Contradiction("has other layers than its configuration").into());
    }
    if !target.is_dir() {
        let parent = target.parent().unwrap_or(Path::new("."));
        let failed = |source| UnpackError::Write { path: target.to_owned(), source };
        let temp = tempfile::Builder::new().prefix(".unpack-").tempdir_in(parent).map_err(failed)?;
        let mut unpacking = Unpacking { root: temp.path(), left: limits, limits };
        for (layer, diff_id) in view.layers.iter().zip(&config.rootfs.diff_ids) {
            unpacking.layer(store, layer, diff_id)?;
        }
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).map_err(failed)?;
        rename_whole(temp, target).map_err(failed)?;
    }
    let run = config.config.unwrap_or_default();
    Ok(Rootfs {
        path: target.to_owned(),
        entrypoint: run.entrypoint.unwrap_or_default(),
        cmd: run.cmd.unwrap_or_default(),
        env: run.env.unwrap_or_default(),
        working_dir: run.working_dir.unwrap_or_default(),
        user: run.user.unwrap_or_default(),
    })
}

fn rename_whole(temp: tempfile::TempDir, target: &Path) -> io::Result<()> {
    match fs::rename(temp.path(), target) {
        // Another process was faster; its directory is whole too.
        Err(_) if target.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            // Nothing is left to be removed.
            let _ = temp.keep();
            File::open(target.parent().unwrap_or(target))?.sync_all()
        }
    }
}

struct Unpacking<'a> {
    root: &'a Path,
    left: UnpackLimits,
    limits: UnpackLimits,
}

/// Counts and hashes what is read through it.
pub(crate) struct Metered<R> {
    pub(crate) inner: R,
    pub(crate) hasher: Hasher,
    pub(crate) left: u64,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.left = self.left.checked_sub(count as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(count)
    }
}

/// A layer's archive, decompressed.
pub(crate) fn open_layer(store: &BlobStore, layer: &crate::Descriptor) -> Result<Box<dyn Read>, UnpackError> {
    let file = io::BufReader::with_capacity(128 * 1024, store.open_blob(&layer.digest)?);
    match layer.media_type.as_str() {
        LAYER => Ok(Box::new(file)),
        LAYER_GZIP | DOCKER_LAYER_GZIP => Ok(Box::new(flate2::read::MultiGzDecoder::new(file))),
        LAYER_ZSTD => {
            let damaged = |source| UnpackError::Archive { layer: layer.digest.clone(), source };
            Ok(Box::new(crate::layer::unzstd(file).map_err(damaged)?))
        }
        other => Err(UnpackError::MediaType { media_type: other.chars().take(200).collect() }),
    }
}

impl Unpacking<'_> {
    fn layer(&mut self, store: &BlobStore, layer: &crate::Descriptor, diff_id: &Digest) -> Result<(), UnpackError> {
        let plain = open_layer(store, layer)?;
        let damaged = |source| UnpackError::Archive { layer: layer.digest.clone(), source };
        let bytes = self.limits.bytes;
        let sort = |source: io::Error| match source.kind() {
            io::ErrorKind::FileTooLarge => UnpackError::TooLarge { what: "bytes", limit: bytes },
            _ => damaged(source),
        };
        let mut archive = tar::Archive::new(Metered { inner: plain, hasher: Hasher::new(), left: self.left.bytes });
        for entry in archive.entries().map_err(sort)? {
            let mut entry = entry.map_err(sort)?;
            self.left.entries = self
                .left
                .entries
                .checked_sub(1)
                .ok_or(UnpackError::TooLarge { what: "entries", limit: self.limits.entries })?;
            self.entry(&mut entry)?;
        }
        let mut rest = archive.into_inner();
        io::copy(&mut rest, &mut io::sink()).map_err(sort)?;
        self.left.bytes = rest.left;
        if rest.hasher.finish() == *diff_id {
            Ok(())
        } else {
            Err(UnpackError::WrongLayer { layer: layer.digest.clone() })
        }
    }

    fn entry<R: Read>(&self, entry: &mut tar::Entry<'_, R>) -> Result<(), UnpackError> {
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refused = |reason| UnpackError::refused(&path, reason);
        let inside = path.strip_prefix("./").unwrap_or(&path).trim_end_matches('/');
        if inside.is_empty() || inside == "." {
            return Ok(());
        }
        crate::check_path(inside).map_err(|_| refused("its path leaves the image, or is too long"))?;
        let target = place::resolve(self.root, inside, place::Last::Keep).map_err(refused)?;
        let failed = |source| UnpackError::Write { path: PathBuf::from(&path), source };
        let name = target.file_name().and_then(|n| n.to_str()).ok_or_else(|| refused("it names the root"))?;
        let dir = target.parent().expect("a resolved path lies below the root");
        place::make_dirs(self.root, dir).map_err(failed)?;
        if let Some(hidden) = name.strip_prefix(".wh.") {
            return whiteout(dir, hidden).map_err(failed);
        }
        let mode = entry.header().mode().map_err(failed)? & 0o1777;
        match entry.header().entry_type() {
            tar::EntryType::Directory => {
                if !target.symlink_metadata().is_ok_and(|m| m.is_dir()) {
                    remove(&target).and_then(|()| fs::create_dir(&target)).map_err(failed)?;
                }
                // The owner keeps access: who unpacks must be able to remove it again.
                set_mode(&target, mode | 0o700).map_err(failed)
            }
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                remove(&target).map_err(failed)?;
                let mut file =
                    File::options().write(true).create_new(true).mode(0o600).open(&target).map_err(failed)?;
                io::copy(entry, &mut file).map_err(|source| self.sort_copy(source, &path))?;
                file.set_permissions(fs::Permissions::from_mode(mode | 0o400)).map_err(failed)
            }
            tar::EntryType::Symlink => {
                let link = entry.link_name_bytes().ok_or_else(|| refused("it links to nothing"))?;
                let link = String::from_utf8_lossy(&link).into_owned();
                remove(&target).and_then(|()| symlink(link, &target)).map_err(failed)
            }
            tar::EntryType::Link => {
                let link = entry.link_name_bytes().ok_or_else(|| refused("it links to nothing"))?;
                let link = String::from_utf8_lossy(&link).into_owned();
                let link = link.strip_prefix("./").unwrap_or(&link);
                crate::check_path(link).map_err(|_| refused("its hard link leaves the image"))?;
                let source = place::resolve(self.root, link, place::Last::Keep).map_err(refused)?;
                if !source.symlink_metadata().is_ok_and(|m| m.is_file()) {
                    return Err(refused("its hard link leads to no file"));
                }
                if source == target {
                    return Ok(());
                }
                remove(&target).and_then(|()| fs::hard_link(source, &target)).map_err(failed)
            }
            // Devices and FIFOs cannot be made without root, and no static executable needs them in its image.
            _ => Ok(()),
        }
    }

    fn sort_copy(&self, source: io::Error, path: &str) -> UnpackError {
        match source.kind() {
            io::ErrorKind::FileTooLarge => UnpackError::TooLarge { what: "bytes", limit: self.limits.bytes },
            _ => UnpackError::Write { path: PathBuf::from(path), source },
        }
    }
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Hides what lower layers put there (OCI image layer specification, "Whiteouts").
fn whiteout(dir: &Path, hidden: &str) -> io::Result<()> {
    if hidden == ".wh..opq" {
        for entry in fs::read_dir(dir)? {
            remove(&entry?.path())?;
        }
        return Ok(());
    }
    match hidden {
        "" | "." | ".." => Err(io::Error::new(io::ErrorKind::InvalidData, "a whiteout of no name")),
        _ => remove(&dir.join(hidden)),
    }
}

/// Removes whatever is there; a link itself and not what it leads to.
fn remove(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
