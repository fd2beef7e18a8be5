//! A backup on disk: a directory with one file per service, and `backup.json`, which is written last and says what must be in
//! them. Without it the backup was not finished.

use plimsoll_core::{
    Classify, Digest, EnvironmentName, ErrorClass, Generation, Hasher, ServiceName, StateSchema, Timestamp,
};
use plimsoll_deploy::{Observation, ReleaseRecord};
use plimsoll_engine::write_atomically;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// Of the directory's own form.
const FORMAT: u32 = 1;
const MANIFEST: &str = "backup.json";

/// Why a backup is no use, or cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    #[error("{} is not empty: a backup has a directory of its own", path.display())]
    Exists { path: PathBuf },
    #[error("{} has no {MANIFEST}: it is no backup, or one that was not finished", path.display())]
    Unfinished { path: PathBuf },
    #[error("{} cannot be read", path.display())]
    Manifest {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{} is a backup of format {found}: this version reads format {FORMAT}", path.display())]
    Format { path: PathBuf, found: u32 },
    #[error("the copy of {service} is missing: there is no {}", path.display())]
    Missing { service: ServiceName, path: PathBuf },
    #[error("the copy of {service} is damaged: {} should have {expected}, and has {found}", path.display())]
    Damaged { service: ServiceName, path: PathBuf, expected: Box<Copied>, found: Box<Copied> },
    #[error("cannot {action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Classify for BackupError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Exists { .. } | Self::Unfinished { .. } | Self::Format { .. } => ErrorClass::User,
            Self::Manifest { .. } | Self::Missing { .. } | Self::Damaged { .. } => ErrorClass::CheckFailed,
            Self::File { .. } => ErrorClass::External,
        }
    }
}

/// What a file must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Copied {
    pub(crate) bytes: u64,
    pub(crate) digest: Digest,
    /// What a version must read to work on it, where its service said that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) schema: Option<StateSchema>,
}

impl std::fmt::Display for Copied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, {}", self.bytes, self.digest)
    }
}

/// What `backup.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    format: u32,
    pub(crate) project: String,
    pub(crate) environment: EnvironmentName,
    pub(crate) created: Timestamp,
    /// The release that served, with all that it takes to make it serve elsewhere.
    pub(crate) release: ReleaseRecord,
    pub(crate) generation: Generation,
    pub(crate) services: BTreeMap<ServiceName, Copied>,
}

impl Manifest {
    /// One that names no service yet.
    pub(crate) fn new(project: &str, seen: &Observation, release: ReleaseRecord, created: Timestamp) -> Self {
        Self {
            format: FORMAT,
            project: project.to_owned(),
            environment: seen.environment.clone(),
            created,
            release,
            generation: seen.generation,
            services: BTreeMap::new(),
        }
    }

    /// The bytes of all its files.
    pub(crate) fn bytes(&self) -> u64 {
        self.services.values().map(|copied| copied.bytes).sum()
    }
}

/// Makes the empty file of a service, which nobody else may read.
pub(crate) fn create(directory: &Path, service: &ServiceName) -> Result<PathBuf, BackupError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = file(directory, service);
    let made = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path);
    made.map_err(|source| BackupError::File { action: "make", path: path.clone(), source })?;
    Ok(path)
}

/// The file of a service.
pub(crate) fn file(directory: &Path, service: &ServiceName) -> PathBuf {
    directory.join(format!("{service}.state"))
}

/// Makes the directory of a new backup.
pub(crate) fn begin(directory: &Path) -> Result<(), BackupError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let failed = |action| move |source| BackupError::File { action, path: directory.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed("make"))?;
    if fs::read_dir(directory).map_err(failed("read"))?.next().is_some() {
        return Err(BackupError::Exists { path: directory.to_owned() });
    }
    Ok(())
}

/// What a file is that was written; it is on the disk when this returns.
pub(crate) fn sum(path: &Path) -> Result<Copied, BackupError> {
    let failed = |source| BackupError::File { action: "read", path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    let mut hasher = Hasher::new();
    let bytes = io::copy(&mut file, &mut hasher).map_err(failed)?;
    Ok(Copied { bytes, digest: hasher.finish(), schema: None })
}

/// Finishes a backup.
pub(crate) fn finish(directory: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let path = directory.join(MANIFEST);
    let text = serde_json::to_vec_pretty(manifest).expect("a manifest is plain data");
    write_atomically(&path, &text).map_err(|source| BackupError::File { action: "write", path, source })
}

/// Reads what a backup says of itself.
pub(crate) fn read(directory: &Path) -> Result<Manifest, BackupError> {
    #[derive(Deserialize)]
    struct Form {
        format: u32,
    }
    let path = directory.join(MANIFEST);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(BackupError::Unfinished { path: directory.to_owned() });
        }
        Err(source) => return Err(BackupError::File { action: "read", path, source }),
    };
    let parsed = |source| BackupError::Manifest { path: path.clone(), source };
    let Form { format } = serde_json::from_slice(&text).map_err(parsed)?;
    if format != FORMAT {
        return Err(BackupError::Format { path, found: format });
    }
    serde_json::from_slice(&text).map_err(parsed)
}

