//! What is wrong with a configuration, in words that name the variable, its value and what is allowed.

use std::fmt;
use std::path::PathBuf;

use super::VARIABLES;

/// One mistake: which variable, what it says, what it may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Name of the variable.
    pub variable: &'static str,
    /// Its value, absent when it is not set.
    pub value: Option<String>,
    /// What is allowed.
    pub allowed: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value:?}: allowed is {}", self.variable, self.allowed),
            None => write!(f, "{} is not set: allowed is {}", self.variable, self.allowed),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Values that break a rule; all of them.
    #[error("the configuration has {} mistake(s):{}", .0.len(), lines(.0))]
    Invalid(Vec<Problem>),
    /// The file named by `KAIROS_CONFIG` or `KAIROS_API_KEY_FILE` is not readable.
    #[error("read the file {}", path.display())]
    Read {
        /// As its variable names it.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file with the key is empty.
    #[error("the file {} has no key", path.display())]
    NoKey {
        /// As `KAIROS_API_KEY_FILE` names it.
        path: PathBuf,
    },
    /// It is not TOML.
    #[error("parse the configuration file {}", path.display())]
    Parse {
        /// As `KAIROS_CONFIG` names it.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// It has a key nobody reads, or one which is no plain value.
    #[error("the configuration file {} has the key {key:?}, which is not one of: {}", path.display(), VARIABLES.join(", ").to_lowercase())]
    Key {
        /// As `KAIROS_CONFIG` names it.
        path: PathBuf,
        /// The key.
        key: String,
    },
}

/// One problem a line, each on a new one.
fn lines(problems: &[Problem]) -> String {
    problems.iter().flat_map(|problem| ["\n  ".to_owned(), problem.to_string()]).collect()
}
