//! The error a step ends with: its class, its causes, and what helps to understand it.

use plimsoll_core::{Classify, ErrorClass};
use plimsoll_process::{ProcessError, Redactor};
use std::{error::Error, fmt};

/// Why a step failed, as data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepError {
    /// Whose fault it is; only *external* errors are retried.
    pub class: ErrorClass,
    /// What was attempted, with which value.
    pub message: String,
    /// The causes, outermost first.
    pub causes: Vec<String>,
    /// Lines that show more: the end of a log, the differing files.
    pub detail: Vec<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl StepError {
    /// An error of `class` that says `message`.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), causes: Vec::new(), detail: Vec::new(), hint: None }
    }

    /// A check found something.
    pub fn check(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::CheckFailed, message)
    }

    /// The input is wrong.
    pub fn user(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::User, message)
    }

    /// Something outside did not do what was asked.
    pub fn external(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::External, message)
    }

    /// A bug.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Internal, message)
    }

    /// The error of another crate, with its causes.
    pub fn of(error: &(impl Classify + ?Sized)) -> Self {
        let mut this = Self::new(error.class(), error.to_string());
        this.causes = causes(error.source());
        this
    }

    /// Names what was attempted; the present message becomes the first cause.
    #[must_use]
    pub fn during(mut self, what: impl Into<String>) -> Self {
        let cause = std::mem::replace(&mut self.message, what.into());
        self.causes.insert(0, cause);
        self
    }

    /// Adds a cause with its own causes.
    #[must_use]
    pub fn caused_by(mut self, error: &dyn Error) -> Self {
        self.causes.push(error.to_string());
        self.causes.extend(causes(error.source()));
        self
    }

    /// Adds lines that show more.
    #[must_use]
    pub fn with_detail(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.detail.extend(lines);
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The error with every secret that `redactor` knows masked: what may be written down and shown.
    #[must_use]
    pub(crate) fn redacted(mut self, redactor: Option<&Redactor>) -> Self {
        let Some(redactor) = redactor else { return self };
        let texts =
            [&mut self.message].into_iter().chain(&mut self.causes).chain(&mut self.detail).chain(&mut self.hint);
        for text in texts {
            *text = redactor.redact_str(text).into_owned();
        }
        self
    }

    /// Message and causes in one line.
    pub fn one_line(&self) -> String {
        self.to_string()
    }
}

fn causes(mut source: Option<&(dyn Error + 'static)>) -> Vec<String> {
    let mut out = Vec::new();
    // An error chain is a list; the bound only guards against one that points at itself.
    while let Some(error) = source.filter(|_| out.len() < 32) {
        out.push(error.to_string());
        source = error.source();
    }
    out
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.causes.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl Error for StepError {}

impl Classify for StepError {
    fn class(&self) -> ErrorClass {
        self.class
    }
}

impl From<ProcessError> for StepError {
    fn from(error: ProcessError) -> Self {
        let mut this = Self::external(error.to_string());
        this.causes = causes(error.source());
        this
    }
}
