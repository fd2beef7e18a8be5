//! What must be said of an image before it may serve behind a gate, and by whom. Pure: what a registry holds is handed in.

use crate::{Bundle, CYCLONEDX, PROVENANCE, PublicKey, SIGNATURE, Statement, Told, Untrusted};
use plimsoll_core::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeSet, fmt};

/// A rule of the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The registry has every byte of the image, as its digest says.
    Content,
    /// The release's tag names this image.
    Tag,
    /// A trusted key signed it.
    Signature,
    /// A trusted provenance names the repository and the commit.
    Provenance,
    /// There is a trusted bill of materials.
    Bom,
    /// Nothing that is linked in is known to be vulnerable above the limit. Who knows that judges it: see [`linked_in`].
    Advisories,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Content => "content",
            Self::Tag => "tag",
            Self::Signature => "signature",
            Self::Provenance => "provenance",
            Self::Bom => "bom",
            Self::Advisories => "advisories",
        })
    }
}

/// A rule that is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which rule.
    pub rule: Rule,
    /// The image or index.
    pub subject: Digest,
    /// How it is broken.
    pub reason: String,
}

/// What a provenance has to name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// The repository.
    pub repository: String,
    /// The commit that the image's sources come from; any, where nobody knows it.
    pub revision: Option<String>,
}

/// The bundles that a registry lists for a subject.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// The image or index.
    pub subject: &'a Digest,
    /// The bundles' bytes.
    pub bundles: &'a [Vec<u8>],
}

/// The rules that are broken for one image or index.
pub fn judge(said: Said<'_>, keys: &[PublicKey], expected: &Expected) -> Vec<Finding> {
    let opened: Vec<_> = said.bundles.iter().map(|bytes| Bundle::open(bytes, keys)).collect();
    let trusted: Vec<&Statement> = opened.iter().filter_map(|one| one.as_ref().ok()).collect();
    let doubts: Vec<&Untrusted> = opened.iter().filter_map(|one| one.as_ref().err()).collect();
    let rules = [(Rule::Signature, SIGNATURE), (Rule::Provenance, PROVENANCE), (Rule::Bom, CYCLONEDX)];
    let broken = rules.into_iter().filter_map(|(rule, predicate)| {
        let of_kind: Vec<_> = trusted.iter().filter(|one| is_of(&one.predicate_type, predicate)).copied().collect();
        let about: Vec<_> = of_kind.iter().filter(|one| one.is_about(said.subject)).copied().collect();
        let reason =
            if about.is_empty() { Some(missing(rule, &of_kind, &doubts)) } else { wrong(rule, &about, expected) };
        let reason = reason.map(|reason| plain(&reason));
        reason.map(|reason| Finding { rule, subject: said.subject.clone(), reason })
    });
    broken.collect()
}

/// Name and version of every library of crates.io that a trusted bill of materials lists, and of the standard library as `std`.
pub fn linked_in(said: Said<'_>, keys: &[PublicKey]) -> BTreeSet<(String, String)> {
    let opened = said.bundles.iter().filter_map(|bytes| Bundle::open(bytes, keys).ok());
    let bills = opened.filter(|one| is_of(&one.predicate_type, CYCLONEDX) && one.is_about(said.subject));
    bills.flat_map(|bill| libraries(&bill.predicate)).collect()
}

/// Name and version of every library of crates.io in a bill of materials, and of the standard library as `std`.
pub fn libraries(bill: &Value) -> BTreeSet<(String, String)> {
    let components = bill["components"].as_array().into_iter().flatten();
    let named = components.filter_map(|component| {
        let (name, version) = (component["name"].as_str()?, component["version"].as_str()?);
        // Of another source than crates.io a package URL says which, after a question mark.
        let is_known = match component["purl"].as_str() {
            Some(purl) => purl.starts_with("pkg:cargo/") && !purl.contains('?'),
            None => name == "std",
        };
        is_known.then(|| (name.to_owned(), version.to_owned()))
    });
    named.collect()
}

/// The longest reason, in characters: two addresses and two commits fit.
const MAX_REASON: usize = 600;

