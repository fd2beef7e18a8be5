//! Why a command did not do what was asked.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// What went wrong while a command was started, run or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// There is no such executable file in the command's own `PATH`.
    #[error("program `{program}` was not found{}", hint.as_ref().map(|hint| format!(": {hint}")).unwrap_or_default())]
    NotFound {
        /// The program as it was asked for.
        program: String,
        /// What may help.
        hint: Option<String>,
    },
    /// The directory the command was to run in is not there.
    #[error("cannot start `{program}` in `{}`: no such directory", path.display())]
    WorkingDirectory {
        /// The program as it was asked for.
        program: String,
        /// The directory.
        path: PathBuf,
    },
    /// The system refused to start the program.
    #[error("cannot start `{program}`")]
    Spawn {
        /// The program as it was asked for.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The command took longer than its timeout; its tree was ended.
    #[error("`{program}` was stopped: not done after {after:?}")]
    TimedOut {
        /// The program as it was asked for.
        program: String,
        /// The timeout.
        after: Duration,
    },
    /// The cancel token was cancelled; the command's tree was ended.
    #[error("`{program}` was cancelled")]
    Cancelled {
        /// The program as it was asked for.
        program: String,
    },
    /// More was printed than [`crate::output`] is to collect; the command's tree was ended.
    #[error("`{program}` printed more than {limit} bytes to one stream")]
    OutputTooLarge {
        /// The program as it was asked for.
        program: String,
        /// The limit for each stream, in bytes.
        limit: usize,
    },
    /// The command ended with a code other than 0, or by a signal. Only [`crate::Exit::check`] makes this.
    #[error("`{program}` {}{}", ending(*code, *signal), tail(stderr_tail))]
    Failed {
        /// The program as it was asked for.
        program: String,
        /// Its exit code, when it exited.
        code: Option<i32>,
        /// The number of the signal that ended it, when one did.
        signal: Option<i32>,
        /// The last lines of its standard error, redacted, at most 20.
        stderr_tail: Vec<String>,
    },
    /// Processes of the tree outlived SIGKILL (they hang in the kernel, or belong to another user).
    #[error("`{program}` left processes that could not be ended: {pids:?}")]
    Survivors {
        /// The program as it was asked for.
        program: String,
        /// The processes that are still there.
        pids: Vec<u32>,
    },
    /// Talking to the running command failed.
    #[error("cannot {action} of `{program}`")]
    Io {
        /// The program as it was asked for.
        program: String,
        /// What was attempted.
        action: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

pub(crate) fn ending(code: Option<i32>, signal: Option<i32>) -> String {
    match (code, signal) {
        (Some(code), _) => format!("failed with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "failed in an unknown way".to_owned(),
    }
}

fn tail(lines: &[String]) -> String {
    if lines.is_empty() { String::new() } else { format!("; it said:\n{}", lines.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_was_attempted_and_do_not_repeat_the_cause() {
        let spawn = ProcessError::Spawn { program: "tool".into(), source: io::Error::other("the cause") };
        assert_eq!(spawn.to_string(), "cannot start `tool`");
        let failed = ProcessError::Failed {
            program: "tool".into(),
            code: Some(3),
            signal: None,
            stderr_tail: vec!["one".into(), "two".into()],
        };
        assert_eq!(failed.to_string(), "`tool` failed with exit code 3; it said:\none\ntwo");
        let missing = ProcessError::NotFound { program: "tool".into(), hint: None };
        assert_eq!(missing.to_string(), "program `tool` was not found");
    }
}
