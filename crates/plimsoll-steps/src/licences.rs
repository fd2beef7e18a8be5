//! `licences`: under which terms others' work is shipped, as a document that goes along with it: every crate that is linked
//! into what is shipped, by licence, with the licences' texts. What may be used `deny` decides; this tells what is.

mod notice;

use crate::{
    cargo,
    scan::{REPORTS, Scanned, conclude},
    workspace::Workspace,
};
use notice::{Crate, Notice};
use plimsoll_engine::{Cx, Pure, Reads, Step, StepError, write_atomically};
use plimsoll_scan::{Finding, Level, Place};
use serde::Serialize;
use std::path::Path;

/// What images are built for. Which features each service is built with cargo settles by itself; here they are those of the
/// whole workspace, which are as many or more.
const TARGETS: [&str; 4] = [
    "aarch64-unknown-linux-gnu",
    "aarch64-unknown-linux-musl",
    "x86_64-unknown-linux-gnu",
    "x86_64-unknown-linux-musl",
];

/// Writes `licences.md` among the reports.
#[derive(Debug, Serialize)]
pub struct Licences {
    packages: Vec<String>,
}

impl Licences {
    /// For what is linked into these packages of the workspace.
    pub fn of(packages: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { packages: packages.into_iter().map(Into::into).collect() }
    }
}

impl Step for Licences {
    const NAME: &'static str = "licences";
    const VERSION: u32 = 1;
    type In = ();
    type Out = Scanned;
}

impl Pure for Licences {
    fn reads(&self, cx: &Cx) -> Result<Reads, StepError> {
        let workspace = cx.resource::<Workspace>()?;
        // Names a package that is not there.
        workspace.closure(&self.packages, false)?;
        workspace.manifest_reads()
    }

    async fn run(&self, cx: &Cx, (): ()) -> Result<Scanned, StepError> {
        let mut args = vec!["metadata", "--format-version=1", "--locked"];
        args.extend(TARGETS.iter().flat_map(|target| ["--filter-platform", target]));
        let metadata = cargo::cargo(cx, &args);
        let output = cx.output(metadata).await?.check().map_err(StepError::from)?;
        let notice = Notice::read(&output.stdout, &self.packages)
            .map_err(|e| StepError::user("cannot tell what is linked in").caused_by(&e))?;
        let path = Path::new(REPORTS).join("licences.md");
        write_atomically(&cx.root().join(&path), notice.markdown().as_bytes())
            .map_err(|e| StepError::external(format!("cannot write {}", path.display())).caused_by(&e))?;
        let nameless = |one: &&Crate| one.expression.is_none();
        let place = || Place { file: "Cargo.lock".to_owned(), line: None };
        let found = notice.crates().iter().filter(nameless).map(|one| {
            let message = format!("{} {} names no licence", one.name, one.version);
            Finding::new("no-licence", Level::Warning, message).at(place())
        });
        let scanned = conclude(cx, "licences", &found.collect::<Vec<_>>())?;
        Ok(Scanned { report: Some(path), ..scanned })
    }

    fn usable(&self, cx: &Cx, scanned: &Scanned) -> bool {
        scanned.is_there(cx)
    }
}
