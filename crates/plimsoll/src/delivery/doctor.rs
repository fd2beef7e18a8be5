//! What delivery needs of this machine: room for the sockets, keys, and the engine that environments run on.

use super::{cache, resources::engine, signing};
use crate::{report::Finding, running, session::Session};
use plimsoll_core::config::Target;
use plimsoll_local::LocalPaths;
use std::os::unix::ffi::OsStrExt;

/// The longest path a Unix socket can be bound to (`sun_path` in unix(7), less its final zero).
const SOCKET_PATH_MAX: usize = 107;

/// The findings beyond those of the checks.
pub(crate) fn doctor(session: &Session) -> Vec<Finding> {
    let mut findings = Vec::new();
    let socket = LocalPaths::new(session.state.path()).supervisor_socket();
    findings.push(if socket.as_os_str().as_bytes().len() <= SOCKET_PATH_MAX {
        Finding::ok("sockets", socket.display().to_string())
    } else {
        let found = format!("{} is too long a path for a socket", socket.display());
        Finding::required("sockets", found, "set PLIMSOLL_STATE_DIR to a shorter path")
    });
    if session.config.environments.values().any(|environment| environment.target == Target::Docker) {
        findings.push(docker(session));
    }
    findings.extend(signing::findings(session));
    findings.extend(cache::finding(session));
    findings.extend(clusters(session));
    findings
}

/// Whether the clusters answer that environments are in. Who works on something else need not reach them.
#[cfg(feature = "kubernetes")]
fn clusters(session: &Session) -> Vec<Finding> {
    let environments = session.config.environments.iter();
    let ours = environments.filter(|(_, environment)| environment.target == Target::Kubernetes);
    let finding = |name: &plimsoll_core::EnvironmentName| {
        let title = format!("cluster of {name}");
        let place = super::kubernetes::place(session, name);
        let asked = running::runtime()
            .map(|runtime| runtime.block_on(async { super::kubernetes::target_of(session, name).version().await }));
        let fix = || format!("set KUBECONFIG, or `context` of the environment; then try `{place} get pods`");
        match asked {
            Ok(Ok(version)) => Finding::ok(&title, format!("{version}: {place}")),
            Ok(Err(error)) => Finding::optional(&title, plimsoll_engine::StepError::of(&error).one_line(), fix()),
            Err(error) => Finding::optional(&title, error.to_string(), fix()),
        }
    };
    ours.map(|(name, _)| finding(name)).collect()
}

#[cfg(not(feature = "kubernetes"))]
fn clusters(_: &Session) -> Vec<Finding> {
    Vec::new()
}

/// Whether the engine that some environment runs on answers.
fn docker(session: &Session) -> Finding {
    let socket = match engine(&session.environment) {
        Ok(socket) => socket,
        Err(error) => return Finding::required("docker", error.one_line(), "unset DOCKER_HOST"),
    };
    let asked = running::runtime().map(|runtime| runtime.block_on(plimsoll_docker::version(&socket)));
    match asked {
        Ok(Ok(version)) => Finding::ok("docker", format!("engine {version} at {}", socket.display())),
        Ok(Err(error)) => Finding::required("docker", error.to_string(), "sudo systemctl start docker"),
        Err(error) => Finding::required("docker", error.to_string(), "see the message"),
    }
}
