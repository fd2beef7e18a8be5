//! Images as Docker Engines export them: a tar archive with a `manifest.json`, a configuration and layers.
//!
//! An engine keeps layers unpacked and packs them anew for each export, so what was compressed where it came from is compressed
//! here, in the way of the layers that are built here. The same contents so have the same digest from one export to the next.

use crate::{
    BlobStore, Descriptor, ImageError, Layer, LayerError, MAX_MANIFEST, PlatformSpec,
    image::write_manifest,
    layer::{store_gzip, store_tar, store_zstd},
};
use plimsoll_core::{Classify, Digest, ErrorClass, Platform};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Seek},
    path::{Component, Path, PathBuf},
};

/// Why an archive could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It could not be read.
    #[error("cannot read the archive of the image")]
    Read(#[from] io::Error),
    /// It is not what an engine exports.
    #[error("the archive of the image is not whole: {reason}")]
    NotWhole {
        /// What is wrong, with its value.
        reason: String,
    },
    /// It is for a platform that is not known here.
    #[error("the image is for {platform}, which is not a platform of services")]
    Platform {
        /// What its configuration says.
        platform: String,
    },
    /// A layer could not be stored.
    #[error("cannot store the layer `{path}` of the image")]
    Layer {
        /// Its path in the archive.
        path: String,
        /// Why.
        #[source]
        source: LayerError,
    },
    /// Its manifest could not be stored.
    #[error("cannot store the image")]
    Image(#[from] ImageError),
}

impl Classify for ArchiveError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Platform { .. } => ErrorClass::User,
            Self::Layer { source, .. } => source.class(),
            Self::Image(error) => error.class(),
            Self::Read(_) | Self::NotWhole { .. } => ErrorClass::External,
        }
    }
}

/// One image of an archive.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Configured {
    os: String,
    architecture: String,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

/// Takes the one image of an archive over into `store`: its platform, and the descriptor of its manifest.
///
/// Layers are streamed, and each is compared with the digest that the configuration has for it. Refused are an archive that is
/// torn or names what it does not hold, one of several images, and one for another platform than those of services.
pub fn import_archive<R: Read + Seek>(
    store: &BlobStore,
    mut archive: R,
) -> Result<(Platform, Descriptor), ArchiveError> {
    let (listed, links) = list(&mut archive)?;
    archive.rewind()?;
    let wanted: BTreeSet<PathBuf> = listed.layers.iter().map(|path| followed(&links, path)).collect();
    let config_path = followed(&links, &listed.config);
    let (mut config, mut layers) = (None, BTreeMap::new());
    for entry in tar::Archive::new(&mut archive).entries()? {
        let entry = entry?;
        let path = entry.path()?.into_owned();
        if path == config_path {
            config = Some(bounded(entry)?);
        } else if wanted.contains(&path) {
            let stored = layer(store, entry);
            let named = |source| ArchiveError::Layer { path: path.display().to_string(), source };
            layers.insert(path.clone(), stored.map_err(named)?);
        }
    }
    let config = config.ok_or_else(|| not_whole(format!("it has no `{}`", listed.config)))?;
    let said: Configured = parsed(&listed.config, &config)?;
    let layers: Vec<Layer> = (listed.layers.iter().map(|path| {
        let found = layers.get(&followed(&links, path)).cloned();
        found.ok_or_else(|| not_whole(format!("it has no `{path}`")))
    }))
    .collect::<Result<_, _>>()?;
    let found: Vec<&Digest> = layers.iter().map(|layer| &layer.diff_id).collect();
    if found != said.rootfs.diff_ids.iter().collect::<Vec<_>>() {
        let expected = said.rootfs.diff_ids;
        return Err(not_whole(format!("its layers are {found:?}, and its configuration names {expected:?}")));
    }
    let named = PlatformSpec { os: said.os, architecture: said.architecture };
    let known = [Platform::LinuxAmd64, Platform::LinuxArm64].into_iter().find(|platform| named.is(*platform));
    let unknown = || ArchiveError::Platform { platform: format!("{}/{}", named.os, named.architecture) };
    let platform = known.ok_or_else(unknown)?;
    Ok((platform, write_manifest(store, platform, &config, &layers)?))
}

/// Symbolic links of the archive, which stand for layers that are there already.
type Links = BTreeMap<PathBuf, PathBuf>;

fn list(archive: &mut impl Read) -> Result<(Listed, Links), ArchiveError> {
    let (mut manifest, mut links) = (None, Links::new());
    for entry in tar::Archive::new(archive).entries()? {
        let entry = entry?;
        let path = entry.path()?.into_owned();
        if let Some(to) = entry.link_name()?.filter(|_| entry.header().entry_type().is_symlink()) {
            links.insert(path.clone(), joined(path.parent().unwrap_or(Path::new("")), &to));
        } else if path == Path::new("manifest.json") {
            manifest = Some(bounded(entry)?);
        }
    }
    let manifest = manifest.ok_or_else(|| not_whole("it has no `manifest.json`".to_owned()))?;
    let images: Vec<Listed> = parsed("manifest.json", &manifest)?;
    match <[Listed; 1]>::try_from(images) {
        Ok([image]) => Ok((image, links)),
        Err(images) => Err(not_whole(format!("it has {} images", images.len()))),
    }
}

fn followed(links: &Links, path: &str) -> PathBuf {
    let path = PathBuf::from(path);
    links.get(&path).cloned().unwrap_or(path)
}

/// `to` as seen from `from`, without a look at any disk.
fn joined(from: &Path, to: &Path) -> PathBuf {
    let mut path = from.to_owned();
    for part in to.components() {
        match part {
            Component::ParentDir => _ = path.pop(),
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

fn layer(store: &BlobStore, mut from: impl Read) -> Result<Layer, LayerError> {
    let mut begin = Vec::new();
    from.by_ref().take(4).read_to_end(&mut begin).map_err(LayerError::Stream)?;
    let whole = begin.as_slice().chain(from);
    match begin.as_slice() {
        [0x1f, 0x8b, ..] => store_gzip(store, whole),
        [0x28, 0xb5, 0x2f, 0xfd] => store_zstd(store, whole),
        _ => store_tar(store, whole),
    }
}

fn bounded(entry: impl Read) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = Vec::new();
    entry.take(MAX_MANIFEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_MANIFEST {
        return Err(not_whole(format!("a description in it is larger than {MAX_MANIFEST} bytes")));
    }
    Ok(bytes)
}

fn parsed<'b, T: Deserialize<'b>>(path: &str, bytes: &'b [u8]) -> Result<T, ArchiveError> {
    serde_json::from_slice(bytes).map_err(|e| not_whole(format!("`{path}`: {e}")))
}

const fn not_whole(reason: String) -> ArchiveError {
    ArchiveError::NotWhole { reason }
}

#[cfg(test)]
mod tests;
