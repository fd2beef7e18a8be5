//! What `cargo machete` prints: packages, each with the dependencies that nothing in it names.

use crate::{Finding, Level, Place};

/// The rule's name.
const RULE: &str = "unused-dependency";

/// The findings in the tool's output.
pub fn findings(text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut package: Option<(&str, &str)> = None;
    for line in text.lines() {
        if let Some(dependency) = line.strip_prefix('\t') {
            if let Some((name, manifest)) = package {
                let message =
                    format!("{name} names `{}` among its dependencies and does not use it", dependency.trim());
                let file = manifest.trim_start_matches("./").to_owned();
                found.push(Finding::new(RULE, Level::Error, message).at(Place { file, line: None }));
            }
        } else {
            let named = line.trim_end_matches(':').split_once(" -- ");
            package = named.filter(|(_, manifest)| manifest.ends_with("Cargo.toml"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unused_dependency_is_named_with_its_manifest() {
        let text = "cargo-machete found the following unused dependencies in this directory:\nshop -- ./crates/shop/Cargo.toml:\n\tlog\n\
                    \tserde\n\nIf you believe\nweb -- ./Cargo.toml:\n\tlog\n";
        let found: Vec<String> =
            findings(text).iter().map(|f| format!("{}: {}", f.place.as_ref().unwrap(), f.message)).collect();
        assert_eq!(
            found,
            [
                "crates/shop/Cargo.toml: shop names `log` among its dependencies and does not use it",
                "crates/shop/Cargo.toml: shop names `serde` among its dependencies and does not use it",
                "Cargo.toml: web names `log` among its dependencies and does not use it",
            ]
        );
    }
}
