//! What can go wrong with an engine, in words.

use bollard::errors::Error;
use plimsoll_core::{Classify, ErrorClass};
use std::{io, net::Ipv4Addr, path::PathBuf};

/// Why an engine did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine of another machine.
    #[error(
        "DOCKER_HOST is `{value}`, and this target needs the engine of this machine: the proxy that switches its traffic runs \
         here; unset DOCKER_HOST, or set it to unix:///path/of/docker.sock"
    )]
    Remote {
        /// What the variable says.
        value: String,
    },
    /// Nobody answers on the socket, or nobody may ask.
    #[error(
        "no Docker Engine answers on `{}`: start it (`sudo systemctl start docker`), let this user open the socket (group \
         `docker`), or name another one in DOCKER_HOST",
        socket.display()
    )]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the client said.
        #[source]
        source: Box<Error>,
    },
    /// The engine refused, or broke off.
    #[error("cannot {what}")]
    Failed {
        /// What was attempted, with its value.
        what: String,
        /// What the engine said.
        #[source]
        source: Box<Error>,
    },
    /// It took too long.
    #[error("cannot {what}: no end after {seconds} s")]
    Late {
        /// What was attempted.
        what: String,
        /// How long was waited.
        seconds: u64,
    },
    /// What the engine holds under a digest is not what the container runs.
    #[error("the container {name} runs image {found}, and not {wanted}")]
    OtherImage {
        /// The container.
        name: String,
        /// What it runs.
        found: String,
        /// What it should run.
        wanted: String,
    },
    /// The engine's answer lacks something.
    #[error("the engine names no {what}")]
    Lacks {
        /// What is missing.
        what: String,
    },
    /// A build came to an end that is none.
    #[error("cannot build `{dockerfile}`{}: {reason}{}", at(instruction), told(last))]
    Build {
        /// The Dockerfile.
        dockerfile: String,
        /// The instruction that failed; empty when the Dockerfile itself, or what it was told, was refused.
        instruction: String,
        /// What the engine said.
        reason: String,
        /// What the instruction said last.
        last: Vec<String>,
    },
    /// A file of this machine that goes to the engine or comes from it.
    #[error("cannot hand `{}` over", path.display())]
    Context {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Its networks are not networks of this machine.
    #[error(
        "the gateway {gateway} of the engine's network is no address of this machine: the proxy could not reach containers of \
         a rootless engine, or of one in a virtual machine; use the engine that runs as a service of this system"
    )]
    Elsewhere {
        /// The gateway.
        gateway: Ipv4Addr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Classify for EngineError {
    fn class(&self) -> ErrorClass {
        match self {
            // A base image that cannot be pulled is not the Dockerfile's fault.
            Self::Build { instruction, .. } if instruction.starts_with("FROM ") => ErrorClass::External,
            Self::Remote { .. } | Self::Elsewhere { .. } | Self::Build { .. } => ErrorClass::User,
            _ => ErrorClass::External,
        }
    }
}

fn at(instruction: &str) -> String {
    if instruction.is_empty() { String::new() } else { format!(" at `{instruction}`") }
}

fn told(lines: &[String]) -> String {
    lines.iter().flat_map(|line| ["\n  ", line]).collect()
}

/// The status the engine answered with, if it answered.
pub(crate) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Whether the engine could not be asked at all.
pub(crate) fn is_unreachable(error: &Error) -> bool {
    match error {
        Error::SocketNotFoundError(_) => true,
        Error::HyperLegacyError { err } => err.is_connect(),
        _ => false,
    }
}
