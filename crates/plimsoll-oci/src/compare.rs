//! Two images of one platform side by side: the first thing in which they differ, by its name.

use crate::{
    BlobStore, Descriptor, MAX_MANIFEST, ManifestError, ManifestView, UnpackError, UnpackLimits, check_path,
    layer::hashed,
    unpack::{Metered, open_layer},
};
use plimsoll_core::{Digest, Hasher};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
};

/// A thing in which two images differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// A file, directory or link.
    File {
        /// Its path in the image.
        path: String,
        /// What of it: how it is in the first image, and how in the second.
        how: String,
    },
    /// Something that the configuration says.
    Configuration {
        /// Where it stands, such as `/config/Entrypoint`.
        pointer: String,
        /// How it is in the first image, and how in the second.
        how: String,
    },
    /// The same files, packed in another way.
    Packing,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, how } => write!(f, "/{path}: {how}"),
            Self::Configuration { pointer, how } => write!(f, "{pointer} of the configuration: {how}"),
            Self::Packing => f.write_str("the same files and configuration, packed in another order or in another way"),
        }
    }
}

/// An image in a store, by the digest of its manifest.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// Where it lies.
    pub store: &'a BlobStore,
    /// Its manifest.
    pub manifest: &'a Digest,
}

/// The first difference of two images: files in the order of their paths, then the configuration; nothing if they are the
/// same, byte for byte.
pub fn first_difference(one: Stored<'_>, other: Stored<'_>) -> Result<Option<Difference>, UnpackError> {
    if one.manifest == other.manifest {
        return Ok(None);
    }
    let (ours, theirs) = (one.view()?, other.view()?);
    // Layers that both have are the same; of the others, what lies in one has to lie in another.
    let apart = |of: &ManifestView, without: &ManifestView| -> Vec<Descriptor> {
        of.layers.iter().filter(|l| !without.layers.iter().any(|w| w.digest == l.digest)).cloned().collect()
    };
    let (first, second) = (one.files(&apart(&ours, &theirs))?, other.files(&apart(&theirs, &ours))?);
    let paths: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    for path in paths {
        let how = match (first.get(path), second.get(path)) {
            (Some(a), Some(b)) if a == b => continue,
            (Some(a), Some(b)) => a.against(b),
            (Some(_), None) => "only the first image has it".to_owned(),
            _ => "only the second image has it".to_owned(),
        };
        return Ok(Some(Difference::File { path: path.clone(), how }));
    }
    let (first, second) = (one.configuration(&ours)?, other.configuration(&theirs)?);
    Ok(Some(
        differing("", &first, &second)
            .map_or(Difference::Packing, |(pointer, how)| Difference::Configuration { pointer, how }),
    ))
}

/// What an entry of a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    kind: tar::EntryType,
    mode: u32,
    owner: (u64, u64),
    modified: u64,
    link: Option<Vec<u8>>,
    size: u64,
    content: Digest,
}

impl Kept {
    /// The first thing in which it differs from another one.
    fn against(&self, other: &Self) -> String {
        let (a, b) = (self, other);
        if a.kind != b.kind {
            format!("{:?} and {:?}", a.kind, b.kind)
        } else if a.content != b.content {
            format!("{} bytes with the digest {} and {} bytes with {}", a.size, a.content, b.size, b.content)
        } else if a.mode != b.mode {
            format!("mode {:o} and {:o}", a.mode, b.mode)
        } else if a.owner != b.owner {
            format!("owner {}:{} and {}:{}", a.owner.0, a.owner.1, b.owner.0, b.owner.1)
        } else if a.link == b.link {
            format!("last written at {} and at {}, in seconds since 1970", a.modified, b.modified)
        } else {
            let text =
                |link: &Option<Vec<u8>>| String::from_utf8_lossy(link.as_deref().unwrap_or_default()).into_owned();
            format!("a link to `{}` and to `{}`", text(&a.link), text(&b.link))
        }
    }
}

