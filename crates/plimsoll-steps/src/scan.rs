//! What all steps share that scan: a tool that may not be installed, findings that pass or do not, and a report as SARIF.

use plimsoll_core::Fingerprint;
use plimsoll_engine::{Cx, Reads, StepError, write_atomically};
use plimsoll_process::which;
use plimsoll_scan::{Finding, Level, Tool, sarif};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Where reports lie, relative to the workspace's root.
pub(crate) const REPORTS: &str = ".plimsoll/reports";
/// Findings that are told with a failure; the report has all.
const MOST_TOLD: usize = 8;

/// What came of a scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scanned {
    /// Findings that are worth a look and pass.
    pub warnings: usize,
    /// The report, relative to the workspace's root; none where the scan was skipped.
    pub report: Option<PathBuf>,
}

impl Scanned {
    /// What a scan leaves that was skipped.
    pub(crate) const NOTHING: Self = Self { warnings: 0, report: None };

    /// Whether the report still lies there.
    pub(crate) fn is_there(&self, cx: &Cx) -> bool {
        self.report.as_ref().is_none_or(|report| cx.root().join(report).exists())
    }
}

/// A program of somebody else that scans, a subcommand of cargo.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scanner {
    /// Its name: `cargo-deny`.
    pub(crate) program: &'static str,
}

impl Scanner {
    /// The program, or why it is left out. One that is required is an error.
    pub(crate) fn find(self, cx: &Cx, required: bool) -> Result<Option<PathBuf>, StepError> {
        let found = which(self.program, cx.environment());
        if found.is_none() {
            let (missing, install) = (format!("{} is not installed", self.program), self.install());
            if required {
                return Err(StepError::user(missing).with_hint(format!("install it: {install}")));
            }
            cx.skip(format!("{missing}: {install}"));
        }
        Ok(found)
    }

    /// The command that installs it.
    fn install(self) -> String {
        format!("cargo install --locked {}", self.program)
    }

    /// Adds the program to what a step reads: another version of it finds other things.
    pub(crate) fn add_to(self, reads: &mut Reads, cx: &Cx) {
        let name = format!("tool {}", self.program);
        let file = which(self.program, cx.environment()).and_then(|path| Some((fs::metadata(&path).ok()?, path)));
        let identity = match file {
            Some((meta, path)) => format!("{} {} {} {}", path.display(), meta.len(), meta.mtime(), meta.mtime_nsec()),
            None => "not installed".to_owned(),
        };
        reads.add_volatile(name, Fingerprint::of(identity.as_bytes()));
    }
}

/// Writes the report, and fails if a finding does not pass.
pub(crate) fn conclude(cx: &Cx, scanner: &str, findings: &[Finding]) -> Result<Scanned, StepError> {
    let report =
        Path::new(REPORTS).join(format!("{}.sarif", cx.step().replace(['[', ']', '/'], "-").trim_end_matches('-')));
    let tool = Tool { name: scanner.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    write_atomically(&cx.root().join(&report), sarif(&tool, findings).as_bytes())
        .map_err(|e| StepError::external(format!("cannot write {}", report.display())).caused_by(&e))?;
    for finding in findings {
        cx.log(&finding.to_string());
    }
    let refused: Vec<String> =
        findings.iter().filter(|finding| finding.level == Level::Error).map(ToString::to_string).collect();
    let warnings = findings.iter().filter(|finding| finding.level == Level::Warning).count();
    if refused.is_empty() {
        return Ok(Scanned { warnings, report: Some(report) });
    }
    let number = refused.len();
    let what = if number == 1 {
        "a finding that does not pass".to_owned()
    } else {
        format!("{number} findings that do not pass")
    };
    let more = number.saturating_sub(MOST_TOLD);
    let rest = (more > 0).then(|| format!("and {more} more"));
    Err(StepError::check(format!("{scanner} has {what}"))
        .with_detail(refused.into_iter().take(MOST_TOLD).chain(rest))
        .with_hint(format!("the whole report: {}", report.display())))
}
