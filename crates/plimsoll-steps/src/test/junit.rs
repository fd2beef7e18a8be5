//! Rendering a JUnit report, in the shape that CI systems read: `testsuites` / `testsuite` / `testcase`.

use super::libtest::{Case, Outcome};
use std::{collections::BTreeMap, fmt::Write};

/// The report of a package's tests.
pub(super) fn render(package: &str, cases: &[Case]) -> String {
    let mut suites: BTreeMap<&str, Vec<&Case>> = BTreeMap::new();
    for case in cases {
        suites.entry(&case.suite).or_default().push(case);
    }
    let count = |cases: &[&Case], outcome| cases.iter().filter(|c| c.outcome == outcome).count();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let text = |out: &mut String, line: std::fmt::Arguments<'_>| {
        out.write_fmt(line).expect("a string can always be written to");
    };
    text(&mut out, format_args!("<testsuites name=\"{}\">\n", escape(package)));
    for (suite, cases) in &suites {
        let (failed, ignored) = (count(cases, Outcome::Failed), count(cases, Outcome::Ignored));
        let name = escape(suite);
        text(
            &mut out,
            format_args!(
                "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{failed}\" skipped=\"{ignored}\">\n",
                cases.len()
            ),
        );
        for case in cases {
            let head = format!("    <testcase classname=\"{}\" name=\"{}\"", escape(package), escape(&case.name));
            match case.outcome {
                Outcome::Passed => text(&mut out, format_args!("{head}/>\n")),
                Outcome::Ignored => text(&mut out, format_args!("{head}><skipped/></testcase>\n")),
                Outcome::Failed => {
                    let output = escape(&case.output);
                    text(&mut out, format_args!("{head}><failure message=\"failed\">{output}</failure></testcase>\n"));
                }
            }
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

/// Escapes for XML 1.0; characters that it cannot hold at all (section 2.2) become U+FFFD.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => out.push(c),
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_per_suite_and_escapes_what_tests_print() {
        let case = |name: &str, outcome, output: &str| Case {
            suite: "tests/it.rs".into(),
            name: name.into(),
            outcome,
            output: output.into(),
        };
        let cases = [
            case("a", Outcome::Passed, ""),
            case("b", Outcome::Failed, "left: \"<1>\" & \x1b[31m"),
            case("c", Outcome::Ignored, ""),
        ];
        let report = render("p", &cases);
        assert!(report.contains(r#"<testsuite name="tests/it.rs" tests="3" failures="1" skipped="1">"#), "{report}");
        assert!(report.contains("left: &quot;&lt;1&gt;&quot; &amp; \u{fffd}[31m"), "{report}");
        assert!(report.contains(r#"<testcase classname="p" name="c"><skipped/></testcase>"#), "{report}");
    }
}
