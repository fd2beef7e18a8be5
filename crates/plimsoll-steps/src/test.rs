//! `test`: a package's tests and doc tests, with all features. By cargo-nextest where it is installed, else by `cargo test`;
//! a JUnit report either way. Only green verdicts are cached, as of every step.

mod junit;
mod libtest;

use crate::{cargo, scan::REPORTS, workspace::Workspace};
use libtest::Outcome;
use plimsoll_engine::{Cx, Leaf, Pure, Reads, Step, StepError, write_atomically};
use plimsoll_process::which;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fs, path::PathBuf};

/// Runs the tests of one package.
#[derive(Debug, Serialize)]
pub struct Test {
    package: String,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    without: BTreeSet<String>,
}

impl Test {
    /// All tests of a package: of its library, binaries and examples, its integration tests, its doc tests.
    pub fn of(package: impl Into<String>) -> Self {
        Self { package: package.into(), without: BTreeSet::new() }
    }

    /// Leaves integration tests out, by the names of their targets: those that take long or need servers, and run elsewhere.
    /// The step says that it left them out.
    #[must_use]
    pub fn without<'a>(mut self, targets: impl IntoIterator<Item = &'a str>) -> Self {
        self.without.extend(targets.into_iter().map(str::to_owned));
        self
    }
}

impl Test {
    /// Where its report lies, relative to the workspace's root.
    fn junit(&self) -> PathBuf {
        PathBuf::from(REPORTS).join(format!("junit-{}.xml", self.package))
    }

    /// The targets that cargo is to be told, none for all of them.
    fn targets(&self, workspace: &Workspace, library: bool) -> Result<Vec<String>, StepError> {
        if self.without.is_empty() {
            return Ok(Vec::new());
        }
        let known = workspace.packages().get(&self.package).map(|p| &p.tests);
        if let Some(name) = self.without.iter().find(|name| known.is_none_or(|tests| !tests.contains(*name))) {
            let known: Vec<&str> = known.into_iter().flatten().map(String::as_str).collect();
            return Err(StepError::user(format!("{} has no integration test `{name}`", self.package))
                .with_hint(format!("it has {}", known.join(", "))));
        }
        let others = known.into_iter().flatten().filter(|name| !self.without.contains(*name));
        let units = ["--bins", "--examples"].into_iter().chain(library.then_some("--lib"));
        Ok(units.map(str::to_owned).chain(others.flat_map(|name| ["--test".to_owned(), name.clone()])).collect())
    }
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
    fn is_shared(&self) -> bool {
        true
    }

    fn leaves(&self, _: &Cx, report: &TestReport) -> Option<Vec<Leaf>> {
        // Whatever an output of elsewhere says: this step writes this file.
        (report.junit == self.junit()).then(|| vec![Leaf::File(self.junit())])
    }

    fn reads(&self, cx: &Cx) -> Result<Reads, StepError> {
        cx.resource::<Workspace>()?.reads_of(std::slice::from_ref(&self.package), true, cx.environment())
    }

    async fn run(&self, cx: &Cx, (): ()) -> Result<TestReport, StepError> {
        let nextest = which("cargo-nextest", cx.environment()).is_some();
        let package = self.package.as_str();
        let workspace = cx.resource::<Workspace>()?;
        let library = has_library(&workspace, package);
        let targets = self.targets(&workspace, library)?;
        let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
        let common = ["--locked", "--all-features", "--package", package];
        // Cargo runs doc tests only where no target is named, nextest never.
        let program = if nextest { &["nextest", "run", "--no-tests=pass"][..] } else { &["test"] };
        let mut failed = run(cx, &[program, &["--no-fail-fast"], &common, &targets].concat()).await?;
        if library && (nextest || !targets.is_empty()) {
            failed = failed.or(run(cx, &[&["test", "--doc"][..], &common].concat()).await?);
        }
        if !self.without.is_empty() {
            let names: Vec<&str> = self.without.iter().map(String::as_str).collect();
            cx.note(format!("{package}: left out, as its step says: {}", names.join(", ")));
        }
        let log = fs::read_to_string(cx.log_path()).unwrap_or_default();
        let cases = libtest::parse(&log);
        let junit = self.junit();
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

fn has_library(workspace: &Workspace, package: &str) -> bool {
    let dir = workspace.packages().get(package).map(|p| p.dir.clone()).unwrap_or_default();
    workspace.files().iter().any(|f| *f == dir.join("src/lib.rs"))
}
