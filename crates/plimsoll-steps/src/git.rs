//! What git says of the checkout. By the `git` command, so that the user's own configuration of it holds.

use crate::version::{next_version, version_of};
use plimsoll_core::{Classify, ErrorClass};
use plimsoll_process::{Cancel, Cmd, Environment, ProcessError};
use semver::Version;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What is in the checkout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::unsafe_derive_deserialize, reason = "the only unsafe code is inside tokio's `join!`")]
pub struct Source {
    /// The version (see [`next_version`]).
    pub version: String,
    /// The commit's full hash.
    pub commit: String,
    /// When it was committed, in seconds since 1970.
    pub committed_at: i64,
    /// The branch, if one is checked out.
    pub branch: Option<String>,
    /// Whether the tree differs from the commit.
    pub dirty: bool,
    /// Where the remote `origin` lies, as a web address, if that is on another machine.
    #[serde(default)]
    pub repository: Option<String>,
    /// The tag of the newest released version behind it, if there is one.
    #[serde(default)]
    pub tag: Option<String>,
}

impl Source {
    /// The commit, with `-dirty` behind it when the tree is.
    pub fn revision(&self) -> String {
        if self.dirty { format!("{}-dirty", self.commit) } else { self.commit.clone() }
    }
}

/// Why git's answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// No repository.
    #[error("{} is not in a git repository: Plimsoll releases commits, so run `git init` and commit first", path.display())]
    NoRepository {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// No commit.
    #[error("the repository at {} has no commit yet: commit something first", path.display())]
    NoCommit {
        /// Which repository.
        path: PathBuf,
    },
    /// The command failed.
    #[error("`git {command}` failed")]
    Failed {
        /// Its arguments.
        command: String,
        /// Why.
        #[source]
        source: ProcessError,
    },
    /// The answer makes no sense.
    #[error("`git {command}` answered what cannot be understood: {answer}")]
    Strange {
        /// Its arguments.
        command: String,
        /// The answer, cut.
        answer: String,
    },
}

impl Classify for GitError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::NoRepository { .. } | Self::NoCommit { .. } => ErrorClass::User,
            Self::Failed { .. } | Self::Strange { .. } => ErrorClass::External,
        }
    }
}

/// One git command's standard output.
pub(crate) async fn git(root: &Path, environment: &Environment, args: &[&str]) -> Result<String, GitError> {
    let cmd =
        Cmd::new("git").args(args.iter().copied()).cwd(root).inherit_base(environment).env("GIT_OPTIONAL_LOCKS", "0");
    let failed = |source| GitError::Failed { command: args.join(" "), source };
    let output = plimsoll_process::output(&cmd, &Cancel::new()).await.and_then(plimsoll_process::Output::check);
    Ok(String::from_utf8_lossy(&output.map_err(failed)?.stdout).into_owned())
}

impl Source {
    /// Reads commit, branch, tags and state of the tree. `initial` is the version before the first tag.
    pub async fn read(root: &Path, environment: &Environment, initial: &Version) -> Result<Self, GitError> {
        const STATUS: [&str; 5] = ["status", "--porcelain=v2", "--branch", "-z", "--untracked-files=normal"];
        const TIME: [&str; 4] = ["log", "-1", "--format=%ct", "HEAD"];
        const TAGS: [&str; 5] = ["tag", "--list", "v[0-9]*", "--merged", "HEAD"];
        const REMOTE: [&str; 3] = ["remote", "get-url", "origin"];
        // Asked at once: starting git costs more than its answers.
        let (status, time, tags, remote) = tokio::join!(
            git(root, environment, &STATUS),
            git(root, environment, &TIME),
            git(root, environment, &TAGS),
            git(root, environment, &REMOTE),
        );
        let status = match status {
            Err(GitError::Failed { source, .. }) if source.to_string().contains("not a git repository") => {
                return Err(GitError::NoRepository { path: root.to_owned() });
            }
            other => other?,
        };
        let status = Status::parse(&status);
        // The others fail too when there is no commit, but what is missing is said by this.
        let Some(commit) = status.commit else { return Err(GitError::NoCommit { path: root.to_owned() }) };
        let (time, tags) = (time?, tags?);
        let tag = version_of(tags.lines());
        let range = tag.as_ref().map_or_else(|| commit.clone(), |t| format!("v{t}..{commit}"));
        let commits = git(root, environment, &["rev-list", "--count", &range]).await?;
        let number = |command: &str, answer: &str| {
            answer.trim().parse::<i64>().map_err(|_| GitError::Strange {
                command: command.to_owned(),
                answer: answer.chars().take(80).collect(),
            })
        };
        let commits = u64::try_from(number("rev-list --count", &commits)?).unwrap_or(0);
        let version = next_version(tag.as_ref(), initial, commits, &commit, status.dirty).to_string();
        // A repository without a remote is one of this machine alone.
        let repository = remote.ok().and_then(|remote| web_address(remote.trim()));
        let (committed_at, tag) = (number("log", &time)?, tag.map(|version| format!("v{version}")));
        Ok(Self { version, committed_at, commit, branch: status.branch, dirty: status.dirty, repository, tag })
    }
}

