//! A Kubernetes object as plain data, whatever made it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An object with its `apiVersion`, `kind` and `metadata.name`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct Object(Value);

/// A value that is no Kubernetes object.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// A field that every object has is not there.
    #[error("an object has no `{field}`: {start}")]
    Missing {
        /// The field's path.
        field: &'static str,
        /// The value's beginning.
        start: String,
    },
    /// A typed object has no JSON form.
    #[error("a typed object cannot be written as JSON")]
    Json(#[source] serde_json::Error),
}

/// As much of a value as is shown of one that is no object.
const SHOWN: usize = 120;

impl TryFrom<Value> for Object {
    type Error = ObjectError;

    fn try_from(value: Value) -> Result<Self, ObjectError> {
        for (field, pointer) in [("apiVersion", "/apiVersion"), ("kind", "/kind"), ("metadata.name", "/metadata/name")]
        {
            if value.pointer(pointer).and_then(Value::as_str).is_none_or(str::is_empty) {
                return Err(ObjectError::Missing { field, start: value.to_string().chars().take(SHOWN).collect() });
            }
        }
        Ok(Self(value))
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        object.0
    }
}

impl Object {
    /// A typed object of `k8s-openapi` as plain data.
    pub fn of<K: Serialize>(typed: &K) -> Result<Self, ObjectError> {
        serde_json::to_value(typed).map_err(ObjectError::Json)?.try_into()
    }

    /// `apps/v1`
    pub fn api_version(&self) -> &str {
        self.text("/apiVersion")
    }

    /// `Deployment`
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// Whether it runs pods: what has a slot.
    pub fn is_workload(&self) -> bool {
        matches!(self.kind(), "Deployment" | "StatefulSet")
    }

    /// Its name within namespace and kind.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// What people call it, such as `Deployment gateway-green`.
    pub fn title(&self) -> String {
        format!("{} {}", self.kind(), self.name())
    }

    /// All of it.
    pub const fn value(&self) -> &Value {
        &self.0
    }

    /// All of it, to be changed; the caller keeps `apiVersion`, `kind` and name where they are.
    pub(crate) const fn value_mut(&mut self) -> &mut Value {
        &mut self.0
    }

    /// The text at a JSON pointer (RFC 6901); empty when there is none.
    pub fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
}
