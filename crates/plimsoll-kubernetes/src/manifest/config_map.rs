//! Plain texts for pods.

use super::{
    Build,
    meta::{Meta, SUBDOMAIN, cut, some},
    mistake::{Findings, Nonsense},
};
use crate::{Object, ObjectError};
use k8s_openapi::api::core::v1::ConfigMap as Typed;
use std::collections::BTreeMap;

/// The most that a `ConfigMap` or a Secret holds, in bytes.
const MOST_BYTES: usize = 1 << 20;

/// A `ConfigMap`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMap {
    meta: Meta,
    data: BTreeMap<String, String>,
}

impl ConfigMap {
    /// An empty one.
    pub fn new(meta: impl Into<Meta>) -> Self {
        Self { meta: meta.into(), data: BTreeMap::new() }
    }

    /// With this text under this key.
    pub fn entry(mut self, key: impl Into<String>, text: impl Into<String>) -> Self {
        self.data.insert(key.into(), text.into());
        self
    }
}

impl Build for ConfigMap {
    fn title(&self) -> String {
        format!("ConfigMap {}", self.meta.name)
    }

    fn render(&self, found: &mut Findings) -> Result<Object, ObjectError> {
        data(found, self.data.iter().map(|(key, text)| (key.as_str(), text.len())));
        let metadata = self.meta.checked(SUBDOMAIN, found);
        Object::of(&Typed { metadata, data: some(self.data.clone()), ..Typed::default() })
    }
}

/// Checks the keys and the size of what a `ConfigMap` or a Secret holds.
pub(super) fn data<'d>(found: &mut Findings, entries: impl Iterator<Item = (&'d str, usize)>) {
    let mut total = 0_usize;
    for (key, size) in entries {
        total = total.saturating_add(key.len()).saturating_add(size);
        let word = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let fine =
            (1..=SUBDOMAIN).contains(&key.len()) && key.bytes().all(word) && !key.starts_with("..") && key != ".";
        found.unless(fine, "data", || Nonsense::Name {
            name: cut(key),
            kind: "key",
            rule: "letters, digits, `-`, `_` and `.`, and no `..` first",
        });
    }
    let number = |size| i64::try_from(size).unwrap_or(i64::MAX);
    found.unless(total <= MOST_BYTES, "data", || Nonsense::Above { number: number(total), most: number(MOST_BYTES) });
}
