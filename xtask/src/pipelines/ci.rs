//! `ci`: the checks of this repository, but for the scenes that play whole releases.

use plimsoll::prelude::*;

/// The members of the workspace, and for each the members it may be built from. A step is made per member, and a graph is
/// built from its inputs alone, so they are named here; the step `tidy` and a test hold the list to what is there.
const MEMBERS: [(&str, &[&str]); 15] = [
    ("kairos", &[]),
    (
        "plimsoll",
        &[
            "-attest",
            "-core",
            "-deploy",
            "-docker",
            "-engine",
            "-http",
            "-kubernetes",
            "-local",
            "-oci",
            "-process",
            "-steps",
        ],
    ),
    ("plimsoll-attest", &["-core"]),
    ("plimsoll-core", &[]),
    ("plimsoll-deploy", &["-core", "-http"]),
    // Containers for the local target's supervisor.
    ("plimsoll-docker", &["-core", "-deploy", "-local"]),
    ("plimsoll-engine", &["-core", "-process"]),
    ("plimsoll-http", &["-core"]),
    // The local target runs images itself, so it reads them.
    ("plimsoll-kubernetes", &["-core", "-deploy", "-process"]),
    ("plimsoll-local", &["-core", "-deploy", "-http", "-oci", "-process"]),
    ("plimsoll-oci", &["-core", "-http"]),
    ("plimsoll-process", &[]),
    ("plimsoll-scan", &["-core"]),
    // One step has an engine build an image.
    ("plimsoll-steps", &["-attest", "-core", "-deploy", "-docker", "-engine", "-http", "-oci", "-process", "-scan"]),
    ("xtask", &[""]),
];

/// What plays whole releases on real servers, or builds packages of its own, for many minutes, or reads what no step knows that
/// it reads, as charts, overlays, an engine and a cluster: `cargo test --workspace` has them.
const SCENES: [(&str, &[&str]); 6] = [
    ("plimsoll-docker", &["docker_target"]),
    ("plimsoll-engine", &["ui"]),
    ("plimsoll-kubernetes", &["cluster"]),
    ("plimsoll-local", &["local_target"]),
    ("plimsoll-steps", &["docker_build", "proofs"]),
    ("xtask", &["kairos", "manifests", "release"]),
];

/// The graph of the checks.
#[expect(clippy::unnecessary_wraps, reason = "the shape all pipelines have")]
pub(crate) fn ci(g: &mut Graph<'_>, inputs: &Inputs) -> Result<(), StepError> {
    g.pure("", Fmt, ());
    g.pure("", Tidy { directions: directions() }, ());
    g.pure("", Clippy { packages: Vec::new() }, ());
    for (package, _) in MEMBERS {
        let scenes = SCENES.iter().filter(|(of, _)| *of == package).flat_map(|(_, scenes)| scenes.iter().copied());
        g.pure(package, Test::of(package).without(scenes), ());
    }
    g.pure("", Docs { packages: Vec::new() }, ());
    g.pure("", Advisories::new(inputs), ());
    g.pure("", Deny::new(), ());
    g.pure("", Unused::new(), ());
    g.pure("", Licences::of(["kairos"]), ());
    Ok(())
}

fn directions() -> Directions {
    let allowed = |of: &[&str]| of.iter().map(|end| format!("plimsoll{end}")).collect();
    MEMBERS.iter().map(|(name, of)| ((*name).to_owned(), allowed(of))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, fs, path::Path};

    #[test]
    fn every_member_of_the_workspace_is_checked() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
        let crates = fs::read_dir(root.join("crates")).expect("the workspace has crates");
        let names = crates.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let there: BTreeSet<String> = names.chain(["xtask".to_owned()]).collect();
        let checked: BTreeSet<String> = MEMBERS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(checked, there);
    }

    #[test]
    fn the_allowed_directions_have_no_cycle() {
        let directions = directions();
        let mut done = BTreeSet::new();
        // Each round settles at least one member, or there is a cycle.
        for _ in 0..directions.len() {
            let ready = directions.iter().filter(|(_, of)| of.iter().all(|name| done.contains(name)));
            let ready: Vec<String> = ready.map(|(name, _)| name.clone()).collect();
            done.extend(ready);
        }
        assert_eq!(done.len(), directions.len());
    }
}
