//! What to start, and under which conditions. A value: nothing is started here but by the crate's own functions.

#![expect(clippy::disallowed_types, reason = "this crate is the place where commands start")]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::environment::{BASE_ENV, Environment, find};
use crate::error::ProcessError;
use crate::redact::Redactor;

/// The environment variable by which descendants are recognised, also when they left the process group.
pub const TREE_VARIABLE: &str = "PLIMSOLL_TREE";

/// How long a tree has between SIGTERM and SIGKILL unless [`Cmd::grace`] says otherwise: enough to write a file, not to work on.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(5);

/// How much of each stream [`crate::output`] collects unless [`Cmd::output_limit`] says otherwise: 16 MiB, ten times what
/// `cargo metadata` prints for a large workspace.
pub const DEFAULT_OUTPUT_LIMIT: usize = 16 * 1024 * 1024;

/// A command to start.
///
/// Its environment is empty but for what is named here. Its standard input is empty unless [`Cmd::stdin`] is given.
#[derive(Clone)]
pub struct Cmd {
    pub(crate) program: OsString,
    args: Vec<OsString>,
    variables: BTreeMap<OsString, OsString>,
    directory: Option<PathBuf>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) grace: Duration,
    pub(crate) stdin: Option<Vec<u8>>,
    pub(crate) output_limit: usize,
    pub(crate) redactor: Option<Arc<Redactor>>,
    marker: String,
    outer_marker: Option<String>,
}

impl Cmd {
    /// A command that starts `program`: a path, or a name looked up in the `PATH` it is given.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            variables: BTreeMap::new(),
            directory: None,
            timeout: None,
            grace: DEFAULT_GRACE,
            stdin: None,
            output_limit: DEFAULT_OUTPUT_LIMIT,
            redactor: None,
            marker: "tree".to_owned(),
            outer_marker: None,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// Sets variables.
    pub fn envs<K: Into<OsString>, V: Into<OsString>>(mut self, variables: impl IntoIterator<Item = (K, V)>) -> Self {
        self.variables.extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Passes on the variables of [`BASE_ENV`], those that are set.
    pub fn inherit_base(self, environment: &Environment) -> Self {
        self.inherit_env(environment, BASE_ENV)
    }

    /// Passes on the variables with these names, those that are set.
    pub fn inherit_env(mut self, environment: &Environment, names: &[&str]) -> Self {
        for name in names {
            if let Some(value) = environment.get(name) {
                self.variables.insert(name.into(), value.to_owned());
            }
        }
        // When we are ourselves part of a tree, what we start must be found by whoever ends that one.
        self.outer_marker = environment.get(TREE_VARIABLE).and_then(OsStr::to_str).map(str::to_owned);
        self
    }

    /// Sets the directory to run in; without it, that of this process.
    pub fn cwd(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = Some(path.into());
        self
    }

    /// Ends the tree when the command takes longer; without it, it may take for ever.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets how long a tree that is to end has between SIGTERM and SIGKILL.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets what is on standard input.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Sets how much of each stream [`crate::output`] collects, in bytes.
    pub fn output_limit(mut self, bytes: usize) -> Self {
        self.output_limit = bytes;
        self
    }

    /// Masks these secrets in all lines, also where they run over several.
    pub fn redact(mut self, redactor: Arc<Redactor>) -> Self {
        self.redactor = Some(redactor);
        self
    }

    /// Names the trees that belong together (a run's id, say), so that [`crate::end_marked`] can end them after a crash.
    ///
    /// Each started tree still has its own marker: this one, `/`, and something unique.
    pub fn marker(mut self, marker: impl Into<String>) -> Self {
        self.marker = marker.into();
        self
    }

    pub(crate) fn program_name(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }

    /// A marker no other tree has: by process, time and number.
    pub(crate) fn unique_marker(&self) -> String {
        static STARTED: AtomicU64 = AtomicU64::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let own = format!("{}/{}-{nanos:x}-{number}", self.marker, std::process::id());
        self.outer_marker.as_ref().map_or_else(|| own.clone(), |outer| format!("{outer}/{own}"))
    }

    /// The command for the standard library, and the program as it was found.
    ///
    /// The program is looked up here and handed on as a path: with a cleared environment the standard library would otherwise
    /// leave `posix_spawn` (vfork, no copy of our page tables) for `fork`. For the same reason there is never a `pre_exec`.
    pub(crate) fn command(&self, marker: &str) -> Result<Command, ProcessError> {
        let mut command = self.bare_command()?;
        command.env(TREE_VARIABLE, marker).process_group(0).stdin(Stdio::null());
        Ok(command)
    }

    /// Program, arguments, variables and directory alone: no marker, no group of its own, this process's standard streams.
    pub(crate) fn bare_command(&self) -> Result<Command, ProcessError> {
        let mut command = Command::new(self.locate()?);
        command.args(&self.args).env_clear().envs(&self.variables);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        Ok(command)
    }

    fn locate(&self) -> Result<PathBuf, ProcessError> {
        let named = Path::new(&self.program);
        let is_path = self.program.as_encoded_bytes().contains(&b'/');
        // A relative path means: relative to where the command runs, on every platform.
        let program = match &self.directory {
            Some(directory) if is_path && named.is_relative() => directory.join(named).into_os_string(),
            _ => self.program.clone(),
        };
        let path = self.variables.get(OsStr::new("PATH"));
        let found = find(&program, path.map(OsString::as_os_str)).and_then(|file| std::path::absolute(file).ok());
        found.ok_or_else(|| ProcessError::NotFound {
            program: self.program_name(),
            hint: match path {
                _ if is_path => Some("there is no executable file at this path".to_owned()),
                None => Some("the command was given no PATH".to_owned()),
                Some(path) => Some(format!("it is in no directory of PATH={}", path.to_string_lossy())),
            },
        })
    }

    pub(crate) fn spawn_error(&self, source: io::Error) -> ProcessError {
        let program = self.program_name();
        match &self.directory {
            Some(path) if !path.is_dir() => ProcessError::WorkingDirectory { program, path: path.clone() },
            _ => ProcessError::Spawn { program, source },
        }
    }
}

impl std::fmt::Debug for Cmd {
    /// Arguments redacted, names of variables only, no standard input.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let clean = |arg: &OsString| {
            let arg = arg.to_string_lossy();
            self.redactor.as_ref().map_or_else(|| arg.to_string(), |redactor| redactor.redact_str(&arg).into_owned())
        };
        f.debug_struct("Cmd")
            .field("program", &self.program)
            .field("args", &self.args.iter().map(clean).collect::<Vec<_>>())
            .field("variables", &self.variables.keys().collect::<Vec<_>>())
            .field("directory", &self.directory)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_unique_and_nest() {
        let cmd = Cmd::new("x").marker("run-7");
        let marker = cmd.unique_marker();
        assert!(marker.starts_with("run-7/"));
        assert_ne!(marker, cmd.unique_marker());
        let nested = Cmd::new("x").inherit_base(&Environment::of([(TREE_VARIABLE, marker.as_str())]));
        assert!(nested.unique_marker().starts_with(&format!("{marker}/tree/")));
    }

    #[test]
    fn debug_shows_neither_values_nor_secrets() {
        let redactor = Arc::new(Redactor::new(&[b"hunter2"]).unwrap());
        let cmd = Cmd::new("curl").arg("--user=me:hunter2").env("TOKEN", "swordfish").stdin("sesame").redact(redactor);
        let shown = format!("{cmd:?}");
        assert!(shown.contains("--user=me:***") && shown.contains("TOKEN"), "{shown}");
        for secret in ["hunter2", "swordfish", "sesame"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}
