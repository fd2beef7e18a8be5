//! Where each service's sources come from: the commit that last changed anything its binary is built from.
//!
//! Images are labelled with it instead of the release's commit, so that a commit elsewhere leaves them bit by bit the same.

use crate::{
    context::roots,
    git::{GitError, Source, git, last_change},
    workspace::Workspace,
};
use futures_util::future::try_join_all;
use plimsoll_core::{Fingerprint, ServiceName, config::Config};
use plimsoll_engine::{Cx, StepError, write_atomically};
use plimsoll_process::Environment;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The commit a service's sources come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The commit, with `-dirty` behind it when the sources differ from it.
    pub revision: String,
    /// When it was committed, in seconds since 1970.
    pub committed_at: i64,
}

/// The origins of all services.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origins(BTreeMap<ServiceName, Origin>);

/// Files outside a package that its binary depends on.
const SHARED: [&str; 5] = ["Cargo.toml", "Cargo.lock", ".cargo", "rust-toolchain.toml", "rust-toolchain"];

impl Origins {
    /// Asks git, once for each set of packages; not at all while a clean tree is at the commit it was asked about before, which
    /// `cache` remembers.
    pub async fn load(
        workspace: &Workspace,
        config: &Config,
        environment: &Environment,
        source: &Source,
        cache: &Path,
    ) -> Result<Self, StepError> {
        let mut sets: BTreeMap<Vec<String>, Vec<ServiceName>> = BTreeMap::new();
        for (service, configured) in &config.services {
            let bin = configured.bin.as_deref().unwrap_or(service.as_str());
            let paths = match &configured.docker_build {
                Some(build) => roots(workspace, &build.dockerfile)?.iter().map(|path| literal(path)).collect(),
                None => pathspecs(workspace, &configured.package, bin)?,
            };
            sets.entry(paths).or_default().push(service.clone());
        }
        let path = cache.join("origins.json");
        let asked: Vec<_> = sets.iter().collect();
        let key = serde_json::to_vec(&(&source.commit, asked)).expect("names and paths are plain data");
        let key = Fingerprint::of(&key);
        let known = fs::read(&path).ok().and_then(|b| serde_json::from_slice::<(Fingerprint, Self)>(&b).ok());
        if let Some((_, origins)) = known.filter(|(k, _)| *k == key && !source.dirty) {
            return Ok(origins);
        }
        let origins = sets.iter().map(|(paths, services)| async move {
            let origin = origin(workspace, environment, paths, source.dirty).await?;
            Ok::<_, GitError>(services.iter().map(move |s| (s.clone(), origin.clone())).collect::<Vec<_>>())
        });
        let found = try_join_all(origins).await.map_err(|e| StepError::of(&e))?;
        let origins = Self(found.into_iter().flatten().collect());
        if !source.dirty {
            // A cache that cannot be written costs the next run these questions again, and nothing else.
            let _ = write_atomically(&path, &serde_json::to_vec(&(key, &origins)).expect("origins are plain data"));
        }
        Ok(origins)
    }

    /// The origin of `service`.
    pub fn of(&self, service: &ServiceName) -> Result<&Origin, StepError> {
        self.0.get(service).ok_or_else(|| StepError::internal(format!("nobody asked git about {service}")))
    }
}

impl Origin {
    /// The origin of what comes from here and from these files: the later commit, and dirty if one of the two is.
    pub(crate) async fn with(self, cx: &Cx, files: &BTreeSet<PathBuf>) -> Result<Self, StepError> {
        if files.is_empty() {
            return Ok(self);
        }
        let (workspace, paths) =
            (cx.resource::<Workspace>()?, files.iter().map(|file| literal(file)).collect::<Vec<_>>());
        let other = origin(&workspace, cx.environment(), &paths, true).await.map_err(|e| StepError::of(&e))?;
        Ok(self.merged(other))
    }

    fn merged(self, other: Self) -> Self {
        const DIRTY: &str = "-dirty";
        let dirty = self.revision.ends_with(DIRTY) || other.revision.ends_with(DIRTY);
        let later = if other.committed_at > self.committed_at { other } else { self };
        let commit = later.revision.trim_end_matches(DIRTY);
        let revision = if dirty { format!("{commit}{DIRTY}") } else { commit.to_owned() };
        Self { revision, ..later }
    }
}

/// Those of `files` that no package has which a binary of `package` is built from: another directory's `include_str!` reads
/// them.
pub(crate) fn outside(workspace: &Workspace, package: &str, files: &[PathBuf]) -> Result<BTreeSet<PathBuf>, StepError> {
    let closure = workspace.closure(&[package.to_owned()], false)?;
    let dirs: Vec<&Path> = closure.iter().map(|name| workspace.packages()[name].dir.as_path()).collect();
    let inside =
        |file: &Path| dirs.iter().any(|dir| file.starts_with(dir)) || SHARED.iter().any(|s| file.starts_with(s));
    // What builds write into the workspace is nobody's source.
    let known = |file: &PathBuf| workspace.files().binary_search(file).is_ok();
    Ok(files.iter().filter(|file| known(file) && !inside(file)).cloned().collect())
}

fn literal(path: &Path) -> String {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    format!(":(literal){}", path.display())
}

/// What a binary is built from, as git's pathspecs.
fn pathspecs(workspace: &Workspace, package: &str, bin: &str) -> Result<Vec<String>, StepError> {
    let closure = workspace.closure(&[package.to_owned()], false)?;
    let dirs = closure.iter().map(|name| literal(&workspace.packages()[name].dir));
    let shared = SHARED.iter().map(|name| literal(Path::new(name)));
    let apart = workspace.apart_from(package, bin)?;
    let apart = apart.iter().map(|path| format!(":(exclude,literal){}", path.display()));
    Ok(dirs.chain(shared).chain(apart).collect())
}

async fn origin(
    workspace: &Workspace,
    environment: &Environment,
    paths: &[String],
    dirty: bool,
) -> Result<Origin, GitError> {
    let root = workspace.root();
    let (revision, committed_at) =
        last_change(root, environment, paths).await?.unwrap_or_else(|| ("uncommitted".to_owned(), 0));
    if !dirty {
        return Ok(Origin { revision, committed_at });
    }
    let mut args = vec!["status", "--porcelain", "--untracked-files=all", "--"];
    args.extend(paths.iter().map(String::as_str));
    let changed = !git(root, environment, &args).await?.is_empty();
    let revision = if changed { format!("{revision}-dirty") } else { revision };
    Ok(Origin { revision, committed_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_origins_the_later_commit_counts_and_any_change_that_no_commit_has() {
        let origin = |revision: &str, committed_at| Origin { revision: revision.into(), committed_at };
        for (one, other, expected) in [
            (origin("a", 1), origin("b", 2), origin("b", 2)),
            (origin("b", 2), origin("a", 1), origin("b", 2)),
            (origin("b", 2), origin("a-dirty", 1), origin("b-dirty", 2)),
            (origin("a-dirty", 1), origin("b", 2), origin("b-dirty", 2)),
            (origin("a-dirty", 1), origin("a-dirty", 1), origin("a-dirty", 1)),
        ] {
            assert_eq!(one.merged(other), expected);
        }
    }
}
