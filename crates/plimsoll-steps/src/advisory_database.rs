//! The advisories that lie on this machine: a snapshot in a directory, or a checkout of a repository that is fetched anew now
//! and then. Where it cannot be fetched, the last one goes on counting, and its age is told.

use crate::git::git;
use plimsoll_core::{Fingerprint, Timestamp, config::Advisories as Rules};
use plimsoll_engine::{StepError, write_atomically};
use plimsoll_process::{Cancel, Cmd, Environment, ProcessError};
use plimsoll_scan::{Database, Dependency, Finding, Level, Limits, Place};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Where checkouts lie, relative to the workspace's root.
const CHECKOUTS: &str = ".plimsoll/advisories";
/// A checkout is not fetched again for so long: advisories come a few times a week.
const FRESH: Duration = Duration::from_hours(1);
/// How long fetching may take: the whole of `RustSec`'s is two megabytes.
const FETCH: Duration = Duration::from_secs(45);
/// After a failure nobody tries again for so long: several steps of a release ask.
const PAUSE: Duration = Duration::from_mins(5);
/// How often it is looked whether somebody else has fetched them.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Files of a snapshot that are looked at to tell whether it changed.
const MAX_FILES: usize = 100_000;

/// What is written down about the newest checkout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Fetched {
    /// From where.
    from: String,
    commit: String,
    committed_at: i64,
    at: i64,
}

/// What is written down when they could not be fetched.
#[derive(Debug, Serialize, Deserialize)]
struct Failed {
    from: String,
    at: i64,
    error: String,
}

/// Advisories, and what of them passes.
#[derive(Debug)]
pub struct Known {
    /// The advisories.
    pub database: Database,
    /// What passes.
    pub limits: Limits,
    /// The day on which that is asked.
    pub today: jiff::civil::Date,
    /// What should be known of the database: how old it is if it is old, why it could not be fetched.
    pub doubts: Vec<String>,
    /// How it is named: its newest day and, where there is one, its commit.
    pub name: String,
}

impl Known {
    /// What is wrong with a crate.
    pub(crate) fn concerning(&self, dependency: &Dependency, place: Option<&Place>) -> Vec<Finding> {
        let concerning = self.database.concerning(dependency).into_iter();
        concerning.map(|one| self.limits.finding(&one, dependency, place.cloned(), self.today)).collect()
    }

    /// What is wrong with libraries, by name and version.
    pub fn findings(&self, libraries: &BTreeSet<(String, String)>) -> Vec<Finding> {
        let of = |(name, version): &(String, String)| match version.parse() {
            Ok(version) => self.concerning(&Dependency { name: name.clone(), version }, None),
            // It is in no range, and nobody can say that it is sound.
            Err(_) => {
                vec![Finding::new(
                    "unknown-version",
                    Level::Error,
                    format!("{name} has the version `{version}`, which is none"),
                )]
            }
        };
        libraries.iter().flat_map(of).collect()
    }
}

/// Where advisories come from.
#[derive(Debug, Clone)]
pub struct AdvisorySource<'a> {
    root: &'a Path,
    rules: &'a Rules,
}

impl<'a> AdvisorySource<'a> {
    /// As `rules` have it, for the workspace at `root`.
    pub const fn new(root: &'a Path, rules: &'a Rules) -> Self {
        Self { root, rules }
    }

    /// What passes.
    pub(crate) fn limits(&self) -> Limits {
        Limits { limit: self.rules.limit, ignore: self.rules.ignore.clone() }
    }

    /// Whether it is fetched, or lies in a directory.
    fn is_fetched(&self) -> bool {
        let from = &self.rules.database;
        from.contains("://") || (from.contains('@') && from.contains(':'))
    }

    /// What tells that something else is known now: changes when advisories did, and when it is time to fetch them.
    pub(crate) fn identity(&self, now: Timestamp) -> Fingerprint {
        if self.is_fetched() {
            let known = self.fetched().filter(|fetched| !is_due(fetched, now));
            // What is to be fetched is never the same as what was.
            let due = known.is_none().then_some(now);
            return Fingerprint::of(&serde_json::to_vec(&(known.map(|f| f.commit), due)).expect("plain data"));
        }
        let mut files = Vec::new();
        list(&self.root.join(&self.rules.database), &mut files);
        files.sort();
        Fingerprint::of(&serde_json::to_vec(&files).expect("plain data"))
    }

