//! A finding: what is wrong, by which rule, where.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How much a finding weighs, as SARIF has it (SARIF 2.1.0, section 3.27.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth knowing.
    Note,
    /// Worth a look.
    Warning,
    /// Does not pass.
    Error,
}

impl Level {
    /// The word that SARIF has for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A place in the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file, relative to the workspace's root.
    pub file: String,
    /// The line, from 1, if it is about one.
    pub line: Option<u32>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule, as its tool names it: `RUSTSEC-2024-0001`, `rejected`.
    pub rule: String,
    /// How much it weighs.
    pub level: Level,
    /// What is wrong, in one line.
    pub message: String,
    /// Where.
    pub place: Option<Place>,
    /// Where more is to be read, as a web address.
    pub more: Option<String>,
}

impl Finding {
    /// Without a place.
    pub fn new(rule: impl Into<String>, level: Level, message: impl AsRef<str>) -> Self {
        Self { rule: rule.into(), level, message: one_line(message.as_ref()), place: None, more: None }
    }

    /// With a place.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// With the address of more.
    #[must_use]
    pub fn more(mut self, address: Option<String>) -> Self {
        self.more = address;
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{} {}: {}", self.level.word(), self.rule, self.message)
    }
}

/// The longest message, in characters: some tools put whole dependency trees into one.
const MAX_MESSAGE: usize = 1_000;

/// What others wrote, on one line of bounded length and without control characters.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    words.join(" ").chars().take(MAX_MESSAGE).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_without_control_characters() {
        let finding = Finding::new("r", Level::Error, "a\n  b\u{1b}[31m");
        assert_eq!(finding.message, "a b\u{fffd}[31m");
        let place = Place { file: "Cargo.lock".into(), line: Some(3) };
        assert_eq!(finding.at(place).to_string(), "Cargo.lock:3: error r: a b\u{fffd}[31m");
    }
}
