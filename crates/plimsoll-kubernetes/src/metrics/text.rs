//! The text formats of Prometheus and `OpenMetrics`, as far as samples go. Pure.
//!
//! Strict: a line that cannot be read is an error, because a sample that is left out looks like nothing having happened.
//! Parsers that were to be had leave such lines out, or break labels at `}` and `,`, which routes have
//! (docs/adr/0016).

use std::collections::BTreeMap;

/// One line with a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// What a replica shows.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Exposition {
    pub(crate) samples: Vec<Sample>,
    /// Names that a `# TYPE` line declares, with samples or without.
    pub(crate) declared: Vec<String>,
}

/// A line that is not of the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of its metrics cannot be read, {what}: {text}")]
pub(crate) struct TextError {
    line: usize,
    what: &'static str,
    /// As much of it as a message holds.
    text: String,
}

/// Reads all samples.
pub(crate) fn parse(text: &str) -> Result<Exposition, TextError> {
    let mut all = Exposition::default();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix('#') {
            let mut words = comment.split_whitespace();
            if let (Some("TYPE"), Some(name)) = (words.next(), words.next()) {
                all.declared.push(name.trim_matches('"').to_owned());
            }
        } else if !line.is_empty() {
            let error = |what| TextError { line: index + 1, what, text: line.chars().take(80).collect() };
            all.samples.push(sample(line).map_err(error)?);
        }
    }
    Ok(all)
}

fn sample(line: &str) -> Result<Sample, &'static str> {
    let end = line.find(|c: char| c == '{' || c.is_whitespace()).ok_or("it has no value")?;
    let (name, rest) = line.split_at(end);
    let mut sample = Sample { name: name.to_owned(), labels: BTreeMap::new(), value: 0.0 };
    let rest = match rest.trim_start().strip_prefix('{') {
        Some(inside) => labels(inside, &mut sample)?,
        None => rest,
    };
    if sample.name.is_empty() {
        return Err("it has no name");
    }
    // A time stamp and an exemplar may follow.
    let value = rest.split_whitespace().next().ok_or("it has no value")?;
    sample.value = number(value).ok_or("its value is no number")?;
    Ok(sample)
}

/// A number as both formats write it.
pub(crate) fn number(text: &str) -> Option<f64> {
    // Both say `+Inf`, `-Inf` and `NaN`, which Rust reads; it also reads `infinity`, which does no harm.
    text.parse().ok()
}

/// Reads `key="value",…}` and returns what follows. A quoted text without a value is the sample's name.
fn labels<'a>(mut rest: &'a str, sample: &mut Sample) -> Result<&'a str, &'static str> {
    // Each turn takes something from the line.
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if let Some(after) = rest.strip_prefix('}') {
            return Ok(after);
        }
        let key;
        if let Some(inside) = rest.strip_prefix('"') {
            let (text, after) = quoted(inside)?;
            (key, rest) = (text, after.trim_start());
            if !rest.starts_with('=') {
                sample.name = key;
                continue;
            }
        } else {
            let end = rest.find('=').ok_or("a label has no value")?;
            key = rest[..end].trim().to_owned();
            rest = &rest[end..];
        }
        let inside = rest[1..].trim_start().strip_prefix('"').ok_or("a label's value has no quotes")?;
        let (value, after) = quoted(inside)?;
        sample.labels.insert(key, value);
        rest = after;
    }
}

/// The text up to the closing quotes, and what follows them.
fn quoted(inside: &str) -> Result<(String, &str), &'static str> {
    let mut text = String::new();
    let mut chars = inside.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((text, &inside[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, other)) => text.push(other),
                None => break,
            },
            other => text.push(other),
        }
    }
    Err("a quoted text has no end")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, name: &str, pairs: &[(&str, &str)], value: f64) {
        let labels = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(parse(line).unwrap().samples, [Sample { name: name.to_owned(), labels, value }], "{line}");
    }

    #[test]
    fn samples_are_read_whatever_their_labels_hold() {
        check("up 1", "up", &[], 1.0);
        check(
            "a_total{route=\"/orders/{id}\",status=\"200\"} 3",
            "a_total",
            &[("route", "/orders/{id}"), ("status", "200")],
            3.0,
        );
        check(r#"a{text="a \"b\", \\ c = d",} 1.5e3 1395066363000"#, "a", &[("text", "a \"b\", \\ c = d")], 1500.0);
        check("a { x = \"1\" , y=\"2\" }\t+Inf", "a", &[("x", "1"), ("y", "2")], f64::INFINITY);
        check("a_bucket{le=\"0.1\"} 8 # {trace=\"x\"} 0.05 1520879607.789", "a_bucket", &[("le", "0.1")], 8.0);
        check("{\"with.dots\",x=\"1\"} 2", "with.dots", &[("x", "1")], 2.0);
    }

    #[test]
    fn both_formats_end_declare_and_comment() {
        let text = "# HELP a Answers\n# TYPE a counter\n# UNIT a things\n\na_total 1\r\n# EOF\n";
        let read = parse(text).unwrap();
        assert_eq!((read.samples.len(), read.declared.as_slice()), (1, &["a".to_owned()][..]));
    }

    #[test]
    fn a_line_that_cannot_be_read_is_not_left_out() {
        let fails = |text: &str, words: &str| {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        fails("ok 1\nbroken", "line 2 of its metrics cannot be read, it has no value: broken");
        fails("a{x=\"1\"", "a label has no value");
        fails("a{x=\"1", "a quoted text has no end");
        fails("a{x=1} 2", "has no quotes");
        fails("a{x=\"1\"} many", "its value is no number");
        fails("<html>404 not found</html>", "its value is no number");
    }
}
