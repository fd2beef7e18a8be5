//! What things are called in the cluster, and the labels by which they are found again. Pure.
//!
//! An environment has a namespace to itself: its objects are called as its services are.

use plimsoll_core::{EnvironmentName, Fingerprint, Generation, RunId, ServiceName, Slot};
use plimsoll_deploy::ServiceSpec;

/// The field manager of everything that is applied.
pub const MANAGER: &str = "plimsoll";
/// Label: the environment an object belongs to.
pub const ENVIRONMENT: &str = "plimsoll.dev/environment";
/// Label: the service.
pub const SERVICE: &str = "plimsoll.dev/service";
/// Label: the slot; the one key of a Service's selector that a cut-over changes.
pub const SLOT: &str = "plimsoll.dev/slot";
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
/// What a Service selects before its first cut-over: no pod has this slot.
pub const NO_SLOT: &str = "none";

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