/// Checks that every file is what the manifest says.
pub(crate) fn verify(directory: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    for (service, expected) in &manifest.services {
        let path = file(directory, service);
        if !path.exists() {
            return Err(BackupError::Missing { service: service.clone(), path });
        }
        let found = Copied { schema: expected.schema, ..sum(&path)? };
        if found != *expected {
            let (service, expected, found) = (service.clone(), Box::new(expected.clone()), Box::new(found));
            return Err(BackupError::Damaged { service, path, expected, found });
        }
    }
    Ok(())
}

/// The finished backups below `directory`, oldest first; none where there is no such directory.
pub(crate) fn finished(directory: &Path) -> Result<Vec<(PathBuf, Manifest)>, BackupError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(BackupError::File { action: "read", path: directory.to_owned(), source }),
    };
    // What is no backup, or one that was not finished, is none.
    let mut all: Vec<_> = entries.flatten().filter_map(|e| Some((e.path(), read(&e.path()).ok()?))).collect();
    all.sort_by_key(|(_, manifest)| manifest.created);
    Ok(all)
}

/// Removes what is older than `days` of the finished backups of an environment below `directory`; returns their names.
pub(crate) fn prune(directory: &Path, keep: &Manifest, days: u32) -> Result<Vec<String>, BackupError> {
    let oldest = keep.created.as_millis() - i64::from(days) * 24 * 60 * 60 * 1000;
    let is_old = |manifest: &Manifest| {
        manifest.project == keep.project
            && manifest.environment == keep.environment
            && manifest.created.as_millis() < oldest
    };
    let mut removed = Vec::new();
    for (path, manifest) in finished(directory)?.into_iter().filter(|(_, manifest)| is_old(manifest)) {
        // The manifest goes first: what is left of a removal that was interrupted is no backup any more.
        let gone = fs::remove_file(path.join(MANIFEST)).and_then(|()| fs::remove_dir_all(&path));
        gone.map_err(|source| BackupError::File { action: "remove", path, source })?;
        removed.push(manifest.created.readable());
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(parent: &Path, name: &str, created: i64) -> (PathBuf, Manifest) {
        let directory = parent.join(name);
        begin(&directory).unwrap();
        let service: ServiceName = "risk".parse().unwrap();
        fs::write(file(&directory, &service), "all orders").unwrap();
        let created = Timestamp::from_millis(created);
        let (seen, release) = (crate::delivery::testing::seen(), crate::delivery::testing::record(None));
        let mut manifest = Manifest::new("shop", &seen, release, created);
        manifest.services.insert(service.clone(), sum(&file(&directory, &service)).unwrap());
        (directory, manifest)
    }

    #[test]
    fn a_backup_reads_back_and_its_damage_is_told_by_name() {
        let parent = tempfile::tempdir().unwrap();
        let (directory, manifest) = backup(parent.path(), "one", 0);
        assert!(matches!(read(&directory), Err(BackupError::Unfinished { .. })), "the manifest is written last");
        finish(&directory, &manifest).unwrap();
        assert_eq!(read(&directory).unwrap(), manifest);
        verify(&directory, &manifest).unwrap();
        assert!(matches!(begin(&directory), Err(BackupError::Exists { .. })));
        fs::write(directory.join("risk.state"), "all 0rders").unwrap();
        let told = verify(&directory, &manifest).unwrap_err().to_string();
        assert!(
            told.starts_with("the copy of risk is damaged:") && told.contains("risk.state should have 10 bytes"),
            "{told}"
        );
        fs::remove_file(directory.join("risk.state")).unwrap();
        assert_eq!(
            verify(&directory, &manifest).unwrap_err().to_string(),
            format!("the copy of risk is missing: there is no {}", directory.join("risk.state").display())
        );
        fs::write(directory.join(MANIFEST), "{\"format\": 9}").unwrap();
        assert!(matches!(read(&directory), Err(BackupError::Format { found: 9, .. })));
    }

    #[test]
    fn backups_older_than_the_days_are_removed_and_no_others() {
        const DAY: i64 = 24 * 60 * 60 * 1000;
        let parent = tempfile::tempdir().unwrap();
        for (name, day) in [("old", 0), ("edge", 10), ("new", 39)] {
            let (directory, manifest) = backup(parent.path(), name, day * DAY);
            finish(&directory, &manifest).unwrap();
        }
        let (unfinished, _) = backup(parent.path(), "unfinished", 0);
        let (now, manifest) = backup(parent.path(), "now", 40 * DAY);
        finish(&now, &manifest).unwrap();
        let stranger = Manifest { environment: "staging".parse().unwrap(), ..manifest.clone() };
        assert!(prune(parent.path(), &stranger, 30).unwrap().is_empty(), "another environment's stay");
        assert_eq!(prune(parent.path(), &manifest, 30).unwrap(), ["1970-01-01 00:00:00"]);
        let left: Vec<_> = finished(parent.path())
            .unwrap()
            .into_iter()
            .map(|(_, manifest)| manifest.created.as_millis() / DAY)
            .collect();
        assert_eq!(left, [10, 39, 40]);
        assert!(unfinished.exists());
    }
}
