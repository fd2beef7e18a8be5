//! Texts for pods that nobody else reads: by value, or by their place in a store outside.

use super::{
    Build, config_map,
    meta::{Meta, SUBDOMAIN},
    mistake::{Findings, Nonsense},
};
use crate::{Object, ObjectError};
use k8s_openapi::{ByteString, api::core::v1::Secret as Typed};
use plimsoll_core::Secret as Value;
use serde_json::json;
use std::collections::BTreeMap;

/// A Secret. Its values are in the object that is built, and in no error and no `Debug` of this.
#[derive(Debug, Clone)]
pub struct Secret {
    meta: Meta,
    data: BTreeMap<String, Value>,
}

impl Secret {
    /// An empty one.
    pub fn new(meta: impl Into<Meta>) -> Self {
        Self { meta: meta.into(), data: BTreeMap::new() }
    }

    /// With this value under this key.
    pub fn entry(mut self, key: impl Into<String>, value: Value) -> Self {
        self.data.insert(key.into(), value);
        self
    }
}

impl Build for Secret {
    fn title(&self) -> String {
        format!("Secret {}", self.meta.name)
    }

    fn render(&self, found: &mut Findings) -> Result<Object, ObjectError> {
        config_map::data(found, self.data.iter().map(|(key, value)| (key.as_str(), value.expose().len())));
        let data = self.data.iter().map(|(key, value)| (key.clone(), ByteString(value.expose().as_bytes().to_vec())));
        Object::of(&Typed {
            metadata: self.meta.checked(SUBDOMAIN, found),
            data: Some(data.collect()),
            type_: Some("Opaque".to_owned()),
            ..Typed::default()
        })
    }
}

/// An `ExternalSecret` (external-secrets.io/v1): a Secret of the same name that an operator in the cluster fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalSecret {
    meta: Meta,
    store: String,
    of_cluster: bool,
    refresh: u32,
    entries: Vec<(String, String, Option<String>)>,
}

impl ExternalSecret {
    /// Filled from a `SecretStore` of the namespace, and looked up again every hour.
    pub fn new(meta: impl Into<Meta>, store: impl Into<String>) -> Self {
        Self { meta: meta.into(), store: store.into(), of_cluster: false, refresh: 3_600, entries: Vec::new() }
    }

    /// The store is a `ClusterSecretStore`.
    pub const fn of_cluster(mut self) -> Self {
        self.of_cluster = true;
        self
    }

    /// Looked up again every so many seconds.
    pub const fn refresh(mut self, seconds: u32) -> Self {
        self.refresh = seconds;
        self
    }

    /// The key gets what the store has at `place`.
    pub fn entry(mut self, key: impl Into<String>, place: impl Into<String>) -> Self {
        self.entries.push((key.into(), place.into(), None));
        self
    }

    /// The key gets one property of what the store has at `place`.
    pub fn property(mut self, key: impl Into<String>, place: impl Into<String>, property: impl Into<String>) -> Self {
        self.entries.push((key.into(), place.into(), Some(property.into())));
        self
    }
}

impl Build for ExternalSecret {
    fn title(&self) -> String {
        format!("ExternalSecret {}", self.meta.name)
    }

    fn render(&self, found: &mut Findings) -> Result<Object, ObjectError> {
        config_map::data(found, self.entries.iter().map(|(key, ..)| (key.as_str(), 0)));
        found.once("spec.data", self.entries.iter().map(|(key, ..)| key.as_str()));
        found.unless(!self.entries.is_empty(), "spec.data", || Nonsense::Empty("what is looked up"));
        super::meta::name(found, "spec.secretStoreRef.name", &self.store, SUBDOMAIN);
        found.unless(self.refresh > 0, "spec.refreshInterval", || Nonsense::Below { number: 0, least: 1 });
        let data = self.entries.iter().map(|(key, place, property)| {
            let mut at = json!({ "key": place });
            if let Some(property) = property {
                at["property"] = json!(property);
            }
            json!({ "secretKey": key, "remoteRef": at })
        });
        Object::try_from(json!({
            "apiVersion": "external-secrets.io/v1",
            "kind": "ExternalSecret",
            "metadata": self.meta.checked(SUBDOMAIN, found),
            "spec": {
                "refreshInterval": format!("{}s", self.refresh),
                "secretStoreRef": {
                    "name": self.store,
                    "kind": if self.of_cluster { "ClusterSecretStore" } else { "SecretStore" },
                },
                "target": { "name": self.meta.name, "creationPolicy": "Owner" },
                "data": data.collect::<Vec<_>>(),
            },
        }))
    }
}
