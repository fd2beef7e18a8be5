//! The connection to an engine, and the sentences for what it refuses.

use crate::error::{EngineError, is_unreachable, status};
use bollard::{API_DEFAULT_VERSION, Docker, errors::Error};
use std::path::{Path, PathBuf};

/// How long the engine may take to begin an answer, in seconds: one under load takes some for a start.
const ANSWER_SECONDS: u64 = 60;

/// An engine that answered once.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    pub(crate) api: Docker,
    socket: PathBuf,
}

impl Engine {
    /// Asks the engine behind `socket` who it is, and agrees on the version of its interface.
    pub(crate) async fn connect(socket: &Path) -> Result<Self, EngineError> {
        let unreachable = |source| EngineError::Unreachable { socket: socket.to_owned(), source: Box::new(source) };
        let path = socket.to_string_lossy();
        let api = Docker::connect_with_unix(&path, ANSWER_SECONDS, API_DEFAULT_VERSION).map_err(unreachable)?;
        let api = api.negotiate_version().await.map_err(unreachable)?;
        Ok(Self { api, socket: socket.to_owned() })
    }

    /// An error of the client in words: what was attempted, or that nobody is there.
    pub(crate) fn failed(&self, what: impl Into<String>, source: Error) -> EngineError {
        let source = Box::new(source);
        if is_unreachable(&source) {
            EngineError::Unreachable { socket: self.socket.clone(), source }
        } else {
            EngineError::Failed { what: what.into(), source }
        }
    }

    /// The same for a look: that there is no such thing is no error.
    pub(crate) fn found<T>(&self, what: &str, looked: Result<T, Error>) -> Result<Option<T>, EngineError> {
        match looked {
            Ok(found) => Ok(Some(found)),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(self.failed(what, error)),
        }
    }
}

/// The version of the engine behind `socket`, as it names it.
pub async fn version(socket: &Path) -> Result<String, EngineError> {
    let engine = Engine::connect(socket).await?;
    let version = engine.api.version().await.map_err(|e| engine.failed("ask for its version", e))?;
    Ok(version.version.unwrap_or_default())
}
