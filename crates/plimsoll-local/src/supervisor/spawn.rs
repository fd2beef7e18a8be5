//! What a replica is started with: its environment, its log, its place. The decisions are pure; [`start`] does it.

use crate::{
    images::Rootfs,
    supervisor::{
        LocalPaths, logs,
        paths::{create_parent, create_private, replace_file},
        ports,
        protocol::SecretValues,
        state::{ReleaseStamp, SlotState},
    },
};
use plimsoll_core::{EnvironmentName, Fingerprint, Generation, ServiceName, Slot};
use plimsoll_deploy::{Activation, ServiceSpec};
use plimsoll_process::{Adopted, Cmd, ProcessError, spawn_detached};
use std::{collections::BTreeMap, io};

/// One slot of one service of one environment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SlotKey {
    pub(crate) environment: EnvironmentName,
    pub(crate) service: ServiceName,
    pub(crate) slot: Slot,
}

/// Why a replica could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("cannot prepare its files")]
    Prepare(#[source] io::Error),
    #[error("no free port")]
    Port(#[source] io::Error),
    #[error("the secrets {0:?} are not known any more: start the environment again to hand them over")]
    Secrets(Vec<String>),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("it ended at once")]
    Gone,
}

/// The name under which all processes of a replica can be found, also when the state lost sight of them.
pub(crate) fn marker(paths: &LocalPaths, key: &SlotKey, n: u16) -> String {
    let place = Fingerprint::of(paths.root().as_os_str().as_encoded_bytes()).short();
    format!("plimsoll-{place}-{}-{}-{}-{n}", key.environment, key.service, key.slot)
}

/// The variable that names where a service is reached.
pub(crate) fn url_variable(service: &ServiceName) -> String {
    format!("{}_URL", service.as_str().to_uppercase().replace('-', "_"))
}

/// The environment of a replica: the image's, then the spec's, then ours, which nobody overrides.
pub(crate) fn environment_of(
    paths: &LocalPaths,
    key: &SlotKey,
    slot: &SlotState,
    port: u16,
    urls: &BTreeMap<ServiceName, String>,
    secrets: &SecretValues,
) -> BTreeMap<String, String> {
    let mut variables = slot.rootfs.env.clone();
    variables.extend(slot.spec.env.clone());
    for dependency in &slot.spec.depends_on {
        if let Some(url) = urls.get(dependency) {
            variables.insert(url_variable(dependency), url.clone());
        }
    }
    variables.extend(secrets.0.clone());
    let identity = paths.identity(&key.environment, &key.service, key.slot);
    variables.insert("PORT".to_owned(), port.to_string());
    variables.insert("HOST".to_owned(), "127.0.0.1".to_owned());
    variables.insert("SERVICE_SLOT".to_owned(), key.slot.to_string());
    if slot.spec.activation == Activation::Exclusive {
        variables.insert("PLIMSOLL_ACTIVATION".to_owned(), "managed".to_owned());
    }
    variables.insert("PLIMSOLL_ENVIRONMENT".to_owned(), key.environment.to_string());
    variables.insert("PLIMSOLL_IDENTITY".to_owned(), identity.to_string_lossy().into_owned());
    if let Some(directory) = paths.service_state(&key.environment, &key.service, key.slot, slot.spec.state) {
        variables.insert("STATE_DIR".to_owned(), directory.to_string_lossy().into_owned());
    }
    variables
}

/// The secret variables that `spec` names and `secrets` lacks.
pub(crate) fn missing_secrets(spec: &ServiceSpec, secrets: &SecretValues) -> Vec<String> {
    spec.secret_env.keys().filter(|name| !secrets.0.contains_key(*name)).cloned().collect()
}

/// The secrets of a process that runs, for the day it must be started again: a new supervisor knows none.
pub(crate) fn secrets_of_process(pid: u32, spec: &ServiceSpec) -> SecretValues {
    let bytes = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let variable = |entry: &[u8]| {
        let (name, value) = std::str::from_utf8(entry).ok()?.split_once('=')?;
        spec.secret_env.contains_key(name).then(|| (name.to_owned(), value.to_owned()))
    };
    SecretValues(bytes.split(|b| *b == 0).filter_map(variable).collect())
}

/// Starts a replica on a port of its own.
pub(crate) fn start(
    paths: &LocalPaths,
    key: &SlotKey,
    n: u16,
    slot: &SlotState,
    urls: &BTreeMap<ServiceName, String>,
    secrets: &SecretValues,
) -> Result<(Adopted, u16), StartError> {
    let missing = missing_secrets(&slot.spec, secrets);
    if !missing.is_empty() {
        return Err(StartError::Secrets(missing));
    }
    let port = ports::free().map_err(StartError::Port)?;
    if let Some(directory) = paths.service_state(&key.environment, &key.service, key.slot, slot.spec.state) {
        create_private(&directory).map_err(StartError::Prepare)?;
    }
    let log =
        logs::open(&paths.replica_log(&key.environment, &key.service, key.slot, n)).map_err(StartError::Prepare)?;
    let errors = log.try_clone().map_err(StartError::Prepare)?;
    let Rootfs { program, args, cwd, .. } = &slot.rootfs;
    let command = Cmd::new(program)
        .args(args)
        .cwd(cwd)
        .envs(environment_of(paths, key, slot, port, urls, secrets))
        .marker(marker(paths, key, n));
    let started = spawn_detached(&command, log, errors, None)?;
    Ok((started.adopt().ok_or(StartError::Gone)?, port))
}

/// Writes what a slot's replicas say they are.
pub(crate) fn write_identity(
    paths: &LocalPaths,
    key: &SlotKey,
    stamp: &ReleaseStamp,
    generation: Generation,
) -> io::Result<()> {
    let path = paths.identity(&key.environment, &key.service, key.slot);
    create_parent(&path)?;
    let identity = serde_json::json!({
        "version": stamp.version,
        "revision": stamp.revision,
        "run": stamp.run,
        "environment": key.environment,
        "generation": generation,
    });
    replace_file(&path, identity.to_string().as_bytes(), false)
}
