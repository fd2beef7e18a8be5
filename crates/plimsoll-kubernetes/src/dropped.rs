//! Fields that somebody set and the next object would not have. Pure.
//!
//! Who set what stands at each object itself (`metadata.managedFields`), so that what the API server filled in is told
//! from what was said. Of what a slot has, all that anybody said is lost with the slot; of what both slots share, only
//! what this target said itself.

use crate::{
    compare::{change, inner, is_empty, is_own, key_of, plain},
    names::MANAGER,
};
use plimsoll_deploy::ConfigChange;
use serde_json::{Map, Value};

/// Whose fields are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Everybody's: the next slot is made anew.
    Everybody,
    /// This target's: the object stays, and is applied again.
    Ours,
}

/// What is set in `live` and not in `wanted`, as far as it is `whose`.
pub(crate) fn dropped(live: &Value, wanted: &Value, whose: Whose) -> Vec<ConfigChange> {
    let mut found = Vec::new();
    // Which keys a Secret loses is told where its contents are compared.
    if wanted["kind"] == "Secret" {
        return found;
    }
    let sets = live.pointer("/metadata/managedFields").and_then(Value::as_array);
    for set in sets.into_iter().flatten().filter(|set| counts(set, whose)) {
        for (field, owned) in set["fieldsV1"].as_object().into_iter().flatten() {
            let name = field.strip_prefix("f:").unwrap_or(field);
            let Some(owned) = owned.as_object().filter(|_| name != "status") else { continue };
            if name == "metadata" {
                for part in ["labels", "annotations"] {
                    if let Some(Value::Object(owned)) = owned.get(&format!("f:{part}")) {
                        let (live, wanted) = (&live["metadata"][part], &wanted["metadata"][part]);
                        walk(&format!("metadata.{part}"), owned, live, wanted, &mut found);
                    }
                }
            } else if let Some(value) = live.get(name) {
                walk(name, owned, value, wanted.get(name).unwrap_or(&Value::Null), &mut found);
            }
        }
    }
    // Two managers may have said the same.
    found.sort_by(|a, b| a.what.cmp(&b.what));
    found.dedup();
    found
}

/// Whether fields of this manager are lost. The cluster's own controllers say theirs again.
fn counts(set: &Value, whose: Whose) -> bool {
    let manager = set["manager"].as_str().unwrap_or_default();
    let is_whole = set["subresource"].as_str().is_none_or(str::is_empty);
    match whose {
        Whose::Everybody => is_whole && !manager.starts_with("kube-"),
        // What it created and did not apply counts what was filled in at the same time as its own.
        Whose::Ours => is_whole && manager == MANAGER && set["operation"] == "Apply",
    }
}

fn walk(path: &str, owned: &Map<String, Value>, live: &Value, wanted: &Value, found: &mut Vec<ConfigChange>) {
    if let (true, Value::Array(old)) = (owned.is_empty(), live) {
        items(path, old, wanted, found);
    }
    for (key, owned) in owned {
        let Some((path, there, next)) = step(path, key, live, wanted) else { continue };
        match next {
            None if is_empty(there) || is_own(&path) => {}
            None => found.push(change(&path, Some(there), None)),
            Some(next) => walk(&path, owned.as_object().unwrap_or(&Map::new()), there, next, found),
        }
    }
}

/// A list that is owned as a whole: what would not be in it any more.
fn items(path: &str, old: &[Value], wanted: &Value, found: &mut Vec<ConfigChange>) {
    let none = Vec::new();
    let new = wanted.as_array().unwrap_or(&none);
    let Some(key) = key_of(old, new) else { return };
    for gone in old.iter().filter(|item| new.iter().all(|other| other[key] != item[key])) {
        found.push(change(&format!("{path}[{}]", plain(&gone[key])), Some(gone), None));
    }
}

type Step<'a> = (String, &'a Value, Option<&'a Value>);

/// One step of a path of managed fields: `f:NAME`, `k:{…}` (an item by its keys) or `v:…` (an item of a set).
fn step<'a>(path: &str, key: &str, live: &'a Value, wanted: &'a Value) -> Option<Step<'a>> {
    if let Some(name) = key.strip_prefix("f:") {
        return Some((inner(path, name), live.get(name)?, wanted.get(name)));
    }
    let is_it: Box<dyn Fn(&Value) -> bool> = if let Some(keys) = key.strip_prefix("k:") {
        let keys: Map<String, Value> = serde_json::from_str(keys).ok()?;
        Box::new(move |item| keys.iter().all(|(name, value)| has(item, name, value)))
    } else {
        let value: Value = serde_json::from_str(key.strip_prefix("v:")?).ok()?;
        Box::new(move |item| *item == value)
    };
    let there = live.as_array()?.iter().find(|item| is_it(item))?;
    let next = wanted.as_array().and_then(|items| items.iter().find(|item| is_it(item)));
    let called = ["name", "mountPath", "containerPort", "port"].iter().find_map(|name| there.get(name));
    Some((format!("{path}[{}]", plain(called.unwrap_or(there))), there, next))
}

/// Whether an item has a key; a port's protocol is TCP where none is said.
fn has(item: &Value, name: &str, value: &Value) -> bool {
    match item.get(name) {
        Some(there) => there == value,
        None => name == "protocol" && value == "TCP",
    }
}
