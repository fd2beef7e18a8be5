//! `deny`: licences, duplicates, banned crates and sources, as `deny.toml` has them. By cargo-deny; advisories have a step of
//! their own, because they change without the workspace.

use crate::{
    cargo,
    scan::{Scanned, Scanner, conclude},
    workspace::Workspace,
};
use plimsoll_engine::{Cx, Pure, Reads, Step, StepError};
use plimsoll_scan::deny::findings;
use serde::Serialize;
use std::path::PathBuf;

const DENY: Scanner = Scanner { program: "cargo-deny" };
const CONFIGURATION: [&str; 3] = ["deny.toml", ".deny.toml", ".cargo/deny.toml"];

/// Runs `cargo deny check bans licenses sources`.
#[derive(Debug, Default, Serialize)]
pub struct Deny {
    required: bool,
}

impl Deny {
    /// Skipped, and said so, where cargo-deny is not installed.
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

impl Step for Deny {
    const NAME: &'static str = "deny";
    const VERSION: u32 = 1;
    type In = ();
    type Out = Scanned;
}

impl Pure for Deny {
    fn reads(&self, cx: &Cx) -> Result<Reads, StepError> {
        let workspace = cx.resource::<Workspace>()?;
        let mut reads = workspace.manifest_reads()?;
        workspace.add_files(&mut reads, &CONFIGURATION.map(PathBuf::from))?;
        DENY.add_to(&mut reads, cx);
        Ok(reads)
    }

    async fn run(&self, cx: &Cx, (): ()) -> Result<Scanned, StepError> {
        if DENY.find(cx, self.required)?.is_none() {
            return Ok(Scanned::NOTHING);
        }
        let args = ["deny", "--all-features", "--format", "json", "--color", "never", "check"];
        let wanted = ["bans", "licenses", "sources"];
        let output = cx.output(cargo::cargo(cx, &[&args[..], &wanted].concat())).await?;
        let scanned = conclude(cx, DENY.program, &findings(&output.stderr_text(), "Cargo.lock"))?;
        if output.exit.success() {
            return Ok(scanned);
        }
        // It failed for a reason that is none of its findings.
        Err(StepError::external("cargo-deny failed").with_detail(output.exit.stderr_tail))
    }

    fn usable(&self, cx: &Cx, scanned: &Scanned) -> bool {
        scanned.is_there(cx)
    }
}
