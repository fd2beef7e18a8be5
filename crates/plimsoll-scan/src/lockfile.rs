//! Lock files: which crates stand in one, and on which line.

use crate::{Dependency, Place};
use semver::Version;
use serde::Deserialize;

/// How lock files name crates.io.
const CRATES_IO: [&str; 2] =
    ["registry+https://github.com/rust-lang/crates.io-index", "sparse+https://index.crates.io/"];

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: Version,
    source: Option<String>,
}

/// The crates of a lock file that come from crates.io, each with its place.
#[derive(Debug, Clone)]
pub struct Lockfile(Vec<(Dependency, Place)>);

impl Lockfile {
    /// Reads a lock file's text; `file` is its path, relative to the workspace's root.
    pub fn parse(text: &str, file: &str) -> Result<Self, String> {
        let lock: Lock = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        let is_known = |one: &Package| one.source.as_deref().is_some_and(|source| CRATES_IO.contains(&source));
        let crates = lock.package.into_iter().filter(is_known);
        let found = crates.map(|Package { name, version, .. }| {
            let place = Place { file: file.to_owned(), line: line_of(text, &name, &version) };
            (Dependency { name, version }, place)
        });
        Ok(Self(found.collect()))
    }

    /// The crates, each with its place.
    pub fn crates(&self) -> &[(Dependency, Place)] {
        &self.0
    }
}

/// The line that names a crate; its version stands on the next.
fn line_of(text: &str, name: &str, version: &Version) -> Option<u32> {
    let (name, version) = (format!("name = \"{name}\""), format!("version = \"{version}\""));
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.windows(2).position(|pair| pair[0] == name && pair[1] == version)?;
    u32::try_from(at + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_have_their_lines() {
        let source = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
        let text = format!(
            "version = 4\n\n[[package]]\nname = \"log\"\nversion = \"0.3.0\"\n{source}\n\n[[package]]\nname = \"log\"\n\
             version = \"0.4.0\"\n{source}\n\n[[package]]\nname = \"shop\"\nversion = \"0.1.0\"\n"
        );
        let read = Lockfile::parse(&text, "Cargo.lock").unwrap();
        let told: Vec<String> =
            read.crates().iter().map(|(c, place)| format!("{place} {} {}", c.name, c.version)).collect();
        assert_eq!(told, ["Cargo.lock:4 log 0.3.0", "Cargo.lock:9 log 0.4.0"]);
        assert!(Lockfile::parse("nonsense", "Cargo.lock").is_err());
    }
}
