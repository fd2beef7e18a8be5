//! What the supervisor must not forget: environments, what is live in them, and which processes it started.
//!
//! Decisions about this state live elsewhere; here it is only shaped, read and written.

use crate::{
    images::Payload,
    supervisor::{
        paths::{Purpose, replace_file},
        runtime::Instance,
    },
};
use plimsoll_core::{EnvironmentName, Generation, ServiceName, Slot, Timestamp};
use plimsoll_deploy::{LockView, Release, ReleaseRecord, ServiceSpec, Switched};
use plimsoll_process::Detached;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

/// The version of the file's format that this program writes. It reads those since [`OLDEST`].
pub(crate) const FORMAT: u32 = 2;

/// The first format: it knows processes only, and is a part of the present one.
const OLDEST: u32 = 1;

/// Former releases kept per environment: two weeks of daily releases, and the file stays small.
pub(crate) const HISTORY: usize = 20;

/// The whole state file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The format's version.
    pub(crate) format: u32,
    /// Each environment.
    pub(crate) environments: BTreeMap<EnvironmentName, EnvironmentState>,
    /// The proxy, when one was started.
    #[serde(default)]
    pub(crate) proxy: Option<Detached>,
    /// The embedded registry, when it was ever asked for.
    #[serde(default)]
    pub(crate) registry: Option<AuxiliaryState>,
    /// The container engines that were ever used, by their sockets: what is left there is looked for by our labels.
    #[serde(default)]
    pub(crate) engines: BTreeSet<PathBuf>,
}

impl Default for State {
    fn default() -> Self {
        Self { format: FORMAT, environments: BTreeMap::new(), proxy: None, registry: None, engines: BTreeSet::new() }
    }
}

/// One environment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct EnvironmentState {
    pub(crate) generation: Generation,
    pub(crate) live: Option<ReleaseRecord>,
    pub(crate) history: Vec<ReleaseRecord>,
    pub(crate) stopped: bool,
    #[serde(default)]
    pub(crate) switched: Option<Switched>,
    pub(crate) lock: Option<LockView>,
    pub(crate) services: BTreeMap<ServiceName, ServiceState>,
}

/// One service of an environment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct ServiceState {
    /// The port clients use; chosen once and kept.
    pub(crate) public_port: Option<u16>,
    /// The slot that takes the traffic.
    pub(crate) live: Option<Slot>,
    /// The share of the requests, in percent, that the other slot gets.
    #[serde(default)]
    pub(crate) share: u8,
    pub(crate) slots: BTreeMap<Slot, SlotState>,
}

/// What stands in a slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SlotState {
    pub(crate) spec: ServiceSpec,
    #[serde(rename = "rootfs")]
    pub(crate) payload: Payload,
    pub(crate) stamp: ReleaseStamp,
    /// The generation an exclusive slot holds.
    pub(crate) active: Option<Generation>,
    /// One entry per wanted replica.
    pub(crate) replicas: Vec<ReplicaState>,
}

/// The part of a release that a slot answers with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReleaseStamp {
    pub(crate) version: String,
    pub(crate) revision: String,
    pub(crate) run: String,
}

impl ReleaseStamp {
    pub(crate) fn of(release: &Release) -> Self {
        Self {
            version: release.version.clone(),
            revision: release.revision.clone(),
            run: release.run.as_str().to_owned(),
        }
    }

    pub(crate) fn of_record(record: &ReleaseRecord) -> Self {
        Self { version: record.version.clone(), revision: record.revision.clone(), run: record.run.as_str().to_owned() }
    }
}

/// One replica: its process or container, when one was started.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct ReplicaState {
    #[serde(rename = "process")]
    pub(crate) instance: Option<Instance>,
    /// The port of a process.
    pub(crate) port: u16,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) crashes: u32,
}

/// A child that belongs to no environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct AuxiliaryState {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) port: u16,
    pub(crate) process: Option<Detached>,
}

impl State {
    /// The slot's state, when something stands there.
    pub(crate) fn slot(&self, environment: &EnvironmentName, service: &ServiceName, slot: Slot) -> Option<&SlotState> {
        self.environments.get(environment)?.services.get(service)?.slots.get(&slot)
    }

    /// The same, to change it.
    pub(crate) fn slot_mut(
        &mut self,
        environment: &EnvironmentName,
        service: &ServiceName,
        slot: Slot,
    ) -> Option<&mut SlotState> {
        self.environments.get_mut(environment)?.services.get_mut(service)?.slots.get_mut(&slot)
    }

    /// Whether anything that was started and not seen ending may still run. A container may: its engine is not asked.
    pub(crate) fn anything_runs(&self) -> bool {
        let slots = self.environments.values().flat_map(|e| e.services.values()).flat_map(|s| s.slots.values());
        let mut replicas = slots.flat_map(|s| &s.replicas).filter_map(|r| r.instance.as_ref());
        let ours = self.proxy.iter().chain(self.registry.as_ref().and_then(|r| r.process.as_ref()));
        let runs = |process: &Detached| process.adopt().is_some();
        ours.into_iter().any(runs)
            || replicas.any(|instance| match instance {
                Instance::Process(process) => runs(process),
                Instance::Container(_) => true,
            })
    }

    /// Whether the slot takes the traffic.
    pub(crate) fn is_live(&self, environment: &EnvironmentName, service: &ServiceName, slot: Slot) -> bool {
        self.environments.get(environment).and_then(|e| e.services.get(service)).is_some_and(|s| s.live == Some(slot))
    }
}

