//! Thin and full: which executable does the work, and becoming the other one.
//!
//! Thin executables hold the checks only. The full one of a package `PKG` is its binary `PKG-delivery`, built with the feature
//! `delivery` by cargo itself, so that it is never out of date; the two share every crate whose features are the same.

use crate::{cli_error::CliError, project::Project, settings};
use plimsoll_process::{Cmd, Environment, replace_process};
use std::{ffi::OsString, path::Path};

/// Whether this executable has delivery in it.
pub(crate) const FULL: bool = cfg!(feature = "delivery");

/// The name of the full executable.
pub(crate) fn full_name(package: &str) -> String {
    format!("{package}-delivery")
}

/// Whether the full executable was built before, so that building it again is a matter of moments.
pub(crate) fn is_built(package: &str) -> bool {
    std::env::current_exe().is_ok_and(|own| own.with_file_name(full_name(package)).exists())
}

/// What cargo tells a program that it runs of the program's package. Passed on to another cargo it would look to build scripts
/// like a change, and much would be built anew each time that somebody calls cargo or this executable by hand.
const OF_THE_PACKAGE: [&str; 5] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];

/// What builds and starts the full executable. Everything else of this process's environment is passed on: it is the same
/// program. Cargo shows what it does when that takes long.
fn full_command(package: &str, args: &[OsString], environment: &Environment) -> Cmd {
    let bin = full_name(package);
    Cmd::new(settings::cargo(environment))
        .arg("run")
        .args(is_built(package).then_some("--quiet"))
        .args(["--package", package, "--features", "delivery", "--bin", &bin, "--"])
        .args(args.iter().cloned())
        .envs(environment.iter().filter(|(name, _)| !is_of_the_package(name)))
}

fn is_of_the_package(name: impl AsRef<std::ffi::OsStr>) -> bool {
    name.as_ref().to_str().is_some_and(|name| OF_THE_PACKAGE.iter().any(|start| name.starts_with(start)))
}

/// Becomes the full executable, with the same arguments. Comes back only when that cannot be.
pub(crate) fn become_full(project: &Project, args: &[OsString], environment: &Environment) -> CliError {
    replace_process(&full_command(project.package(), args, environment)).into()
}

/// Becomes the executable at `path`.
pub(crate) fn become_kept(path: &Path, args: &[&str], environment: &Environment) -> CliError {
    replace_process(&Cmd::new(path).args(args.iter().copied()).envs(environment.iter())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_executable_is_run_by_cargo_with_the_same_arguments() {
        let of_cargo = [("CARGO_PKG_NAME", "xtask"), ("CARGO_MANIFEST_DIR", "/w/xtask"), ("CARGO_HOME", "/cargo")];
        let ours = [("CARGO", "/bin/cargo"), ("TOKEN", "hunter2")];
        let environment = Environment::of(of_cargo.into_iter().chain(ours));
        let shown = format!("{:?}", full_command("xtask", &["release".into(), "--yes".into()], &environment));
        for part in ["CARGO_HOME", "/bin/cargo", "\"xtask-delivery\", \"--\", \"release\", \"--yes\"", "TOKEN"] {
            assert!(shown.contains(part), "{shown}");
        }
        for part in ["hunter2", "CARGO_PKG_NAME", "CARGO_MANIFEST_DIR"] {
            assert!(!shown.contains(part), "{shown}");
        }
    }
}