    /// The advisories, fetched if it is time to. An error means that there are none.
    pub async fn known(&self, environment: &Environment, cancel: &Cancel, now: Timestamp) -> Result<Known, StepError> {
        let (path, commit, mut doubts) = if self.is_fetched() {
            let mut doubts = Vec::new();
            let fetched = self.refreshed(environment, cancel, now, &mut doubts).await?;
            (self.checkouts().join(&fetched.commit), Some(fetched), doubts)
        } else {
            (self.root.join(&self.rules.database), None, Vec::new())
        };
        let opened = tokio::task::spawn_blocking(move || Database::open(&path)).await;
        let opened = opened.map_err(|e| StepError::internal("reading the advisories broke off").caused_by(&e))?;
        let database = opened.map_err(|e| StepError::of(&e))?;
        let today = day(now.as_secs());
        let dated =
            commit.as_ref().map_or(database.newest(), |fetched| day(fetched.committed_at).max(database.newest()));
        let days = today.since(dated).map_or(0, |span| i64::from(span.get_days()));
        if days * 24 * 3_600_000 > i64::try_from(self.rules.max_age.millis()).unwrap_or(i64::MAX) {
            let old = format!("the advisories are {days} days old, of {dated}");
            if self.rules.required {
                let hint = format!("bring `{}` up to date, or raise `max_age` in [advisories]", self.rules.database);
                return Err(StepError::external(old).with_hint(hint));
            }
            doubts.push(old);
        }
        let commit = commit.map(|fetched| format!(", commit {:.12}", fetched.commit)).unwrap_or_default();
        let name = format!("{} advisories as of {dated}{commit}", database.len());
        Ok(Known { database, limits: self.limits(), today, doubts, name })
    }

    fn checkouts(&self) -> PathBuf {
        self.root.join(CHECKOUTS)
    }

    /// The newest checkout, if it is of this source.
    fn fetched(&self) -> Option<Fetched> {
        let bytes = fs::read(self.checkouts().join("fetched.json")).ok()?;
        let fetched: Fetched = serde_json::from_slice(&bytes).ok()?;
        let is_there = is_commit(&fetched.commit) && self.checkouts().join(&fetched.commit).is_dir();
        (fetched.from == self.rules.database && is_there).then_some(fetched)
    }

    /// The newest checkout, fetched anew if it is time to.
    async fn refreshed(
        &self,
        environment: &Environment,
        cancel: &Cancel,
        now: Timestamp,
        doubts: &mut Vec<String>,
    ) -> Result<Fetched, StepError> {
        let known = self.fetched();
        if let Some(known) = known.clone().filter(|fetched| !is_due(fetched, now)) {
            return Ok(known);
        }
        let fetched = match self.failed(now) {
            Some(error) => Err(StepError::external(error)),
            None => self.alone(cancel, self.fetch(environment, cancel, now)).await,
        };
        match (fetched, known) {
            (Ok(fetched), _) => Ok(fetched),
            (Err(error), Some(known)) => {
                doubts.push(format!("the advisories could not be fetched anew: {error}"));
                Ok(known)
            }
            (Err(error), None) => {
                let error = error.during(format!("cannot fetch the advisories from {}", self.rules.database));
                Err(error.with_hint("without a network name a directory with a snapshot: [advisories] database"))
            }
        }
    }

    /// Why they could not be fetched a moment ago.
    fn failed(&self, now: Timestamp) -> Option<String> {
        let bytes = fs::read(self.checkouts().join("failed.json")).ok()?;
        let failed: Failed = serde_json::from_slice(&bytes).ok()?;
        (failed.from == self.rules.database && !is_older(failed.at, now, PAUSE)).then_some(failed.error)
    }

