//! Provenance: how an image was built, of what and by whom (SLSA build provenance v1).
//!
//! It is told of what was really there, also on a laptop: who built it is then nobody whose word counts for much, and the
//! provenance says so by its builder.

use plimsoll_core::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What kind of build it is: which parameters there are, and what they mean (`docs/book/supply-chain.md`).
const BUILD_TYPE: &str = "urn:plimsoll:build:v1";

/// Who builds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Builder {
    /// An address that stands for everybody who could have changed the build.
    pub id: String,
    /// Which run it was, as the builder names its runs.
    pub run: Option<String>,
}

impl Builder {
    /// Somebody's own machine.
    pub fn local() -> Self {
        Self { id: "urn:plimsoll:builder:local".to_owned(), run: None }
    }
}

/// How an image was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Where the sources come from, such as `https://github.com/example/shop`.
    pub repository: String,
    /// The commit, with `-dirty` behind it when the tree differed from it.
    pub revision: String,
    /// The parameters that somebody chose: service, package, binary, or a Dockerfile.
    pub parameters: BTreeMap<String, String>,
    /// What it was compiled with, by platform: names such as `rustc`, `linker`, `libc`, and what they are.
    pub toolchains: BTreeMap<String, BTreeMap<String, String>>,
    /// Other files that decided, such as the lock file.
    pub materials: Vec<Material>,
}

/// A file that decided about a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Material {
    /// Its path in the repository.
    pub path: String,
    /// Its digest.
    pub digest: Digest,
}

/// The predicate of a build by a builder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// What was built.
    pub build: Build,
    /// Who built it.
    pub builder: Builder,
    /// Plimsoll's version.
    pub version: String,
}

impl Provenance {
    /// As SLSA writes it.
    pub fn predicate(&self) -> Value {
        let Build { repository, revision, parameters, toolchains, materials } = &self.build;
        let mut sources = json!({ "uri": format!("git+{repository}"), "annotations": { "revision": revision } });
        // Sources that no commit has have no digest: `uncommitted`, or a commit with `-dirty` behind it.
        if revision.len() >= 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            sources["digest"] = json!({ "gitCommit": revision });
        }
        let files = materials.iter().map(|file| {
            let digest = BTreeMap::from([(file.digest.algorithm().name(), file.digest.hex())]);
            json!({ "uri": format!("git+{repository}#{}", file.path), "name": file.path, "digest": digest })
        });
        let dependencies: Vec<Value> = std::iter::once(sources).chain(files).collect();
        let mut run = json!({ "builder": { "id": self.builder.id, "version": { "plimsoll": self.version } } });
        if let Some(id) = &self.builder.run {
            run["metadata"] = json!({ "invocationId": id });
        }
        json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": parameters,
                "internalParameters": { "toolchains": toolchains },
                "resolvedDependencies": dependencies,
            },
            "runDetails": run,
        })
    }
}

/// What a provenance tells of a build, whoever wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Repositories with the commits that were built.
    pub sources: Vec<(String, String)>,
    /// Who built it.
    pub builder: Option<String>,
    /// What it was compiled with, by platform and role; empty where the builder says nothing of it.
    pub toolchains: BTreeMap<String, BTreeMap<String, String>>,
}

impl Told {
    /// Reads a predicate.
    pub fn read(predicate: &Value) -> Self {
        let definition = &predicate["buildDefinition"];
        let source = |dependency: &Value| {
            let revision = dependency["annotations"]["revision"].as_str();
            let commit = revision.or_else(|| dependency["digest"]["gitCommit"].as_str())?;
            let uri = dependency["uri"].as_str()?.trim_start_matches("git+");
            // Others put the branch behind it: `https://…/shop@refs/heads/main`.
            let repository = uri.split_once("@refs/").map_or(uri, |(repository, _)| repository);
            Some((repository.trim_end_matches(".git").to_owned(), commit.to_owned()))
        };
        let dependencies = definition["resolvedDependencies"].as_array();
        let toolchains = definition["internalParameters"]["toolchains"].clone();
        Self {
            builder: predicate["runDetails"]["builder"]["id"].as_str().map(str::to_owned),
            sources: dependencies.into_iter().flatten().filter_map(source).collect(),
            toolchains: serde_json::from_value(toolchains).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provenance(revision: &str) -> Value {
        let build = Build {
            repository: "https://h.example/shop".into(),
            revision: revision.into(),
            parameters: BTreeMap::from([("service".into(), "web".into())]),
            toolchains: BTreeMap::from([("linux/amd64".into(), BTreeMap::from([("rustc".into(), "1.95.0".into())]))]),
            materials: vec![Material { path: "Cargo.lock".into(), digest: Digest::of(b"lock") }],
        };
        Provenance { build, builder: Builder::local(), version: "1.0.0".into() }.predicate()
    }

    #[test]
    fn it_reads_as_slsa_writes_it() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        insta::assert_snapshot!(serde_json::to_string_pretty(&provenance(commit)).unwrap());
        let told = Told::read(&provenance(commit));
        assert_eq!(told.toolchains["linux/amd64"]["rustc"], "1.95.0");
        assert_eq!(told.sources, [("https://h.example/shop".to_owned(), commit.to_owned())]);
    }

    #[test]
    fn changes_that_no_commit_has_are_said() {
        let dirty = "0123456789abcdef0123456789abcdef01234567-dirty";
        assert_eq!(Told::read(&provenance(dirty)).sources[0].1, dirty);
        for revision in [dirty, "uncommitted"] {
            let source = &provenance(revision)["buildDefinition"]["resolvedDependencies"][0];
            assert_eq!((&source["annotations"]["revision"], source.get("digest")), (&json!(revision), None));
        }
    }

    #[test]
    fn sources_of_another_builder_are_found() {
        let theirs = json!({ "buildDefinition": { "resolvedDependencies": [
            { "uri": "git+https://h.example/shop.git@refs/heads/main", "digest": { "gitCommit": "abc" } },
            { "uri": "pkg:generic/base", "digest": { "sha256": "00" } },
        ] } });
        assert_eq!(Told::read(&theirs).sources, [("https://h.example/shop".to_owned(), "abc".to_owned())]);
        assert_eq!(Told::read(&Value::Null), Told::default());
    }
}
