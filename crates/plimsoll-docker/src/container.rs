//! What a container is made from: the order, as the engine wants it said. Pure.

use crate::{image::Image, labels};
use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, RestartPolicy, RestartPolicyNameEnum,
};
use plimsoll_deploy::Resources;
use plimsoll_local::supervisor::{Inside, Order};
use std::{
    collections::HashMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

/// The port that every service listens on in its container: each has a network address of its own.
pub(crate) const PORT: u16 = 8080;

/// Where a container finds its identity file, in a directory, so that a file put in place of another one is seen.
const IDENTITY: &str = "/run/plimsoll";

/// Where a container finds its state directory.
const STATE: &str = "/var/lib/plimsoll";

/// What a container may write besides its state, and no program may lie there.
const TMP: &str = "rw,noexec,nosuid,nodev,size=64m,mode=1777";

/// Files and bytes of a container's log: as much as the local target keeps.
const LOG: [(&str, &str); 2] = [("max-size", "10m"), ("max-file", "3")];

/// What is mounted into a container from this machine.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    /// The identity file.
    pub(crate) identity: PathBuf,
    /// The state directory, if the service has one.
    pub(crate) state: Option<PathBuf>,
}

/// The body of the request that makes a container.
pub(crate) fn body(order: &Order, image: &Image, network: &str, sources: &Sources) -> ContainerCreateBody {
    let file = sources.identity.file_name().unwrap_or_default();
    let inside = Inside {
        host: Ipv4Addr::UNSPECIFIED,
        port: PORT,
        identity: Path::new(IDENTITY).join(file),
        state: sources.state.as_ref().map(|_| PathBuf::from(STATE)),
    };
    // What the image says counts least: the engine takes it for what is not named here.
    let env = order.variables(&inside).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    ContainerCreateBody {
        image: Some(order.spec.image.at(order.spec.digest.clone()).to_string()),
        env: Some(env),
        user: Some(image.user.clone()),
        labels: Some(labels::of_container(order)),
        host_config: Some(limited(confinement(network, sources), order.spec.resources)),
        ..ContainerCreateBody::default()
    }
}

/// The body for a command beside the state of what `of` is made for: nothing but what it runs and its streams differ.
pub(crate) fn command(of: ContainerCreateBody, command: &[String], input: bool) -> ContainerCreateBody {
    // What it writes is the state itself, which no log is to hold.
    let silent = HostConfigLogConfig { typ: Some("none".to_owned()), config: None };
    let host_config = of.host_config.map(|host| HostConfig { log_config: Some(silent), ..host });
    ContainerCreateBody {
        host_config,
        entrypoint: Some(command.to_vec()),
        cmd: Some(Vec::new()),
        attach_stdin: Some(input),
        open_stdin: Some(input),
        stdin_once: Some(input),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..of
    }
}

/// What a container may do, and what it sees of this machine.
fn confinement(network: &str, sources: &Sources) -> HostConfig {
    let directory = sources.identity.parent().unwrap_or(&sources.identity);
    let mut mounts = vec![mount(directory, IDENTITY, true)];
    mounts.extend(sources.state.iter().map(|state| mount(state, STATE, false)));
    HostConfig {
        network_mode: Some(network.to_owned()),
        mounts: Some(mounts),
        tmpfs: Some(HashMap::from([("/tmp".to_owned(), TMP.to_owned())])),
        readonly_rootfs: Some(true),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        // A program that installs no handler for SIGTERM is deaf to it as the first process of a container.
        init: Some(true),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(LOG.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
        }),
        // The supervisor starts it again, with its pauses, counts that and routes around it. An engine that did the same
        // would start a container at boot that nobody routes to, or give a worker a second life unseen.
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        ..HostConfig::default()
    }
}

/// What a container may take of this machine, in the engine's units: billionths of a processor, bytes, and weights of which a
/// processor has 1024.
fn limited(of: HostConfig, resources: Resources) -> HostConfig {
    let count = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
    let memory = resources.memory_limit.map(|size| count(size.get()));
    HostConfig {
        nano_cpus: resources.cpu_limit.map(|cpu| count(cpu.get().saturating_mul(1_000_000))),
        // The least weight that the kernel takes is 2.
        cpu_shares: resources.cpu.map(|cpu| count((cpu.get().saturating_mul(1024) / 1000).max(2))),
        memory,
        // As in a cluster: what is swapped out counts too, so that a limit is one.
        memory_swap: memory,
        memory_reservation: resources.memory.map(|size| count(size.get())),
        ..of
    }
}

fn mount(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Mount::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_told_in_the_units_of_the_engine_and_none_where_none_is_set() {
        let resources = Resources {
            cpu: Some("250m".parse().unwrap()),
            memory: Some("64Mi".parse().unwrap()),
            cpu_limit: Some("1500m".parse().unwrap()),
            memory_limit: Some("128Mi".parse().unwrap()),
        };
        let told = limited(HostConfig::default(), resources);
        assert_eq!((told.nano_cpus, told.cpu_shares), (Some(1_500_000_000), Some(256)));
        assert_eq!(
            (told.memory, told.memory_swap, told.memory_reservation),
            (Some(128 << 20), Some(128 << 20), Some(64 << 20))
        );
        assert_eq!(limited(HostConfig::default(), Resources::default()), HostConfig::default());
    }
}
