//! Where everything stands in the file: from the path of a key to the bytes of the key and of its value.
//!
//! The typed configuration stays free of positions; a check names a path, and this index knows the place.

use super::values::is_variable_name;
use std::{collections::BTreeMap, ops::Range};
use toml::de::{DeArray, DeTable, DeValue};

/// Keys from the top, an element of an array by its number.
type Path = Vec<String>;

/// The bytes of a key (of an array's element: those of the element) and of its value.
#[derive(Debug, Clone)]
struct Place {
    key: Range<usize>,
    value: Range<usize>,
}

/// The index of one document.
#[derive(Debug, Default)]
pub(super) struct Places {
    whole: BTreeMap<Path, Place>,
    /// The places of what was left to look at: there, elements of arrays have other numbers.
    left: Option<BTreeMap<Path, Place>>,
    secrets: Vec<Range<usize>>,
}

impl Places {
    pub(super) fn of(table: &DeTable<'_>) -> Self {
        let mut places = Self::default();
        places.add_table(table, &mut Vec::new());
        places
    }

    /// From now on paths are those of `table`, which has less in it; [`Places::has`] still answers for the whole file.
    pub(super) fn narrow(&mut self, table: &DeTable<'_>) {
        self.left = Some(Self::of(table).whole);
    }

    fn add_table(&mut self, table: &DeTable<'_>, path: &mut Path) {
        for (key, value) in table {
            path.push(key.get_ref().to_string());
            self.whole.insert(path.clone(), Place { key: key.span(), value: value.span() });
            self.add_value(value.get_ref(), &value.span(), path);
            path.pop();
        }
    }

    fn add_value(&mut self, value: &DeValue<'_>, span: &Range<usize>, path: &mut Path) {
        match value {
            DeValue::Table(table) => self.add_table(table, path),
            DeValue::Array(array) => {
                for (at, item) in array.iter().enumerate() {
                    path.push(at.to_string());
                    self.whole.insert(path.clone(), Place { key: item.span(), value: item.span() });
                    self.add_value(item.get_ref(), &item.span(), path);
                    path.pop();
                }
            }
            DeValue::String(text) if may_be_secret(path, text) => self.secrets.push(span.clone()),
            _ => {}
        }
    }

    /// Whether the file has this key, whatever its value.
    pub(super) fn has(&self, path: &[&str]) -> bool {
        self.whole.contains_key(&owned(path))
    }

    /// Whether the table at these bytes (the whole file, where no other is) has this key.
    pub(super) fn has_below(&self, table: &Range<usize>, key: &str) -> bool {
        let mut tables = self.whole.iter().filter(|(_, place)| place.value == *table).peekable();
        if tables.peek().is_none() {
            return self.has(&[key]);
        }
        tables.any(|(path, _)| self.whole.contains_key(&[path.as_slice(), &[key.to_owned()]].concat()))
    }

    /// Whether the table at these bytes has a key at all.
    pub(super) fn has_any_below(&self, table: &Range<usize>) -> bool {
        let mut tables = self.whole.iter().filter(|(_, place)| place.value == *table);
        tables.any(|(path, _)| self.whole.keys().any(|other| other.len() > path.len() && other.starts_with(path)))
    }

    /// Whether these bytes are a value, and not a key.
    pub(super) fn is_value(&self, span: &Range<usize>) -> bool {
        self.whole.values().any(|place| place.value == *span)
    }

    /// The bytes of the last key of a path; where it does not exist, of the longest part that does.
    pub(super) fn key(&self, path: &[&str]) -> Range<usize> {
        self.nearest(path).map_or(0..0, |place| place.key.clone())
    }

    /// The bytes of the value at a path; where it does not exist, of the longest part that does.
    pub(super) fn value(&self, path: &[&str]) -> Range<usize> {
        self.nearest(path).map_or(0..0, |place| place.value.clone())
    }

    /// The bytes that may be secret values, written into the file by mistake.
    pub(super) fn secrets(&self) -> &[Range<usize>] {
        &self.secrets
    }

    fn nearest(&self, path: &[&str]) -> Option<&Place> {
        let places = self.left.as_ref().unwrap_or(&self.whole);
        (1..=path.len()).rev().find_map(|len| places.get(&owned(&path[..len])))
    }
}

fn owned(path: &[&str]) -> Path {
    path.iter().map(ToString::to_string).collect()
}

/// Where a reference to a secret belongs, any text but the name of a variable may be the secret itself.
fn may_be_secret(path: &[String], text: &str) -> bool {
    let parts: Vec<&str> = path.iter().map(String::as_str).collect();
    let below_reference = match parts.as_slice() {
        ["notify", _, "webhook" | "url" | "secret", ..]
        | ["registries", _, "password", ..]
        | ["signing", "key" | "password", ..] => true,
        parts => parts.contains(&"secrets"),
    };
    below_reference && !(parts.last() == Some(&"env") && is_variable_name(text))
}

/// Takes out of `table` what the error at `span` is about, so that the rest can be looked at; false when it is not found.
pub(super) fn take_out(table: &mut DeTable<'_>, span: &Range<usize>) -> bool {
    if table.iter_mut().any(|(_, value)| take_from_value(value.get_mut(), span)) {
        return true;
    }
    let found = table.iter().find(|(key, value)| key.span() == *span || value.span() == *span);
    let key = found.map(|(key, _)| key.clone());
    key.is_some_and(|key| table.remove(&key).is_some())
}

fn take_from_value(value: &mut DeValue<'_>, span: &Range<usize>) -> bool {
    match value {
        DeValue::Table(table) => take_out(table, span),
        DeValue::Array(array) => {
            if array.iter_mut().any(|item| take_from_value(item.get_mut(), span)) {
                return true;
            }
            let before = array.len();
            *array = std::mem::replace(array, DeArray::new()).into_iter().filter(|item| item.span() != *span).collect();
            array.len() < before
        }
        _ => false,
    }
}
