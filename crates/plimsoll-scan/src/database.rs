//! A database of advisories in the form of `RustSec`'s.

use crate::versions::Versions;
use cvss::Cvss;
use jiff::civil::Date;
use plimsoll_core::{Classify, ErrorClass};
use semver::Version;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// The standard library's name, in bills of materials and in the database.
const STD: &str = "std";
/// Twenty times as many as `RustSec` had in ten years.
const MAX_ADVISORIES: usize = 20_000;
/// Bytes of one; the longest have some ten thousand.
const MAX_ADVISORY: u64 = 256 * 1024;
/// Where advisories about crates lie.
const CRATES: &str = "crates";
/// Where those about what comes with the compiler lie.
const RUST: &str = "rust";

/// A crate at a version, as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// Its name; `std` is the standard library.
    pub name: String,
    /// Its version.
    pub version: Version,
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// What an advisory is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A vulnerability, with its severity where somebody gave one: `low`, `medium`, `high`, `critical`.
    Vulnerability(Option<String>),
    /// Something to know, in one word: `unmaintained`, `unsound`, `notice`.
    Informational(String),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vulnerability(Some(severity)) => f.write_str(severity),
            Self::Vulnerability(None) => f.write_str("of unknown severity"),
            Self::Informational(word) => f.write_str(word),
        }
    }
}

/// An advisory that concerns a crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advisory {
    /// Its id: `RUSTSEC-2024-0001`.
    pub id: String,
    /// What it is called.
    pub title: String,
    /// What it is about.
    pub kind: Kind,
    /// The versions in which it is mended, as requirements; none where it is not.
    pub patched: Vec<String>,
}

impl Advisory {
    /// Where it is to be read.
    pub fn address(&self) -> String {
        format!("https://rustsec.org/advisories/{}", self.id)
    }

