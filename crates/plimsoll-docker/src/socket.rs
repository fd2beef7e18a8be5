//! Which engine is meant: the socket that `DOCKER_HOST` names, or the usual one.

use crate::EngineError;
use std::path::{Path, PathBuf};

/// Where an engine that runs as a service listens.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// The engine's socket, by the value of `DOCKER_HOST`. A value that names another machine is refused.
pub fn socket(docker_host: Option<&str>) -> Result<PathBuf, EngineError> {
    let Some(value) = docker_host.filter(|value| !value.is_empty()) else { return Ok(PathBuf::from(DEFAULT_SOCKET)) };
    let path = value.strip_prefix("unix://").unwrap_or(value);
    if Path::new(path).is_absolute() {
        return Ok(PathBuf::from(path));
    }
    Err(EngineError::Remote { value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_this_machine_is_taken_and_another_machine_s_engine_is_refused() {
        for (value, path) in [
            (None, DEFAULT_SOCKET),
            (Some(""), DEFAULT_SOCKET),
            (Some("unix:///run/user/1000/docker.sock"), "/run/user/1000/docker.sock"),
            (Some("/run/docker.sock"), "/run/docker.sock"),
        ] {
            assert_eq!(socket(value).unwrap(), Path::new(path));
        }
        for value in ["tcp://10.0.0.1:2376", "ssh://build@host", "http://127.0.0.1:2375", "unix://docker.sock"] {
            let refused = socket(Some(value)).unwrap_err().to_string();
            assert!(refused.contains(value) && refused.contains("this machine"), "{refused}");
        }
    }
}
