//! Collecting rubbish: what nothing names any more, in a registry that may be serving meanwhile.
//!
//! First what is old is listed, then it is looked at what is named: for manifests, which are few, in a turn alone, for blobs
//! without one, because that may take long. Then each old thing that nothing names is removed, if nobody wanted it since. Whoever pushes says so by the time of a
//! file: looking for a blob, mounting it and naming it in a manifest make its link young, and what is younger than the grace
//! stays. So the grace must be longer than a push takes from looking for its first blob to its last manifest.

use super::{
    RegistryError,
    error::ApiError,
    storage::{BLOBS, MANIFESTS, Storage, UPLOADS, remove},
};
use crate::{BlobError, ManifestView};
use plimsoll_core::Digest;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// What counts as rubbish.
#[derive(Debug, Clone)]
pub struct Garbage {
    /// What was wanted within this time stays.
    pub grace: Duration,
    /// Manifests too that no tag leads to, neither by an index nor as referrers of one that a tag leads to. Without it only
    /// blobs, and uploads that nobody goes on with.
    pub untagged: bool,
    /// Count, and remove nothing.
    pub dry_run: bool,
}

/// What was removed, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Manifests and indexes.
    pub manifests: u64,
    /// Blobs taken out of a repository.
    pub links: u64,
    /// Blobs removed from the disk: no repository has them.
    pub blobs: u64,
    /// Uploads that broke off.
    pub uploads: u64,
    /// Bytes freed, of blobs and uploads.
    pub bytes: u64,
}

/// Collects the rubbish of the registry below `root`.
pub fn collect(root: &Path, garbage: &Garbage) -> Result<Collected, RegistryError> {
    let storage = Storage::open(root.to_owned())?;
    let before = SystemTime::now() - garbage.grace;
    let mut sweep = Sweep { storage: &storage, before, dry_run: garbage.dry_run, collected: Collected::default() };
    let io = |source| BlobError::Io { action: "collect the rubbish of", path: root.to_owned(), source };
    sweep.all(garbage.untagged).map_err(io)?;
    Ok(sweep.collected)
}

struct Sweep<'s> {
    storage: &'s Storage,
    before: SystemTime,
    dry_run: bool,
    collected: Collected,
}

