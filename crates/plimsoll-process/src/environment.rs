//! The parent's environment as a value, what of it is passed on by default, and looking up programs in it.
//!
//! [`Environment::capture`] is the only place that reads the process's own environment; everything else gets the value.

#![expect(clippy::disallowed_methods, reason = "the one place where the environment is read")]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The variables a command gets when [`crate::Cmd::inherit_base`] is asked for, and the reason for each group.
///
/// Everything else stays behind, above all tokens (`GITHUB_TOKEN`, `CARGO_REGISTRY_TOKEN`, `AWS_*`), agents
/// (`SSH_AUTH_SOCK`) and what changes a build without a trace (`RUSTFLAGS`, `RUSTC_WRAPPER`, `LD_PRELOAD`).
/// A step that needs one of those names it.
pub const BASE_ENV: &[&str] = &[
    // To find programs, and the files of the user who runs them.
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    // How text is read and printed.
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TERM",
    "NO_COLOR",
    "TZ",
    // Which toolchain runs, and where it keeps what it downloads.
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    // A machine behind a proxy, or with its own certificate authority, cannot reach anything without these.
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Environment variables, as captured once or as a test made them up.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// The environment of this process, now.
    pub fn capture() -> Self {
        Self { variables: std::env::vars_os().collect() }
    }

    /// An environment of these variables.
    pub fn of<K: Into<OsString>, V: Into<OsString>>(variables: impl IntoIterator<Item = (K, V)>) -> Self {
        Self { variables: variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }

    /// The value of a variable, when it is set.
    pub fn get(&self, name: impl AsRef<OsStr>) -> Option<&OsStr> {
        self.variables.get(name.as_ref()).map(OsString::as_os_str)
    }

    /// All variables, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.variables.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }
}

impl std::fmt::Debug for Environment {
    /// Names only: values are where the secrets are.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

/// The executable file that `program` means: itself when it contains a `/`, else the first in `PATH`.
///
/// An empty entry of `PATH` is skipped: that it should mean the working directory is a trap, not a feature.
pub fn which(program: impl AsRef<OsStr>, environment: &Environment) -> Option<PathBuf> {
    find(program.as_ref(), environment.get("PATH"))
}

pub(crate) fn find(program: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    if program.as_encoded_bytes().contains(&b'/') {
        let file = PathBuf::from(program);
        return is_executable(&file).then_some(file);
    }
    if program.is_empty() {
        return None;
    }
    std::env::split_paths(path?)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_in_path_order_and_only_when_executable() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(first.path().join("tool"), "not executable").unwrap();
        std::fs::write(second.path().join("tool"), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(second.path().join("tool"), PermissionsExt::from_mode(0o755)).unwrap();
        let path = std::env::join_paths([Path::new(""), first.path(), second.path()]).unwrap();
        let environment = Environment::of([("PATH", path)]);
        assert_eq!(which("tool", &environment), Some(second.path().join("tool")));
        assert_eq!(which("", &environment), None);
        assert_eq!(which("no-such-tool", &environment), None);
        assert_eq!(which(second.path().join("tool"), &Environment::default()), Some(second.path().join("tool")));
    }

    #[test]
    fn debug_shows_names_and_no_values() {
        let environment = Environment::of([("TOKEN", "hunter2-value")]);
        let shown = format!("{environment:?}");
        assert!(shown.contains("TOKEN") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn no_token_or_agent_is_in_the_base() {
        for name in BASE_ENV {
            assert!(!name.contains("TOKEN") && !name.contains("AUTH") && !name.contains("KEY"), "{name}");
        }
    }
}
