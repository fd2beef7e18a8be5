//! Where a path inside an image lies on this machine: links are followed by hand and cannot lead out of the root.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Links followed for one path, as the kernel does.
const MAX_LINKS: usize = 40;

/// What to do when the last part of a path is a link.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// Give what it leads to.
    Follow,
    /// Give the link itself.
    Keep,
}

/// Resolves `path` as if `root` were `/`: `..` stops at the root, absolute links begin there.
pub(super) fn resolve(root: &Path, path: &str, last: Last) -> Result<PathBuf, &'static str> {
    // Parts still to walk, the next one at the end.
    let mut ahead: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut walked: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(part) = ahead.pop() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                walked.pop();
                continue;
            }
            _ => walked.push(part),
        }
        let here = join(root, &walked);
        let is_link = here.symlink_metadata().is_ok_and(|m| m.is_symlink());
        if !is_link || (last == Last::Keep && ahead.iter().all(String::is_empty)) {
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err("it goes through too many links");
        }
        let target = fs::read_link(&here).map_err(|_| "it goes through a link that cannot be read")?;
        let target = target.to_str().ok_or("it goes through a link that is not UTF-8")?;
        walked.pop();
        if target.starts_with('/') {
            walked.clear();
        }
        ahead.extend(target.split('/').rev().map(str::to_owned));
    }
    Ok(join(root, &walked))
}

fn join(root: &Path, parts: &[String]) -> PathBuf {
    parts.iter().fold(root.to_owned(), |path, part| path.join(part))
}

/// Makes the directories from `root` down to `dir`, a resolved path; a file in the way is an error.
pub(super) fn make_dirs(root: &Path, dir: &Path) -> io::Result<()> {
    debug_assert!(dir.starts_with(root), "a resolved path lies below the root");
    fs::create_dir_all(dir)
}