/// A reason on one line of bounded length: parts of it stand in what others wrote.
fn plain(reason: &str) -> String {
    let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    reason.chars().take(MAX_REASON).map(shown).collect()
}

/// Whether a predicate is of a kind; versions of it come after a slash.
fn is_of(predicate: &str, kind: &str) -> bool {
    predicate.strip_prefix(kind).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Why nothing of a kind counts.
fn missing(rule: Rule, of_kind: &[&Statement], doubts: &[&Untrusted]) -> String {
    if let Some(other) = of_kind.iter().flat_map(|one| &one.subject).flat_map(|subject| subject.digest.values()).next()
    {
        return format!("the {rule} that is there is about another image, {other:.12}");
    }
    // Nobody knows of what kind a statement is that is not believed.
    doubts.first().map_or_else(
        || format!("there is no {rule}"),
        |doubt| format!("there is no {rule} that is believed; of what is there: {doubt}"),
    )
}

/// What is wrong with all trusted statements of a kind.
fn wrong(rule: Rule, about: &[&Statement], expected: &Expected) -> Option<String> {
    match rule {
        Rule::Provenance => {
            let named: Vec<_> = about.iter().flat_map(|one| Told::read(&one.predicate).sources).collect();
            let fits = |(repository, revision): &(String, String)| {
                *repository == expected.repository && expected.revision.as_ref().is_none_or(|wanted| wanted == revision)
            };
            if named.iter().any(fits) {
                return None;
            }
            let wanted = expected.revision.as_ref().map(|commit| format!(" at {commit}")).unwrap_or_default();
            let origin = named.first().map_or_else(
                || "names no commit".to_owned(),
                |(repository, revision)| format!("says that it was built from {repository} at {revision}"),
            );
            Some(format!("the provenance {origin}, and not from {}{wanted}", expected.repository))
        }
        Rule::Bom => {
            let lists = |one: &&Statement| one.predicate["components"].as_array().is_some_and(|all| !all.is_empty());
            (!about.iter().any(lists)).then(|| "the bill of materials lists nothing".to_owned())
        }
        Rule::Signature | Rule::Content | Rule::Tag | Rule::Advisories => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Build, Builder, Provenance, SigningKey};
    use serde_json::json;
    use std::collections::BTreeMap;

    const REPOSITORY: &str = "https://h.example/shop";

    fn key(byte: u8) -> SigningKey {
        SigningKey::of_random(&[byte; 32]).unwrap()
    }

    fn image() -> Digest {
        Digest::of(b"image")
    }

    fn said(key: &SigningKey, subject: &Digest, kind: &str, predicate: Value) -> Vec<u8> {
        Bundle::sign(key, &Statement::of(subject, kind, predicate)).to_bytes()
    }

    fn provenance(repository: &str, revision: &str) -> Value {
        let (parameters, toolchains) = (BTreeMap::new(), BTreeMap::new());
        let (repository, revision) = (repository.to_owned(), revision.to_owned());
        let build = Build { repository, revision, parameters, toolchains, materials: Vec::new() };
        Provenance { build, builder: Builder::local(), version: "1".into() }.predicate()
    }

    fn bom() -> Value {
        json!({ "bomFormat": "CycloneDX", "components": [{ "name": "a" }] })
    }

    /// All that is wanted, said by `key`.
    fn all(key: &SigningKey) -> Vec<Vec<u8>> {
        vec![
            said(key, &image(), SIGNATURE, json!({})),
            said(key, &image(), PROVENANCE, provenance(REPOSITORY, "c1")),
            said(key, &image(), CYCLONEDX, bom()),
        ]
    }

    fn check(bundles: &[Vec<u8>], expected: &[(Rule, &str)]) {
        let wanted = Expected { repository: REPOSITORY.into(), revision: Some("c1".into()) };
        let found = judge(Said { subject: &image(), bundles }, &[key(7).public().clone()], &wanted);
        let rules: Vec<Rule> = found.iter().map(|finding| finding.rule).collect();
        assert_eq!(rules, expected.iter().map(|(rule, _)| *rule).collect::<Vec<_>>(), "{found:?}");
        for (finding, (_, words)) in found.iter().zip(expected) {
            assert!(finding.reason.contains(words), "{finding:?} does not say `{words}`");
        }
    }

    #[test]
    fn what_is_signed_explained_and_listed_breaks_no_rule() {
        check(&all(&key(7)), &[]);
        // What others say beside it changes nothing.
        check(&[all(&key(8)), vec![b"rubbish".to_vec()], all(&key(7))].concat(), &[]);
    }

    #[test]
    fn each_thing_that_is_missing_is_named() {
        use Rule::{Bom, Provenance, Signature};
        let without = |at: usize| {
            let mut bundles = all(&key(7));
            bundles.remove(at);
            bundles
        };
        check(&[], &[(Signature, "no signature"), (Provenance, "no provenance"), (Bom, "no bom")]);
        check(&without(0), &[(Signature, "there is no signature")]);
        check(&without(1), &[(Provenance, "there is no provenance")]);
        check(&without(2), &[(Bom, "there is no bom")]);
    }

    #[test]
    fn another_key_another_image_and_changed_statements_are_told_apart() {
        use Rule::{Bom, Provenance, Signature};
        let other_key = "none of the trusted keys";
        check(&all(&key(8)), &[(Signature, other_key), (Provenance, other_key), (Bom, other_key)]);
        let mut bundles = all(&key(7));
        bundles[0] = said(&key(7), &Digest::of(b"another"), SIGNATURE, json!({}));
        check(&bundles, &[(Signature, "about another image")]);
        let mut changed: Value = serde_json::from_slice(&all(&key(7))[0]).unwrap();
        changed["dsseEnvelope"]["signatures"] =
            serde_json::from_slice::<Value>(&all(&key(7))[1]).unwrap()["dsseEnvelope"]["signatures"].clone();
        bundles[0] = serde_json::to_vec(&changed).unwrap();
        check(&bundles, &[(Signature, "changed after it was signed")]);
    }

    #[test]
    fn a_provenance_of_another_repository_or_commit_does_not_count() {
        let with = |repository: &str, revision: &str| {
            let mut bundles = all(&key(7));
            bundles[1] = said(&key(7), &image(), PROVENANCE, provenance(repository, revision));
            bundles
        };
        check(&with("https://h.example/other", "c1"), &[(Rule::Provenance, "https://h.example/other at c1")]);
        check(&with(REPOSITORY, "c2"), &[(Rule::Provenance, "at c2, and not from")]);
        let mut bundles = all(&key(7));
        bundles[1] = said(&key(7), &image(), PROVENANCE, json!({}));
        check(&bundles, &[(Rule::Provenance, "names no commit")]);
    }

    #[test]
    fn what_is_linked_in_is_told_by_trusted_bills_of_this_image_alone() {
        let bill = |components: Value| json!({ "bomFormat": "CycloneDX", "components": components });
        let library = |name: &str, purl: Option<&str>| json!({ "name": name, "version": "1.0.0", "purl": purl });
        let bundles = [
            said(
                &key(7),
                &image(),
                CYCLONEDX,
                bill(json!([
                    library("a", Some("pkg:cargo/a@1.0.0")),
                    library("b", Some("pkg:cargo/b@1.0.0?vcs_url=git%2Bhttps%3A%2F%2Fh.example%2Fb")),
                    library("shop", None),
                    library("std", None),
                ])),
            ),
            said(&key(8), &image(), CYCLONEDX, bill(json!([library("c", Some("pkg:cargo/c@1.0.0"))]))),
            said(&key(7), &Digest::of(b"other"), CYCLONEDX, bill(json!([library("d", Some("pkg:cargo/d@1.0.0"))]))),
        ];
        let found = linked_in(Said { subject: &image(), bundles: &bundles }, &[key(7).public().clone()]);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "std"]);
    }

    #[test]
    fn an_empty_bill_of_materials_does_not_count() {
        let mut bundles = all(&key(7));
        bundles[2] = said(&key(7), &image(), CYCLONEDX, json!({ "components": [] }));
        check(&bundles, &[(Rule::Bom, "lists nothing")]);
        bundles[2] = said(&key(7), &image(), &format!("{CYCLONEDX}-like"), bom());
        check(&bundles, &[(Rule::Bom, "there is no bom")]);
    }
}
