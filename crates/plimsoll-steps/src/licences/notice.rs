//! What is linked in, by licence, as cargo's metadata tells it; and the document that says so.

use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// What files with a licence's text begin with, in whatever case.
const TEXTS: [&str; 5] = ["license", "licence", "copying", "notice", "unlicense"];
/// The largest licence text that is taken; the longest well-known ones have 35 kB.
const MAX_TEXT: u64 = 256 * 1024;

/// A crate that is linked in and is somebody else's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Crate {
    pub(super) name: String,
    pub(super) version: String,
    /// Its licence as an SPDX expression, as its authors wrote it.
    pub(super) expression: Option<String>,
    /// The texts that come with it.
    texts: Vec<String>,
}

/// Everything that is linked in.
#[derive(Debug)]
pub(super) struct Notice(Vec<Crate>);

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
    workspace_members: Vec<String>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    license_file: Option<PathBuf>,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<EdgeKind>,
}

#[derive(Deserialize)]
struct EdgeKind {
    kind: Option<String>,
}

impl Notice {
    /// Out of cargo's metadata, for what is linked into `packages`.
    pub(super) fn read(metadata: &[u8], packages: &[String]) -> Result<Self, serde_json::Error> {
        let Metadata { packages: all, resolve, workspace_members } = serde_json::from_slice(metadata)?;
        let edges: HashMap<&str, &[Edge]> = resolve.nodes.iter().map(|n| (n.id.as_str(), n.deps.as_slice())).collect();
        let known: HashMap<&str, &Package> = all.iter().map(|package| (package.id.as_str(), package)).collect();
        let wanted = |package: &&Package| packages.contains(&package.name) && workspace_members.contains(&package.id);
        let mut open: Vec<&str> = all.iter().filter(wanted).map(|package| package.id.as_str()).collect();
        let mut linked: BTreeSet<&str> = open.iter().copied().collect();
        while let Some(id) = open.pop() {
            // Build scripts, tests and procedural macros run where it is built and are not shipped.
            let normal = |edge: &&Edge| {
                edge.dep_kinds.iter().any(|kind| kind.kind.is_none())
                    && known.get(edge.pkg.as_str()).is_some_and(|package| !package.is_macro())
            };
            let next = edges.get(id).copied().unwrap_or_default().iter().filter(normal).map(|edge| edge.pkg.as_str());
            open.extend(next.filter(|id| linked.insert(id)));
        }
        let others = linked.iter().filter(|id| !workspace_members.iter().any(|member| member == *id));
        let mut crates: Vec<Crate> = others.filter_map(|id| known.get(id)).map(|package| package.told()).collect();
        crates.sort();
        Ok(Self(crates))
    }

    /// The crates, by name and version.
    pub(super) fn crates(&self) -> &[Crate] {
        &self.0
    }

    /// As a document: a table of licences, then each text once, with the crates that come with it.
    pub(super) fn markdown(&self) -> String {
        let mut by_expression: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let mut by_text: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for one in &self.0 {
            let name = format!("{} {}", one.name, one.version);
            by_expression.entry(one.expression.as_deref().unwrap_or("none named")).or_default().push(name.clone());
            for text in &one.texts {
                by_text.entry(text).or_default().push(name.clone());
            }
        }
        let mut out =
            format!("# Licences\n\n{} crates are linked in.\n\n| licence | crates |\n|---|---|\n", self.0.len());
        for (expression, crates) in &by_expression {
            let _ = writeln!(out, "| {} | {} |", expression.replace('|', "\\|"), crates.join(", "));
        }
        // The texts that most come with stand first.
        let mut texts: Vec<(&str, Vec<String>)> = by_text.into_iter().collect();
        texts.sort_by_key(|(_, crates)| std::cmp::Reverse(crates.len()));
        for (text, crates) in texts {
            let _ = write!(out, "\n## {}\n\n", crates.join(", "));
            out.extend(text.lines().map(|line| format!("    {line}\n")));
        }
        out
    }
}

impl Package {
    fn is_macro(&self) -> bool {
        self.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "proc-macro"))
    }

    fn told(&self) -> Crate {
        let directory = self.manifest_path.parent().unwrap_or(Path::new("/"));
        let listed = fs::read_dir(directory).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        let is_text = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            TEXTS.iter().any(|word| name.starts_with(word))
        };
        let named = self.license_file.iter().map(|file| directory.join(file));
        let paths: BTreeSet<PathBuf> = listed.filter(is_text).chain(named).collect();
        let small = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_TEXT);
        let texts = paths.into_iter().filter(small).filter_map(|path| fs::read_to_string(path).ok());
        let texts = texts.map(|text| text.trim_end().to_owned()).collect();
        Crate { name: self.name.clone(), version: self.version.clone(), expression: self.license.clone(), texts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(at: &Path, name: &str, license: Option<&str>, kind: &str) -> serde_json::Value {
        let directory = at.join(name);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("LICENSE-MIT"), "Permission is granted").unwrap();
        fs::write(directory.join("lib.rs"), "").unwrap();
        json!({ "id": name, "name": name, "version": "1.0.0", "license": license, "license_file": null,
                "manifest_path": directory.join("Cargo.toml"), "targets": [{ "kind": [kind] }] })
    }

    #[test]
    fn what_is_linked_in_is_told_by_licence_with_each_text_once() {
        let at = tempfile::tempdir().unwrap();
        let of = |name, license, kind| package(at.path(), name, license, kind);
        let edge = |to: &str, kind: Option<&str>| json!({ "pkg": to, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": [
                of("shop", Some("MIT"), "bin"), of("a", Some("MIT"), "lib"), of("b", None, "lib"),
                of("derive", Some("MIT"), "proc-macro"), of("build", Some("MIT"), "lib"),
            ],
            "workspace_members": ["shop"],
            "resolve": { "nodes": [
                { "id": "shop", "deps": [edge("a", None), edge("derive", None), edge("build", Some("build"))] },
                { "id": "a", "deps": [edge("b", None)] },
                { "id": "b", "deps": [] },
            ] },
        });
        let notice = Notice::read(metadata.to_string().as_bytes(), &["shop".to_owned()]).unwrap();
        let expected = "# Licences\n\n2 crates are linked in.\n\n| licence | crates |\n|---|---|\n| MIT | a 1.0.0 |\n\
                        | none named | b 1.0.0 |\n\n## a 1.0.0, b 1.0.0\n\n    Permission is granted\n";
        assert_eq!(notice.markdown(), expected);
    }
}
