//! `tidy`: rules of this workspace that no other tool checks: crate directions and module headers.

use crate::workspace::Workspace;
use plimsoll_engine::{Cx, Pure, Reads, Step, StepError};
use serde::Serialize;
use std::{collections::BTreeMap, fs, path::Path};

/// Which member may depend on which; members that are not listed may depend on anything.
pub type Directions = BTreeMap<String, Vec<String>>;

/// Checks the workspace against its rules.
#[derive(Debug, Serialize)]
pub struct Tidy {
    /// The allowed dependencies between members, tests apart.
    pub directions: Directions,
}

impl Step for Tidy {
    const NAME: &'static str = "tidy";
    const VERSION: u32 = 1;
    type In = ();
    type Out = ();
}

impl Pure for Tidy {
    fn is_shared(&self) -> bool {
        true
    }

    fn reads(&self, cx: &Cx) -> Result<Reads, StepError> {
        let workspace = cx.resource::<Workspace>()?;
        let mut reads = Reads::nothing();
        let counts = |p: &&std::path::PathBuf| {
            p.extension().is_some_and(|e| e == "rs") || p.file_name().is_some_and(|n| n == "Cargo.toml")
        };
        workspace.add_files(&mut reads, workspace.files().iter().filter(counts))?;
        Ok(reads)
    }

    async fn run(&self, cx: &Cx, (): ()) -> Result<(), StepError> {
        let workspace = cx.resource::<Workspace>()?;
        let mut found = wrong_directions(&workspace, &self.directions);
        found.extend(missing_headers(&workspace));
        if found.is_empty() {
            Ok(())
        } else {
            Err(StepError::check("the workspace breaks its own rules").with_detail(found))
        }
    }
}

fn wrong_directions(workspace: &Workspace, directions: &Directions) -> Vec<String> {
    let mut found = Vec::new();
    for (name, allowed) in directions {
        let Some(package) = workspace.packages().get(name) else {
            found.push(format!("{name} has rules but is not in the workspace"));
            continue;
        };
        let wrong = package.dependencies.iter().filter(|d| !allowed.contains(d));
        found.extend(wrong.map(|d| format!("{name} must not depend on {d}")));
    }
    found
}

fn missing_headers(workspace: &Workspace) -> Vec<String> {
    let is_module =
        |path: &Path| path.extension().is_some_and(|e| e == "rs") && path.components().any(|c| c.as_os_str() == "src");
    let without = |path: &&std::path::PathBuf| {
        let text = fs::read_to_string(workspace.root().join(path)).unwrap_or_default();
        !text.trim_start().starts_with("//!")
    };
    let modules = workspace.files().iter().filter(|p| is_module(p) && workspace.root().join(p).exists());
    modules.filter(without).map(|p| format!("{}:1 does not begin with `//!`", p.display())).collect()
}
