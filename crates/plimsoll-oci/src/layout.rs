//! Images out of a store as files: an OCI image layout in a directory, or in a tar archive (OCI image specification, "Image
//! Layout Specification"). The archive says in Docker's words too what it holds, so that engines of any age load it.
//!
//! The same images give the same bytes; memory does not depend on their size.

use crate::{BlobError, BlobStore, Descriptor, INDEX, MAX_MANIFEST, ManifestError, ManifestView};
use plimsoll_core::{Classify, Digest, ErrorClass, Platform};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// An index names images, and may name further indexes; deeper ones are refused.
const DEEPEST: u8 = 4;

/// An image of a store with the name that it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedImage {
    /// Repository and tag, such as `shop/web:1.2.3`.
    pub name: String,
    /// The digest of its index or manifest.
    pub digest: Digest,
}

/// Why images could not be written as files.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The store does not have them whole.
    #[error("the image is not whole in the store")]
    Store(#[from] BlobError),
    /// What should be a manifest is none.
    #[error("{digest} is no manifest of an image")]
    Manifest {
        /// What was read.
        digest: Digest,
        /// Why not.
        #[source]
        source: ManifestError,
    },
    /// Indexes that lead too deep.
    #[error("{digest} leads to indexes of indexes, deeper than images go")]
    Deep {
        /// The outermost.
        digest: Digest,
    },
    /// It is not there for the platform.
    #[error("{name} has no image for {platform}")]
    Platform {
        /// The image.
        name: String,
        /// The platform asked for.
        platform: Platform,
    },
    /// Something is there already.
    #[error("`{path}` is not empty")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The disk refused.
    #[error("cannot write `{path}`")]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Classify for LayoutError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Platform { .. } | Self::NotEmpty { .. } => ErrorClass::User,
            Self::Store(_) | Self::Manifest { .. } | Self::Deep { .. } | Self::Io { .. } => ErrorClass::External,
        }
    }
}

/// Writes an image layout into a directory that is absent or empty.
pub fn write_layout(store: &BlobStore, images: &[NamedImage], directory: &Path) -> Result<(), LayoutError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| LayoutError::Io { path, source }
    };
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(directory).map_err(failed(directory))?;
    if fs::read_dir(directory).map_err(failed(directory))?.next().is_some() {
        return Err(LayoutError::NotEmpty { path: directory.to_owned() });
    }
    fs::create_dir_all(&blobs).map_err(failed(&blobs))?;
    for digest in parts(store, images)? {
        let path = blobs.join(digest.hex());
        store.verify(&digest)?;
        fs::copy(store.path(&digest), &path).map_err(failed(&path))?;
    }
    for (name, text) in [("index.json", index(store, images)?), ("oci-layout", MARK.to_owned())] {
        let path = directory.join(name);
        fs::write(&path, text).map_err(failed(&path))?;
    }
    Ok(())
}

/// Writes an archive with an image layout of all platforms, and with a `manifest.json` for Docker that names the images for
/// `platform`. With `only` the others are left out.
pub fn write_archive(
    store: &BlobStore,
    images: &[NamedImage],
    platform: Platform,
    only: bool,
    to: &mut impl Write,
) -> Result<(), LayoutError> {
    let failed = |source| LayoutError::Io { path: PathBuf::from("the archive"), source };
    let mut ours = Vec::new();
    let mut said = Vec::new();
    for image in images {
        let (digest, view) = of_platform(store, image, platform)?;
        let path = |blob: &Descriptor| format!("blobs/sha256/{}", blob.digest.hex());
        let layers: Vec<String> = view.layers.iter().map(path).collect();
        said.push(json!({ "Config": view.config.as_ref().map(path), "Layers": layers, "RepoTags": [image.name] }));
        ours.push(NamedImage { name: image.name.clone(), digest });
    }
    let listed = if only { &ours[..] } else { images };
    let mut archive = tar::Builder::new(to);
    for digest in parts(store, listed)? {
        let size = store.verify(&digest)?;
        let path = format!("blobs/sha256/{}", digest.hex());
        archive.append_data(&mut header(size), path, store.open_blob(&digest)?).map_err(failed)?;
    }
    let texts = [
        ("index.json", index(store, listed)?),
        ("manifest.json", Value::Array(said).to_string()),
        ("oci-layout", MARK.to_owned()),
    ];
    for (name, text) in texts {
        archive.append_data(&mut header(text.len() as u64), name, text.as_bytes()).map_err(failed)?;
    }
    archive.into_inner().and_then(Write::flush).map_err(failed)
}

/// The file that says what the directory is.
const MARK: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}

fn view(store: &BlobStore, digest: &Digest) -> Result<ManifestView, LayoutError> {
    let bytes = store.read(digest, MAX_MANIFEST)?;
    ManifestView::parse(&bytes).map_err(|source| LayoutError::Manifest { digest: digest.clone(), source })
}

