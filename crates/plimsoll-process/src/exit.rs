//! How a command ended, and what it printed when that was collected.

use std::borrow::Cow;
use std::time::Duration;

use crate::error::ProcessError;

/// How a command ended. It is not a verdict: [`Exit::check`] turns anything but code 0 into an error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exit {
    /// The program as it was asked for.
    pub program: String,
    /// The exit code, when the command exited.
    pub code: Option<i32>,
    /// The number of the signal that ended it, when one did.
    pub signal: Option<i32>,
    /// From just before the start until the whole tree was gone.
    pub duration: Duration,
    /// Descendants that were still there when the command itself had exited, and were ended.
    pub leftovers: Vec<u32>,
    /// The last lines of standard error, redacted, at most 20, each cut at 1 KiB.
    pub stderr_tail: Vec<String>,
}

impl Exit {
    /// Whether the command exited with code 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// The exit itself when it was code 0, else [`ProcessError::Failed`].
    pub fn check(self) -> Result<Self, ProcessError> {
        if self.success() {
            return Ok(self);
        }
        let Self { program, code, signal, stderr_tail, .. } = self;
        Err(ProcessError::Failed { program, code, signal, stderr_tail })
    }
}

/// How a command ended and all it printed.
///
/// The bytes are for machines to parse and therefore *not* redacted: whoever shows them redacts them.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// All of standard output.
    pub stdout: Vec<u8>,
    /// All of standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text, with U+FFFD for what is not UTF-8.
    pub fn stdout_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// Standard error as text, with U+FFFD for what is not UTF-8.
    pub fn stderr_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stderr)
    }

    /// The output itself when the exit code was 0, else [`ProcessError::Failed`].
    pub fn check(self) -> Result<Self, ProcessError> {
        let Self { exit, stdout, stderr } = self;
        exit.check().map(|exit| Self { exit, stdout, stderr })
    }
}

impl std::fmt::Debug for Output {
    /// Lengths only: the bytes are not redacted.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output")
            .field("exit", &self.exit)
            .field("stdout_bytes", &self.stdout.len())
            .field("stderr_bytes", &self.stderr.len())
            .finish()
    }
}
