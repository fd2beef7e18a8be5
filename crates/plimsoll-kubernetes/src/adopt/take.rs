//! Making a Service of somebody else the environment's, by the cut-over that adopts it.

use super::{selected, shown, theirs};
use crate::{
    cluster::refused,
    cut_over::{CUT_OVER, Site},
    names,
    observe::{annotation, selector},
    record,
    world::World,
};
use json_patch::{AddOperation, Patch, PatchOperation, TestOperation, jsonptr::PointerBuf};
use k8s_openapi::api::core::v1::Service;
use plimsoll_core::{ServiceName, Slot};
use plimsoll_deploy::{ReleaseRecord, ServiceSpec, TargetError};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Whether the Service that is there, if one is, may come to lead to slots of `spec`, or why not.
pub(crate) fn may_lead(world: &World, spec: &ServiceSpec, there: Option<&Value>) -> Result<(), String> {
    let Some(there) = there else { return Ok(()) };
    let (name, environment) = (there["metadata"]["name"].as_str().unwrap_or_default(), &world.environment);
    let again = format!("`cargo xtask adopt {environment}`");
    match (world.service(&spec.name), theirs(spec)) {
        // A first release into what an adoption left half made would have nothing to go back to.
        (Some(ours), None) if annotation(ours, names::ADOPTED).is_some() && world.live.is_none() => {
            Err(format!("the adoption of Service {name} was broken off: {again} finishes it"))
        }
        (Some(_), _) => Ok(()),
        (None, Some(theirs)) if world.live.is_none() => {
            let now = selected(there);
            if now == theirs { Ok(()) } else { Err(moved(name, &theirs, &now)) }
        }
        (None, _) if world.live.is_none() => Err(format!(
            "Service {name} is there, and is not this environment's; {again} takes it over, with its Deployment"
        )),
        (None, _) => Err(format!("Service {name} is there, and is not this environment's")),
    }
}

fn moved(service: &str, theirs: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> String {
    format!("Service {service} selected {} when it was looked at, and selects {} now", shown(theirs), shown(now))
}

/// Leads a Service of somebody else to `slot`, and makes it the environment's, by one patch. `false`: it changed meanwhile
/// in other ways than its selector, and has to be looked at again.
pub(crate) async fn take(
    site: &Site<'_>,
    name: &ServiceName,
    slot: Slot,
    record: &ReleaseRecord,
) -> Result<bool, TargetError> {
    let what = format!("point {name} at {slot}");
    let theirs = record.services.get(name).and_then(|service| theirs(&service.spec));
    let there = site.cluster.get::<Service>(name.as_str()).await?;
    let (Some(theirs), Some(there)) = (theirs, there) else { return Err(refused(&what, "its Service is gone")) };
    let stored = record::read(site.cluster, site.environment).await?.record;
    let ours = stored.pending.as_ref().is_some_and(|pending| pending.run == record.run);
    if !ours || stored.generation.next() != record.generation {
        return Err(site.stale(plimsoll_core::Generation(record.generation.0 - 1), stored.generation));
    }
    if stored.live.is_some() {
        return Err(refused(&what, format!("Service {name} is not this environment's")));
    }
    let now = selector(&there);
    if now != theirs {
        return Err(refused(&what, moved(name.as_str(), &theirs, &now)));
    }
    let patch = patch(&there, site.environment.as_str(), name, slot, record, &theirs);
    match site.cluster.patch_if::<Service>(name.as_str(), CUT_OVER, patch).await {
        Ok(done) => Ok(done.is_some()),
        // Whether it took effect, the next look tells.
        Err(TargetError::Unreachable { what, source }) => {
            tracing::warn!(what, %source, "looking again");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn patch(
    there: &Service,
    environment: &str,
    name: &ServiceName,
    slot: Slot,
    record: &ReleaseRecord,
    theirs: &BTreeMap<String, String>,
) -> Patch {
    let path = |tokens: &[&str]| PointerBuf::from_tokens(tokens.iter().copied());
    let test = |tokens: &[&str], value: Value| PatchOperation::Test(TestOperation { path: path(tokens), value });
    let add = |tokens: &[&str], value: Value| PatchOperation::Add(AddOperation { path: path(tokens), value });
    let own = [(names::ENVIRONMENT, environment), (names::SERVICE, name.as_str())];
    let rest: BTreeMap<&str, &str> = own.into();
    let whole: BTreeMap<&str, &str> = own.into_iter().chain([(names::traffic_of(Some(slot)), names::YES)]).collect();
    let mut labels = there.metadata.labels.clone().unwrap_or_default();
    labels.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let told = [
        (names::GENERATION, record.generation.to_string()),
        (names::RUN, record.run.to_string()),
        (names::SELECTOR, json!(rest).to_string()),
        (names::ADOPTED, json!(theirs).to_string()),
    ];
    let mut annotations = there.metadata.annotations.clone().unwrap_or_default();
    annotations.extend(told.map(|(key, value)| (key.to_owned(), value)));
    Patch(vec![
        test(&["metadata", "resourceVersion"], there.metadata.resource_version.clone().unwrap_or_default().into()),
        test(&["spec", "selector"], json!(theirs)),
        add(&["metadata", "labels"], json!(labels)),
        add(&["metadata", "annotations"], json!(annotations)),
        add(&["spec", "selector"], json!(whole)),
    ])
}
