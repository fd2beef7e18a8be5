//! The shared cache: who uses it how on this machine, and `cache prune`.

use super::resources::Delivery;
use crate::{cli_error::CliError, report::text::size, session::Session, settings::Settings, verbs::runs::json};
use plimsoll_core::config::CacheWrite;
use plimsoll_engine::StepError;
use plimsoll_oci::{BlobStore, RegistryClient};
use plimsoll_steps::{CacheAccess, Pruned, RegistryCache, prune};
use std::{fmt::Write as _, process::ExitCode, sync::Arc, time::SystemTime};

/// The shared cache as this machine uses it, if one is named; `builder` is who shares with whom.
pub(super) fn shared(
    session: &Session,
    client: &RegistryClient,
    store: Arc<BlobStore>,
    builder: &str,
) -> Option<RegistryCache> {
    let rules = &session.config.cache;
    RegistryCache::new(client.clone(), store, rules, access(rules.write, &session.settings), builder.to_owned())
}

/// Whether this machine writes.
fn access(write: CacheWrite, settings: &Settings) -> CacheAccess {
    let read_only = |why: &str| CacheAccess::ReadOnly(why.to_owned());
    match write {
        // Whoever opens one decides what its job does.
        _ if settings.pull_request => read_only("this is the job of a pull request"),
        CacheWrite::Never => read_only("[cache] write = \"never\""),
        CacheWrite::Ci if !settings.ci => read_only("this is no job of a CI, and [cache] write = \"ci\""),
        CacheWrite::Ci | CacheWrite::Always => CacheAccess::Write,
    }
}

/// `cache prune`.
pub(super) async fn prune_shared(session: &Session, dry_run: bool) -> Result<ExitCode, CliError> {
    let delivery = Delivery::open(session)?;
    let store = BlobStore::open(session.cache.join("cache/blobs")).map_err(|e| StepError::of(&e))?;
    let Some(cache) = shared(session, &delivery.registry, Arc::new(store), "") else {
        let error = StepError::user("no shared cache is named");
        return Err(error.with_hint("name one in plimsoll.toml: [cache] repository = \"HOST/NAME\"").into());
    };
    let pruned = prune(&cache, SystemTime::now().into(), dry_run).await?;
    session.console.out(&if session.global.json { json(&pruned) } else { text(&pruned, dry_run) });
    Ok(ExitCode::SUCCESS)
}

fn text(pruned: &Pruned, dry_run: bool) -> String {
    let word = if dry_run { "would be removed" } else { "removed" };
    let mut out = String::new();
    for step in &pruned.removed {
        let _ = writeln!(out, "{word}: {step}");
    }
    let (kept, bytes) = (pruned.entries - pruned.removed.len(), pruned.bytes - pruned.removed_bytes);
    let (gone, removed) = (size(pruned.removed_bytes), pruned.removed.len());
    let _ = writeln!(out, "{removed} {word}, {gone}; {kept} kept, {}", size(bytes));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_requests_never_write_and_laptops_only_where_they_are_told_to() {
        let machine = |ci, pull_request| Settings { ci, pull_request, ..Settings::default() };
        for (write, settings, writes) in [
            (CacheWrite::Ci, machine(true, false), true),
            (CacheWrite::Ci, machine(false, false), false),
            (CacheWrite::Always, machine(false, false), true),
            (CacheWrite::Never, machine(true, false), false),
            (CacheWrite::Always, machine(true, true), false),
            (CacheWrite::Ci, machine(true, true), false),
        ] {
            assert_eq!(access(write, &settings) == CacheAccess::Write, writes, "{write:?} {settings:?}");
        }
    }
}