/// The address of a remote as a browser has it, without credentials; nothing for one on this machine.
pub(crate) fn web_address(remote: &str) -> Option<String> {
    let (scheme, rest) = match remote.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest.to_owned()),
        Some(("ssh" | "git" | "git+ssh", rest)) => ("https", rest.to_owned()),
        Some(_) => return None,
        // `git@host:path`, as scp has it.
        None => {
            ("https", remote.split_once(':').filter(|(host, _)| !host.contains('/')).map(|(h, p)| format!("{h}/{p}"))?)
        }
    };
    let (authority, path) = rest.split_once('/')?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    // A port is the one of ssh or git, if it is not the web's own.
    let host = if remote.starts_with("http") { host } else { host.split(':').next().unwrap_or(host) };
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    (!host.is_empty() && !path.is_empty()).then(|| format!("{scheme}://{host}/{path}"))
}

/// The commit that last changed anything the pathspecs name, and its time: what an image made of them is labelled with,
/// so that a commit elsewhere leaves it bit by bit the same.
pub async fn last_change(
    root: &Path,
    environment: &Environment,
    paths: &[String],
) -> Result<Option<(String, i64)>, GitError> {
    let mut args = vec!["log", "-1", "--format=%H %ct", "HEAD", "--"];
    args.extend(paths.iter().map(String::as_str));
    let answer = git(root, environment, &args).await?;
    let parsed = answer.trim().split_once(' ').and_then(|(hash, time)| Some((hash.to_owned(), time.parse().ok()?)));
    Ok(parsed)
}

#[derive(Debug, PartialEq, Eq)]
struct Status {
    commit: Option<String>,
    branch: Option<String>,
    dirty: bool,
}

impl Status {
    /// Reads `git status --porcelain=v2 --branch -z`.
    fn parse(text: &str) -> Self {
        let mut this = Self { commit: None, branch: None, dirty: false };
        for entry in text.split('\0').filter(|e| !e.is_empty()) {
            if let Some(oid) = entry.strip_prefix("# branch.oid ") {
                this.commit = Some(oid.to_owned()).filter(|o| o != "(initial)");
            } else if let Some(head) = entry.strip_prefix("# branch.head ") {
                this.branch = Some(head.to_owned()).filter(|h| h != "(detached)");
            } else if !entry.starts_with('#') {
                this.dirty = true;
            }
        }
        this
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_is_told_as_a_web_address_without_credentials() {
        let shop = Some("https://h.example/a/shop");
        for (remote, expected) in [
            ("git@h.example:a/shop.git", shop),
            ("ssh://git@h.example:2222/a/shop.git", shop),
            ("https://me:token@h.example/a/shop", shop),
            ("https://h.example/a/shop.git/", shop),
            ("http://h.example:8080/a/shop.git", Some("http://h.example:8080/a/shop")),
            ("/srv/git/shop", None),
            ("../shop", None),
            ("file:///srv/shop", None),
            ("", None),
        ] {
            assert_eq!(web_address(remote).as_deref(), expected, "{remote}");
        }
    }

    #[test]
    fn the_status_tells_commit_branch_and_dirt() {
        let parse = |t: &str| Status::parse(&t.replace('|', "\0"));
        let clean = parse("# branch.oid abc|# branch.head main|# branch.upstream origin/main|# branch.ab +0 -0|");
        assert_eq!(clean, Status { commit: Some("abc".into()), branch: Some("main".into()), dirty: false });
        assert!(parse("# branch.oid abc|# branch.head (detached)|? new.txt|").dirty);
        assert_eq!(parse("# branch.oid (initial)|# branch.head main|").commit, None);
    }
}
