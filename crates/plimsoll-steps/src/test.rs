//! `test`: a package's tests and doc tests, with all features. By cargo-nextest where it is installed, else by `cargo test`;
//! a JUnit report either way. Only green verdicts are cached, as of every step.

mod junit;
mod libtest;

use crate::{cargo, workspace::Workspace};
use libtest::Outcome;
use plimsoll_engine::{Cx, Pure, Reads, Step, StepError, write_atomically};
use plimsoll_process::which;
use serde::{Deserialize, Serialize};
use std::{fs, path::PathBuf};

/// Runs the tests of one package.
#[derive(Debug, Serialize)]
pub struct Test {
    /// The package.
    pub package: String,
}

/// What the tests of a package said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestReport {
    /// The package.
    pub package: String,
    /// Tests that passed.
    pub passed: usize,
    /// Tests that were marked to be ignored.
    pub ignored: usize,
    /// What ran them: `nextest` or `cargo test`.
    pub runner: String,
    /// Where the JUnit report lies, relative to the workspace's root.
    pub junit: PathBuf,
}

impl Step for Test {
    const NAME: &'static str = "test";
    const VERSION: u32 = 1;
    type In = ();
    type Out = TestReport;

    fn exclusive(&self) -> Option<&'static str> {
        Some("cargo's build directory")
    }

    fn timeout(&self) -> std::time::Duration {
        std::time::Duration::from_hours(1)
    }
}

impl Pure for Test {
    fn reads(&self, cx: &Cx) -> Result<Reads, StepError> {
        cx.resource::<Workspace>()?.reads_of(std::slice::from_ref(&self.package), true, cx.environment())
    }

    async fn run(&self, cx: &Cx, (): ()) -> Result<TestReport, StepError> {
        let nextest = which("cargo-nextest", cx.environment()).is_some();
        let package = self.package.as_str();
        let common = ["--locked", "--all-features", "--package", package];
        let mut failed = None;
        if nextest {
            let args = [&["nextest", "run", "--no-tests=pass", "--no-fail-fast"][..], &common].concat();
            failed = failed.or(run(cx, &args).await?);
            if has_library(cx, package)? {
                failed = failed.or(run(cx, &[&["test", "--doc"][..], &common].concat()).await?);
            }
        } else {
            failed = run(cx, &[&["test", "--no-fail-fast"][..], &common].concat()).await?;
        }
        let log = fs::read_to_string(cx.log_path()).unwrap_or_default();
        let cases = libtest::parse(&log);
        let junit = PathBuf::from(".plimsoll/reports").join(format!("junit-{package}.xml"));
        write_atomically(&cx.root().join(&junit), junit::render(package, &cases).as_bytes())
            .map_err(|e| StepError::external(format!("cannot write {}", junit.display())).caused_by(&e))?;
        let count = |outcome: Outcome| cases.iter().filter(|c| c.outcome == outcome).count();
        let runner = if nextest { "nextest" } else { "cargo test" }.to_owned();
        match failed {
            None => Ok(TestReport {
                package: self.package.clone(),
                passed: count(Outcome::Passed),
                ignored: count(Outcome::Ignored),
                runner,
                junit,
            }),
            Some(detail) => {
                let failing = cases.iter().filter(|c| c.outcome == Outcome::Failed);
                let names: Vec<String> = failing.map(|c| format!("{} {}", c.suite, c.name)).collect();
                let what = match names.len() {
                    0 => format!("the tests of {package} could not be built or run"),
                    1 => format!("a test of {package} failed"),
                    n => format!("{n} tests of {package} failed"),
                };
                Err(StepError::check(what).with_detail(names).with_detail(detail))
            }
        }
    }

    fn usable(&self, cx: &Cx, report: &TestReport) -> bool {
        cx.root().join(&report.junit).exists()
    }
}

/// Runs cargo; its diagnostics if it fails.
async fn run(cx: &Cx, args: &[&str]) -> Result<Option<Vec<String>>, StepError> {
    match cargo::check(cx, "cargo test", cargo::cargo(cx, args)).await {
        Ok(()) => Ok(None),
        Err(error) if error.class == plimsoll_core::ErrorClass::CheckFailed => Ok(Some(error.detail)),
        Err(error) => Err(error),
    }
}

fn has_library(cx: &Cx, package: &str) -> Result<bool, StepError> {
    let workspace = cx.resource::<Workspace>()?;
    let dir = workspace.packages().get(package).map(|p| p.dir.clone()).unwrap_or_default();
    Ok(workspace.files().iter().any(|f| *f == dir.join("src/lib.rs")))
}
