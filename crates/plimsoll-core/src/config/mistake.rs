//! What is wrong with a configuration, and where: rendered as file, line, column, source line, caret and hint.
//!
//! Source lines are shown with control characters replaced and with whatever stands where a secret may stand masked.

use crate::{Classify, ErrorClass};
use std::{fmt, ops::Range};

/// How many mistakes one error lists; a reader mends a few and looks again.
pub(super) const MOST_MISTAKES: usize = 50;

/// How much of a source line is shown, in characters: two lines of a usual terminal.
const WIDEST_LINE: usize = 160;

/// A configuration that cannot be used, with all that is wrong with it, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named to [`Config::parse`](super::Config::parse).
    pub file: String,
    /// What is wrong, at least one and at most 50.
    pub mistakes: Vec<Mistake>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong: lower case, no final dot.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
    /// The source line as it is shown, and the column and width of the marks under it.
    shown: (String, usize, usize),
}

/// A mistake as it is found: a byte range and words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Found {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        Self { span, message: message.into(), hint: (!hint.is_empty()).then_some(hint) }
    }
}

impl ConfigError {
    /// Puts what was found in order and in place; `secret` are the byte ranges never to be shown.
    pub(super) fn new(file: &str, text: &str, mut found: Vec<Found>, secret: &[Range<usize>]) -> Self {
        found.sort_by(|a, b| (a.span.start, &a.message).cmp(&(b.span.start, &b.message)));
        found.dedup();
        found.truncate(MOST_MISTAKES);
        let mistakes = found.iter().map(|one| Mistake::new(text, one, secret)).collect();
        Self { file: printable(file), mistakes }
    }
}

impl Mistake {
    fn new(text: &str, found: &Found, secret: &[Range<usize>]) -> Self {
        let start = text.floor_char_boundary(found.span.start.min(text.len()));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let before = text[line_start..start].chars().count();
        let end = text.floor_char_boundary(found.span.end.clamp(start, line_end));
        let width = text[start..end].chars().count().max(1);

        let show = |(at, c): (usize, char)| match c {
            _ if secret.iter().any(|range| range.contains(&(line_start + at))) => '*',
            '\t' => ' ',
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        };
        // A long line is shown from shortly before the mistake.
        let from = if before + width > WIDEST_LINE { before.saturating_sub(20) } else { 0 };
        let line = text[line_start..line_end].trim_end_matches('\r').char_indices();
        let shown: String = line.skip(from).take(WIDEST_LINE).map(show).collect();
        let marks = width.min(WIDEST_LINE.saturating_sub(before - from).max(1));
        Self {
            line: text[..line_start].matches('\n').count() + 1,
            column: before + 1,
            message: printable(&found.message),
            hint: found.hint.as_deref().map(printable),
            shown: (shown, before - from, marks),
        }
    }

    fn write(&self, file: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, column, width) = &self.shown;
        let gutter = self.line.to_string().len();
        writeln!(f, "{file}:{}:{}: {}", self.line, self.column, self.message)?;
        writeln!(f, "{:gutter$} | {source}", self.line)?;
        write!(f, "{:gutter$} | {:column$}{}", "", "", "^".repeat(*width))?;
        match &self.hint {
            Some(hint) => write!(f, "\n{:gutter$} = hint: {hint}", ""),
            None => Ok(()),
        }
    }
}

/// Values of a configuration come from others: what would steer a terminal is shown as an escape.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mistake) in self.mistakes.iter().enumerate() {
            if at > 0 {
                f.write_str("\n\n")?;
            }
            mistake.write(&self.file, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl Classify for ConfigError {
    fn class(&self) -> ErrorClass {
        ErrorClass::User
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str, span: Range<usize>, secret: &[Range<usize>]) -> String {
        ConfigError::new("p.toml", text, vec![Found::new(span, "wrong", "mend it")], secret).to_string()
    }

    #[test]
    fn a_mistake_shows_its_line_with_marks_and_a_hint() {
        let text = "a = 1\n\tbé = 2\r\n";
        assert_eq!(render(text, 7..10, &[]), "p.toml:2:2: wrong\n2 |  bé = 2\n  |  ^^\n  = hint: mend it");
    }

    #[test]
    fn the_end_of_the_file_and_ranges_over_lines_have_a_place() {
        assert!(render("", 0..0, &[]).starts_with("p.toml:1:1: wrong\n1 | \n  | ^"));
        assert!(render("a\n", 9..12, &[]).starts_with("p.toml:2:1"));
        assert!(render("abc\ndef", 1..6, &[]).contains("  |  ^^\n"));
    }

    #[test]
    fn long_lines_are_cut_around_the_mistake() {
        let text = format!("{} = 1", "x".repeat(5_000));
        let shown = render(&text, 4_990..5_000, &[]);
        assert!(shown.len() < 700, "{shown}");
        assert!(shown.contains("^^^^^^^^^^\n"), "{shown}");
        assert!(render(&text, 0..5_000, &[]).len() < 700);
    }

    #[test]
    fn secrets_and_control_characters_are_not_shown() {
        let shown = render("k = \"hunter2\" \u{1b}[2J", 0..1, std::slice::from_ref(&(5..12)));
        assert!(shown.contains("k = \"*******\""), "{shown}");
        assert!(!shown.contains('\u{1b}'), "{shown}");
        assert_eq!(printable("a\u{1b}b"), "a\\u{1b}b");
    }
}
