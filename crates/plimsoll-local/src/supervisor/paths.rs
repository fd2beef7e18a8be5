//! Where the local target keeps things: one directory per project, and every path below it.
//!
//! Not a place for what may be lost with the workspace: this directory outlives clones and commands.

use plimsoll_core::{EnvironmentName, ServiceName, Slot};
use plimsoll_deploy::StatePolicy;
use std::{
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// The paths of one state directory. One supervisor at most works on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPaths {
    root: PathBuf,
}

impl LocalPaths {
    /// The paths below `state_dir`, which should be absolute: processes with other working directories read them.
    ///
    /// A Unix socket's path has at most 107 bytes, so `state_dir` has at most 90.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self { root: state_dir.into() }
    }

    /// The state directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The supervisor's control socket, mode 0600.
    pub fn supervisor_socket(&self) -> PathBuf {
        self.root.join("supervisor.sock")
    }

    /// The file whose lock decides which supervisor works here.
    pub fn supervisor_lock(&self) -> PathBuf {
        self.root.join("supervisor.lock")
    }

    /// What the supervisor and the proxy say about themselves.
    pub fn supervisor_log(&self) -> PathBuf {
        self.root.join("logs/supervisor.log")
    }

    /// What the proxy says about itself.
    pub fn proxy_log(&self) -> PathBuf {
        self.root.join("logs/proxy.log")
    }

    /// The proxy's control socket, mode 0600.
    pub fn proxy_socket(&self) -> PathBuf {
        self.root.join("proxy.sock")
    }

    /// The durable state of all environments.
    pub fn state_file(&self) -> PathBuf {
        self.root.join("local-state.json")
    }

    /// Blobs and unpacked images.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// The log of one replica.
    pub fn replica_log(&self, environment: &EnvironmentName, service: &ServiceName, slot: Slot, n: u16) -> PathBuf {
        self.root.join(format!("logs/{environment}/{service}/{slot}-{n}.log"))
    }

    /// What the last command of this kind wrote beside a service's state.
    pub fn copying_log(&self, environment: &EnvironmentName, service: &ServiceName, kind: &str) -> PathBuf {
        self.root.join(format!("logs/{environment}/{service}/{kind}.log"))
    }

    /// The identity file of one slot: what its replicas answer to `GET /version`.
    pub fn identity(&self, environment: &EnvironmentName, service: &ServiceName, slot: Slot) -> PathBuf {
        self.root.join(format!("run/{environment}/{service}/{slot}.json"))
    }

    /// The state directory of one slot under `policy`, where it gets one.
    pub fn service_state(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        slot: Slot,
        policy: StatePolicy,
    ) -> Option<PathBuf> {
        match policy {
            StatePolicy::Shared => Some(self.root.join(format!("state/{environment}/{service}"))),
            StatePolicy::PerSlot => Some(self.root.join(format!("state/{environment}/{service}/{slot}"))),
            StatePolicy::External => None,
        }
    }

    /// Makes the state directory, for its owner alone.
    pub(crate) fn create(&self) -> io::Result<()> {
        create_private(&self.root)?;
        create_private(&self.root.join("logs"))
    }
}

/// Makes a directory and what is missing above it, mode 0700.
pub(crate) fn create_private(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes the directory that `file` is to stand in.
pub(crate) fn create_parent(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), create_private)
}

/// What a file is for, which says who may read it and whether it must survive a loss of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The supervisor's memory: for its owner alone, on the disk before anything is built on it.
    Memory,
    /// Told to replicas, which may run as other users; the directories above it keep everybody else out.
    Told,
}

/// Puts `bytes` at `path` so that a reader sees the old content or the new, never a part.
pub(crate) fn replace_file(path: &Path, bytes: &[u8], purpose: Purpose) -> io::Result<()> {
    use std::io::Write as _;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let mut options = std::fs::OpenOptions::new();
    let (mode, durable) = match purpose {
        Purpose::Memory => (0o600, true),
        Purpose::Told => (0o644, false),
    };
    std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create(true).truncate(true), mode);
    let mut file = options.open(&temporary)?;
    file.write_all(bytes)?;
    if durable {
        file.sync_all()?;
    }
    std::fs::rename(&temporary, path)?;
    if durable && let Some(directory) = path.parent() {
        std::fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_policy_decides_who_shares_a_directory() {
        let paths = LocalPaths::new("/s");
        let (environment, service) = ("staging".parse().unwrap(), "api".parse().unwrap());
        let of = |slot, policy| paths.service_state(&environment, &service, slot, policy);
        assert_eq!(of(Slot::Blue, StatePolicy::Shared), of(Slot::Green, StatePolicy::Shared));
        assert_ne!(of(Slot::Blue, StatePolicy::PerSlot), of(Slot::Green, StatePolicy::PerSlot));
        assert_eq!(of(Slot::Blue, StatePolicy::External), None);
    }
}
