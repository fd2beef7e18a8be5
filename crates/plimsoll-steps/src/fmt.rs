//! `fmt`: every source file is formatted as rustfmt would.

use crate::{cargo, workspace::Workspace};
use plimsoll_engine::{Cx, Pure, Reads, Step, StepError};
use serde::Serialize;

/// Runs `cargo fmt --all --check`.
#[derive(Debug, Serialize)]
pub struct Fmt;

impl Step for Fmt {
    const NAME: &'static str = "fmt";
    const VERSION: u32 = 1;
    type In = ();
    type Out = ();
}

impl Pure for Fmt {
    fn is_shared(&self) -> bool {
        true
    }

    fn reads(&self, cx: &Cx) -> Result<Reads, StepError> {
        let workspace = cx.resource::<Workspace>()?;
        let is_rust = |path: &&std::path::PathBuf| path.extension().is_some_and(|e| e == "rs");
        let named = |path: &&std::path::PathBuf| {
            path.file_name().is_some_and(|n| ["rustfmt.toml", ".rustfmt.toml", "Cargo.toml"].iter().any(|c| n == *c))
        };
        let mut reads = workspace.toolchain_reads();
        workspace.add_files(&mut reads, workspace.files().iter().filter(|p| is_rust(p) || named(p)))?;
        Ok(reads)
    }

    async fn run(&self, cx: &Cx, (): ()) -> Result<(), StepError> {
        cargo::check(cx, "rustfmt", cargo::cargo(cx, &["fmt", "--all", "--check"]))
            .await
            .map_err(|e| e.with_hint("`cargo fmt --all` mends it"))
    }
}