impl Sweep<'_> {
    fn all(&mut self, untagged: bool) -> io::Result<()> {
        let mut gone = BTreeSet::new();
        for repository in self.storage.repositories()? {
            self.uploads(&repository)?;
            let dropped = if untagged { self.manifests(&repository)? } else { BTreeSet::new() };
            gone.extend(self.links(&repository, &dropped)?);
        }
        self.blobs(&gone)
    }

    /// When a file was wanted last, if it is there and that is long ago.
    fn old(&self, path: &Path) -> io::Result<Option<SystemTime>> {
        match path.metadata() {
            Ok(metadata) => Ok(Some(metadata.modified()?).filter(|wanted| *wanted < self.before)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Those of some things that are old, with when they were wanted.
    fn all_old<T>(&self, all: Vec<T>, path: impl Fn(&T) -> PathBuf) -> io::Result<Vec<(T, PathBuf, SystemTime)>> {
        let mut old = Vec::new();
        for one in all {
            let path = path(&one);
            if let Some(wanted) = self.old(&path)? {
                old.push((one, path, wanted));
            }
        }
        Ok(old)
    }

    /// Removes a file that was `wanted` last at that time if that is still so when nobody can want it.
    fn take(&self, path: &Path, wanted: SystemTime) -> io::Result<bool> {
        if self.dry_run {
            return Ok(true);
        }
        let _alone = self.storage.alone().map_err(failed)?;
        let still = self.old(path)? == Some(wanted);
        if still {
            remove(path).map_err(failed)?;
        }
        Ok(still)
    }

    fn uploads(&mut self, repository: &str) -> io::Result<()> {
        let entries = match fs::read_dir(self.storage.dir(repository, UPLOADS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let paths = entries.flatten().map(|entry| entry.path()).collect();
        for (_, path, wanted) in self.all_old(paths, PathBuf::clone)? {
            let size = size(&path);
            if self.take(&path, wanted)? {
                self.collected.uploads += 1;
                self.collected.bytes += size;
            }
        }
        Ok(())
    }

    /// Removes the manifests that no tag leads to; gives their digests.
    fn manifests(&mut self, repository: &str) -> io::Result<BTreeSet<Digest>> {
        let all = self.storage.digests(repository, MANIFESTS)?;
        let old = self.all_old(all, |digest| self.storage.manifest_path(repository, digest))?;
        let mut dropped = BTreeSet::new();
        if old.is_empty() {
            return Ok(dropped);
        }
        // Once more with everybody waiting: a tag that is given now leads to more than the manifest it is given to.
        let _alone = if self.dry_run { None } else { Some(self.storage.alone().map_err(failed)?) };
        let Some(kept) = self.tagged(repository)? else { return Ok(dropped) };
        for (digest, path, wanted) in old.into_iter().filter(|(digest, ..)| !kept.contains(digest)) {
            if self.old(&path)? != Some(wanted) {
                continue;
            }
            if !self.dry_run {
                self.storage.drop_manifest(repository, &digest).map_err(failed)?;
            }
            self.collected.manifests += 1;
            dropped.insert(digest);
        }
        Ok(dropped)
    }

    /// The manifests that tags lead to, or nothing if one of the repository's does not read.
    fn tagged(&self, repository: &str) -> io::Result<Option<BTreeSet<Digest>>> {
        let tags = self.storage.tags(repository).unwrap_or_default();
        let mut next: Vec<Digest> = tags.iter().filter_map(|tag| self.storage.tag(repository, tag).ok()).collect();
        let mut leads: BTreeMap<Digest, Vec<Digest>> = BTreeMap::new();
        for digest in self.storage.digests(repository, MANIFESTS)? {
            let Some(bytes) = self.storage.stored_manifest(repository, &digest)? else { continue };
            let Ok(view) = ManifestView::parse(&bytes) else { return Ok(None) };
            if let Some(subject) = view.subject {
                leads.entry(subject.digest).or_default().push(digest.clone());
            }
            leads.entry(digest).or_default().extend(view.manifests.into_iter().map(|child| child.digest));
        }
        let mut kept = BTreeSet::new();
        while let Some(digest) = next.pop() {
            next.extend(leads.remove(&digest).unwrap_or_default());
            kept.insert(digest);
        }
        Ok(Some(kept))
    }

    /// Takes blobs that no manifest names out of a repository; `dropped` manifests name nothing.
    fn links(&mut self, repository: &str, dropped: &BTreeSet<Digest>) -> io::Result<BTreeSet<PathBuf>> {
        let all = self.storage.digests(repository, BLOBS)?;
        let old = self.all_old(all, |digest| self.storage.link_path(repository, digest))?;
        let mut gone = BTreeSet::new();
        let Some(named) = self.storage.named(repository, dropped)? else { return Ok(gone) };
        for (_, path, wanted) in old.into_iter().filter(|(digest, ..)| !named.contains(digest)) {
            if self.take(&path, wanted)? {
                self.collected.links += 1;
                gone.insert(path);
            }
        }
        Ok(gone)
    }

    /// Removes the blobs that no repository has; links that are `gone` count no more.
    fn blobs(&mut self, gone: &BTreeSet<PathBuf>) -> io::Result<()> {
        let all = self.storage.blobs.list().map_err(io::Error::other)?;
        let old = self.all_old(all, |digest| self.storage.blobs.path(digest))?;
        let mut had = BTreeSet::new();
        for repository in self.storage.repositories()? {
            let links = self.storage.digests(&repository, BLOBS)?.into_iter();
            had.extend(links.filter(|digest| !gone.contains(&self.storage.link_path(&repository, digest))));
            // One that does not read may name any. And what is named stays, whatever became of its link.
            let Some(named) = self.storage.named(&repository, &BTreeSet::new())? else { return Ok(()) };
            had.extend(named);
        }
        for (_, path, wanted) in old.into_iter().filter(|(digest, ..)| !had.contains(digest)) {
            let size = size(&path);
            if self.take(&path, wanted)? {
                self.collected.blobs += 1;
                self.collected.bytes += size;
            }
        }
        Ok(())
    }
}

fn failed(error: ApiError) -> io::Error {
    io::Error::other(error.message)
}

fn size(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}
