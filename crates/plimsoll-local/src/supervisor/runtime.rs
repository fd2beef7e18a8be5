//! How a replica is run. The supervisor asks the same of processes and of containers; what makes a cut-over safe is its
//! own and is not repeated by a runtime.
//!
//! A runtime decides nothing: it starts what it is told to, finds it again, says how it ended and ends it when asked.

use crate::{
    images::Payload,
    supervisor::{
        LocalPaths,
        paths::create_private,
        place::{ReplicaKey, SlotKey},
        protocol::SecretValues,
    },
};
use plimsoll_core::{EnvironmentName, Generation, ServiceName};
use plimsoll_deploy::{Activation, ServiceSpec, TargetError};
use plimsoll_process::{Detached, ProcessError};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
};

/// What a runtime's verbs return: a future that may be sent between threads.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the state file keeps of a replica that runs, so that it is found again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Instance {
    /// A process of this machine.
    Process(Detached),
    /// A container.
    Container(Container),
}

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The engine's id of it.
    #[serde(rename = "container")]
    pub id: String,
    /// Its first process, as this machine numbers it.
    pub pid: u32,
    /// Where it is reached.
    pub address: SocketAddr,
}

/// Where a replica is to run, or runs.
#[derive(Debug, Clone)]
pub struct Place {
    /// The paths of the state directory.
    pub paths: LocalPaths,
    /// Which replica.
    pub key: ReplicaKey,
    /// What its slot runs.
    pub payload: Payload,
}

impl Place {
    /// The replica's name, the same for as long as its place exists.
    pub fn name(&self) -> String {
        self.key.name(&self.paths)
    }
}

/// Everything a replica is started from.
#[derive(Debug, Clone)]
pub struct Order {
    /// Where.
    pub place: Place,
    /// What.
    pub spec: ServiceSpec,
    /// The version of the release it was stood up for.
    pub version: String,
    /// The environment's generation now.
    pub generation: Generation,
    /// Where the environment's services are reached from inside the replica.
    pub urls: BTreeMap<ServiceName, String>,
    /// The secret variables.
    pub secrets: SecretValues,
}

/// What a replica sees of its surroundings.
#[derive(Debug, Clone)]
pub struct Inside {
    /// The address it is to listen on.
    pub host: Ipv4Addr,
    /// The port it is to listen on.
    pub port: u16,
    /// The path of its identity file, as it sees it.
    pub identity: PathBuf,
    /// The path of its state directory, as it sees it.
    pub state: Option<PathBuf>,
}

impl Order {
    /// The variables of a replica: the spec's, then ours, which nobody overrides.
    pub fn variables(&self, inside: &Inside) -> BTreeMap<String, String> {
        let mut variables = self.spec.env.clone();
        for dependency in &self.spec.depends_on {
            if let Some(url) = self.urls.get(dependency) {
                variables.insert(dependency.url_variable(), url.clone());
            }
        }
        variables.extend(self.secrets.0.clone());
        let SlotKey { environment, slot, .. } = &self.place.key.slot;
        variables.insert("PORT".to_owned(), inside.port.to_string());
        variables.insert("HOST".to_owned(), inside.host.to_string());
        variables.insert("SERVICE_SLOT".to_owned(), slot.to_string());
        if self.spec.activation == Activation::Exclusive {
            variables.insert("PLIMSOLL_ACTIVATION".to_owned(), "managed".to_owned());
        }
        variables.insert("PLIMSOLL_ENVIRONMENT".to_owned(), environment.to_string());
        variables.insert("PLIMSOLL_IDENTITY".to_owned(), inside.identity.to_string_lossy().into_owned());
        if let Some(directory) = &inside.state {
            variables.insert("STATE_DIR".to_owned(), directory.to_string_lossy().into_owned());
        }
        variables
    }

    /// The identity file on this machine.
    pub fn identity(&self) -> PathBuf {
        let SlotKey { environment, service, slot } = &self.place.key.slot;
        self.place.paths.identity(environment, service, *slot)
    }

    /// The state directory on this machine, made if the service has one.
    pub fn state_directory(&self) -> Result<Option<PathBuf>, RuntimeError> {
        let SlotKey { environment, service, slot } = &self.place.key.slot;
        let directory = self.place.paths.service_state(environment, service, *slot, self.spec.state);
        if let Some(directory) = &directory {
            create_private(directory).map_err(RuntimeError::Prepare)?;
        }
        Ok(directory)
    }

    /// Refuses to go on without a secret: a new supervisor knows none but those of replicas that still ran.
    pub fn check_secrets(&self) -> Result<(), RuntimeError> {
        let known = &self.secrets.0;
        let missing: Vec<String> =
            self.spec.secret_env.keys().filter(|name| !known.contains_key(*name)).cloned().collect();
        if missing.is_empty() { Ok(()) } else { Err(RuntimeError::Secrets(missing)) }
    }
}

/// A name and a password for a registry, on their way to whoever pulls; never written to a file and never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The name.
    pub username: String,
    /// The password or token.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What a command does with a service's state. Of each kind one works in a slot at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// It copies the state.
    Save,
    /// It puts a copy in its place.
    Load,
}

