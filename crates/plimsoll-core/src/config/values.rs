//! Single values with a rule of their own: project names, references to secrets, registries, bases, names of variables.

use crate::{EnvironmentName, ImageRef, NameError};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The name of a project: it names the state directory, so it is a single plain path component.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProjectName(String);

impl ProjectName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ProjectName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        // One rule for all names: what fits an environment fits a directory.
        match text.parse::<EnvironmentName>() {
            Ok(_) => Ok(Self(text)),
            Err(error) => Err(NameError { what: "project name", ..error }),
        }
    }
}

impl From<ProjectName> for String {
    fn from(name: ProjectName) -> Self {
        name.0
    }
}

impl fmt::Display for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Where a secret's value comes from when it is needed; never the value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum SecretSource {
    /// The variable of this name in the environment of the command.
    Env(String),
    /// The file at this path, relative to the workspace; one line end at its end is not part of the value.
    File(String),
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{path}"),
        }
    }
}

/// Where images are pushed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Registry {
    /// The registry that Plimsoll brings along.
    #[default]
    Embedded,
    /// Another one.
    Remote {
        /// Host with an optional port.
        host: String,
        /// What stands before the image's name in its repository; may be empty.
        prefix: String,
    },
}

impl TryFrom<String> for Registry {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "embedded" {
            return Ok(Self::Embedded);
        }
        let (host, prefix) = text.split_once('/').unwrap_or((&text, ""));
        let whole = format!("{host}/{}x", if prefix.is_empty() { String::new() } else { format!("{prefix}/") });
        match whole.parse::<ImageRef>() {
            Ok(_) if !text.ends_with('/') => Ok(Self::Remote { host: host.to_owned(), prefix: prefix.to_owned() }),
            _ => Err(format!(
                "`{text}` is no registry\nwrite \"embedded\" or a host with a port and a prefix, such as \"ghcr.io/example\""
            )),
        }
    }
}

impl From<Registry> for String {
    fn from(registry: Registry) -> Self {
        match registry {
            Registry::Embedded => "embedded".to_owned(),
            Registry::Remote { host, prefix } if prefix.is_empty() => host,
            Registry::Remote { host, prefix } => format!("{host}/{prefix}"),
        }
    }
}

/// What images are built on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Base {
    /// Nothing.
    #[default]
    Scratch,
    /// An image, by digest.
    Image(ImageRef),
}

impl TryFrom<String> for Base {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "scratch" {
            return Ok(Self::Scratch);
        }
        let hint = "write \"scratch\" or an image by digest, such as \"gcr.io/distroless/static@sha256:…\"";
        match text.parse::<ImageRef>() {
            Ok(image) if image.digest.is_some() => Ok(Self::Image(image)),
            Ok(_) => Err(format!("the base `{text}` is not pinned by a digest\n{hint}")),
            Err(error) => Err(format!("{error}\n{hint}")),
        }
    }
}

impl From<Base> for String {
    fn from(base: Base) -> Self {
        match base {
            Base::Scratch => "scratch".to_owned(),
            Base::Image(image) => image.to_string(),
        }
    }
}

/// Whether a variable of the environment may have this name: letters, digits and underscores, no digit first.
pub(super) fn is_variable_name(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&name.len()) && name.bytes().all(word) && !name.as_bytes()[0].is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_the_word_or_a_host_with_a_prefix() {
        for text in ["embedded", "ghcr.io/example", "127.0.0.1:5000", "localhost", "h.io/a/b"] {
            let registry = Registry::try_from(text.to_owned()).expect(text);
            assert_eq!(String::from(registry), text);
        }
        for text in ["", "embeded", "https://h.io", "h.io/", "h.io/A", "h.io/../x"] {
            assert!(Registry::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_base_is_pinned() {
        let pinned = format!("h.io/a@{}", crate::Digest::of(b"x"));
        for text in ["scratch", pinned.as_str()] {
            assert_eq!(Base::try_from(text.to_owned()).map(String::from).as_deref(), Ok(text));
        }
        for text in ["alpine", "h.io/a:1", ""] {
            assert!(Base::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn variables_have_plain_names() {
        assert!(["A", "_a", "A1_B"].into_iter().all(is_variable_name));
        assert!(!["", "1A", "A-B", "A B", "A=B", "Ä"].into_iter().any(is_variable_name));
    }
}
