//! Names and numbers that must not be mixed up: each is a type of its own, checked when it is made.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A name that breaks the rule for names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no {what}: names have 1 to 63 characters, lower-case letters, digits and inner hyphens, and begin with a letter"
)]
pub struct NameError {
    /// What the name was for.
    pub what: &'static str,
    /// The refused text.
    pub text: String,
}

/// The label rule of RFC 1123 with a leading letter (RFC 1035): a name fits a host, a Kubernetes object and a path.
fn check_name(what: &'static str, text: &str) -> Result<(), NameError> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let valid = (1..=63).contains(&text.len())
        && text.as_bytes()[0].is_ascii_lowercase()
        && text.bytes().all(inner)
        && !text.ends_with('-');
    if valid { Ok(()) } else { Err(NameError { what, text: text.to_owned() }) }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check_name($what, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                check_name($what, &text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// The name of a service, unique in a workspace.
    ServiceName, "service name"
);
name!(
    /// The name of an environment, such as `staging`.
    EnvironmentName, "environment name"
);

impl ServiceName {
    /// The variable that tells the callers of a service where it is reached, on every target: `API_GATEWAY_URL`.
    pub fn url_variable(&self) -> String {
        format!("{}_URL", self.as_str().to_uppercase().replace('-', "_"))
    }
}

/// One execution of a pipeline. Sorts by time of start: `YYYYMMDD-hhmmss-xxxx`, the last four digits random.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    /// The id of a run that starts at `at`; `salt` tells apart runs of one second.
    pub fn new(at: crate::Timestamp, salt: u16) -> Self {
        Self(format!("{}-{salt:04x}", at.compact()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RunId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let shape = |(i, b): (usize, u8)| match i {
            8 | 15 => b == b'-',
            0..=14 => b.is_ascii_digit(),
            _ => b.is_ascii_digit() || (b'a'..=b'f').contains(&b),
        };
        if text.len() == 20 && text.bytes().enumerate().all(shape) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError { what: "run id", text: text.to_owned() })
        }
    }
}

impl TryFrom<String> for RunId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The counter that every change of an environment increments; an action that carries a stale one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One of a service's two places in an environment: one is live, the other standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The blue slot.
    Blue,
    /// The green slot.
    Green,
}

impl Slot {
    /// The other slot.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }

    /// `blue` or `green`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a binary or an image is for: operating system and architecture in OCI's (Go's) words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Platform {
    /// 64-bit x86.
    #[serde(rename = "linux/amd64")]
    LinuxAmd64,
    /// 64-bit ARM.
    #[serde(rename = "linux/arm64")]
    LinuxArm64,
}

impl Platform {
    /// Every platform that can be named in a configuration.
    pub const ALL: [Self; 2] = [Self::LinuxAmd64, Self::LinuxArm64];

    /// `linux/amd64` or `linux/arm64`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "linux/amd64",
            Self::LinuxArm64 => "linux/arm64",
        }
    }

    /// The architecture in OCI's words.
    pub const fn architecture(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "amd64",
            Self::LinuxArm64 => "arm64",
        }
    }

    /// The first part of a Rust target triple.
    pub const fn rust_arch(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "x86_64",
            Self::LinuxArm64 => "aarch64",
        }
    }

    /// The platform this program was compiled for, if it is one of them.
    pub fn host() -> Option<Self> {
        match (std::env::consts::OS, std::env::consts::ARCH) {
            ("linux", "x86_64") => Some(Self::LinuxAmd64),
            ("linux", "aarch64") => Some(Self::LinuxArm64),
            _ => None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_label_rule() {
        for good in ["a", "api-gateway", "a1", &"x".repeat(63)] {
            assert!(good.parse::<ServiceName>().is_ok(), "{good}");
        }
        for bad in ["", "A", "1a", "a-", "-a", "a_b", "a.b", "../x", "a b", &"x".repeat(64)] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_run_id_reads_back_and_nothing_else_does() {
        let id = RunId::new(crate::Timestamp::from_millis(1_700_000_000_123), 0xbeef);
        assert_eq!(id.as_str(), "20231114-221320-beef");
        assert_eq!(id.as_str().parse(), Ok(id));
        for bad in ["", "20231114-221320-beeg", "20231114_221320-beef", "../1114-221320-beef", "20231114-221320-beef0"]
        {
            assert!(bad.parse::<RunId>().is_err(), "{bad}");
        }
    }
}
