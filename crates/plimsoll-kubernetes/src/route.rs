//! Shares of the requests by weights: what an HTTPRoute says, and what it is to say (docs/adr/0018). Pure.
//!
//! A reference to a service's Service gets a twin, which leads to one slot's Service:
//!
//! ```text
//! backendRefs: [gateway]   ──share of 25 %──>   [gateway: 75, gateway-green: 25]   ──taken away──>   [gateway]
//! ```
//!
//! What was there is remembered in an annotation of the route, so that whoever comes next can put it back. A rule that is
//! not as it was left is somebody else's by now.

mod error;
mod patch;

use crate::names;
pub(crate) use error::RouteError;
use json_patch::Patch;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::DynamicObject;
use plimsoll_core::{RunId, ServiceName, Slot};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The most references that a rule may have (Gateway API, `HTTPRouteRule.backendRefs`).
const MOST_REFERENCES: usize = 16;
/// The largest weight (Gateway API, `BackendRef.weight`).
const LARGEST: u64 = 1_000_000;

/// An HTTPRoute, as far as shares matter.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) name: String,
    namespace: String,
    /// Its resource version.
    pub(crate) version: String,
    has_annotations: bool,
    /// The annotation, as it was read.
    remembered: Option<String>,
    rules: Vec<Value>,
    /// Which entries of `managedFields` say that we changed it.
    owned: Vec<usize>,
    /// Whether the controllers that speak of it at all know what it says now.
    pub(crate) is_heard: bool,
}

/// What a route's annotation remembers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Memory {
    /// The run that wrote it last.
    run: RunId,
    shares: BTreeMap<ServiceName, Share>,
    /// By the number of a rule that was changed: its references as they were found.
    was: BTreeMap<usize, Vec<Value>>,
}

/// What a slot is to get of the requests that a route leads to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Share {
    /// The Service that the route refers to.
    pub(crate) service: String,
    /// The slot whose own Service gets the share.
    pub(crate) slot: Slot,
    /// 0 announces one.
    pub(crate) percent: u8,
}

impl Share {
    fn twin(&self) -> String {
        names::slotted(&self.service, self.slot)
    }
}

impl Route {
    pub(crate) fn of(object: DynamicObject) -> Self {
        let meta = object.metadata;
        let rules = object.data.pointer("/spec/rules").and_then(Value::as_array).cloned().unwrap_or_default();
        let parents = object.data.pointer("/status/parents").and_then(Value::as_array);
        let conditions = parents.into_iter().flatten().filter_map(|parent| parent["conditions"].as_array()).flatten();
        let managers = meta.managed_fields.as_deref().unwrap_or_default().iter().enumerate();
        let is_ours = |entry: &ManagedFieldsEntry| {
            entry.manager.as_deref() == Some(names::MANAGER)
                && entry.operation.as_deref() == Some("Update")
                && entry.subresource.is_none()
        };
        let mut observed = conditions.filter_map(|condition| condition["observedGeneration"].as_i64());
        Self {
            name: meta.name.unwrap_or_default(),
            namespace: meta.namespace.unwrap_or_default(),
            version: meta.resource_version.unwrap_or_default(),
            has_annotations: meta.annotations.is_some(),
            remembered: meta.annotations.and_then(|mut all| all.remove(names::SHARE)),
            is_heard: observed.all(|observed| Some(observed) >= meta.generation),
            owned: managers.filter(|(_, entry)| is_ours(entry)).map(|(at, _)| at).collect(),
            rules,
        }
    }

    /// Whether requests come to the Service `service` by it.
    pub(crate) fn leads_to(&self, service: &str) -> bool {
        self.references().any(|reference| self.is_to(reference, service) && weight(reference) > 0)
    }

    /// Whether its annotation speaks of a service.
    pub(crate) fn remembers(&self, service: &ServiceName) -> bool {
        self.memory().is_ok_and(|memory| memory.is_some_and(|memory| memory.shares.contains_key(service)))
    }