impl Stored<'_> {
    fn view(&self) -> Result<ManifestView, UnpackError> {
        Ok(ManifestView::parse(&self.store.read(self.manifest, MAX_MANIFEST)?)?)
    }

    fn configuration(&self, view: &ManifestView) -> Result<Value, UnpackError> {
        let config = view.config.as_ref().ok_or(ManifestError::Contradiction("has no configuration"))?;
        serde_json::from_slice(&self.store.read(&config.digest, MAX_MANIFEST)?).map_err(UnpackError::Config)
    }

    /// The entries of some layers, by path; a later one takes the place of an earlier one.
    fn files(&self, layers: &[Descriptor]) -> Result<BTreeMap<String, Kept>, UnpackError> {
        let limits = UnpackLimits::default();
        let (mut files, mut left) = (BTreeMap::new(), limits.bytes);
        for layer in layers {
            let damaged = |source: io::Error| match source.kind() {
                io::ErrorKind::FileTooLarge => UnpackError::TooLarge { what: "bytes", limit: limits.bytes },
                _ => UnpackError::Archive { layer: layer.digest.clone(), source },
            };
            let metered = Metered { inner: open_layer(self.store, layer)?, hasher: Hasher::new(), left };
            let mut archive = tar::Archive::new(metered);
            for entry in archive.entries().map_err(damaged)? {
                let mut entry = entry.map_err(damaged)?;
                let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                let path = path.trim_start_matches("./").trim_end_matches('/').to_owned();
                if !path.is_empty() {
                    let reason = "its path leaves the image, or is too long";
                    check_path(&path).map_err(|_| UnpackError::refused(&path, reason))?;
                }
                let (content, size) = hashed(&mut entry).map_err(damaged)?;
                let header = entry.header();
                let number = |found: io::Result<u64>| found.map_err(damaged);
                let kept = Kept {
                    kind: header.entry_type(),
                    mode: header.mode().map_err(damaged)?,
                    owner: (number(header.uid())?, number(header.gid())?),
                    modified: number(header.mtime())?,
                    link: entry.link_name_bytes().map(std::borrow::Cow::into_owned),
                    size,
                    content,
                };
                if files.len() as u64 >= limits.entries {
                    return Err(UnpackError::TooLarge { what: "entries", limit: limits.entries });
                }
                files.insert(path, kept);
            }
            left = archive.into_inner().left;
        }
        Ok(files)
    }
}

/// The first place, in the order of keys, where two values differ; with both.
fn differing(at: &str, one: &Value, other: &Value) -> Option<(String, String)> {
    if let (Value::Object(one), Value::Object(other)) = (one, other) {
        let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
        let look = |key: &String, of: &serde_json::Map<String, Value>| of.get(key).cloned().unwrap_or(Value::Null);
        // A list of layers says nothing that the files do not.
        let keys = keys.into_iter().filter(|key| !(at.is_empty() && ["rootfs", "history"].contains(&key.as_str())));
        return keys.into_iter().find_map(|key| differing(&format!("{at}/{key}"), &look(key, one), &look(key, other)));
    }
    let short = |value: &Value| value.to_string().chars().take(200).collect::<String>();
    (one != other).then(|| (at.to_owned(), format!("{} and {}", short(one), short(other))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Compression, ServiceImage, service_image};
    use plimsoll_core::Platform;
    use std::path::Path;

    fn image(store: &BlobStore, dir: &Path, change: impl FnOnce(&mut ServiceImage<'_>, &Path)) -> Digest {
        let binary = dir.join("binary");
        std::fs::write(&binary, b"one").unwrap();
        let mut service = ServiceImage {
            name: "api",
            binary: &binary,
            platform: Platform::LinuxAmd64,
            cmd: vec![],
            env: vec!["A=1".to_owned()],
            labels: BTreeMap::new(),
            epoch: 7,
            base: None,
            compression: Compression::Gzip,
        };
        change(&mut service, &binary);
        service_image(store, &service).unwrap().digest
    }

    fn check(change: impl FnOnce(&mut ServiceImage<'_>, &Path), expected: Option<&str>) {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        let (one, other) = (image(&store, dir.path(), |_, _| {}), image(&store, dir.path(), change));
        let stored = |manifest| Stored { store: &store, manifest };
        let found = first_difference(stored(&one), stored(&other)).unwrap().map(|found| found.to_string());
        match expected {
            None => assert_eq!(found, None),
            Some(words) => {
                assert!(found.as_deref().is_some_and(|f| f.contains(words)), "`{words}` is not in {found:?}");
            }
        }
    }

    #[test]
    fn the_first_thing_that_differs_is_named() {
        check(|_, _| {}, None);
        check(|_, binary| std::fs::write(binary, b"other").unwrap(), Some("/bin/api: 3 bytes with the digest sha256:"));
        check(|service, _| service.name = "apj", Some("/bin/api: only the first image has it"));
        check(|service, _| service.epoch = 8, Some("/bin: last written at 7 and at 8"));
        check(
            |service, _| service.env = vec!["A=2".into()],
            Some("/config/Env of the configuration: [\"A=1\"] and [\"A=2\"]"),
        );
        check(
            |service, _| service.cmd = vec!["go".into()],
            Some("/config/Cmd of the configuration: null and [\"go\"]"),
        );
    }
}
