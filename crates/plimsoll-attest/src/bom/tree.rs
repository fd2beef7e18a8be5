//! What `cargo tree` says of one package, read.

use super::Component;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What is linked into one executable: the package that it is of comes first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Linked {
    components: Vec<Component>,
    needs: BTreeSet<(usize, usize)>,
}

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
}

impl Locked {
    /// Whether it is the package with this name and version at a place as `cargo tree` shows it: in parentheses a path, or the
    /// address of a repository or of another registry; nothing for crates.io.
    fn is(&self, name: &str, version: &str, place: &str) -> bool {
        let source = self.source.as_deref().unwrap_or_default();
        let place = place.trim_matches(['(', ')']);
        let fits = match (place, source.strip_prefix("git+")) {
            ("", git) => !source.is_empty() && git.is_none(),
            (_, Some(git)) => place.split('#').next() == git.split('#').next(),
            (_, None) => source.is_empty() || place.contains("registry"),
        };
        self.name == name && self.version == version && fits
    }
}

impl Linked {
    /// Reads the lines of `cargo tree --prefix depth --format "{p}<TAB>{l}"`, and checksums out of the lock file. Nothing if
    /// they do not read as such.
    pub fn parse(tree: &str, lock: &str) -> Option<Self> {
        let lock: Lock = toml::from_str(lock).ok()?;
        let mut this = Self { components: Vec::new(), needs: BTreeSet::new() };
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        let mut above: Vec<usize> = Vec::new();
        for line in tree.lines().filter(|line| !line.is_empty()) {
            let digits = line.find(|c: char| !c.is_ascii_digit())?;
            let depth: usize = line[..digits].parse().ok()?;
            let (package, licence) = line[digits..].split_once('\t')?;
            // `name v1.2.3 (path or source) (proc-macro)`; what was shown before has a star behind its line.
            let mut words = package.split(' ');
            let (name, version) = (words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned());
            let licence = licence.trim_end_matches("(*)").trim();
            let place = words.next().unwrap_or_default();
            let at = *known.entry(package.to_owned()).or_insert_with(|| {
                let locked = lock.package.iter().find(|one| one.is(&name, &version, place));
                this.components.push(component(name, version, licence, locked));
                this.components.len() - 1
            });
            above.truncate(depth);
            if above.len() != depth {
                return None;
            }
            if let Some(parent) = above.last() {
                this.needs.insert((*parent, at));
            }
            above.push(at);
        }
        (!this.components.is_empty()).then_some(this)
    }

    /// With something that every executable has in it, such as the standard library.
    pub fn with(mut self, component: Component) -> Self {
        self.components.push(component);
        self.needs.insert((0, self.components.len() - 1));
        self
    }

    pub(super) fn root(&self) -> &Component {
        &self.components[0]
    }

    pub(super) fn components(&self) -> &[Component] {
        &self.components
    }

    pub(super) fn needs(&self, at: usize) -> impl Iterator<Item = usize> {
        self.needs.range((at, 0)..=(at, usize::MAX)).map(|(_, needed)| *needed)
    }
}

fn component(name: String, version: String, licence: &str, locked: Option<&Locked>) -> Component {
    let source = locked.and_then(|locked| locked.source.as_deref());
    let purl = source.map(|source| {
        let place = if source.contains("github.com/rust-lang/crates.io-index") || source.contains("index.crates.io") {
            String::new()
        } else if let Some(git) = source.strip_prefix("git+") {
            format!("?vcs_url=git%2B{}", escaped(git))
        } else {
            let registry = source.trim_start_matches("registry+").trim_start_matches("sparse+");
            format!("?repository_url={}", escaped(registry))
        };
        format!("pkg:cargo/{name}@{}{place}", escaped(&version))
    });
    let sha256 = locked.and_then(|locked| locked.checksum.clone());
    let licence = (!licence.is_empty()).then(|| licence.to_owned());
    Component { name, version, purl, licence, sha256 }
}

/// Percent-encoding of all that a package URL may not hold as it is.
fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"
        [[package]]
        name = "a"
        version = "1.0.0+x"
        source = "registry+https://github.com/rust-lang/crates.io-index"
        checksum = "00"
        [[package]]
        name = "b"
        version = "2.0.0"
        source = "git+https://h.example/b?rev=1#1234"
    "#;

    #[test]
    fn what_needs_what_is_read_and_repetitions_count_once() {
        let tree = "0shop v0.1.0 (/w)\tMIT\n1a v1.0.0+x\t\n2b v2.0.0 (https://h.example/b?rev=1#1234)\tMIT\n1b v2.0.0 (https://h.example/b?rev=1#1234)\tMIT (*)\n";
        let linked = Linked::parse(tree, LOCK).unwrap();
        let [shop, a, b] = linked.components() else { panic!("{linked:?}") };
        assert_eq!((shop.purl.as_deref(), shop.licence.as_deref()), (None, Some("MIT")));
        assert_eq!((a.purl.as_deref(), a.sha256.as_deref()), (Some("pkg:cargo/a@1.0.0%2Bx"), Some("00")));
        assert!(b.purl.as_deref().unwrap().starts_with("pkg:cargo/b@2.0.0?vcs_url=git%2Bhttps%3A%2F%2Fh.example%2Fb"));
        assert_eq!((b.licence.as_deref(), a.licence.as_deref()), (Some("MIT"), None));
        assert_eq!([0, 1, 2].map(|at| linked.needs(at).collect::<Vec<_>>()), [vec![1, 2], vec![2], vec![]]);
    }

    #[test]
    fn one_version_of_two_places_is_two_packages() {
        let lock = r#"
            [[package]]
            name = "a"
            version = "1.0.0"
            source = "git+https://h.example/a?rev=1#12"
            [[package]]
            name = "a"
            version = "1.0.0"
            source = "registry+https://github.com/rust-lang/crates.io-index"
            checksum = "00"
        "#;
        let tree = "0shop v0.1.0 (/w)\t\n1a v1.0.0\t\n1a v1.0.0 (https://h.example/a?rev=1#12)\t\n";
        let linked = Linked::parse(tree, lock).unwrap();
        let sums: Vec<_> = linked.components().iter().map(|one| one.sha256.as_deref()).collect();
        assert_eq!(sums, [None, Some("00"), None]);
        assert!(linked.components()[2].purl.as_deref().unwrap().contains("vcs_url"));
    }

    #[test]
    fn what_is_no_tree_is_not_taken_for_one() {
        for tree in ["", "shop v0.1.0\t", "0shop\t", "0shop v0.1.0", "0shop v0.1.0\t\n2a v1.0.0\t", "0shop 0.1.0\t"] {
            assert_eq!(Linked::parse(tree, ""), None, "{tree:?}");
        }
        assert_eq!(Linked::parse("0shop v0.1.0\t", "no = "), None);
    }
}