    /// Whether the share of a slot is announced, and not given yet.
    pub(crate) fn announces(&self, service: &ServiceName, slot: Slot) -> bool {
        let Ok(Some(memory)) = self.memory() else { return false };
        memory.shares.get(service).is_some_and(|share| share.slot == slot && share.percent == 0)
    }

    /// Whether the share of a slot is announced or given by `run`.
    pub(crate) fn is_of(&self, service: &ServiceName, slot: Slot, run: &RunId) -> bool {
        let Ok(Some(memory)) = self.memory() else { return false };
        memory.run == *run && memory.shares.get(service).is_some_and(|share| share.slot == slot)
    }

    /// The largest share, in percent, that a rule gives `twin` of what it leads to `service` or to it: at least 1 where it
    /// gets something.
    pub(crate) fn percent(&self, service: &str, twin: &str) -> u8 {
        let of_rule = |rule: &Value| {
            let sum = |name: &str| {
                references(rule).iter().filter(|r| self.is_to(r, name)).map(weight).fold(0, u64::saturating_add)
            };
            let (own, all) = (sum(twin), sum(twin).saturating_add(sum(service)).max(1));
            let percent = (own.saturating_mul(200).saturating_add(all)) / all.saturating_mul(2);
            u8::try_from(percent.max(own.min(1))).unwrap_or(100)
        };
        self.rules.iter().map(of_rule).max().unwrap_or(0)
    }

    /// The change by which `run` gives a service this share, having announced it before; `None` when nothing is to be
    /// changed. `twins` are Services of slots that are known otherwise.
    pub(crate) fn give(
        &self,
        service: &ServiceName,
        share: &Share,
        run: &RunId,
        twins: &BTreeSet<String>,
    ) -> Result<Option<Patch>, RouteError> {
        let memory = self.known(twins)?;
        let found = self.undone(memory.as_ref(), twins)?;
        let ours = memory.as_ref().filter(|memory| memory.run == *run);
        if share.percent > 0 {
            let ours = ours.filter(|memory| memory.shares.contains_key(service)).ok_or(RouteError::NotAnnounced)?;
            if let Some(lost) = ours.shares.values().find(|share| self.is_lost(share)) {
                return Err(RouteError::TakenAway { twin: lost.twin() });
            }
        }
        let mut shares = self.kept(memory);
        shares.insert(service.clone(), share.clone());
        self.with(found, shares, run)
    }

    /// The change that takes away what a service has; `None` when nothing is to be changed.
    pub(crate) fn take(&self, service: &ServiceName, twins: &BTreeSet<String>) -> Result<Option<Patch>, RouteError> {
        let Some(memory) = self.known(twins)? else {
            return self.undone(None, twins).map(|_| None);
        };
        let (found, run) = (self.undone(Some(&memory), twins)?, memory.run.clone());
        let mut shares = self.kept(Some(memory));
        shares.remove(service);
        self.with(found, shares, &run)
    }

    fn known(&self, twins: &BTreeSet<String>) -> Result<Option<Memory>, RouteError> {
        self.memory().map_err(|source| {
            let twins = twins.iter().map(String::as_str).collect::<Vec<_>>().join(" and ");
            RouteError::Memory { twins, source }
        })
    }

    /// Whether a share was given that is not there.
    fn is_lost(&self, share: &Share) -> bool {
        share.percent > 0 && !self.references().any(|reference| self.is_to(reference, &share.twin()))
    }

    /// The shares that are there.
    fn kept(&self, memory: Option<Memory>) -> BTreeMap<ServiceName, Share> {
        let shares = memory.map(|memory| memory.shares).unwrap_or_default();
        shares.into_iter().filter(|(_, share)| !self.is_lost(share)).collect()
    }

