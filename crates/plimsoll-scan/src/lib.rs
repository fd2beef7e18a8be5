//! What is known to be wrong with dependencies, and what tools find in a workspace: as [`Finding`]s, for people and as SARIF.
//!
//! Two things are here. [`Database`] reads advisories in the form of `RustSec`'s and says which concern a crate at a version;
//! [`Limits`] decides which of them do not pass. And what foreign tools print is read: [`deny`], [`unused`], [`semver_checks`].
//! Nothing here starts a program or uses the network; only [`Database::open`] reads files.
//!
//! ```
//! use plimsoll_scan::{Finding, Level, Place, Tool, sarif};
//!
//! let place = Place { file: "Cargo.lock".into(), line: Some(7) };
//! let finding = Finding::new("RUSTSEC-2024-0001", Level::Error, "a 1.0.0: reads beyond its end").at(place);
//! let report = sarif(&Tool { name: "plimsoll".into(), version: "0.1.0".into() }, &[finding]);
//! assert!(report.contains("\"ruleId\": \"RUSTSEC-2024-0001\""));
//! ```

mod database;
pub mod deny;
mod finding;
mod limits;
mod lockfile;
mod sarif;
pub mod semver_checks;
pub mod unused;
mod versions;

pub use database::{Advisory, Database, DatabaseError, Dependency, Kind};
pub use finding::{Finding, Level, Place};
pub use limits::{Limits, Verdict};
pub use lockfile::Lockfile;
pub use sarif::{Tool, sarif};
