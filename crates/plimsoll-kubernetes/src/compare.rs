//! An object as it would be applied against the one that is there, field by field. Pure; shows nothing of a Secret.
//!
//! Only fields that would be set are compared: what the API server fills in is nobody's difference. Lists of things with
//! names (containers, variables, volumes, ports) are compared by name, other lists by place. What this target notes for
//! itself at an object (`plimsoll.dev/…`) is left out: it says nothing that is not said in other words.

use plimsoll_core::{ByteSize, Millicores};
use plimsoll_deploy::ConfigChange;
use serde_json::{Map, Value};

/// As much of a value as is shown.
const SHOWN: usize = 120;
/// What a Secret's value is called, whatever it is.
const HIDDEN: &str = "(secret)";
/// Keys that tell the items of a list apart, in the order in which they are tried.
const NAMES: [&str; 6] = ["name", "mountPath", "containerPort", "port", "topologyKey", "ip"];

/// What `wanted` would change of `live`. `image` is the one of the service, which is told apart from objects.
pub(crate) fn fields(live: &Value, wanted: &Value, image: &str) -> Vec<ConfigChange> {
    let mut changes = Changes { found: Vec::new(), image };
    if wanted["kind"] == "Secret" {
        changes.secret(live, wanted);
    } else {
        for (field, value) in wanted.as_object().into_iter().flatten() {
            match field.as_str() {
                "apiVersion" | "kind" | "status" => {}
                "metadata" => changes.metadata(&live["metadata"], value),
                _ => changes.value(field, live.get(field), value),
            }
        }
    }
    changes.found
}

struct Changes<'a> {
    found: Vec<ConfigChange>,
    image: &'a str,
}

impl Changes<'_> {
    fn metadata(&mut self, live: &Value, wanted: &Value) {
        for field in ["labels", "annotations"] {
            if let Some(value) = wanted.get(field) {
                self.value(&format!("metadata.{field}"), live.get(field), value);
            }
        }
    }

    fn value(&mut self, path: &str, live: Option<&Value>, wanted: &Value) {
        if is_own(path) || (path.rsplit('.').next() == Some("image") && wanted == self.image) {
            return;
        }
        match (live, wanted) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                for (key, value) in new {
                    self.value(&inner(path, key), old.get(key), value);
                }
            }
            (Some(Value::Array(old)), Value::Array(new)) => self.list(path, old, new),
            (live, wanted) if is_same(path, live, wanted) => {}
            (live, wanted) => self.found.push(change(path, live, Some(wanted))),
        }
    }

    fn list(&mut self, path: &str, old: &[Value], new: &[Value]) {
        if let Some(key) = key_of(old, new) {
            for item in new {
                let there = old.iter().find(|other| other[key] == item[key]);
                self.value(&format!("{path}[{}]", plain(&item[key])), there, item);
            }
        } else if new.iter().chain(old).all(Value::is_object) {
            for (index, item) in new.iter().enumerate() {
                self.value(&format!("{path}[{index}]"), old.get(index), item);
            }
            for (index, gone) in old.iter().enumerate().skip(new.len()) {
                self.found.push(change(&format!("{path}[{index}]"), Some(gone), None));
            }
        } else if old != new {
            let (old, new) = (Value::from(old), Value::from(new));
            self.found.push(change(path, Some(&old), Some(&new)));
        }
    }

    /// Which keys differ, and no value; labels and type as of any object.
    fn secret(&mut self, live: &Value, wanted: &Value) {
        let labels = &wanted["metadata"]["labels"];
        self.value("metadata.labels", live["metadata"].get("labels"), labels);
        if let Some(kind) = wanted.get("type") {
            self.value("type", live.get("type"), kind);
        }
        let (old, new) = (contents(live), contents(wanted));
        for (key, value) in &new {
            let (from, to) = match old.get(key) {
                None => (None, HIDDEN),
                Some(before) if before != value => (Some(HIDDEN.to_owned()), "(changed)"),
                Some(_) => continue,
            };
            self.found.push(ConfigChange { what: inner("data", key), from, to: Some(to.to_owned()) });
        }
        for key in old.keys().filter(|key| !new.contains_key(*key)) {
            self.found.push(ConfigChange { what: inner("data", key), from: Some(HIDDEN.to_owned()), to: None });
        }
    }
}

