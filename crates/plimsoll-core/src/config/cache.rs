//! `[cache]`: outputs of steps that machines share through a registry.

use super::Period;
use crate::{ByteSize, ImageRef};
use serde::{Deserialize, Serialize};

/// `[cache]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SharedCache {
    /// The repository that entries lie in, such as `ghcr.io/example/shop/cache`; default: nothing is shared.
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub repository: Option<ImageRef>,
    /// Who writes to it; jobs that others can have run never do. Default: jobs of GitHub Actions, of the branches that
    /// environments name.
    pub write: CacheWrite,
    /// The largest entry that is given or taken; default: `512Mi`.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub max_entry: ByteSize,
    /// How old an entry may be; older ones are not taken, and `cache prune` removes them. Default: `14d`.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub max_age: Period,
    /// How large all entries may be together: `cache prune` removes the oldest above it. Default: `10Gi`.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub max_size: ByteSize,
}

impl Default for SharedCache {
    fn default() -> Self {
        Self {
            repository: None,
            write: CacheWrite::default(),
            max_entry: ByteSize::new(512 << 20),
            max_age: Period::from_millis(14 * 24 * 3_600_000),
            max_size: ByteSize::new(10 << 30),
        }
    }
}

/// Who writes to the shared cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum CacheWrite {
    /// Jobs of GitHub Actions.
    #[default]
    Ci,
    /// Everybody with the key and the right to.
    Always,
    /// Nobody here.
    Never,
}
