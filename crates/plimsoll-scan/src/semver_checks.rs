//! What `cargo semver-checks` prints: for each rule that is broken, what broke it.

use crate::{Finding, Level, Place};

/// The findings in what the tool prints to its standard output. `dir` is the package's directory, relative to the workspace's
/// root: places are told from there.
pub fn findings(text: &str, package: &str, dir: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let (mut rule, mut title, mut more, mut listing) = (None, "", None, false);
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some((level, named)) = heading(trimmed) {
            let (name, what) = named.split_once(": ").unwrap_or((named, named));
            (rule, title, more, listing) = (Some((level, name)), what, None, false);
        } else if let Some(address) = trimmed.strip_prefix("ref: ") {
            more = Some(address.to_owned());
        } else if trimmed == "Failed in:" {
            listing = true;
        } else if let Some((level, name)) = rule.filter(|_| listing && line.starts_with("  ")) {
            let (what, place) = place(trimmed, dir);
            let finding = Finding::new(name, level, format!("{package}: {title}: {what}")).more(more.clone());
            found.push(finding.at(place));
        } else if !trimmed.is_empty() {
            listing = false;
        }
    }
    found
}

/// `--- failure function_missing: pub fn removed or renamed ---`
fn heading(line: &str) -> Option<(Level, &str)> {
    let inner = line.strip_prefix("--- ")?.strip_suffix(" ---")?;
    let (word, rest) = inner.split_once(' ')?;
    match word {
        "failure" => Some((Level::Error, rest)),
        "warning" => Some((Level::Warning, rest)),
        _ => None,
    }
}

/// What is told before ` in FILE:LINE`, and the place: of what is gone it is where it was, in a copy of the older version.
fn place<'a>(line: &'a str, dir: &str) -> (&'a str, Place) {
    let parts = line.rsplit_once(" in ").and_then(|(what, place)| Some((what, place.rsplit_once(':')?)));
    let Some((what, (file, number))) = parts else {
        return (line, Place { file: join(dir, "Cargo.toml"), line: None });
    };
    let file = file.trim_start_matches("file ");
    let file = file.rfind("/src/").filter(|_| file.starts_with('/')).map_or(file, |at| &file[at + 1..]);
    (what, Place { file: join(dir, file), line: number.parse().ok() })
}

fn join(dir: &str, file: &str) -> String {
    if dir.is_empty() { file.to_owned() } else { format!("{dir}/{file}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "
--- failure enum_variant_added: enum variant added on exhaustive enum ---

Description:
A public enum has a new variant.
        ref: https://doc.rust-lang.org/cargo/reference/semver.html#enum-variant-new
       impl: https://h.example/enum_variant_added.ron

Failed in:
  variant E:B in /w/shop/src/lib.rs:2
  variant E:C in /w/shop/src/lib.rs:3

--- failure function_missing: pub fn removed or renamed ---

Description:
A function is gone.

Failed in:
  function lib::a, previously in file /w/target/semver-checks/git-v0_1_0/0000/src/a.rs:1
";

    #[test]
    fn each_break_is_named_with_its_rule_and_its_place() {
        let found = findings(PRINTED, "shop", "crates/shop");
        let told: Vec<String> = found.iter().map(ToString::to_string).collect();
        let added = "error enum_variant_added: shop: enum variant added on exhaustive enum: variant";
        let gone = "error function_missing: shop: pub fn removed or renamed: function lib::a, previously";
        assert_eq!(
            told,
            [
                format!("crates/shop/src/lib.rs:2: {added} E:B"),
                format!("crates/shop/src/lib.rs:3: {added} E:C"),
                format!("crates/shop/src/a.rs:1: {gone}"),
            ]
        );
        assert!(found[0].more.as_deref().unwrap().ends_with("#enum-variant-new"));
        assert_eq!(found[2].more, None);
    }
}
