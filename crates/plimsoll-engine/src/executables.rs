//! The executables that runs were started with: kept so that tomorrow's resume runs today's graph, and forgotten when
//! nothing can come back to them.

use crate::{
    journal::Record,
    store::{StateDir, create_private, write_atomically, write_atomically_as},
};
use plimsoll_core::{Fingerprint, RunOutcome};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// How many builds are kept for no other reason than that they are new: another checkout may be about to start one.
const NEWEST: usize = 3;

impl StateDir {
    /// Keeps a copy of `executable` and returns its fingerprint. A build that was kept before is not read again: it is
    /// known by device, inode, size and time of change.
    pub fn keep_executable(&self, executable: &Path) -> io::Result<Fingerprint> {
        let bin = self.path().join("bin");
        create_private(&bin)?;
        let meta = fs::metadata(executable)?;
        let stat = format!("{} {} {} {}.{}", meta.dev(), meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec());
        let memo = bin.join(format!("{}.stat", Fingerprint::of(stat.as_bytes())));
        if let Some(print) = fs::read_to_string(&memo).ok().and_then(|t| Fingerprint::try_from(t).ok())
            && is_executable(&bin.join(print.to_string()))
        {
            return Ok(print);
        }
        let mut bytes = Vec::new();
        File::open(executable)?.read_to_end(&mut bytes)?;
        let print = Fingerprint::of(&bytes);
        let kept = bin.join(print.to_string());
        if !kept.exists() {
            write_atomically_as(&kept, &bytes, Some(0o755))?;
        } else if !is_executable(&kept) {
            fs::set_permissions(&kept, fs::Permissions::from_mode(0o755))?;
        }
        write_atomically(&memo, print.to_string().as_bytes())?;
        self.forget_executables(&print);
        Ok(print)
    }

    /// Where an executable with this fingerprint is kept, whether it is there or not.
    pub fn executable_path(&self, print: &Fingerprint) -> PathBuf {
        self.path().join("bin").join(print.to_string())
    }

    /// Where the executable with this fingerprint is kept, if it still is and still is the same.
    pub fn executable(&self, print: &Fingerprint) -> Option<PathBuf> {
        let path = self.path().join("bin").join(print.to_string());
        (Fingerprint::of(&fs::read(&path).ok()?) == *print).then_some(path)
    }

    /// Removes kept builds that no unfinished run was started with and no process runs, the newest ones apart. What
    /// cannot be removed or read stays: this only saves room.
    fn forget_executables(&self, own: &Fingerprint) {
        let mut kept: Vec<(std::time::SystemTime, Fingerprint)> = fs::read_dir(self.path().join("bin"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let print = Fingerprint::try_from(entry.file_name().into_string().ok()?).ok()?;
                Some((entry.metadata().ok()?.modified().ok()?, print))
            })
            .collect();
        kept.sort_unstable_by(|a, b| b.cmp(a));
        let wanted = self.wanted_executables();
        let running = running_executables();
        for (_, print) in kept.into_iter().skip(NEWEST) {
            let path = self.executable_path(&print);
            // The kernel names executables without symbolic links.
            let path = fs::canonicalize(&path).unwrap_or(path);
            if print != *own && !wanted.contains(&print.to_string()) && !running.contains(&path) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// The fingerprints of the executables that unfinished runs were started with. A run whose journal cannot be read
    /// has no graph to go on with.
    fn wanted_executables(&self) -> BTreeSet<String> {
        let started_with = |run| {
            let (read, outcome) = self.run(&run).read().ok()?;
            let unfinished = !matches!(outcome, RunOutcome::Succeeded);
            match read.entries.into_iter().next()?.record {
                Record::Started { executable, .. } if unfinished => Some(executable),
                _ => None,
            }
        };
        self.runs().unwrap_or_default().into_iter().filter_map(started_with).collect()
    }
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o100 != 0)
}

/// The executables of all processes of this machine, as far as they may be seen.
fn running_executables() -> BTreeSet<PathBuf> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|entry| fs::read_link(entry.path().join("exe")).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal;
    use plimsoll_core::{RunId, Timestamp};
    use std::sync::Arc;

    fn keep(state: &StateDir, dir: &Path, content: &str) -> Fingerprint {
        let path = dir.join("own");
        // Another file each time, as a build makes one.
        let _ = fs::remove_file(&path);
        fs::write(&path, content).unwrap();
        let print = state.keep_executable(&path).unwrap();
        let age = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(content.len() as u64);
        File::options().write(true).open(state.executable_path(&print)).unwrap().set_modified(age).unwrap();
        print
    }

    fn start(state: &StateDir, salt: u16, executable: &Fingerprint) {
        let run = RunId::new(Timestamp::from_millis(0), salt);
        let dir = state.run(&run);
        dir.create().unwrap();
        let mut journal = Journal::create(&dir.journal(), &run, Arc::new(|| Timestamp::from_millis(0))).unwrap();
        let started = Record::Started {
            format: crate::journal::FORMAT,
            run,
            pipeline: "release".into(),
            inputs: serde_json::Value::Null,
            plan: *executable,
            steps: Vec::new(),
            reads: Vec::new(),
            executable: executable.to_string(),
            engine: "0".into(),
            actor: "ann".into(),
            previous: None,
        };
        journal.append_synced(&started).unwrap();
    }

    #[test]
    fn a_build_is_kept_while_a_run_may_come_back_to_it_and_old_ones_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("state"));
        let parked = keep(&state, dir.path(), "1");
        start(&state, 1, &parked);
        let forgotten = keep(&state, dir.path(), "22");
        let newest: Vec<Fingerprint> = (3..6).map(|n| keep(&state, dir.path(), &"x".repeat(n))).collect();
        let last = keep(&state, dir.path(), "the one that makes room");
        assert!(state.executable(&parked).is_some(), "an unfinished run was started with it");
        assert!(state.executable(&forgotten).is_none());
        assert!(newest.iter().skip(1).chain([&last]).all(|print| state.executable(print).is_some()));
    }

    #[test]
    fn a_build_that_was_kept_is_known_without_being_read_and_a_damaged_copy_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("state"));
        let print = keep(&state, dir.path(), "1");
        assert_eq!(state.keep_executable(&dir.path().join("own")).unwrap(), print);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&state.executable_path(&print)), mode(state.path())), (0o755, 0o700));
        fs::set_permissions(state.executable_path(&print), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(state.keep_executable(&dir.path().join("own")).unwrap(), print);
        assert_eq!(mode(&state.executable_path(&print)), 0o755, "a copy that cannot be run is mended");
        fs::write(state.executable_path(&print), "2").unwrap();
        assert!(state.executable(&print).is_none());
    }
}
