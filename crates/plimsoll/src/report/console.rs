//! The only place that prints.

#![expect(clippy::disallowed_methods, reason = "the one place that prints")]

use std::io::{IsTerminal, Write, stderr, stdout};

/// Standard output and standard error. What can no longer be written is not missed: a reader that went away (`| head`) wants no more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Console;

impl Console {
    pub(crate) fn new() -> Self {
        Self
    }

    /// Whether somebody looks at what is printed as it comes.
    #[expect(clippy::unused_self, reason = "the answer belongs to where it is printed")]
    pub(crate) fn is_terminal(&self) -> bool {
        stderr().is_terminal() && stdout().is_terminal()
    }

    /// Prints a report, as it is.
    #[expect(clippy::unused_self, reason = "printing needs a console in hand")]
    pub(crate) fn out(&self, text: &str) {
        let mut out = stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Prints a message, as it is.
    #[expect(clippy::unused_self, reason = "printing needs a console in hand")]
    pub(crate) fn err(&self, text: &str) {
        let _ = stderr().lock().write_all(text.as_bytes());
    }

    /// Copies a file to standard output.
    #[expect(clippy::unused_self, reason = "printing needs a console in hand")]
    pub(crate) fn copy(&self, mut from: std::fs::File) {
        let _ = std::io::copy(&mut from, &mut stdout().lock());
    }
}
