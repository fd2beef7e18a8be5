//! `[advisories]`: from where it is known what is wrong with versions of crates, and what of it does not pass.

use super::Period;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// `[advisories]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Advisories {
    /// The database in the form of `RustSec`'s: a git repository, or a directory relative to the workspace, which is a snapshot;
    /// default: `RustSec`'s own.
    pub database: String,
    /// The highest severity that passes. Vulnerabilities whose severity nobody gave pass only `critical`, which everything does.
    pub limit: AdvisoryLimit,
    /// How old the database may be before that is said, and refused where it is `required`; default: `14d`.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub max_age: Period,
    /// Whether a release is refused when there is no database, or only an old one; default: it goes on and says so.
    pub required: bool,
    /// Advisories that do not count.
    pub ignore: Vec<IgnoredAdvisory>,
}

impl Default for Advisories {
    fn default() -> Self {
        Self {
            database: "https://github.com/RustSec/advisory-db".to_owned(),
            limit: AdvisoryLimit::default(),
            max_age: Period::from_millis(14 * 24 * 3_600_000),
            required: false,
            ignore: Vec::new(),
        }
    }
}

/// The highest severity that passes, as CVSS names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum AdvisoryLimit {
    /// Nothing passes.
    #[default]
    None,
    /// Below 4.0.
    Low,
    /// Below 7.0.
    Medium,
    /// Below 9.0.
    High,
    /// Everything passes.
    Critical,
}

/// One of `[[advisories.ignore]]`: an advisory that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct IgnoredAdvisory {
    /// Its id, such as `RUSTSEC-2024-0001`.
    pub id: String,
    /// Why it does not count here.
    pub reason: String,
    /// The last day on which it does not count, such as `2027-01-31`; default: until this is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub until: Option<Date>,
}