/// Why the state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file cannot be read.
    #[error("cannot read the state file `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is from another version of this program.
    #[error("`{}` has format {found}, this program reads formats {OLDEST} to {FORMAT}: use the version that wrote it", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The version it names.
        found: u64,
    },
    /// Neither the file nor the one before it holds a state.
    #[error("`{}` is damaged, and so is the copy before it: move both away to begin anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with the newest.
        #[source]
        source: serde_json::Error,
    },
}

/// The state read, and whether it is the previous good one because the newest was damaged.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) state: State,
    pub(crate) from_old: Option<String>,
}

/// The previous good state's file.
pub(crate) fn old_file(path: &Path) -> PathBuf {
    path.with_extension("json.old")
}

/// Reads the state: the newest file, else the one before it, else an empty one where there was none.
pub(crate) fn load(path: &Path) -> Result<Loaded, StateError> {
    let newest = match read(path)? {
        None => None,
        Some(Ok(state)) => return Ok(Loaded { state, from_old: None }),
        Some(Err(damage)) => Some(damage),
    };
    match (read(&old_file(path))?, newest) {
        (Some(Ok(state)), damage) => {
            let reason = damage.map_or_else(|| "it is missing".to_owned(), |e| e.to_string());
            Ok(Loaded { state, from_old: Some(reason) })
        }
        (Some(Err(source)), None) | (_, Some(source)) => Err(StateError::Damaged { path: path.to_owned(), source }),
        (None, None) => Ok(Loaded { state: State::default(), from_old: None }),
    }
}

/// A state file's content: `None` when there is no file, the parser's error when it is damaged.
fn read(path: &Path) -> Result<Option<Result<State, serde_json::Error>>, StateError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateError::Read { path: path.to_owned(), source }),
    };
    let format = serde_json::from_slice::<serde_json::Value>(&bytes).ok().and_then(|v| v.get("format")?.as_u64());
    if let Some(found) = format.filter(|f| !(u64::from(OLDEST)..=u64::from(FORMAT)).contains(f)) {
        return Err(StateError::Format { path: path.to_owned(), found });
    }
    Ok(Some(serde_json::from_slice(&bytes).map(|state| State { format: FORMAT, ..state })))
}

/// Makes `state` the durable one; the one before it stays beside it.
pub(crate) fn save(path: &Path, state: &State) -> io::Result<()> {
    let bytes = serde_json::to_vec_pretty(state).map_err(io::Error::other)?;
    if path.exists() {
        let (old, link) = (old_file(path), path.with_extension("json.link"));
        // A second name for the file in force: no moment without a good file under one of the two names.
        match std::fs::remove_file(&link) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        std::fs::hard_link(path, &link)?;
        std::fs::rename(&link, &old)?;
    }
    replace_file(path, &bytes, Purpose::Memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_environment(name: &str) -> State {
        let environments = BTreeMap::from([(name.parse().unwrap(), EnvironmentState::default())]);
        State { environments, ..State::default() }
    }

    #[test]
    fn a_torn_file_gives_way_to_the_one_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("local-state.json");
        assert_eq!(load(&path).unwrap().state, State::default());
        save(&path, &with_environment("first")).unwrap();
        save(&path, &with_environment("second")).unwrap();
        assert_eq!(load(&path).unwrap().state, with_environment("second"));
        let torn = std::fs::read(&path).unwrap();
        std::fs::write(&path, &torn[..torn.len() / 2]).unwrap();
        let loaded = load(&path).unwrap();
        assert_eq!(loaded.state, with_environment("first"));
        assert!(loaded.from_old.is_some());
        std::fs::write(old_file(&path), "{").unwrap();
        assert!(matches!(load(&path), Err(StateError::Damaged { .. })));
    }

    #[test]
    fn a_file_lost_by_its_rename_gives_way_to_the_one_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("local-state.json");
        save(&path, &with_environment("first")).unwrap();
        std::fs::rename(&path, old_file(&path)).unwrap();
        assert_eq!(load(&path).unwrap().state, with_environment("first"));
    }

    #[test]
    fn a_replica_is_read_back_as_what_it_is_and_one_of_the_first_format_is_a_process() {
        let process = r#"{"pid": 7, "start_time": 1, "boot_id": "b", "marker": "m"}"#;
        let container = r#"{"container": "c0ffee", "pid": 7, "address": "172.18.0.2:8080"}"#;
        let read = |instance: &str| {
            let text = format!(r#"{{"process": {instance}, "port": 1, "started_at": null, "crashes": 0}}"#);
            let replica: ReplicaState = serde_json::from_str(&text).unwrap();
            let again: ReplicaState = serde_json::from_str(&serde_json::to_string(&replica).unwrap()).unwrap();
            assert_eq!(again, replica);
            replica.instance.unwrap()
        };
        assert!(matches!(read(process), Instance::Process(p) if p.pid == 7 && p.marker == "m"));
        assert!(matches!(read(container), Instance::Container(c) if c.id == "c0ffee" && c.address.port() == 8080));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("local-state.json");
        std::fs::write(&path, r#"{"format": 1, "environments": {}}"#).unwrap();
        assert_eq!(load(&path).unwrap().state, State::default());
    }

    #[test]
    fn an_unknown_format_is_refused_in_a_sentence() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("local-state.json");
        std::fs::write(&path, r#"{"format": 9, "worlds": []}"#).unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("format 9") && error.contains("use the version that wrote it"), "{error}");
    }
}
