//! Findings as SARIF 2.1.0 (OASIS), which code scanning reads.

use crate::Finding;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What found something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Findings as a SARIF document, the same bytes each time.
pub fn sarif(tool: &Tool, findings: &[Finding]) -> String {
    // The first finding of a rule describes it.
    let mut rules: BTreeMap<&str, Value> = BTreeMap::new();
    for finding in findings {
        let rule = || {
            let mut rule = json!({ "id": finding.rule, "shortDescription": { "text": finding.message } });
            if let Some(more) = &finding.more {
                rule["helpUri"] = json!(more);
            }
            rule
        };
        rules.entry(&finding.rule).or_insert_with(rule);
    }
    let results: Vec<Value> = findings.iter().map(result).collect();
    let driver =
        json!({ "name": tool.name, "version": tool.version, "rules": rules.into_values().collect::<Vec<_>>() });
    let document = json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{ "tool": { "driver": driver }, "results": results }],
    });
    serde_json::to_string_pretty(&document).expect("a document is plain data") + "\n"
}

fn result(finding: &Finding) -> Value {
    let mut out =
        json!({ "ruleId": finding.rule, "level": finding.level.word(), "message": { "text": finding.message } });
    if let Some(place) = &finding.place {
        let mut physical = json!({ "artifactLocation": { "uri": uri(&place.file) } });
        if let Some(line) = place.line {
            physical["region"] = json!({ "startLine": line.max(1) });
        }
        out["locations"] = json!([{ "physicalLocation": physical }]);
    }
    out
}

/// A path as a relative URI reference (RFC 3986, section 2.1): all but letters, digits and a few marks as `%XX`.
fn uri(path: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for byte in path.trim_start_matches("./").bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Level, Place};

    fn report() -> String {
        let place = |file: &str, line| Place { file: file.to_owned(), line };
        let findings = [
            Finding::new("RUSTSEC-2024-0001", Level::Error, "a 1.0.0: reads beyond its end")
                .at(place("Cargo.lock", Some(7)))
                .more(Some("https://rustsec.org/advisories/RUSTSEC-2024-0001".into())),
            Finding::new("RUSTSEC-2024-0001", Level::Error, "a 0.9.0: reads beyond its end")
                .at(place("a b/ü.rs", None)),
            Finding::new("unused", Level::Warning, "nobody uses `b`"),
        ];
        sarif(&Tool { name: "plimsoll".into(), version: "1.0.0".into() }, &findings)
    }

    #[test]
    fn it_reads_as_sarif_writes_it() {
        insta::assert_snapshot!(report());
    }

    #[test]
    fn a_reader_that_is_not_ours_understands_it() {
        let read: serde_sarif::sarif::Sarif = serde_json::from_str(&report()).unwrap();
        let run = &read.runs[0];
        assert_eq!(run.tool.driver.name, "plimsoll");
        assert_eq!(run.tool.driver.rules.as_ref().unwrap().len(), 2);
        assert_eq!(run.results.as_ref().unwrap().len(), 3);
    }
}
