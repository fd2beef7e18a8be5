//! What things are called in the cluster, and the labels by which they are found again. Pure.
//!
//! An environment has a namespace to itself: its objects are called as its services are.

use plimsoll_core::{EnvironmentName, Fingerprint, Generation, RunId, ServiceName, Slot};
use plimsoll_deploy::ServiceSpec;
use std::collections::BTreeMap;

/// The field manager of everything that is applied.
pub const MANAGER: &str = "plimsoll";
/// Label: the environment an object belongs to.
pub const ENVIRONMENT: &str = "plimsoll.dev/environment";
/// Label: the service.
pub const SERVICE: &str = "plimsoll.dev/service";
/// Label: the slot.
pub const SLOT: &str = "plimsoll.dev/slot";
/// What a label that leads traffic to a pod has as its value.
pub const YES: &str = "yes";
/// What such a label begins with; the slot follows.
const TRAFFIC: &str = "plimsoll.dev/traffic-of-";
/// Label: what a pod runs, digest and configuration; tells the pods of a slot from those it had before.
pub const SPEC: &str = "plimsoll.dev/spec";
/// Annotation: the digest a slot runs.
pub const DIGEST: &str = "plimsoll.dev/digest";
/// Annotation: the hash of the configuration it runs with.
pub const CONFIG: &str = "plimsoll.dev/config-hash";
/// Annotation: the version of the release that stood it up.
pub const VERSION: &str = "plimsoll.dev/version";
/// Annotation: how many pods it is to have; remembered while an environment is stopped.
pub const REPLICAS: &str = "plimsoll.dev/replicas";
/// Annotation: `exclusive` where the pods work only when told.
pub const ACTIVATION: &str = "plimsoll.dev/activation";
/// Annotation of a Service: the generation whose cut-over set its selector.
pub const GENERATION: &str = "plimsoll.dev/generation";
/// Annotation of a Service: the run whose cut-over set its selector.
pub const RUN: &str = "plimsoll.dev/run";
/// Annotation of a Service: what it selects besides the slot, as JSON.
pub const SELECTOR: &str = "plimsoll.dev/selector";
/// Annotation of a Service: the run that last took a claim over or ended its own, and when, in milliseconds.
pub const CLAIM: &str = "plimsoll.dev/claimed-by";
/// Annotation of an autoscaler whose slot waits: its lower bound as it was declared.
pub const MIN_REPLICAS: &str = "plimsoll.dev/min-replicas";
/// Annotation of an HTTPRoute: the shares it gives, and what it said before, as JSON.
pub const SHARE: &str = "plimsoll.dev/share";
/// Label of a slot's own Service, which is there while the slot has a share by weights: the service.
pub const SHARE_OF: &str = "plimsoll.dev/share-of";
/// Annotation of a Service that was adopted: what it selected before, as JSON.
pub const ADOPTED: &str = "plimsoll.dev/adopted-selector";
/// Annotation: where the pods of a slot tell what they answered, as JSON.
pub const METRICS: &str = "plimsoll.dev/metrics";

/// Label: the pod gets the traffic of this slot. Its own from its template; the other one's while it has a share of that
/// (docs/adr/0016). It is the one key of a Service's selector that a cut-over changes; no pod has that of no slot.
pub const fn traffic_of(slot: Option<Slot>) -> &'static str {
    match slot {
        Some(Slot::Blue) => "plimsoll.dev/traffic-of-blue",
        Some(Slot::Green) => "plimsoll.dev/traffic-of-green",
        None => "plimsoll.dev/traffic-of-none",
    }
}

/// Whether a key of a selector says which slot is selected; before there were shares it was the slot itself.
pub fn is_slot_key(key: &str) -> bool {
    key == SLOT || key.starts_with(TRAFFIC)
}

/// Where a selector leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selected {
    /// To a slot.
    One(Slot),
    /// To none, as before the first cut-over.
    Neither,
    /// It says nothing of slots, or more than one thing.
    Unclear,
}

impl From<Option<Slot>> for Selected {
    fn from(slot: Option<Slot>) -> Self {
        slot.map_or(Self::Neither, Self::One)
    }
}

impl Selected {
    /// Where this selector leads.
    pub fn by(selector: &BTreeMap<String, String>) -> Self {
        let keys: Vec<_> = selector.iter().filter(|(key, _)| is_slot_key(key)).collect();
        let [(key, value)] = keys.as_slice() else { return Self::Unclear };
        let is_named = |slot: &Slot| *key == traffic_of(Some(*slot)) || (*key == SLOT && *value == slot.as_str());
        [Slot::Blue, Slot::Green].into_iter().find(is_named).into()
    }

    /// The slot, where it is one.
    pub const fn slot(self) -> Option<Slot> {
        match self {
            Self::One(slot) => Some(slot),
            Self::Neither | Self::Unclear => None,
        }
    }
}

/// An object of one slot, such as `gateway-green`.
pub fn slotted(name: &str, slot: Slot) -> String {
    format!("{name}-{slot}")
}

/// The environment's record and its lock.
pub fn environment(environment: &EnvironmentName) -> String {
    format!("plimsoll.{environment}")
}

/// The record of one release.
pub fn release(environment: &EnvironmentName, generation: Generation, run: &RunId) -> String {
    format!("plimsoll.{environment}.{generation}.{run}")
}

/// The file with which a slot's pods are told who they are, as a ConfigMap.
pub fn identity(service: &ServiceName, slot: Slot) -> String {
    format!("{service}-{slot}-identity")
}

/// What tells one content of a slot from another, short enough for a label (63 characters).
pub fn spec_label(spec: &ServiceSpec) -> String {
    Fingerprint::of(format!("{} {}", spec.digest, spec.config_hash).as_bytes()).short()
}

/// The selector of everything in an environment.
pub fn of_environment(environment: &EnvironmentName) -> String {
    format!("{ENVIRONMENT}={environment}")
}

/// The selector of everything in one slot.
pub fn of_slot(environment: &EnvironmentName, service: &ServiceName, slot: Slot) -> String {
    format!("{ENVIRONMENT}={environment},{SERVICE}={service},{SLOT}={slot}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_leads_to_the_one_slot_it_names() {
        let check = |pairs: &[(&str, &str)], expected| {
            let selector = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            assert_eq!(Selected::by(&selector), expected, "{pairs:?}");
        };
        check(&[("app", "web"), (traffic_of(Some(Slot::Green)), YES)], Selected::One(Slot::Green));
        check(&[(traffic_of(None), YES)], Selected::Neither);
        check(&[("app", "web")], Selected::Unclear);
        check(&[(traffic_of(Some(Slot::Blue)), YES), (traffic_of(Some(Slot::Green)), YES)], Selected::Unclear);
        // Before there were shares.
        check(&[(SLOT, "blue")], Selected::One(Slot::Blue));
        check(&[(SLOT, "none")], Selected::Neither);
    }
}
