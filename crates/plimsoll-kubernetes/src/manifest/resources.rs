//! What a container is promised, and what it may take.

use super::{
    meta::{cut, some},
    mistake::{Findings, Nonsense},
};
use k8s_openapi::{api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity};
use plimsoll_core::{ByteSize, Millicores};
use std::{collections::BTreeMap, fmt::Display};

/// Requests and limits of processor time and memory, as texts that are read when the object is built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    requests: BTreeMap<&'static str, String>,
    limits: BTreeMap<&'static str, String>,
}

impl Resources {
    /// Promises processor time.
    pub fn cpu(mut self, amount: impl Display) -> Self {
        self.requests.insert("cpu", amount.to_string());
        self
    }

    /// Promises memory.
    pub fn memory(mut self, amount: impl Display) -> Self {
        self.requests.insert("memory", amount.to_string());
        self
    }

    /// Slows down beyond this much processor time.
    pub fn cpu_limit(mut self, amount: impl Display) -> Self {
        self.limits.insert("cpu", amount.to_string());
        self
    }

    /// Kills beyond this much memory.
    pub fn memory_limit(mut self, amount: impl Display) -> Self {
        self.limits.insert("memory", amount.to_string());
        self
    }

    /// Whether `cpu` or `memory` is promised: a limit without a request is one too.
    pub(super) fn promises(&self, resource: &str) -> bool {
        self.requests.contains_key(resource) || self.limits.contains_key(resource)
    }

    pub(super) fn checked(&self, field: &str, found: &mut Findings) -> Option<ResourceRequirements> {
        for (kind, amounts) in [("requests", &self.requests), ("limits", &self.limits)] {
            for (resource, text) in amounts {
                let field = format!("{field}.resources.{kind}.{resource}");
                found.unless(amount(resource, text).is_some(), field, || Nonsense::Quantity(cut(text)));
            }
        }
        for (resource, limit) in &self.limits {
            let Some(request) = self.requests.get(resource) else { continue };
            let (Some(most), Some(promised)) = (amount(resource, limit), amount(resource, request)) else { continue };
            found.unless(most >= promised, format!("{field}.resources.limits.{resource}"), || {
                Nonsense::LimitBelowRequest { limit: limit.clone(), request: request.clone() }
            });
        }
        let typed = |amounts: &BTreeMap<&'static str, String>| {
            some(amounts.iter().map(|(key, text)| ((*key).to_owned(), Quantity(text.clone()))).collect())
        };
        (*self != Self::default()).then(|| ResourceRequirements {
            requests: typed(&self.requests),
            limits: typed(&self.limits),
            claims: None,
        })
    }
}

fn amount(resource: &str, text: &str) -> Option<u64> {
    match resource {
        "cpu" => text.parse().ok().map(Millicores::get),
        _ => text.parse().ok().map(ByteSize::get),
    }
}
