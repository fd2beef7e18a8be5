//! Lock files: which crates stand in one, and on which line.

use crate::{Dependency, Place};
use rustsec::{SourceId, cargo_lock};
use semver::Version;

/// The crates of a lock file that come from crates.io, each with its place.
#[derive(Debug, Clone)]
pub struct Lockfile(Vec<(Dependency, Place)>);

impl Lockfile {
    /// Reads a lock file's text; `file` is its path, relative to the workspace's root.
    pub fn parse(text: &str, file: &str) -> Result<Self, String> {
        let lockfile: cargo_lock::Lockfile = text.parse().map_err(|e: cargo_lock::Error| e.to_string())?;
        let crates = lockfile
            .packages
            .iter()
            .filter(|package| package.source.as_ref().is_some_and(SourceId::is_default_registry));
        let found = crates.map(|package| {
            let place = Place { file: file.to_owned(), line: line_of(text, package.name.as_str(), &package.version) };
            (Dependency { name: package.name.to_string(), version: package.version.clone() }, place)
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
