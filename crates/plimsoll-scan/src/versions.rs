//! Which versions of a crate an advisory is about: all but those that are patched or were never affected.
//!
//! Requirements are read as ranges of the order of versions, so that a pre-release of a patched version counts as older, and one
//! of a later version as patched; as dependencies they would match no pre-release at all.

use semver::{Comparator, Op, Prerelease, Version, VersionReq};
use serde::Deserialize;

/// `[versions]` of an advisory.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Versions {
    #[serde(default)]
    pub(crate) patched: Vec<VersionReq>,
    #[serde(default)]
    unaffected: Vec<VersionReq>,
}

impl Versions {
    /// Whether the advisory is about a version.
    pub(crate) fn concern(&self, version: &Version) -> bool {
        // What was added to a version when it was built has no place in the order.
        let version = Version { build: semver::BuildMetadata::EMPTY, ..version.clone() };
        let holds = |req: &VersionReq| req.comparators.iter().all(|one| is_within(one, &version));
        !self.patched.iter().chain(&self.unaffected).any(holds)
    }
}

fn is_within(comparator: &Comparator, version: &Version) -> bool {
    let Comparator { op, major, minor, patch, pre } = comparator;
    let mut least = Version::new(*major, minor.unwrap_or(0), patch.unwrap_or(0));
    least.pre = pre.clone();
    match op {
        Op::Exact => *version == least,
        Op::Greater => *version > least,
        Op::Less => *version < least,
        Op::LessEq => *version <= least,
        Op::Tilde => *version >= least && *version < before_any(after(*major, *minor)),
        Op::Caret => *version >= least && *version < before_any(next_incompatible(*major, *minor, *patch)),
        // Others are added to semver one day; `>=` is by far the most used.
        _ => *version >= least,
    }
}

/// The version after all with this major number and, where it is named, this minor one.
fn after(major: u64, minor: Option<u64>) -> Version {
    minor.map_or_else(|| Version::new(major + 1, 0, 0), |minor| Version::new(major, minor + 1, 0))
}

/// The first version that a caret leaves out: the leftmost number that is not zero, of those that are named, is one more.
fn next_incompatible(major: u64, minor: Option<u64>, patch: Option<u64>) -> Version {
    match (major, minor, patch) {
        (0, Some(0), Some(patch)) => Version::new(0, 0, patch + 1),
        (0, minor, _) => after(0, minor),
        _ => after(major, None),
    }
}

/// The lowest pre-release of a version: a range that ends before the version ends before those.
fn before_any(version: Version) -> Version {
    Version { pre: Prerelease::new("0").expect("a number is a pre-release"), ..version }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{prelude::*, sample::select};

    /// Words of a requirement and of a version, near to each other.
    fn text() -> impl Strategy<Value = (String, Vec<String>, Vec<String>)> {
        let number = || 0_u64..3;
        let pre = || select(vec!["", "", "-0", "-alpha", "-rc.1"]);
        let version =
            move || (number(), number(), number(), pre()).prop_map(|(a, b, c, pre)| format!("{a}.{b}.{c}{pre}"));
        let op = select(vec![">=", ">=", "^", "^", "~", ">", "<", "<=", "="]);
        let short = (number(), proptest::option::of(number())).prop_map(|(major, minor)| match minor {
            Some(minor) => format!("{major}.{minor}"),
            None => format!("{major}"),
        });
        let single = (op, prop_oneof![3 => version(), 1 => short]).prop_map(|(op, version)| format!("{op}{version}"));
        let range = (version(), version()).prop_map(|(from, to)| format!(">={from}, <{to}"));
        let list = || proptest::collection::vec(prop_oneof![single.clone(), range.clone()], 0..3);
        (version(), list(), list())
    }

    #[test]
    fn a_pre_release_of_what_a_range_ends_before_is_not_in_it() {
        let versions: Versions = toml::from_str("patched = [\"^0.4.20\", \">=0.5.1\"]").unwrap();
        let concern = |version: &str| versions.concern(&version.parse().unwrap());
        assert!(concern("0.5.0-alpha.1") && concern("0.5.0") && concern("0.4.19"));
        assert!(!concern("0.4.21") && !concern("0.5.1") && !concern("0.6.0-alpha.1"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_096))]

        #[test]
        fn versions_are_told_apart_as_the_databases_own_library_does((version, patched, unaffected) in text()) {
            let toml = format!("patched = {patched:?}\nunaffected = {unaffected:?}");
            let version: Version = version.parse().unwrap();
            // It refuses what overlaps or is empty, and breaks off at two ranges that begin at one version: none of that stands
            // in a database.
            let theirs = std::panic::catch_unwind(|| {
                toml::from_str::<rustsec::advisory::Versions>(&toml).ok().map(|read| read.is_vulnerable(&version))
            });
            if let Ok(Some(theirs)) = theirs {
                let ours: Versions = toml::from_str(&toml).unwrap();
                prop_assert_eq!(ours.concern(&version), theirs);
            }
        }
    }
}
