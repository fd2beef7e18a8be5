//! `semver-checks`: what a library offers fits its version, compared with the version released last. By cargo-semver-checks.

use crate::{
    cargo,
    inputs::Inputs,
    scan::{Scanned, Scanner, conclude},
    workspace::Workspace,
};
use plimsoll_engine::{Cx, Pure, Reads, Step, StepError};
use plimsoll_scan::semver_checks::findings;
use serde::Serialize;

const CHECKS: Scanner = Scanner { program: "cargo-semver-checks" };
/// The tool's word for findings; others are failures.
const FOUND: i32 = 100;

/// Runs `cargo semver-checks` for one library, against the tag of its last version that is part of what is checked out.
#[derive(Debug, Serialize)]
pub struct SemverChecks {
    package: String,
    /// The tag; none before the first version.
    baseline: Option<String>,
    required: bool,
}

impl SemverChecks {
    /// For a library of the workspace that `inputs` are about. Skipped, and said so, where cargo-semver-checks is not
    /// installed, and as long as nothing is tagged.
    pub fn of(package: impl Into<String>, inputs: &Inputs) -> Self {
        Self { package: package.into(), baseline: inputs.source.tag.clone(), required: false }
    }

    /// Fails where it is not installed.
    #[must_use]
    pub fn required(self) -> Self {
        Self { required: true, ..self }
    }
}

impl Step for SemverChecks {
    const NAME: &'static str = "semver-checks";
    const VERSION: u32 = 1;
    type In = ();
    type Out = Scanned;

    fn exclusive(&self) -> Option<&'static str> {
        Some("cargo's build directory")
    }
}

impl Pure for SemverChecks {
    fn reads(&self, cx: &Cx) -> Result<Reads, StepError> {
        let packages = std::slice::from_ref(&self.package);
        let mut reads = cx.resource::<Workspace>()?.reads_of(packages, false, cx.environment())?;
        CHECKS.add_to(&mut reads, cx);
        Ok(reads)
    }

    async fn run(&self, cx: &Cx, (): ()) -> Result<Scanned, StepError> {
        let Some(baseline) = &self.baseline else {
            cx.skip("no version is tagged yet that it could be compared with");
            return Ok(Scanned::NOTHING);
        };
        if CHECKS.find(cx, self.required)?.is_none() {
            return Ok(Scanned::NOTHING);
        }
        let workspace = cx.resource::<Workspace>()?;
        let package = workspace.packages().get(&self.package).expect("what it reads was found by its name");
        let args = ["semver-checks", "--baseline-rev", baseline, "--package", &self.package, "--color", "never"];
        let output = cx.output(cargo::cargo(cx, &args)).await?;
        let found = findings(&output.stdout_text(), &self.package, &package.dir.to_string_lossy());
        if output.exit.success() || (output.exit.code == Some(FOUND) && !found.is_empty()) {
            return conclude(cx, CHECKS.program, &found);
        }
        Err(StepError::external(format!("cargo-semver-checks could not compare {} with {baseline}", self.package))
            .with_detail(output.exit.stderr_tail))
    }

    fn usable(&self, cx: &Cx, scanned: &Scanned) -> bool {
        scanned.is_there(cx)
    }
}
