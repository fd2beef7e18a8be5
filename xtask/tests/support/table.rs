//! Who calls whom, as plimsoll.toml says: what objects for a cluster are held to.

use plimsoll_core::config::Config;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The root of this repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// A directory or a file of this repository.
pub(crate) fn at(path: &str) -> PathBuf {
    root().join(path)
}

/// A file of this repository, as text.
pub(crate) fn text(path: &str) -> String {
    fs::read_to_string(at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Each service, and the services it calls.
pub(crate) fn calls() -> BTreeMap<String, BTreeSet<String>> {
    let config = Config::parse(&text("plimsoll.toml"), "plimsoll.toml").expect("plimsoll.toml is right");
    let calls = |needed: &[plimsoll_core::ServiceName]| needed.iter().map(ToString::to_string).collect();
    config.services.iter().map(|(name, service)| (name.to_string(), calls(&service.depends_on))).collect()
}
