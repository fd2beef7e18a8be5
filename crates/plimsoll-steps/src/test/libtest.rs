//! Reading what test runners print: libtest's lines, and nextest's.

/// One test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Case {
    /// The test binary or `doc-tests`.
    pub(super) suite: String,
    /// The test's path.
    pub(super) name: String,
    /// How it ended.
    pub(super) outcome: Outcome,
    /// What it printed, if it failed.
    pub(super) output: String,
}

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Failed,
    Ignored,
}

/// The tests in a log, in the order in which they ended.
pub(super) fn parse(log: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut suite = String::new();
    let mut printing: Option<usize> = None;
    for line in log.lines() {
        if let Some(name) = suite_of(line) {
            suite = name;
            printing = None;
        } else if let Some((name, outcome)) = libtest(line) {
            cases.push(Case { suite: suite.clone(), name, outcome, output: String::new() });
        } else if let Some((suite, name, outcome)) = nextest(line) {
            // A test that is tried again is listed again: the last word counts.
            cases.retain(|c| c.suite != suite || c.name != name);
            cases.push(Case { suite, name, outcome, output: String::new() });
        } else if let Some(name) = line.strip_prefix("---- ").and_then(|l| l.strip_suffix(" stdout ----")) {
            printing = cases.iter().rposition(|c| c.name == name && c.suite == suite);
        } else if line == "failures:" || line.starts_with("test result:") {
            printing = None;
        } else if let Some(case) = printing.and_then(|at| cases.get_mut(at)) {
            case.output.push_str(line);
            case.output.push('\n');
        }
    }
    cases
}

/// `     Running unittests src/lib.rs (target/debug/deps/kairos-0123)` or `   Doc-tests kairos`.
fn suite_of(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(package) = line.strip_prefix("Doc-tests ") {
        return Some(format!("doc-tests {package}"));
    }
    let rest = line.strip_prefix("Running ")?;
    let (source, _) = rest.rsplit_once(" (")?;
    Some(source.trim_start_matches("unittests ").to_owned())
}

/// `test a::b ... ok`.
fn libtest(line: &str) -> Option<(String, Outcome)> {
    let (name, result) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let outcome = match result.split([' ', ',']).next()? {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed,
        "ignored" => Outcome::Ignored,
        _ => return None,
    };
    Some((name.trim_end_matches(" - should panic").to_owned(), outcome))
}

/// `        PASS [   0.005s] (1/2) kairos::trading an_order_is_filled`.
fn nextest(line: &str) -> Option<(String, String, Outcome)> {
    let (word, rest) = line.trim_start().split_once(" [")?;
    let outcome = match word {
        "PASS" => Outcome::Passed,
        "FAIL" | "ABORT" | "TIMEOUT" | "SIGABRT" | "SIGSEGV" => Outcome::Failed,
        _ => return None,
    };
    let (_, rest) = rest.split_once(']')?;
    let rest = rest.trim_start();
    let rest = if rest.starts_with('(') { rest.split_once(") ")?.1 } else { rest };
    let (suite, name) = rest.trim().split_once(' ')?;
    Some((suite.to_owned(), name.trim().to_owned(), outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(log: &str, expected: &[(&str, &str, Outcome)]) {
        let found = parse(log);
        let found: Vec<_> = found.iter().map(|c| (c.suite.as_str(), c.name.as_str(), c.outcome)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_lines_of_libtest_are_read_with_their_suite() {
        check(
            "     Running unittests src/lib.rs (target/debug/deps/a-01)\nrunning 3 tests\ntest x::y ... ok\ntest x::z ... FAILED\n\
             test s - should panic ... ok\n     Running tests/it.rs (target/debug/deps/it-02)\ntest x::y ... ignored, slow\n\
             \x20  Doc-tests a\ntest src/lib.rs - (line 3) ... ok\n",
            &[
                ("src/lib.rs", "x::y", Outcome::Passed),
                ("src/lib.rs", "x::z", Outcome::Failed),
                ("src/lib.rs", "s", Outcome::Passed),
                ("tests/it.rs", "x::y", Outcome::Ignored),
                ("doc-tests a", "src/lib.rs - (line 3)", Outcome::Passed),
            ],
        );
    }

    #[test]
    fn what_a_failing_test_printed_is_kept_with_it() {
        let log = "     Running tests/it.rs (t)\ntest a ... FAILED\n\nfailures:\n\n---- a stdout ----\nthread 'a' panicked\nwhy\n\nfailures:\n    a\n";
        assert_eq!(parse(log)[0].output.trim(), "thread 'a' panicked\nwhy");
    }

    #[test]
    fn the_lines_of_nextest_are_read_and_a_retry_replaces_the_first_try() {
        check(
            "        FAIL [   0.010s] (1/2) kairos::trading fills\n        PASS [   0.005s] (2/2) kairos::trading fills\n        PASS [   0.005s] kairos x::y\n",
            &[("kairos::trading", "fills", Outcome::Passed), ("kairos", "x::y", Outcome::Passed)],
        );
    }
}
