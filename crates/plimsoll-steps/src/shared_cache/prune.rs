//! Keeping a shared cache small: what is too old goes, and of the rest the oldest above the size.

use super::{CREATED, CacheAccess, KIND, RegistryCache, TITLE};
use futures_util::{StreamExt as _, TryStreamExt as _};
use plimsoll_core::{Digest, Timestamp, config::SharedCache as Rules};
use plimsoll_engine::StepError;
use serde::Serialize;

/// Manifests that are asked for at once.
const CONCURRENT: usize = 4;

/// What pruning came to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Pruned {
    /// Entries that were there.
    pub entries: usize,
    /// Bytes of all their blobs; those that two entries share count twice.
    pub bytes: u64,
    /// The steps whose entries were removed, oldest first.
    pub removed: Vec<String>,
    /// Bytes of theirs.
    pub removed_bytes: u64,
    /// Tags that are no entries, or cannot be read: they are left alone.
    pub others: usize,
}

#[derive(Debug, Clone)]
struct Aged {
    step: String,
    digest: Digest,
    bytes: u64,
    made: Timestamp,
}

/// Removes what the rules do not keep; with `dry_run` it only says what it would remove. What is in the repository and no
/// entry of a cache is left alone. Who may not give may not remove.
pub async fn prune(cache: &RegistryCache, now: Timestamp, dry_run: bool) -> Result<Pruned, StepError> {
    if let (CacheAccess::ReadOnly(why), false) = (&cache.access, dry_run) {
        return Err(StepError::user(format!("nothing is removed from here: {why}"))
            .with_hint("cargo xtask cache prune --dry-run says what would be"));
    }
    let tags = cache.client.tags(&cache.repository).await.map_err(|e| StepError::of(&e))?;
    let entries = futures_util::stream::iter(tags.iter().map(|tag| async move {
        let found = match cache.client.collection(&cache.repository.tagged(tag)).await {
            Err(error) if error.is_transient() => return Err(StepError::of(&error)),
            found => found.ok().flatten(),
        };
        let entry = found.filter(|(_, view)| view.artifact_type.as_deref() == Some(KIND)).map(|(digest, view)| Aged {
            step: view.annotations.get(TITLE).cloned().unwrap_or_default(),
            digest,
            bytes: view.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add),
            made: view
                .annotations
                .get(CREATED)
                .and_then(|at| Timestamp::try_from(at.clone()).ok())
                .unwrap_or(Timestamp::from_millis(0)),
        });
        Ok::<_, StepError>(entry)
    }));
    let entries: Vec<Option<Aged>> = entries.buffer_unordered(CONCURRENT).try_collect().await?;
    let entries: Vec<Aged> = entries.into_iter().flatten().collect();
    let mut pruned =
        Pruned { entries: entries.len(), bytes: entries.iter().map(|e| e.bytes).sum(), ..Pruned::default() };
    for entry in excess(entries, &cache.rules, now) {
        if !dry_run {
            cache.client.remove(&cache.repository, &entry.digest).await.map_err(|e| StepError::of(&e))?;
        }
        pruned.removed_bytes = pruned.removed_bytes.saturating_add(entry.bytes);
        pruned.removed.push(entry.step);
    }
    Ok(pruned)
}

/// The entries that the rules do not keep, oldest first.
fn excess(mut entries: Vec<Aged>, rules: &Rules, now: Timestamp) -> Vec<Aged> {
    entries.sort_by(|a, b| b.made.cmp(&a.made).then_with(|| a.digest.cmp(&b.digest)));
    let oldest = now.as_millis().saturating_sub(i64::try_from(rules.max_age.millis()).unwrap_or(i64::MAX));
    let mut size = 0_u64;
    let mut out: Vec<Aged> = entries
        .into_iter()
        .filter(|entry| {
            size = size.saturating_add(entry.bytes);
            entry.made.as_millis() < oldest || size > rules.max_size.get()
        })
        .collect();
    out.reverse();
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_core::{ByteSize, config::Period};

    #[test]
    fn what_is_too_old_goes_and_of_the_rest_the_oldest_above_the_size() {
        let entry = |step: &str, made: i64, bytes: u64| Aged {
            step: step.to_owned(),
            digest: Digest::of(step.as_bytes()),
            bytes,
            made: Timestamp::from_millis(made),
        };
        let entries = vec![entry("b", 700, 40), entry("d", 900, 40), entry("a", 100, 1), entry("c", 800, 40)];
        let rules = Rules { max_age: Period::from_millis(500), max_size: ByteSize::new(100), ..Rules::default() };
        let gone = excess(entries, &rules, Timestamp::from_millis(1_000));
        assert_eq!(gone.iter().map(|entry| entry.step.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }
}