    /// What to do about it.
    pub fn advice(&self) -> String {
        if self.patched.is_empty() {
            "no version mends it".to_owned()
        } else {
            format!("mended in {}", self.patched.join(" or "))
        }
    }
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// It cannot be read.
    #[error("the advisories in {} cannot be read", path.display())]
    Unreadable {
        /// Where it lies.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An advisory is written in another way.
    #[error("{} is no advisory that can be understood: {reason}", path.display())]
    Strange {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// There is nothing in it.
    #[error("{} has no advisory: a database has them in `crates/NAME/ID.md`", path.display())]
    Empty {
        /// Where it lies.
        path: PathBuf,
    },
}

impl Classify for DatabaseError {
    fn class(&self) -> ErrorClass {
        ErrorClass::External
    }
}

/// The advisories of a database: Markdown files with their facts as TOML in front, as `crates/NAME/ID.md`, and those about the
/// standard library as `rust/std/ID.md`.
#[derive(Debug)]
pub struct Database {
    /// By collection and package.
    advisories: BTreeMap<(&'static str, String), Vec<Entry>>,
    newest: Date,
}

#[derive(Debug)]
struct Entry {
    facts: Facts,
    versions: Versions,
    title: String,
}

#[derive(Deserialize)]
struct Front {
    advisory: Facts,
    #[serde(default)]
    versions: Versions,
}

#[derive(Debug, Deserialize)]
struct Facts {
    id: String,
    package: String,
    date: Date,
    #[serde(default)]
    title: String,
    cvss: Option<Cvss>,
    informational: Option<String>,
    withdrawn: Option<Date>,
}

impl Database {
    /// Reads a database, a few hundred small files.
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        let unreadable = |source| DatabaseError::Unreadable { path: path.to_owned(), source };
        let mut advisories: BTreeMap<_, Vec<Entry>> = BTreeMap::new();
        for collection in [CRATES, RUST] {
            let directory = path.join(collection);
            if collection == RUST && !directory.exists() {
                continue;
            }
            for file in files(&directory).map_err(unreadable)? {
                let text = read_bounded(&file).map_err(unreadable)?;
                let entry = Entry::parse(&text).map_err(|reason| DatabaseError::Strange { path: file, reason })?;
                advisories.entry((collection, entry.facts.package.clone())).or_default().push(entry);
            }
        }
        let dates = advisories.values().flatten().map(|entry| entry.facts.date);
        let newest = dates.max().ok_or_else(|| DatabaseError::Empty { path: path.to_owned() })?;
        Ok(Self { advisories, newest })
    }

    /// How many advisories it has.
    pub fn len(&self) -> usize {
        self.advisories.values().map(Vec::len).sum()
    }

    /// Whether it has none; one that was opened never is.
    pub fn is_empty(&self) -> bool {
        self.advisories.is_empty()
    }

    /// The date of its newest advisory.
    pub const fn newest(&self) -> Date {
        self.newest
    }

    /// The advisories that concern a crate, by id; withdrawn ones do not.
    pub fn concerning(&self, dependency: &Dependency) -> Vec<Advisory> {
        let collection = if dependency.name == STD { RUST } else { CRATES };
        let entries = self.advisories.get(&(collection, dependency.name.clone())).into_iter().flatten();
        let concern = |entry: &&Entry| entry.facts.withdrawn.is_none() && entry.versions.concern(&dependency.version);
        let mut found: Vec<Advisory> = entries.filter(concern).map(Entry::told).collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }
}

impl Entry {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix("```toml").ok_or("it does not begin with TOML")?;
        let (front, rest) = text.split_once("\n```").ok_or("its TOML has no end")?;
        // The newest form leaves the name of the first table out.
        let table = if front.trim_start().starts_with("[advisory]") { "" } else { "[advisory]\n" };
        let Front { advisory: facts, versions } =
            toml::from_str(&format!("{table}{front}")).map_err(|e| e.message().to_owned())?;
        let heading = rest.lines().find_map(|line| line.strip_prefix("# "));
        let title = heading.map_or_else(|| facts.title.clone(), |heading| heading.trim().to_owned());
        Ok(Self { facts, versions, title })
    }

    fn told(&self) -> Advisory {
        let kind = self.facts.informational.clone().map_or_else(
            || Kind::Vulnerability(self.facts.cvss.as_ref().map(|cvss| cvss.severity().as_str().to_owned())),
            Kind::Informational,
        );
        let patched = self.versions.patched.iter().map(ToString::to_string).collect();
        Advisory { id: self.facts.id.clone(), title: self.title.clone(), kind, patched }
    }
}

/// The files of a collection: one directory for each package.
fn files(collection: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for package in fs::read_dir(collection)? {
        let package = package?;
        if !package.file_type()?.is_dir() {
            continue;
        }
        let paths = fs::read_dir(package.path())?.map(|entry| entry.map(|entry| entry.path()));
        let paths = paths.collect::<io::Result<Vec<_>>>()?;
        let is_advisory = |path: &PathBuf| path.extension().is_some_and(|end| end == "md");
        found.extend(paths.into_iter().filter(is_advisory));
        if found.len() > MAX_ADVISORIES {
            return Err(io::Error::other(format!("it has more than {MAX_ADVISORIES} advisories")));
        }
    }
    Ok(found)
}

/// A file's text: of a plain file, because a repository may hold links to anything, and of a bounded one.
fn read_bounded(path: &Path) -> io::Result<String> {
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_file() || meta.len() > MAX_ADVISORY {
        return Err(io::Error::other(format!("{} is no file of at most {MAX_ADVISORY} bytes", path.display())));
    }
    fs::read_to_string(path)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs;

    /// A database of five advisories on `reader` and one on the standard library.
    pub(crate) fn database() -> Database {
        let directory = tempfile::tempdir().unwrap();
        let write = |collection: &str, package: &str, id: &str, more: &str| {
            let directory = directory.path().join(collection).join(package);
            fs::create_dir_all(&directory).unwrap();
            let text = format!(
                "```toml\n[advisory]\nid = \"{id}\"\npackage = \"{package}\"\ndate = \"2026-0{}-01\"\n{more}\n```\n\n# About {id}\n\nIt is so.\n",
                &id[id.len() - 1..]
            );
            fs::write(directory.join(format!("{id}.md")), text).unwrap();
        };
        let versions = "\n[versions]\npatched = [\">= 1.2.0\"]";
        let severe = format!("cvss = \"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H\"{versions}");
        let mild = format!("cvss = \"CVSS:3.1/AV:L/AC:H/PR:H/UI:R/S:U/C:L/I:N/A:N\"{versions}");
        write("crates", "reader", "RUSTSEC-2026-0001", &severe);
        write("crates", "reader", "RUSTSEC-2026-0002", &mild);
        write("crates", "reader", "RUSTSEC-2026-0003", versions);
        write("crates", "reader", "RUSTSEC-2026-0004", "informational = \"unmaintained\"\n[versions]\npatched = []");
        write("crates", "reader", "RUSTSEC-2026-0005", &format!("withdrawn = \"2026-06-01\"{versions}"));
        write("rust", "std", "RUSTSEC-2026-0006", versions);
        Database::open(directory.path()).unwrap()
    }

    fn check(name: &str, version: &str, expected: &[&str]) {
        let dependency = Dependency { name: name.into(), version: version.parse().unwrap() };
        let found = database().concerning(&dependency);
        let told: Vec<String> = found.iter().map(|a| format!("{} {} {}", &a.id[8..], a.kind, a.advice())).collect();
        assert_eq!(told, expected, "{dependency}");
    }

    #[test]
    fn what_concerns_a_crate_depends_on_its_version() {
        let mended = "mended in >=1.2.0";
        let all = [
            format!("2026-0001 critical {mended}"),
            format!("2026-0002 low {mended}"),
            format!("2026-0003 of unknown severity {mended}"),
            "2026-0004 unmaintained no version mends it".to_owned(),
        ];
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        check("reader", "1.1.9", &all);
        check("reader", "1.2.0", &all[3..]);
        check("writer", "1.0.0", &[]);
        check("std", "1.1.0", &[&format!("2026-0006 of unknown severity {mended}")]);
        check("std", "1.95.0", &[]);
    }

    #[test]
    fn both_forms_of_an_advisory_are_read() {
        for table in ["[advisory]\n", ""] {
            let text = format!(
                "```toml\n{table}id = \"R-1\"\npackage = \"a\"\ndate = \"2026-01-02\"\n```\n\n# A title\n\nText.\n"
            );
            let entry = Entry::parse(&text).unwrap();
            assert_eq!((entry.facts.package.as_str(), entry.title.as_str()), ("a", "A title"));
        }
    }

    #[test]
    fn a_database_knows_its_age_and_one_without_advisories_is_none() {
        let database = database();
        assert_eq!((database.len(), database.newest().to_string()), (6, "2026-06-01".to_owned()));
        let empty = tempfile::tempdir().unwrap();
        assert!(Database::open(empty.path()).is_err());
        fs::create_dir(empty.path().join("crates")).unwrap();
        assert!(matches!(Database::open(empty.path()), Err(DatabaseError::Empty { .. })));
        fs::create_dir(empty.path().join("crates/a")).unwrap();
        let advisory = empty.path().join("crates/a/RUSTSEC-2026-0001.md");
        fs::write(&advisory, "rubbish").unwrap();
        assert!(matches!(Database::open(empty.path()), Err(DatabaseError::Strange { .. })));
        fs::remove_file(&advisory).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &advisory).unwrap();
        assert!(matches!(Database::open(empty.path()), Err(DatabaseError::Unreadable { .. })));
    }
}
