//! Names and labels of objects, and the rules names follow (RFC 1123, as Kubernetes reads it).

use super::mistake::{Findings, Nonsense};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use std::collections::BTreeMap;

/// Labels, by key.
pub type Labels = BTreeMap<String, String>;

/// The longest label of DNS.
pub(super) const LABEL: usize = 63;
/// The longest name of DNS.
pub(super) const SUBDOMAIN: usize = 253;
/// The longest name of what makes pods and puts its name with eleven characters behind it into their labels.
pub(super) const OF_PODS: usize = 52;

/// What an object is called, and its labels and annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    pub(super) name: String,
    pub(super) labels: Labels,
    pub(super) annotations: Labels,
}

impl Meta {
    /// An object of this name.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// With these labels too.
    pub fn labels(mut self, labels: &Labels) -> Self {
        self.labels.extend(labels.clone());
        self
    }

    /// With this annotation too.
    pub fn annotation(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }

    /// The name it has.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As the API has it, for an object whose names have up to `most` characters.
    pub(super) fn checked(&self, most: usize, found: &mut Findings) -> ObjectMeta {
        name(found, "metadata.name", &self.name, most);
        for (key, value) in &self.labels {
            let fine = value.is_empty() || is_label_value(value);
            found.unless(fine, format!("metadata.labels[{key}]"), || Nonsense::Name {
                name: cut(value),
                kind: "value of a label",
                rule: "at most 63 letters, digits, `-`, `_` and `.`, a letter or digit first and last",
            });
        }
        self.plain()
    }

    pub(super) fn plain(&self) -> ObjectMeta {
        ObjectMeta {
            name: (!self.name.is_empty()).then(|| self.name.clone()),
            labels: some(self.labels.clone()),
            annotations: some(self.annotations.clone()),
            ..ObjectMeta::default()
        }
    }
}

impl From<&str> for Meta {
    fn from(name: &str) -> Self {
        Self::named(name)
    }
}

impl From<String> for Meta {
    fn from(name: String) -> Self {
        Self::named(name)
    }
}

/// A map that is left out when it is empty.
pub(super) fn some<K, V>(map: BTreeMap<K, V>) -> Option<BTreeMap<K, V>> {
    (!map.is_empty()).then_some(map)
}

/// A list that is left out when it is empty.
pub(super) fn list<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

/// What has these labels.
pub(super) fn selector(labels: &Labels) -> LabelSelector {
    LabelSelector { match_labels: some(labels.clone()), ..LabelSelector::default() }
}

/// Checks a name of up to `most` characters; dots are for names that are longer than a label of DNS.
pub(super) fn name(found: &mut Findings, field: &str, name: &str, most: usize) {
    let dotted = most > LABEL;
    let fine = name.len() <= most && (if dotted { name.split('.').all(is_label) } else { is_label(name) });
    let rule = match most {
        OF_PODS => "at most 52 lower-case letters, digits and inner hyphens",
        LABEL => "at most 63 lower-case letters, digits and inner hyphens",
        _ => "at most 253 lower-case letters, digits, inner hyphens and dots",
    };
    found.unless(fine, field, || Nonsense::Name { name: cut(name), kind: "name of DNS", rule });
}

/// As much of a text as an error repeats.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

fn is_label(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let edges = !name.starts_with('-') && !name.ends_with('-');
    !name.is_empty() && name.len() <= LABEL && edges && name.bytes().all(word)
}

fn is_label_value(value: &str) -> bool {
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let word = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    value.len() <= LABEL && value.bytes().all(word) && edge(value.bytes().next()) && edge(value.bytes().last())
}
