//! A notice as a Slack message of Block Kit blocks: header, fields, what failed or waits, how to go on. Pure.
//!
//! Slack's documented limits are kept: a header has 150 characters, a section's text 3000, a section ten fields of 2000.
//! `&`, `<` and `>` are escaped everywhere and texts are verbatim, so that nothing in them becomes a mention or a link.

use super::message::Notice;
use serde_json::{Value, json};

const HEADER: usize = 150;
const TEXT: usize = 3000;
const FIELD: usize = 2000;
const FIELDS: usize = 10;

/// The body of a request to an incoming webhook.
pub(super) fn render(notice: &Notice) -> Value {
    let headline = notice.headline();
    let mut blocks = vec![json!({ "type": "header", "text": plain_text(&headline, HEADER) })];
    let facts = notice.facts();
    let fields: Vec<Value> = facts.iter().take(FIELDS).map(|(label, value)| field(label, value)).collect();
    blocks.push(json!({ "type": "section", "fields": fields }));
    if let Some(failure) = &notice.failure {
        blocks.push(section(&format!("{}: {}", failure.step, failure.text())));
    }
    for waiting in &notice.waiting {
        blocks.push(section(&format!("{} waits for {}", waiting.step, waiting.what)));
    }
    if !notice.commands.is_empty() {
        blocks.push(section(&format!("Go on with: {}", notice.commands.join(", then "))));
    }
    let context = plain_text(&format!("{} · run {}", notice.pipeline, notice.run), FIELD);
    blocks.push(json!({ "type": "context", "elements": [context] }));
    // What notifications show, and clients without blocks.
    json!({ "text": escaped(&headline, TEXT), "blocks": blocks })
}

fn section(text: &str) -> Value {
    json!({ "type": "section", "text": plain_text(text, TEXT) })
}

fn plain_text(text: &str, most: usize) -> Value {
    json!({ "type": "plain_text", "text": escaped(text, most), "emoji": false })
}

/// A bold label, and under it the value. The characters of Slack's own markup have no escape: they are shown as their look-alikes.
fn field(label: &str, value: &str) -> Value {
    let value: String = value.chars().map(without_markup).collect();
    let label = format!("*{label}*\n");
    let value = escaped(&value, FIELD - label.len());
    json!({ "type": "mrkdwn", "text": format!("{label}{value}"), "verbatim": true })
}

const fn without_markup(c: char) -> char {
    match c {
        '*' => '∗',
        '_' => 'ˍ',
        '~' => '∼',
        '`' => 'ˋ',
        other => other,
    }
}

/// `text` with `&`, `<` and `>` escaped, as long as the escaped text has at most `most` UTF-16 units: the strictest way to
/// count characters. No escape is cut in two.
fn escaped(text: &str, most: usize) -> String {
    let (mut out, mut length) = (String::new(), 0);
    let mut buffer = [0; 4];
    for c in text.chars() {
        let piece: &str = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            other => other.encode_utf8(&mut buffer),
        };
        length += piece.encode_utf16().count();
        if length > most {
            // The last piece makes room for the mark that something is missing.
            while out.encode_utf16().count() + 1 > most {
                let cut = out.rfind('&').filter(|at| out.ends_with(';') && out.len() - at <= 5);
                out.truncate(cut.unwrap_or_else(|| out.char_indices().next_back().map_or(0, |(at, _)| at)));
            }
            out.push('…');
            break;
        }
        out.push_str(piece);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_slack_reads_as_markup_is_escaped() {
        for (text, expected) in
            [("<!channel> & <@U1>", "&lt;!channel&gt; &amp; &lt;@U1&gt;"), ("&lt;", "&amp;lt;"), ("plain", "plain")]
        {
            assert_eq!(escaped(text, 100), expected);
        }
    }

    #[test]
    fn a_text_is_cut_at_its_limit_and_never_within_an_escape() {
        for (text, most, expected) in [
            ("abcd", 4, "abcd"),
            ("abcde", 4, "abc…"),
            ("a<<<", 8, "a&lt;…"),
            ("a<<<", 9, "a&lt;…"),
            ("&&", 9, "&amp;…"),
            ("🦀🦀", 3, "🦀…"),
        ] {
            let cut = escaped(text, most);
            assert_eq!(cut, expected, "{text} at {most}");
            assert!(cut.encode_utf16().count() <= most);
        }
    }
}