/// Everything that belongs to the images, each once.
fn parts(store: &BlobStore, images: &[NamedImage]) -> Result<BTreeSet<Digest>, LayoutError> {
    let mut found = BTreeSet::new();
    for image in images {
        let mut level = vec![image.digest.clone()];
        for depth in 0.. {
            if level.is_empty() {
                break;
            }
            if depth == DEEPEST {
                return Err(LayoutError::Deep { digest: image.digest.clone() });
            }
            let mut below = Vec::new();
            for digest in level {
                let view = view(store, &digest)?;
                found.extend(view.blobs().filter(|blob| blob.is_distributed()).map(|blob| blob.digest.clone()));
                below.extend(view.manifests.into_iter().map(|child| child.digest));
                found.insert(digest);
            }
            level = below;
        }
    }
    Ok(found)
}

/// The manifest of an image for a platform; one that is no index is for whichever platform it is for.
fn of_platform(
    store: &BlobStore,
    image: &NamedImage,
    platform: Platform,
) -> Result<(Digest, ManifestView), LayoutError> {
    let top = view(store, &image.digest)?;
    if !top.is_index() {
        return Ok((image.digest.clone(), top));
    }
    let fits = |child: &&Descriptor| child.platform.as_ref().is_some_and(|found| found.is(platform));
    let none = || LayoutError::Platform { name: image.name.clone(), platform };
    let digest = top.manifests.iter().find(fits).ok_or_else(none)?.digest.clone();
    let view = view(store, &digest)?;
    Ok((digest, view))
}

fn index(store: &BlobStore, images: &[NamedImage]) -> Result<String, LayoutError> {
    let mut manifests = BTreeMap::new();
    for image in images {
        let (view, size) = (view(store, &image.digest)?, store.size(&image.digest)?);
        let entry = json!({
            "mediaType": view.media_type(), "digest": image.digest, "size": size,
            // The name as containerd reads it; of the tag alone there may be several.
            "annotations": { "org.opencontainers.image.ref.name": image.name, "io.containerd.image.name": image.name },
        });
        manifests.insert(&image.name, entry);
    }
    let manifests: Vec<Value> = manifests.into_values().collect();
    Ok(json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IndexSpec, ServiceImage, service_image, write_index};

    fn stored(directory: &Path, platforms: &[Platform]) -> (BlobStore, NamedImage) {
        let store = BlobStore::open(directory.join("store")).unwrap();
        let binary = directory.join("binary");
        fs::write(&binary, b"not really").unwrap();
        let image = |platform: &Platform| {
            let service = ServiceImage {
                name: "web",
                binary: &binary,
                platform: *platform,
                cmd: vec![],
                env: vec![],
                labels: BTreeMap::new(),
                epoch: 0,
                base: None,
                compression: crate::Compression::Gzip,
            };
            (*platform, service_image(&store, &service).unwrap())
        };
        let images = platforms.iter().map(image).collect();
        let index = write_index(&store, &IndexSpec { images, annotations: BTreeMap::new() }).unwrap();
        (store, NamedImage { name: "shop/web:1.2.3".to_owned(), digest: index.digest })
    }

    fn names(archive: &[u8]) -> BTreeSet<String> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap();
        entries.map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
    }

    #[test]
    fn a_layout_has_every_part_once_and_is_written_into_an_empty_directory_only() {
        let directory = tempfile::tempdir().unwrap();
        let (store, image) = stored(directory.path(), &Platform::ALL);
        let to = directory.path().join("layout");
        write_layout(&store, std::slice::from_ref(&image), &to).unwrap();
        // An index, two manifests, two configurations, the layer of both and the executables', which are the same file.
        assert_eq!(fs::read_dir(to.join("blobs/sha256")).unwrap().count(), 7);
        let index: Value = serde_json::from_slice(&fs::read(to.join("index.json")).unwrap()).unwrap();
        assert_eq!(index["manifests"][0]["digest"], image.digest.as_str());
        let again = write_layout(&store, &[image], &to);
        assert!(matches!(again, Err(LayoutError::NotEmpty { .. })));
    }

    #[test]
    fn an_archive_is_the_same_each_time_and_may_hold_one_platform_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (store, image) = stored(directory.path(), &Platform::ALL);
        let write = |only| {
            let mut bytes = Vec::new();
            write_archive(&store, std::slice::from_ref(&image), Platform::LinuxArm64, only, &mut bytes).unwrap();
            bytes
        };
        assert_eq!(write(false), write(false));
        assert_eq!((names(&write(false)).len(), names(&write(true)).len()), (10, 7));
    }

    #[test]
    fn a_platform_that_is_not_there_and_a_blob_that_is_damaged_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (store, image) = stored(directory.path(), &[Platform::LinuxAmd64]);
        let write = |platform| write_archive(&store, std::slice::from_ref(&image), platform, false, &mut io::sink());
        assert!(matches!(write(Platform::LinuxArm64), Err(LayoutError::Platform { .. })));
        write(Platform::LinuxAmd64).unwrap();
        let (_, view) = of_platform(&store, &image, Platform::LinuxAmd64).unwrap();
        fs::write(store.path(&view.layers[1].digest), b"other").unwrap();
        assert!(matches!(write(Platform::LinuxAmd64), Err(LayoutError::Store(BlobError::WrongDigest { .. }))));
    }
}
