//! `unused`: dependencies that a manifest names and no source uses. By cargo-machete, which reads and does not compile.

use crate::{
    cargo,
    scan::{Scanned, Scanner, conclude},
    workspace::Workspace,
};
use plimsoll_engine::{Cx, Pure, Reads, Step, StepError};
use plimsoll_scan::unused::findings;
use serde::Serialize;

const MACHETE: Scanner = Scanner { program: "cargo-machete" };
/// The tool's word for findings; others are failures.
const FOUND: i32 = 1;

/// Runs `cargo machete` over the members' directories.
#[derive(Debug, Default, Serialize)]
pub struct Unused {
    required: bool,
}

impl Unused {
    /// Skipped, and said so, where cargo-machete is not installed.
    pub const fn new() -> Self {
        Self { required: false }
    }

    /// Fails where it is not installed.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }
}

impl Step for Unused {
    const NAME: &'static str = "unused";
    const VERSION: u32 = 1;
    type In = ();
    type Out = Scanned;
}

impl Pure for Unused {
    fn reads(&self, cx: &Cx) -> Result<Reads, StepError> {
        let workspace = cx.resource::<Workspace>()?;
        let mut reads = workspace.manifest_reads()?;
        let sources = workspace.files().iter().filter(|file| file.extension().is_some_and(|e| e == "rs"));
        workspace.add_files(&mut reads, sources)?;
        MACHETE.add_to(&mut reads, cx);
        Ok(reads)
    }

    async fn run(&self, cx: &Cx, (): ()) -> Result<Scanned, StepError> {
        if MACHETE.find(cx, self.required)?.is_none() {
            return Ok(Scanned::NOTHING);
        }
        let output = cx.output(cargo::cargo(cx, &["machete", "--with-metadata", "."])).await?;
        let text = output.stdout_text();
        let found = findings(&text);
        if output.exit.success() || (output.exit.code == Some(FOUND) && !found.is_empty()) {
            return conclude(cx, MACHETE.program, &found);
        }
        Err(StepError::external("cargo-machete failed").with_detail(output.exit.stderr_tail))
    }

    fn usable(&self, cx: &Cx, scanned: &Scanned) -> bool {
        scanned.is_there(cx)
    }
}