    /// Does something that one process does at a time, and one step of it.
    async fn alone<T>(
        &self,
        cancel: &Cancel,
        work: impl Future<Output = Result<T, StepError>>,
    ) -> Result<T, StepError> {
        let failed = |e: io::Error| StepError::external(format!("cannot write {CHECKOUTS}")).caused_by(&e);
        fs::create_dir_all(self.checkouts()).map_err(failed)?;
        let file = File::options().create(true).truncate(false).write(true).open(self.checkouts().join("lock"));
        let (file, begun) = (file.map_err(failed)?, Instant::now());
        // Ends by the bound on fetching, which whoever has the lock keeps to.
        while let Err(error) = file.try_lock() {
            match error {
                TryLockError::Error(error) => return Err(failed(error)),
                TryLockError::WouldBlock if cancel.is_cancelled() || begun.elapsed() > 2 * FETCH => {
                    return Err(StepError::external("somebody else fetches them, and does not come to an end"));
                }
                TryLockError::WouldBlock => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
        work.await
    }

    async fn fetch(&self, environment: &Environment, cancel: &Cancel, now: Timestamp) -> Result<Fetched, StepError> {
        // Whoever had the lock before may have done it.
        if let Some(fetched) = self.fetched().filter(|fetched| !is_due(fetched, now)) {
            return Ok(fetched);
        }
        if let Some(error) = self.failed(now) {
            return Err(StepError::external(error));
        }
        let failed = |e: io::Error| StepError::external(format!("cannot write {CHECKOUTS}")).caused_by(&e);
        let checkouts = self.checkouts();
        let fresh = checkouts.join(".new");
        // What is left of one that was killed.
        let _ = fs::remove_dir_all(&fresh);
        let clone = Cmd::new("git")
            .args(["clone", "--quiet", "--depth", "1", "--single-branch", "--no-tags", "--"])
            .args([self.rules.database.as_str().as_ref(), fresh.as_os_str()])
            .inherit_base(environment)
            // Nobody is there to be asked for a password.
            .env("GIT_TERMINAL_PROMPT", "0")
            .timeout(FETCH);
        let cloned = plimsoll_process::output(&clone, cancel).await.and_then(plimsoll_process::Output::check);
        if let Err(error) = cloned {
            let _ = fs::remove_dir_all(&fresh);
            let said = match &error {
                ProcessError::Failed { stderr_tail, .. } => stderr_tail.last().cloned(),
                _ if cancel.is_cancelled() => return Err(error.into()),
                _ => None,
            };
            let error = format!("git could not clone it: {}", said.unwrap_or_else(|| error.to_string()));
            let failed = Failed { from: self.rules.database.clone(), at: now.as_secs(), error: error.clone() };
            // Without it the next step tries again, and nothing else.
            let _ = write_atomically(&checkouts.join("failed.json"), &serde_json::to_vec(&failed).expect("plain data"));
            return Err(StepError::external(error));
        }
        let said = git(&fresh, environment, &["log", "-1", "--format=%H %ct"]).await.map_err(|e| StepError::of(&e))?;
        let parsed =
            said.trim().split_once(' ').and_then(|(commit, time)| Some((commit.to_owned(), time.parse().ok()?)));
        let parsed = parsed.filter(|(commit, _): &(String, i64)| is_commit(commit));
        let (commit, committed_at) = parsed.ok_or_else(|| StepError::external("git names no commit of it"))?;
        let to = checkouts.join(&commit);
        if to.is_dir() {
            fs::remove_dir_all(&fresh).map_err(failed)?;
        } else {
            fs::rename(&fresh, &to).map_err(failed)?;
        }
        let before = self.fetched();
        let fetched = Fetched { from: self.rules.database.clone(), commit, committed_at, at: now.as_secs() };
        let text = serde_json::to_vec(&fetched).expect("plain data");
        write_atomically(&checkouts.join("fetched.json"), &text).map_err(failed)?;
        // The one before stays for whoever reads it now; those before that go.
        let kept = [Some(&fetched.commit), before.as_ref().map(|before| &before.commit)];
        for entry in fs::read_dir(&checkouts).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_commit(&name) && !kept.contains(&Some(&name)) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(fetched)
    }
}

/// Whether this is a commit's full name: it becomes that of a directory.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_due(fetched: &Fetched, now: Timestamp) -> bool {
    is_older(fetched.at, now, FRESH)
}

fn is_older(at: i64, now: Timestamp, than: Duration) -> bool {
    // A clock that was set back tells nothing.
    u64::try_from(now.as_secs().saturating_sub(at)).map_or(true, |age| age > than.as_secs())
}

fn day(seconds: i64) -> jiff::civil::Date {
    let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    time.to_zoned(jiff::tz::TimeZone::UTC).date()
}

/// The files below a directory, each with its length and its time.
fn list(directory: &Path, files: &mut Vec<(PathBuf, u64, Option<Duration>)>) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        if files.len() >= MAX_FILES {
            return;
        }
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => list(&entry.path(), files),
            Ok(meta) => {
                let time = meta.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
                files.push((entry.path(), meta.len(), time));
            }
            Err(_) => {}
        }
    }
}
