//! Restricting a pipeline to some of its steps. Pure.
//!
//! A pattern is a step's whole name (`deploy[staging]`), the kind before the bracket (`deploy`), or a kind with the first part of
//! a label (`deploy[staging]` also means `deploy[staging/api]`).

use crate::cli_error::CliError;
use plimsoll_engine::Pipeline;
use std::collections::BTreeSet;

/// The kind in a step's name: what stands before the label.
pub(crate) fn kind(step: &str) -> &str {
    step.split_once('[').map_or(step, |(kind, _)| kind)
}

/// Whether `pattern` means `step`.
pub(crate) fn matches(step: &str, pattern: &str) -> bool {
    let rest = pattern.strip_suffix(']').and_then(|begin| step.strip_prefix(begin));
    step == pattern || kind(step) == pattern || rest.is_some_and(|rest| rest.starts_with('/'))
}

/// The pipeline with what the patterns mean, all that needs, and the finally-steps; whole if there is no pattern.
pub(crate) fn restrict(pipeline: Pipeline, patterns: &[String]) -> Result<Pipeline, CliError> {
    if patterns.is_empty() {
        return Ok(pipeline);
    }
    let names = pipeline.step_names();
    if !names.iter().any(|name| patterns.iter().any(|pattern| matches(name, pattern))) {
        let kinds: BTreeSet<&str> = names.iter().map(|name| kind(name)).collect();
        return Err(CliError::NothingMatches {
            pipeline: pipeline.name().to_owned(),
            patterns: patterns.to_vec(),
            known: kinds.into_iter().map(str::to_owned).collect(),
            steps: names,
        });
    }
    Ok(pipeline.only(|name| patterns.iter().any(|pattern| matches(name, pattern))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_name_a_kind_or_the_beginning_of_a_label() {
        for (step, pattern, expected) in [
            ("fmt", "fmt", true),
            ("test[core]", "test", true),
            ("test[core]", "test[core]", true),
            ("test[core-more]", "test[core]", false),
            ("deploy[staging/api]", "deploy[staging]", true),
            ("deploy[staging2/api]", "deploy[staging]", false),
            ("tests[core]", "test", false),
            ("fmt", "f", false),
            ("fmt", "", false),
        ] {
            assert_eq!(matches(step, pattern), expected, "{step} {pattern}");
        }
    }
}
