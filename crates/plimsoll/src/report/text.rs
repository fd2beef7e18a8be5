//! Small pieces of text: durations, sizes, colours, tables. Pure.

use plimsoll_core::Ending;

/// A duration, short: `12 ms`, `3.4 s`, `2 m 05 s`, `1 h 02 m`.
pub(crate) fn duration(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..59_950 => format!("{}.{} s", (millis + 50) / 1_000, (millis + 50) % 1_000 / 100),
        _ => {
            let seconds = (millis + 500) / 1_000;
            match seconds {
                0..3_600 => format!("{} m {:02} s", seconds / 60, seconds % 60),
                _ => format!("{} h {:02} m", seconds / 3_600, seconds % 3_600 / 60),
            }
        }
    }
}

/// A size in bytes, short.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{} KiB", bytes / 1_024),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes / 1_048_576),
        _ => format!("{}.{} GiB", bytes / 1_073_741_824, bytes % 1_073_741_824 * 10 / 1_073_741_824),
    }
}

/// Colours by what they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Bad,
    Look,
    Faint,
}

/// `text` in a colour, if colours are wanted.
pub(crate) fn paint(color: bool, tone: Tone, text: &str) -> String {
    let code = match tone {
        Tone::Good => "32",
        Tone::Bad => "31;1",
        Tone::Look => "33",
        Tone::Faint => "2",
    };
    if color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// The colour of a step's ending.
pub(crate) fn tone(ending: &Ending) -> Tone {
    match ending {
        Ending::Done | Ending::FoundDone => Tone::Good,
        Ending::Cached | Ending::Replayed => Tone::Faint,
        Ending::Skipped { .. } | Ending::Parked { .. } | Ending::Cancelled => Tone::Look,
        Ending::Failed { .. } => Tone::Bad,
    }
}

/// `1 step`, `2 steps`.
pub(crate) fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Text of others on one line of a terminal: control characters shown, not obeyed.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\t' {
                ' '
            } else if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

/// Text of others on several lines: control characters but line ends and tabs shown, not obeyed.
pub(crate) fn lines_of(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' && c != '\t' { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

/// Rows with their columns in line; the last column is not padded.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter(|row| row.len() > column + 1).map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if column + 1 < row.len() {
                let pad = widths[column].saturating_sub(cell.chars().count()) + 2;
                line.extend(std::iter::repeat_n(' ', pad));
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short_and_never_say_sixty_seconds() {
        for (millis, expected) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (3_449, "3.4 s"),
            (59_949, "59.9 s"),
            (59_950, "1 m 00 s"),
            (125_000, "2 m 05 s"),
            (3_599_600, "1 h 00 m"),
            (3_720_000, "1 h 02 m"),
        ] {
            assert_eq!(duration(millis), expected);
        }
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, expected) in [(5, "5 B"), (2_048, "2 KiB"), (5 << 20, "5 MiB"), (3 << 29, "1.5 GiB")] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn columns_are_in_line_and_lines_have_no_blanks_at_their_end() {
        let rows = [vec!["a".into(), "long".into(), "x".into()], vec!["bbb".into(), "é".into(), String::new()]];
        assert_eq!(table(&rows), "a    long  x\nbbb  é\n");
    }

    #[test]
    fn escapes_of_others_do_not_reach_the_terminal() {
        assert_eq!(one_line("a\u{1b}[2Jb\nc\td"), "a\u{fffd}[2Jb\u{fffd}c d");
        assert_eq!(lines_of("a\u{7}\nb"), "a\u{fffd}\nb");
    }
}
