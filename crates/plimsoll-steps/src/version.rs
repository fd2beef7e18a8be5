//! The version of what is in the checkout, from the tags behind it. Pure: git's answers are passed in.

use semver::{BuildMetadata, Prerelease, Version};

/// The newest released version among `tags` (`v1.2.3`; others are ignored), pre-releases included.
pub fn version_of<'a>(tags: impl IntoIterator<Item = &'a str>) -> Option<Version> {
    tags.into_iter().filter_map(|tag| Version::parse(tag.strip_prefix('v')?).ok()).max()
}

/// The version of a commit.
///
/// On a tagged, clean commit it is the tag's. Otherwise it is a pre-release of the next patch version (of `initial` where there
/// is no tag yet), `X.Y.Z-dev.N.gCOMMIT`, with N the number of commits since the tag, so that later commits have higher
/// versions; a dirty tree adds `-dirty`.
pub fn next_version(tag: Option<&Version>, initial: &Version, commits: u64, commit: &str, dirty: bool) -> Version {
    if let (Some(tag), 0, false) = (tag, commits, dirty) {
        return tag.clone();
    }
    let mut version = match tag {
        Some(tag) if tag.pre.is_empty() => Version::new(tag.major, tag.minor, tag.patch + 1),
        Some(tag) => tag.clone(),
        None => initial.clone(),
    };
    let short: String = commit.chars().take(8).collect();
    let dirty = if dirty { "-dirty" } else { "" };
    let before = if version.pre.is_empty() { String::new() } else { format!("{}.", version.pre) };
    version.pre = Prerelease::new(&format!("{before}dev.{commits}.g{short}{dirty}"))
        .expect("letters, digits, dots and hyphens, no empty part and no leading zero make a pre-release");
    version.build = BuildMetadata::EMPTY;
    version
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tags: &[&str], commits: u64, dirty: bool, expected: &str) {
        let tag = version_of(tags.iter().copied());
        let version = next_version(tag.as_ref(), &Version::new(0, 1, 0), commits, "abcdef0123", dirty);
        assert_eq!(version.to_string(), expected, "{tags:?} {commits} {dirty}");
    }

    #[test]
    fn a_tagged_commit_has_its_tags_version_and_later_ones_lie_above_it() {
        check(&["v1.2.3"], 0, false, "1.2.3");
        check(&["v1.2.3"], 2, false, "1.2.4-dev.2.gabcdef01");
        check(&["v1.2.3"], 0, true, "1.2.4-dev.0.gabcdef01-dirty");
        check(&["v1.3.0-rc.1"], 1, false, "1.3.0-rc.1.dev.1.gabcdef01");
        check(&[], 7, false, "0.1.0-dev.7.gabcdef01");
        check(&["v1.10.0", "v1.9.0", "nightly", "v1.x"], 0, false, "1.10.0");
    }

    #[test]
    fn versions_never_go_backwards_along_the_commits() {
        let tag = Version::new(1, 2, 3);
        let at = |commits| next_version(Some(&tag), &tag, commits, "abcdef01", false);
        assert!(at(0) < at(1) && at(1) < at(2) && at(9) < at(10));
        assert!(at(10) < Version::new(1, 2, 4));
    }
}
