//! The shared cache: who uses it how on this machine, and `cache prune`.

use super::resources::Delivery;
use crate::{
    cli_error::CliError,
    report::{Finding, text::size},
    session::Session,
    settings::Settings,
    verbs::runs::json,
};
use plimsoll_core::config::CacheWrite;
use plimsoll_engine::StepError;
use plimsoll_oci::{BlobStore, RegistryClient};
use plimsoll_steps::{CacheAccess, Pruned, RegistryCache, prune};
use std::{collections::BTreeSet, fmt::Write as _, process::ExitCode, sync::Arc, time::SystemTime};

/// The shared cache as this machine uses it, if one is named; `builder` is who shares with whom.
pub(super) fn shared(
    session: &Session,
    client: &RegistryClient,
    store: Arc<BlobStore>,
    builder: &str,
) -> Option<RegistryCache> {
    RegistryCache::new(client.clone(), store, &session.config.cache, access_of(session), builder.to_owned())
}

/// What `doctor` says of it, where one is named.
pub(super) fn finding(session: &Session) -> Option<Finding> {
    let repository = session.config.cache.repository.as_ref()?;
    let how = match access_of(session) {
        CacheAccess::Write => "takes and gives".to_owned(),
        CacheAccess::ReadOnly(why) => format!("only takes: {why}"),
    };
    Some(Finding::ok("shared cache", format!("{repository}; this machine {how}")))
}

fn access_of(session: &Session) -> CacheAccess {
    let config = &session.config;
    let branches = config.environments.values().filter_map(|environment| environment.branch.as_deref()).collect();
    access(config.cache.write, &session.settings, &branches)
}

/// Events of GitHub whose jobs do what the repository's own people decided; others can be had by anybody who opens a pull
/// request, writes a comment, or has such a job run.
const OWN_EVENTS: [&str; 4] = ["push", "release", "schedule", "workflow_dispatch"];

/// Whether this machine gives, where jobs of these `branches` may; none named means all.
fn access(write: CacheWrite, settings: &Settings, branches: &BTreeSet<&str>) -> CacheAccess {
    let read_only = |why: String| CacheAccess::ReadOnly(why);
    let (event, branch) = (settings.github_event.as_deref(), settings.github_ref.as_deref());
    match write {
        CacheWrite::Never => read_only("[cache] write = \"never\"".to_owned()),
        // Whoever opens one decides what its job does.
        _ if event.is_some_and(|event| !OWN_EVENTS.contains(&event)) => {
            read_only(format!("this is a job for `{}`, which others can have run", event.unwrap_or_default()))
        }
        CacheWrite::Ci if event.is_none() => {
            read_only("this is no job of GitHub Actions, and [cache] write = \"ci\"".to_owned())
        }
        CacheWrite::Ci if !branches.is_empty() && !branch.is_some_and(|branch| branches.contains(branch)) => {
            read_only(format!("this is a job of {}, and nothing is released from there", branch.unwrap_or("no branch")))
        }
        CacheWrite::Always | CacheWrite::Ci => CacheAccess::Write,
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
    fn jobs_that_others_can_have_run_never_give_and_laptops_only_where_they_are_told_to() {
        let job = |event: &str, branch: &str| Settings {
            github_event: Some(event.to_owned()),
            github_ref: Some(branch.to_owned()),
            ..Settings::default()
        };
        let (laptop, other_ci) = (Settings::default(), Settings { ci: true, ..Settings::default() });
        let (all, released) = (BTreeSet::new(), BTreeSet::from(["main"]));
        for (write, settings, branches, gives) in [
            (CacheWrite::Ci, &job("push", "main"), &released, true),
            (CacheWrite::Ci, &job("push", "feature"), &released, false),
            (CacheWrite::Ci, &job("push", "feature"), &all, true),
            (CacheWrite::Ci, &job("pull_request", "7/merge"), &all, false),
            (CacheWrite::Always, &job("pull_request", "7/merge"), &all, false),
            (CacheWrite::Always, &job("pull_request_target", "main"), &released, false),
            (CacheWrite::Always, &job("workflow_run", "main"), &released, false),
            (CacheWrite::Always, &job("issue_comment", "main"), &released, false),
            (CacheWrite::Never, &job("push", "main"), &released, false),
            (CacheWrite::Ci, &laptop, &all, false),
            (CacheWrite::Ci, &other_ci, &all, false),
            (CacheWrite::Always, &laptop, &released, true),
        ] {
            let access = access(write, settings, branches);
            assert_eq!(access == CacheAccess::Write, gives, "{write:?} {settings:?} {branches:?} {access:?}");
        }
    }
}
