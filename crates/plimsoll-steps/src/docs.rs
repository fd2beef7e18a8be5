//! `docs`: the documentation builds without a warning, broken links included.

use crate::{cargo, workspace::Workspace};
use plimsoll_engine::{Cx, Pure, Reads, Step, StepError};
use serde::Serialize;

/// Runs `cargo doc --no-deps` with warnings as errors.
#[derive(Debug, Serialize)]
pub struct Docs {
    /// The packages to document; empty means the whole workspace.
    pub packages: Vec<String>,
}

impl Step for Docs {
    const NAME: &'static str = "docs";
    const VERSION: u32 = 1;
    type In = ();
    type Out = ();

    fn exclusive(&self) -> Option<&'static str> {
        Some("cargo's build directory")
    }
}

impl Pure for Docs {
    fn is_shared(&self) -> bool {
        true
    }

    fn reads(&self, cx: &Cx) -> Result<Reads, StepError> {
        cx.resource::<Workspace>()?.reads_of(&self.packages, false, cx.environment())
    }

    async fn run(&self, cx: &Cx, (): ()) -> Result<(), StepError> {
        let mut args = vec!["doc", "--locked", "--no-deps", "--all-features"];
        args.extend(cargo::selection(&self.packages));
        let mut flags =
            cx.environment().get("RUSTDOCFLAGS").map(|f| f.to_string_lossy().into_owned()).unwrap_or_default();
        flags.push_str(" -D warnings");
        cargo::check(cx, "rustdoc", cargo::cargo(cx, &args).env("RUSTDOCFLAGS", flags.trim())).await
    }
}