/// The contents of a Secret in base64, `stringData` over `data` as the API server has it.
fn contents(secret: &Value) -> Map<String, Value> {
    let mut all = secret["data"].as_object().cloned().unwrap_or_default();
    for (key, value) in secret["stringData"].as_object().into_iter().flatten() {
        let bytes = k8s_openapi::ByteString(value.as_str().unwrap_or_default().as_bytes().to_vec());
        all.insert(key.clone(), serde_json::to_value(bytes).expect("bytes have a JSON form"));
    }
    all
}

/// The key by which the items of both lists are told apart; `None` where there is none.
pub(crate) fn key_of(old: &[Value], new: &[Value]) -> Option<&'static str> {
    let tells = |list: &[Value], key: &str| {
        let distinct =
            |(at, item): (usize, &Value)| !item[key].is_null() && list[..at].iter().all(|i| i[key] != item[key]);
        list.iter().all(Value::is_object) && list.iter().enumerate().all(distinct)
    };
    NAMES.into_iter().find(|key| tells(old, key) && tells(new, key))
}

/// Whether a path is one of this target's own notes.
pub(crate) fn is_own(path: &str) -> bool {
    path.contains("annotations[plimsoll.dev/")
        || path.ends_with("[plimsoll.dev/spec]")
        // What a Service selects is the cut-over's.
        || path.starts_with("spec.selector[plimsoll.dev/traffic-of-")
        || path == "spec.selector[plimsoll.dev/slot]"
        || path.starts_with("spec.template.metadata.labels[plimsoll.dev/traffic-of-")
        || path.contains("annotations[kubectl.kubernetes.io/last-applied-configuration]")
}

/// The path of a field; names that have dots or slashes of their own stand in brackets.
pub(crate) fn inner(path: &str, key: &str) -> String {
    if key.contains(['.', '/']) { format!("{path}[{key}]") } else { format!("{path}.{key}") }
}

/// Whether a value says what is there already: an empty one says nothing, and quantities have many spellings.
fn is_same(path: &str, live: Option<&Value>, wanted: &Value) -> bool {
    let Some(live) = live else { return is_empty(wanted) };
    live == wanted || (is_empty(live) && is_empty(wanted)) || (is_quantity(path) && is_same_amount(live, wanted))
}

/// Whether the API server leaves a field with this value out.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
    }
}

fn is_quantity(path: &str) -> bool {
    [".requests", ".limits", ".capacity", ".sizeLimit", ".averageValue", ".divisor"].iter().any(|p| path.contains(p))
}

fn is_same_amount(a: &Value, b: &Value) -> bool {
    let (a, b) = (plain(a), plain(b));
    let bytes = a.parse::<ByteSize>().ok().zip(b.parse::<ByteSize>().ok()).is_some_and(|(a, b)| a == b);
    bytes || a.parse::<Millicores>().ok().zip(b.parse::<Millicores>().ok()).is_some_and(|(a, b)| a == b)
}

/// One difference; of texts with several lines the first that differs.
pub(crate) fn change(path: &str, from: Option<&Value>, to: Option<&Value>) -> ConfigChange {
    if let (Some(Value::String(old)), Some(Value::String(new))) = (from, to)
        && (old.contains('\n') || new.contains('\n'))
    {
        let (mut old, mut new) = (old.lines(), new.lines());
        // Ends with the longer of the two texts.
        for line in 1_usize.. {
            match (old.next(), new.next()) {
                (None, None) => break,
                (a, b) if a == b => {}
                (a, b) => {
                    let what = format!("{path} (from line {line})");
                    return ConfigChange { what, from: a.map(cut), to: b.map(cut) };
                }
            }
        }
    }
    let shown = |value: &Value| cut(&plain(value));
    ConfigChange { what: path.to_owned(), from: from.map(shown), to: to.map(shown) }
}

/// A text as it is, everything else as JSON.
pub(crate) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn cut(text: &str) -> String {
    let one_line = text.replace('\n', "\\n");
    match one_line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &one_line[..end]),
        None => one_line,
    }
}

#[cfg(test)]
mod tests;
