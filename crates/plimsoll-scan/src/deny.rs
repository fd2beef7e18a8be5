//! What `cargo deny --format json check` prints: one JSON object a line.

use crate::{Finding, Level, Place};
use serde::Deserialize;

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    fields: Fields,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Fields {
    code: Option<String>,
    severity: String,
    message: String,
    labels: Vec<Label>,
    graphs: Vec<Graph>,
}

#[derive(Deserialize)]
struct Label {
    #[serde(default)]
    message: String,
    #[serde(default)]
    span: String,
}

#[derive(Deserialize)]
struct Graph {
    #[serde(rename = "Krate")]
    krate: Krate,
}

#[derive(Deserialize)]
struct Krate {
    name: String,
    version: String,
}

/// The findings among the lines; `file` is where they are placed, because the tool's own places lie in other files as well and
/// it does not say in which.
pub fn findings(text: &str, file: &str) -> Vec<Finding> {
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    lines.filter(|line| line.kind == "diagnostic").filter_map(|line| finding(line.fields, file)).collect()
}

fn finding(fields: Fields, file: &str) -> Option<Finding> {
    let level = match fields.severity.as_str() {
        "error" | "bug" => Level::Error,
        "warning" => Level::Warning,
        "note" => Level::Note,
        // What passed is told as help.
        _ => return None,
    };
    let mut message = fields.message;
    if let Some(Graph { krate: Krate { name, version } }) = fields.graphs.first() {
        message = format!("{name} {version}: {message}");
    }
    // Of many places the one that says something tells the most.
    let label = fields.labels.iter().find(|label| !label.message.is_empty() && label.message != "lock entries");
    if let Some(Label { message: said, span }) = label {
        message = format!("{message}: `{span}` {said}");
    }
    let place = Place { file: file.to_owned(), line: None };
    Some(Finding::new(fields.code.unwrap_or_else(|| "deny".to_owned()), level, message).at(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_name_rule_crate_and_what_is_wrong_and_what_passed_is_none() {
        let text = concat!(
            r#"{"fields":{"code":"rejected","graphs":[{"Krate":{"name":"zerocopy","version":"0.8.1"}}],"labels":[{"column":12,"line":57,"#,
            r#""message":"","span":"A AND B"},{"column":29,"line":57,"message":"rejected: license is not explicitly allowed","span":"B"}],"#,
            r#""message":"failed to satisfy license requirements","severity":"error"},"type":"diagnostic"}"#,
            "\n",
            r#"{"fields":{"code":"duplicate","labels":[{"message":"lock entries","span":"x"}],"message":"found 2 duplicate entries","#,
            r#""severity":"warning"},"type":"diagnostic"}"#,
            "\n",
            r#"{"fields":{"code":"accepted","labels":[],"message":"fine","severity":"help"},"type":"diagnostic"}"#,
            "\nerror: something else\n",
            r#"{"fields":{"bans":{"errors":0}},"type":"summary"}"#,
        );
        let found: Vec<String> = findings(text, "Cargo.lock").iter().map(ToString::to_string).collect();
        let refused = "Cargo.lock: error rejected: zerocopy 0.8.1: failed to satisfy license requirements: `B` rejected: \
                       license is not explicitly allowed";
        assert_eq!(found, [refused, "Cargo.lock: warning duplicate: found 2 duplicate entries"]);
    }
}
