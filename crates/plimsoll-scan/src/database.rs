//! A database of advisories in the form of `RustSec`'s.

use jiff::civil::Date;
use plimsoll_core::{Classify, ErrorClass};
use rustsec::{Collection, advisory, database::Query, package::Name};
use semver::Version;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr as _,
};

/// The standard library's name, in bills of materials and in the database.
const STD: &str = "std";

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
    /// It does not read.
    #[error("the advisories in {} cannot be read", path.display())]
    Unreadable {
        /// Where it lies.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustsec::Error,
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

/// The advisories of a database.
#[derive(Debug)]
pub struct Database {
    database: rustsec::Database,
    newest: Date,
}

impl Database {
    /// Reads a database, a few hundred small files.
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        let database = rustsec::Database::open(path)
            .map_err(|source| DatabaseError::Unreadable { path: path.to_owned(), source })?;
        let dates = database.iter().filter_map(|advisory| advisory.date().as_str().parse::<Date>().ok());
        let newest = dates.max().ok_or_else(|| DatabaseError::Empty { path: path.to_owned() })?;
        Ok(Self { database, newest })
    }

    /// How many advisories it has.
    pub fn len(&self) -> usize {
        self.database.iter().len()
    }

    /// Whether it has none; one that was opened never is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The date of its newest advisory.
    pub const fn newest(&self) -> Date {
        self.newest
    }

    /// The advisories that concern a crate, by id; withdrawn ones do not.
    pub fn concerning(&self, dependency: &Dependency) -> Vec<Advisory> {
        let Ok(name) = Name::from_str(&dependency.name) else { return Vec::new() };
        let collection = if dependency.name == STD { Collection::Rust } else { Collection::Crates };
        let query = Query::new().collection(collection).package_name(name).package_version(dependency.version.clone());
        let mut found: Vec<Advisory> = self.database.query(&query.withdrawn(false)).into_iter().map(read).collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }
}

fn read(advisory: &advisory::Advisory) -> Advisory {
    let kind = advisory.metadata.informational.as_ref().map_or_else(
        || Kind::Vulnerability(advisory.severity().map(|severity| severity.as_str().to_owned())),
        |kind| Kind::Informational(kind.as_str().to_owned()),
    );
    Advisory {
        id: advisory.id().to_string(),
        title: advisory.title().to_owned(),
        kind,
        patched: advisory.versions.patched().iter().map(ToString::to_string).collect(),
    }
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
    fn a_database_knows_its_age_and_one_without_advisories_is_none() {
        let database = database();
        assert_eq!((database.len(), database.newest().to_string()), (6, "2026-06-01".to_owned()));
        let empty = tempfile::tempdir().unwrap();
        assert!(Database::open(empty.path()).is_err());
        fs::create_dir(empty.path().join("crates")).unwrap();
        assert!(matches!(Database::open(empty.path()), Err(DatabaseError::Empty { .. })));
        fs::create_dir(empty.path().join("crates/a")).unwrap();
        fs::write(empty.path().join("crates/a/RUSTSEC-2026-0001.md"), "rubbish").unwrap();
        assert!(matches!(Database::open(empty.path()), Err(DatabaseError::Unreadable { .. })));
    }
}
