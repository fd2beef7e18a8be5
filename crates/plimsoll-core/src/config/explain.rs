//! Turns what serde says about a value into this project's words, with a hint: the nearest key, the allowed values,
//! the expected type.

/// A message and a hint; an empty hint is none.
pub(super) fn explain(message: &str) -> (String, String) {
    // Types of this module put their hint on a second line.
    if let Some((what, hint)) = message.split_once('\n') {
        return (what.to_owned(), hint.trim_end().to_owned());
    }
    if let Some((key, allowed)) = unknown(message, "unknown field `") {
        return (format!("unknown key `{key}`"), choice(key, &allowed, "there are no keys here"));
    }
    if let Some((word, allowed)) = unknown(message, "unknown variant `") {
        return (format!("unknown value `{word}`"), choice(word, &allowed, ""));
    }
    if let Some(key) = missing_key(message) {
        return (format!("missing key `{key}`"), format!("add `{key} = …` to this table"));
    }
    if let Some((found, expected)) = mismatch(message) {
        let quoted = matches!(found.split(' ').next(), Some("integer" | "floating" | "boolean"));
        let hint = match expected.as_str() {
            "a text" if quoted => "write it in quotes",
            "a list" => "write it in brackets: [ … ]",
            "a table" => "write it in braces: { key = value }",
            _ if found.starts_with("string") => "write it without quotes",
            _ => "",
        };
        return (format!("expected {expected}, found {found}"), hint.to_owned());
    }
    match message {
        "wanted string or table" => {
            ("expected a text".to_owned(), "write one of the allowed words, in quotes".to_owned())
        }
        m if m.starts_with("wanted exactly 1 element") => ("expected exactly one key".to_owned(), SECRET.to_owned()),
        other => (lower_first(other), String::new()),
    }
}

/// How a secret is written.
const SECRET: &str = "write `{ env = \"VARIABLE\" }` or `{ file = \"path\" }`";

/// The key that a message of serde misses.
pub(super) fn missing_key(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.strip_suffix('`')
}

/// Whether a table that must have one key of several has none.
pub(super) fn is_empty_choice(message: &str) -> bool {
    message.starts_with("wanted exactly 1 element, found 0")
}

/// The candidate that is most like `word`, if it is like it at all.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may differ, and always one: `prot` is `port`, `x` is nothing.
    let most = (word.chars().count() / 3).max(1) + usize::from(word.len() > 3);
    candidates.into_iter().map(|c| (distance(word, c), c)).filter(|(d, _)| *d <= most).min().map(|(_, c)| c)
}

/// `did you mean …`, or all candidates.
pub(super) fn choice(word: &str, allowed: &[&str], none: &str) -> String {
    if allowed == ["env", "file"] {
        return SECRET.to_owned();
    }
    let all = allowed.iter().map(|a| format!("`{a}`")).collect::<Vec<_>>().join(", ");
    match nearest(word, allowed.iter().copied()) {
        Some(near) if allowed.len() > 4 => format!("did you mean `{near}`?"),
        Some(near) => format!("did you mean `{near}`? allowed: {all}"),
        None if allowed.is_empty() => none.to_owned(),
        None => format!("allowed: {all}"),
    }
}

/// `PREFIX word`, expected one of `a`, `b`.
fn unknown<'m>(message: &'m str, prefix: &str) -> Option<(&'m str, Vec<&'m str>)> {
    let rest = message.strip_prefix(prefix)?;
    // The word comes from the file and may hold anything; the allowed ones after the last comma-expected do not.
    let (word, allowed) = rest.rsplit_once("`, expected ").or_else(|| rest.rsplit_once("`, there are no "))?;
    Some((word, allowed.split('`').skip(1).step_by(2).collect()))
}

/// `invalid type: FOUND, expected EXPECTED`, and likewise for values and lengths.
fn mismatch(message: &str) -> Option<(String, String)> {
    let rest = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "))?;
    let (found, expected) = rest.rsplit_once(", expected ")?;
    let expected = match expected {
        "a string" => "a text",
        "a sequence" => "a list",
        "a map" => "a table",
        "a boolean" => "`true` or `false`",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number from 0",
        "f64" => "a number",
        e if e.starts_with("struct ") => "a table",
        other => other,
    };
    let found = found.replace("sequence", "list").replace("map", "table");
    Some((found, expected.to_owned()))
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect())
}

/// Edit distance with neighbours swapped as one edit (optimal string alignment); words are cut at 64 characters, more than
/// any key has.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut rows = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swapped_letters_and_left_out_ones_are_near() {
        let keys = ["package", "port", "replicas"];
        for (word, near) in
            [("prot", Some("port")), ("replcas", Some("replicas")), ("packages", Some("package")), ("x", None)]
        {
            assert_eq!(nearest(word, keys), near, "{word}");
        }
        assert_eq!((distance("", "abc"), distance("ab", "ba"), distance("kitten", "sitting")), (3, 1, 3));
    }

    #[test]
    fn messages_are_put_into_plain_words() {
        for (from, what, hint) in [
            ("unknown field `prot`, expected one of `port`, `env`", "unknown key `prot`", "did you mean `port`?"),
            ("unknown field `x`, there are no fields", "unknown key `x`", "there are no keys here"),
            ("unknown field `a`, expected b`, expected `c`", "unknown key `a`, expected b`", "allowed: `c`"),
            ("invalid type: integer `3`, expected a string", "expected a text, found integer `3`", "quotes"),
            ("invalid type: string \"3\", expected u16", "expected a whole number", "without quotes"),
            ("invalid type: map, expected a sequence", "expected a list, found table", "brackets"),
            ("Something else", "something else", ""),
        ] {
            let (message, hinted) = explain(from);
            assert!(message.starts_with(what), "{message}");
            assert!(hinted.contains(hint), "{hinted}");
        }
    }
}
