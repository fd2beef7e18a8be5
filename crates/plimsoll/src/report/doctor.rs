//! What `doctor` found, rendered. Pure.

use super::text::{Tone, one_line, paint};
use serde::Serialize;
use std::fmt::Write;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What it is.
    pub(crate) name: String,
    /// Whether it is there.
    pub(crate) verdict: Verdict,
    /// What was found.
    pub(crate) found: String,
    /// What to do to have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fix: Option<String>,
}

/// Whether something is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// It is there.
    Ok,
    /// It is not there, and only something that can be done without is lost.
    MissingOptional,
    /// It is not there, and nothing works without.
    MissingRequired,
}

impl Finding {
    /// It is there.
    pub(crate) fn ok(name: &str, found: impl Into<String>) -> Self {
        Self { name: name.to_owned(), verdict: Verdict::Ok, found: found.into(), fix: None }
    }

    /// It is not there, and something is lost.
    pub(crate) fn optional(name: &str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        let (found, fix) = (found.into(), Some(fix.into()));
        Self { name: name.to_owned(), verdict: Verdict::MissingOptional, found, fix }
    }

    /// It is not there, and nothing works.
    pub(crate) fn required(name: &str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::MissingRequired, ..Self::optional(name, found, fix) }
    }
}

/// The findings as text.
pub(crate) fn list(findings: &[Finding], color: bool) -> String {
    let width = findings.iter().map(|finding| finding.name.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for finding in findings {
        let (word, tone) = match finding.verdict {
            Verdict::Ok => ("ok", Tone::Good),
            Verdict::MissingOptional => ("optional", Tone::Look),
            Verdict::MissingRequired => ("wrong", Tone::Bad),
        };
        let word = paint(color, tone, &format!("{word:>9}"));
        let mut lines = finding.found.lines();
        let _ = writeln!(out, "{word}  {:width$}  {}", finding.name, one_line(lines.next().unwrap_or_default()));
        for line in lines {
            let _ = writeln!(out, "{:>9}  {:width$}  {}", "", "", one_line(line));
        }
        if let Some(fix) = &finding.fix {
            let _ = writeln!(out, "{:>9}  {:width$}  fix: {}", "", "", one_line(fix));
        }
    }
    out
}

/// Whether nothing that is required is missing.
pub(crate) fn healthy(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.verdict != Verdict::MissingRequired)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_has_its_fix_below() {
        let findings =
            [Finding::ok("git", "git version 2.43"), Finding::required("linker", "no `cc`", "apt install gcc")];
        let expected = "       ok  git     git version 2.43\n    wrong  linker  no `cc`\n                   fix: apt install gcc\n";
        assert_eq!(list(&findings, false), expected);
        assert!(!healthy(&findings) && healthy(&findings[..1]));
        assert!(healthy(&[Finding::optional("nextest", "", "")]));
    }
}
