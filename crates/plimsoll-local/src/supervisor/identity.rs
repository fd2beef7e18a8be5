//! The identity file: what a slot's replicas say they are. Replaced whole, so that a reader sees the old one or the new.

use crate::supervisor::{
    LocalPaths,
    paths::{Purpose, create_parent, replace_file},
    place::SlotKey,
    state::ReleaseStamp,
};
use plimsoll_core::Generation;
use std::io;

/// Writes what a slot's replicas say they are.
pub(crate) fn write_identity(
    paths: &LocalPaths,
    key: &SlotKey,
    stamp: &ReleaseStamp,
    generation: Generation,
) -> io::Result<()> {
    let path = paths.identity(&key.environment, &key.service, key.slot);
    create_parent(&path)?;
    let identity = serde_json::json!({
        "version": stamp.version,
        "revision": stamp.revision,
        "run": stamp.run,
        "environment": key.environment,
        "generation": generation,
    });
    replace_file(&path, identity.to_string().as_bytes(), Purpose::Told)
}
