//! What a pure step declares to read, as named components of its fingerprint.
//!
//! Components keep their names so that a miss can say which of them changed.

use crate::error::StepError;
use plimsoll_core::Fingerprint;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// One thing a step reads: its name and a hash of its content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Component {
    /// `file src/lib.rs`, `env RUSTFLAGS`, `tool rustc`.
    pub name: String,
    /// The hash of what it holds.
    pub hash: Fingerprint,
    /// Whether it changes by itself, with the time or the machine: it decides whether an output is taken from the cache, but a
    /// run that goes on later does not do so with other sources because of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub volatile: bool,
}

/// The components a step declares, in the order in which they were added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reads(Vec<Component>);

impl Reads {
    /// Nothing: the output depends on parameters and inputs alone.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Adds a component under its name.
    pub fn add(&mut self, name: impl Into<String>, content: &[u8]) -> &mut Self {
        self.add_hashed(name, Fingerprint::of(content))
    }

    /// Adds a component whose hash is known.
    pub fn add_hashed(&mut self, name: impl Into<String>, hash: Fingerprint) -> &mut Self {
        self.0.push(Component { name: name.into(), hash, volatile: false });
        self
    }

    /// Adds a component that changes by itself, such as a day, what the world knows, or which tool is installed.
    pub fn add_volatile(&mut self, name: impl Into<String>, hash: Fingerprint) -> &mut Self {
        self.0.push(Component { name: name.into(), hash, volatile: true });
        self
    }

    /// Adds an environment variable; one that is not set differs from an empty one.
    pub fn env(&mut self, name: &str, value: Option<&[u8]>) -> &mut Self {
        let hash = match value {
            Some(value) => Fingerprint::of_parts([b"set".as_slice(), value]),
            None => Fingerprint::of_parts([b"unset".as_slice()]),
        };
        self.add_hashed(format!("env {name}"), hash)
    }

    /// Adds files by their content and their executable bit, named relative to `root`. A file that is not there is a
    /// component too: its appearing is a change.
    pub fn files(&mut self, root: &Path, files: impl IntoIterator<Item = PathBuf>) -> Result<&mut Self, StepError> {
        for file in files {
            let hash = hash_file(&root.join(&file))
                .map_err(|e| StepError::external(format!("cannot read {}", file.display())).caused_by(&e))?;
            self.add_hashed(format!("file {}", file.display()), hash);
        }
        Ok(self)
    }

    /// The components.
    pub fn components(&self) -> &[Component] {
        &self.0
    }
}

/// The hash of a file's content and executable bit; of a symbolic link's text; of nothing when it is not there.
pub fn hash_file(path: &Path) -> std::io::Result<Fingerprint> {
    use std::os::unix::{ffi::OsStrExt, fs::PermissionsExt};
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Fingerprint::of_parts([b"absent".as_slice()])),
        Err(e) => return Err(e),
    };
    if meta.is_symlink() {
        let to = fs::read_link(path)?;
        return Ok(Fingerprint::of_parts([b"link".as_slice(), to.as_os_str().as_bytes()]));
    }
    if meta.is_dir() {
        return Ok(Fingerprint::of_parts([b"directory".as_slice()]));
    }
    if !meta.is_file() {
        // A pipe or a device has no content, and reading it may never end.
        return Ok(Fingerprint::of_parts([b"special".as_slice()]));
    }
    let kind: &[u8] = if meta.permissions().mode() & 0o111 == 0 { b"file" } else { b"executable" };
    Ok(Fingerprint::of_parts([kind, &fs::read(path)?]))
}

/// The names of the components in which two lists differ: changed, added and removed ones, in that order.
pub fn differences(old: &[Component], new: &[Component]) -> Vec<String> {
    use std::collections::BTreeMap;
    let index = |list: &[Component]| list.iter().map(|c| (c.name.clone(), c.hash)).collect::<BTreeMap<_, _>>();
    let (old, new) = (index(old), index(new));
    let changed = new.iter().filter(|(n, h)| old.get(*n).is_some_and(|o| o != *h)).map(|(n, _)| format!("{n} changed"));
    let added = new.keys().filter(|n| !old.contains_key(*n)).map(|n| format!("{n} is new"));
    let removed = old.keys().filter(|n| !new.contains_key(*n)).map(|n| format!("{n} is gone"));
    changed.chain(added).chain(removed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(of: &[(&str, &str)]) -> Vec<Component> {
        of.iter()
            .map(|(n, v)| Component { name: (*n).to_owned(), hash: Fingerprint::of(v.as_bytes()), volatile: false })
            .collect()
    }

    #[test]
    fn differences_name_what_changed_what_is_new_and_what_is_gone() {
        let old = list(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let new = list(&[("a", "1"), ("b", "2"), ("d", "1")]);
        assert_eq!(differences(&old, &new), ["b changed", "d is new", "c is gone"]);
        assert!(differences(&old, &old).is_empty());
    }

    #[test]
    fn an_unset_variable_is_not_an_empty_one() {
        let hash = |value| Reads::nothing().env("X", value).components()[0].hash;
        assert_ne!(hash(None), hash(Some(b"")));
    }

    #[test]
    fn a_file_that_is_touched_but_equal_has_the_same_hash_and_a_missing_one_has_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "x").unwrap();
        let first = hash_file(&path).unwrap();
        fs::write(&path, "x").unwrap();
        assert_eq!(hash_file(&path).unwrap(), first);
        fs::remove_file(&path).unwrap();
        assert_ne!(hash_file(&path).unwrap(), first);
    }
}
