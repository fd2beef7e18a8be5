//! Starting cargo: with a cleared, allow-listed environment, and its diagnostics made short.

use plimsoll_engine::{Cx, StepError};
use plimsoll_process::{Cmd, Environment};
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

/// Variables that change what cargo and rustc do. They are passed on, and they are part of every cargo step's
/// fingerprint. What is not listed here or in the base list does not reach cargo.
pub(crate) const CARGO_ENV: [&str; 16] = [
    "CARGO_BUILD_JOBS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_INCREMENTAL",
    "CARGO_NET_GIT_FETCH_WITH_CLI",
    "CARGO_NET_OFFLINE",
    "CARGO_TARGET_DIR",
    "CC",
    "CFLAGS",
    "LD_LIBRARY_PATH",
    "PKG_CONFIG_PATH",
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "RUST_BACKTRACE",
];

/// Prefixes of further such variables: registries, profiles, per-target linkers.
pub(crate) const CARGO_ENV_PREFIXES: [&str; 4] =
    ["CARGO_PROFILE_", "CARGO_REGISTRIES_", "CARGO_TARGET_", "CARGO_REGISTRY_"];

/// The listed variables that are set, by name.
pub(crate) fn cargo_variables(environment: &Environment) -> Vec<(&OsStr, &OsStr)> {
    let listed = |name: &OsStr| {
        let name = name.to_string_lossy();
        CARGO_ENV.contains(&&*name) || CARGO_ENV_PREFIXES.iter().any(|p| name.starts_with(p))
    };
    let mut found: Vec<_> = environment.iter().filter(|(name, _)| listed(name)).collect();
    found.sort_unstable();
    found
}

/// Where steps build, apart from the directory of everyday builds: other flags in the same one would rebuild everything to and
/// fro, and cargo locks the one it builds in.
pub(crate) fn target_dir(root: &Path) -> PathBuf {
    root.join("target/plimsoll")
}

/// `cargo ARGS` in the workspace's root. Unless `CARGO_TARGET_DIR` says otherwise it builds in a directory of its own: neither a person's build nor `cargo xtask stop` is to wait for a check.
pub(crate) fn cargo(cx: &Cx, args: &[&str]) -> Cmd {
    let environment = cx.environment();
    Cmd::new("cargo")
        .env("CARGO_TARGET_DIR", target_dir(cx.root()).join("checks"))
        .args(args.iter().copied())
        .cwd(cx.root())
        .inherit_base(environment)
        .envs(cargo_variables(environment))
        .env("CARGO_TERM_COLOR", "never")
        .timeout(std::time::Duration::from_hours(1))
}

/// The arguments that select packages; none named means the whole workspace.
pub(crate) fn selection(packages: &[String]) -> Vec<&str> {
    if packages.is_empty() {
        return vec!["--workspace"];
    }
    packages.iter().flat_map(|p| ["--package", p.as_str()]).collect()
}

/// Runs cargo as a check: a non-zero exit is a finding, told by its first diagnostics.
pub(crate) async fn check(cx: &Cx, what: &str, cmd: Cmd) -> Result<(), StepError> {
    let exit = cx.command(cmd).await?;
    if exit.success() {
        return Ok(());
    }
    let log = std::fs::read_to_string(cx.log_path()).unwrap_or_default();
    let mut found = diagnostics(&log);
    if found.is_empty() {
        found = cx.log_tail();
    }
    Err(StepError::check(format!("{what} found something")).with_detail(found))
}

/// An assertion's message, its left side and its right.
const PANIC_LINES: usize = 3;

/// The errors in cargo's and rustc's output: each first line with the place it points at, and each panic with what it
/// said. At most eight, because the rest is in the log and a screen holds no more.
pub(crate) fn diagnostics(log: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut open: Option<String> = None;
    let mut saying = 0;
    for line in log.lines() {
        let trimmed = line.trim_start();
        let other = trimmed.is_empty()
            || trimmed.starts_with("note: ")
            || trimmed == "stack backtrace:"
            || is_error(line)
            || is_panic(trimmed);
        if saying > 0 && !other {
            found.push(format!("  {trimmed}"));
            saying -= 1;
            continue;
        }
        saying = 0;
        if let Some(place) = trimmed.strip_prefix("--> ") {
            if let Some(message) = open.take() {
                found.push(format!("{place}: {message}"));
            }
        } else if is_error(line) {
            found.extend(open.replace(line.to_owned()));
        } else if let Some(diff) = line.strip_prefix("Diff in ") {
            found.push(format!("{} is not formatted", diff.trim_end_matches(':')));
        } else if is_panic(trimmed) {
            found.push(trimmed.to_owned());
            saying = PANIC_LINES;
        }
        if found.len() >= 8 {
            break;
        }
    }
    found.extend(open);
    let summary = |l: &String| l.starts_with("error: could not compile") || l.starts_with("error: test failed");
    if found.iter().any(|l| !summary(l)) {
        found.retain(|l| !summary(l));
    }
    found.truncate(8);
    found
}

fn is_panic(line: &str) -> bool {
    line.starts_with("thread '") && line.contains(" panicked at ")
}

fn is_error(line: &str) -> bool {
    line.strip_prefix("error").is_some_and(|rest| rest.starts_with(':') || rest.starts_with('['))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_its_place() {
        let log = "   Compiling a\nerror[E0308]: mismatched types\n  --> src/lib.rs:3:5\n   |\n3  | x\nwarning: unused\n --> src/a.rs:1:1\n\
                   error: could not compile `a` (lib) due to 1 previous error";
        assert_eq!(diagnostics(log), ["src/lib.rs:3:5: error[E0308]: mismatched types"]);
    }

    #[test]
    fn an_error_without_a_place_is_told_too() {
        assert_eq!(diagnostics("error: no such command: `nextest`\n"), ["error: no such command: `nextest`"]);
        assert_eq!(diagnostics("error: could not compile `a`"), ["error: could not compile `a`"]);
    }

    #[test]
    fn a_panic_is_told_with_what_it_said() {
        let log = "thread 'a' panicked at src/lib.rs:3:5:\nassertion `left == right` failed: busy\n  left: 503\n right: 200\n\
                   note: run with `RUST_BACKTRACE=1`\ntest a ... FAILED\n";
        let said = ["  assertion `left == right` failed: busy", "  left: 503", "  right: 200"];
        assert_eq!(diagnostics(log)[1..], said);
    }

    #[test]
    fn an_unformatted_file_is_told_with_its_line() {
        assert_eq!(diagnostics("Diff in src/lib.rs:7:\n-a\n+b\n"), ["src/lib.rs:7 is not formatted"]);
    }
}
