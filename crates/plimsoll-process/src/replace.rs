//! Becoming another program: `exec`, for a small executable that hands its work to a larger one.
//!
//! Nothing is left of this process but its id, its terminal and its open standard streams, so whoever waits for it waits for the
//! other program, and a signal meant for it reaches that one.

use std::os::unix::process::CommandExt;

use crate::cmd::Cmd;
use crate::error::ProcessError;

/// Replaces this process by `cmd`. Comes back only with the reason why that failed.
///
/// The new program keeps this process's group, terminal and standard input, and belongs to the tree this process belongs to.
/// Its environment is what `cmd` names, and nothing else. [`Cmd::stdin`], [`Cmd::timeout`], [`Cmd::redact`] and [`Cmd::marker`]
/// have no meaning here: nobody is left to act on them.
pub fn replace_process(cmd: &Cmd) -> ProcessError {
    match cmd.bare_command() {
        Ok(mut command) => cmd.spawn_error(command.exec()),
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_leaves_this_process_as_it_was() {
        let error = replace_process(&Cmd::new("no-such-program").env("PATH", "/nowhere"));
        assert!(matches!(error, ProcessError::NotFound { .. }), "{error}");
        let error = replace_process(&Cmd::new("/nowhere/program"));
        assert!(error.to_string().contains("/nowhere/program"), "{error}");
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error = replace_process(&Cmd::new("/bin/sh").cwd("/nowhere"));
        assert!(matches!(error, ProcessError::WorkingDirectory { .. }), "{error}");
    }
}
