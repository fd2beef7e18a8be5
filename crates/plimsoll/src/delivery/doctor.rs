//! What delivery needs of this machine: a way to compile for each configured platform, and room for the sockets.

use super::resources::engine;
use crate::{report::Finding, running, session::Session};
use plimsoll_core::config::{Severity, Target};
use plimsoll_local::LocalPaths;
use plimsoll_steps::{Machine, Workspace};
use std::os::unix::ffi::OsStrExt;

/// The longest path a Unix socket can be bound to (`sun_path` in unix(7), less its final zero).
const SOCKET_PATH_MAX: usize = 107;

/// The findings beyond those of the checks.
pub(crate) fn doctor(session: &Session) -> Vec<Finding> {
    let load = Workspace::load(&session.root, &session.cache, &session.environment);
    let workspace = match running::runtime().map(|runtime| runtime.block_on(load)) {
        Ok(Ok(workspace)) => workspace,
        Ok(Err(error)) => return vec![Finding::required("workspace", error.one_line(), "see the message")],
        Err(error) => return vec![Finding::required("workspace", error.to_string(), "see the message")],
    };
    let machine = Machine::look(workspace.sysroot(), &session.environment);
    let strict = session.config.profile(session.profile).missing_toolchain == Severity::Error;
    let mut findings = Vec::new();
    for platform in &session.config.images.platforms {
        let name = format!("compiler for {platform}");
        findings.push(match machine.choose(*platform) {
            Ok(toolchain) => Finding::ok(&name, toolchain.triple),
            Err(missing) if strict => Finding::required(&name, "nothing compiles for it", missing.fix),
            Err(missing) => Finding::optional(&name, "its images are left out", missing.fix),
        });
    }
    let socket = LocalPaths::new(session.state.path()).supervisor_socket();
    findings.push(if socket.as_os_str().as_bytes().len() <= SOCKET_PATH_MAX {
        Finding::ok("state directory", session.state.path().display().to_string())
    } else {
        let found = format!("{} is too long a path for a socket", socket.display());
        Finding::required("state directory", found, "set PLIMSOLL_STATE_DIR to a shorter path")
    });
    if session.config.environments.values().any(|environment| environment.target == Target::Docker) {
        findings.push(docker(session));
    }
    findings
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
