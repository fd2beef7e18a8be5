//! What delivery needs of this machine: a way to compile for each configured platform, and room for the sockets.

use crate::{report::Finding, running, session::Session};
use plimsoll_core::config::Severity;
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
    findings
}
