//! `clippy`: no warning of the compiler or of clippy, in any target, with all features.

use crate::{cargo, workspace::Workspace};
use plimsoll_engine::{Cx, Pure, Reads, Step, StepError};
use serde::Serialize;

/// Runs `cargo clippy --all-targets --all-features -- -D warnings`.
#[derive(Debug, Serialize)]
pub struct Clippy {
    /// The packages to look at; empty means the whole workspace.
    pub packages: Vec<String>,
}

impl Step for Clippy {
    const NAME: &'static str = "clippy";
    const VERSION: u32 = 1;
    type In = ();
    type Out = ();

    fn exclusive(&self) -> Option<&'static str> {
        Some("cargo's build directory")
    }
}

impl Pure for Clippy {
    fn is_shared(&self) -> bool {
        true
    }

    fn reads(&self, cx: &Cx) -> Result<Reads, StepError> {
        cx.resource::<Workspace>()?.reads_of(&self.packages, true, cx.environment())
    }

    async fn run(&self, cx: &Cx, (): ()) -> Result<(), StepError> {
        let mut args = vec!["clippy", "--locked", "--all-targets", "--all-features"];
        args.extend(cargo::selection(&self.packages));
        args.extend(["--", "-D", "warnings"]);
        cargo::check(cx, "clippy", cargo::cargo(cx, &args)).await
    }
}
