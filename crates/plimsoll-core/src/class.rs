//! Whose fault an error is, and so which exit code the command ends with.

use serde::{Deserialize, Serialize};

/// The class of an error; every error type of the workspace maps to exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorClass {
    /// The input was wrong: the message says where and how to mend it.
    User,
    /// A check did what it is for and found something.
    CheckFailed,
    /// A registry, cluster, process or service did not do what was asked of it.
    External,
    /// A bug in Plimsoll.
    Internal,
}

impl ErrorClass {
    /// The exit code of a command that ends with an error of this class.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::User => 2,
            Self::CheckFailed => 1,
            Self::External => 3,
            Self::Internal => 70,
        }
    }
}

/// An error that knows its class.
pub trait Classify: std::error::Error {
    /// The class that decides the exit code and whether a retry can help.
    fn class(&self) -> ErrorClass;
}

/// An error and its causes in one line, each after a colon.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
