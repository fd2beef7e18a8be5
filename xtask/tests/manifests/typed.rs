//! The objects that Plimsoll makes itself, of each environment in plimsoll.toml: as the file says, and with everything that it
//! could say.

use crate::{objects::Rendered, table};
use plimsoll_core::{Digest, EnvironmentName, ImageRef, Slot, config::Config};
use plimsoll_deploy::ServiceSpec;
use plimsoll_kubernetes::{
    Object, Place, in_slot,
    manifest::{Context, typed},
};
use plimsoll_steps::service_spec;
use serde_json::Value;
use std::collections::BTreeMap;

/// What this repository's services do not say, and others may: of the gateway, of the risk manager, of environments.
const MORE: [(&str, &str); 2] = [
    (
        "[services.api-gateway]\n",
        "resources = { cpu = \"50m\", memory = \"32Mi\", cpu_limit = \"1\", memory_limit = \"128Mi\" }\n\
         autoscale = { min = 2, max = 6, cpu_pct = 70, memory_pct = 80 }\nsecrets = { KEY = { env = \"KEY\" } }\n",
    ),
    (
        "[services.risk-manager]\n",
        "replicas = 2\nstorage = { size = \"2Gi\", class = \"fast\", access = \"ReadWriteMany\" }\n",
    ),
];
const PORTS: &str = "\n[environments.staging.services.api-gateway]\nport = 8080\n\
                     [environments.production.services.api-gateway]\nport = 8081\n";

/// The typed objects of every environment.
pub(crate) fn environments() -> Vec<Rendered> {
    let plain = table::text("plimsoll.toml");
    let mut more = format!("{plain}{PORTS}");
    for (table, keys) in MORE {
        assert!(more.contains(table), "plimsoll.toml has no {table}");
        more = more.replace(table, &format!("{table}{keys}"));
    }
    [("", plain), (" with everything", more)].iter().flat_map(|(suffix, text)| of_config(text, suffix)).collect()
}

fn of_config(text: &str, suffix: &str) -> Vec<Rendered> {
    let config = Config::parse(text, "plimsoll.toml").unwrap_or_else(|error| panic!("{error}"));
    let environments = config.environments.keys();
    environments.map(|name| Rendered::of(format!("typed {name}{suffix}"), objects(&config, name))).collect()
}

/// All objects of an environment, as they are in a slot.
fn objects(config: &Config, environment: &EnvironmentName) -> Vec<Value> {
    let services = config.resolved(environment).expect("the environment is of this file");
    let image = |name: &str| format!("registry.example/kairos/{name}").parse::<ImageRef>().expect("a reference");
    let specs: Vec<ServiceSpec> = services
        .iter()
        .map(|service| service_spec(service, image(service.name.as_str()), Digest::of(b""), &BTreeMap::new()))
        .collect();
    let context = Context::new(config.project.name.to_string(), environment.clone(), &specs);
    let mut all: Vec<Object> = Vec::new();
    for spec in &specs {
        let made = typed(spec, &context).unwrap_or_else(|error| panic!("{error}"));
        let place = Place { environment, slot: Slot::Green, version: "1.0.0", replicas: spec.replicas };
        let slotted = in_slot(&made, spec, &place).unwrap_or_else(|error| panic!("{error}"));
        all.extend(slotted.shared.into_iter().chain(slotted.own).chain([slotted.service]));
    }
    all.into_iter().map(Value::from).collect()
}