impl JobKind {
    /// In one word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Save => "save",
            Self::Load => "load",
        }
    }

    /// The name under which such a command beside the state of a slot is found.
    pub fn name(self, place: &Place) -> String {
        format!("{}-{}", place.name(), self.word())
    }
}

/// A command that works on a service's state.
#[derive(Debug, Clone)]
pub struct Job {
    /// What it does.
    pub kind: JobKind,
    /// The program, by its path in the image, and its arguments.
    pub command: Vec<String>,
    /// The file it reads from standard input, else nothing.
    pub input: Option<PathBuf>,
    /// The file that gets its standard output, else its log.
    pub output: Option<PathBuf>,
}

/// How many lines of its log are told when it fails: what fits a screen beside the rest.
pub const JOB_TAIL: usize = 20;

/// What of a project is to stay, where everything else of it is cleaned away.
#[derive(Debug, Clone, Default)]
pub struct Keep {
    /// Names of replicas.
    pub replicas: BTreeSet<String>,
    /// Environments that have any.
    pub environments: BTreeSet<EnvironmentName>,
}

/// Why a runtime did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A directory or file.
    #[error("cannot prepare its files")]
    Prepare(#[source] io::Error),
    /// All ports are taken.
    #[error("no free port")]
    Port(#[source] io::Error),
    /// The supervisor was started anew, and secrets are written nowhere.
    #[error("the secrets {0:?} are not known any more: start the environment again to hand them over")]
    Secrets(Vec<String>),
    /// The process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It was started and is not there.
    #[error("it ended at once")]
    Gone,
    /// This executable was built without containers.
    #[error("this supervisor runs no containers")]
    NoContainers,
    /// A command beside a service's state.
    #[error("{how}")]
    Command {
        /// How it ended, such as "it exited with code 3".
        how: String,
        /// The last lines it wrote, oldest first.
        said: Vec<String>,
    },
    /// A listener for the clients among the replicas.
    #[error("cannot listen for replicas at {address}")]
    Door {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The container engine.
    #[error(transparent)]
    Engine(Box<dyn std::error::Error + Send + Sync>),
}

/// A way to run replicas.
pub trait Runtime: fmt::Debug + Send + Sync {
    /// Makes what a slot is to run ready to be started, such as by fetching its image. Changes nothing that runs.
    fn prepare<'a>(
        &'a self,
        spec: &'a ServiceSpec,
        payload: &'a Payload,
        login: Option<&'a Login>,
    ) -> Doing<'a, Result<(), TargetError>>;

    /// The address under which the replicas of an environment reach this machine.
    fn gateway<'a>(
        &'a self,
        paths: &'a LocalPaths,
        environment: &'a EnvironmentName,
        payload: &'a Payload,
    ) -> Doing<'a, Result<Ipv4Addr, RuntimeError>>;

    /// Starts a replica where none runs.
    fn start(&self, order: Order) -> Doing<'_, Result<Arc<dyn Running>, RuntimeError>>;

    /// The replica that runs in a place; `known` and `port` are what the state keeps of it. Nothing when none runs there;
    /// an error when that cannot be told.
    fn find<'a>(
        &'a self,
        place: &'a Place,
        known: Option<&'a Instance>,
        port: u16,
    ) -> Doing<'a, Result<Option<Arc<dyn Running>>, RuntimeError>>;

    /// Ends whatever runs in a place, recorded or not, at once. After this nothing does.
    fn sweep<'a>(&'a self, place: &'a Place) -> Doing<'a, Result<(), RuntimeError>>;

    /// Ends whatever works beside the state of a slot, at once.
    fn sweep_jobs<'a>(&'a self, place: &'a Place) -> Doing<'a, Result<(), RuntimeError>>;

    /// The last lines that the replica of a place wrote, oldest first.
    fn tail<'a>(&'a self, place: &'a Place, lines: usize) -> Doing<'a, Vec<String>>;

    /// Runs a command of the slot's image beside its state, with the variables of a replica, and waits until it has ended: an
    /// error unless it did so with status 0.
    fn beside<'a>(&'a self, order: Order, job: &'a Job) -> Doing<'a, Result<(), RuntimeError>>;

    /// Removes what is there for this project beyond what is to stay.
    fn tidy<'a>(
        &'a self,
        paths: &'a LocalPaths,
        engine: &'a std::path::Path,
        keep: &'a Keep,
    ) -> Doing<'a, Result<(), RuntimeError>>;
}

/// A replica that runs, or did.
pub trait Running: fmt::Debug + Send + Sync {
    /// What to write down of it.
    fn instance(&self) -> Instance;

    /// Its first process.
    fn pid(&self) -> u32;

    /// Where it is reached.
    fn address(&self) -> SocketAddr;

    /// Whether what listens at its address is really it.
    fn answers(&self) -> Doing<'_, bool>;

    /// Waits until it has ended, and says how, such as "it exited with code 3". May be asked again.
    fn ended(&self) -> Doing<'_, String>;

    /// Ends it and all it started: SIGTERM, `grace`, SIGKILL. After this nothing of it runs, or there is an error.
    fn end(&self, grace: std::time::Duration) -> Doing<'_, Result<(), RuntimeError>>;

    /// The secret variables it was started with, for the day it must be started again.
    fn secrets(&self, spec: &ServiceSpec) -> SecretValues;
}