    /// The change to these shares of what was `found` without any.
    fn with(
        &self,
        found: Vec<Value>,
        shares: BTreeMap<ServiceName, Share>,
        run: &RunId,
    ) -> Result<Option<Patch>, RouteError> {
        let (mut rules, mut was) = (found, BTreeMap::new());
        for (number, rule) in rules.iter_mut().enumerate() {
            let before = references(rule);
            let after = self.shared(before, &shares).ok_or(RouteError::NoRoom { rule: number })?;
            if after != before {
                was.insert(number, before.to_vec());
                rule["backendRefs"] = after.into();
            }
        }
        let memory = (!shares.is_empty()).then(|| Memory { run: run.clone(), shares, was });
        Ok(self.patch(&rules, memory.as_ref()))
    }

    fn memory(&self) -> Result<Option<Memory>, serde_json::Error> {
        self.remembered.as_deref().map(serde_json::from_str).transpose()
    }

    fn references(&self) -> impl Iterator<Item = &Value> {
        self.rules.iter().flat_map(references)
    }

    fn is_to(&self, reference: &Value, service: &str) -> bool {
        let is = |key: &str, default: &str, wanted: &str| reference[key].as_str().unwrap_or(default) == wanted;
        is("name", "", service)
            && is("kind", "Service", "Service")
            && is("group", "", "")
            && is("namespace", &self.namespace, &self.namespace)
    }

    /// The rules without any share: each one that refers to a slot's Service is found by what was made of it, since others
    /// may have come before it.
    fn undone(&self, memory: Option<&Memory>, twins: &BTreeSet<String>) -> Result<Vec<Value>, RouteError> {
        let mut twins = twins.clone();
        twins.extend(memory.iter().flat_map(|memory| memory.shares.values()).map(Share::twin));
        let mut rules = self.rules.clone();
        for (number, rule) in rules.iter_mut().enumerate() {
            let now = references(rule);
            let Some(twin) = twins.iter().find(|twin| now.iter().any(|r| self.is_to(r, twin))) else { continue };
            let is_made_of = |memory: &Memory, was: &[Value]| self.shared(was, &memory.shares).as_deref() == Some(now);
            let found = memory.and_then(|memory| {
                let own = memory.was.get_key_value(&number).into_iter();
                own.chain(&memory.was).map(|(_, was)| was).find(|was| is_made_of(memory, was))
            });
            match found {
                Some(was) => rule["backendRefs"] = was.clone().into(),
                None => return Err(RouteError::Changed { rule: number, twin: twin.clone() }),
            }
        }
        Ok(rules)
    }

    /// The references of a rule with these shares; `None` where the API has no room for them.
    fn shared(&self, found: &[Value], shares: &BTreeMap<ServiceName, Share>) -> Option<Vec<Value>> {
        let share_of = |reference: &Value| {
            let fits = |share: &&Share| share.percent > 0 && self.is_to(reference, &share.service);
            shares.values().find(fits).filter(|_| weight(reference) > 0)
        };
        if !found.iter().any(|reference| share_of(reference).is_some()) {
            return Some(found.to_vec());
        }
        let alone = found.len() == 1;
        let mut all = Vec::new();
        for reference in found {
            let whole = if alone { 1 } else { weight(reference) };
            let share = share_of(reference);
            let percent = u64::from(share.map_or(0, |share| share.percent.min(100)));
            all.push(with(reference, "weight", whole.checked_mul(100 - percent)?.into()));
            if let Some(share) = share {
                let twin = with(reference, "weight", whole.checked_mul(percent)?.into());
                all.push(with(&twin, "name", share.twin().into()));
            }
        }
        let fits = all.len() <= MOST_REFERENCES && all.iter().all(|reference| weight(reference) <= LARGEST);
        fits.then_some(all)
    }
}

fn references(rule: &Value) -> &[Value] {
    rule["backendRefs"].as_array().map_or(&[], Vec::as_slice)
}

/// One that says nothing has a weight of 1.
fn weight(reference: &Value) -> u64 {
    reference["weight"].as_u64().unwrap_or(1)
}

fn with(reference: &Value, key: &str, value: Value) -> Value {
    let mut changed = reference.clone();
    changed[key] = value;
    changed
}

#[cfg(test)]
mod tests;
