//! What can go wrong between here and a registry.

use crate::{BlobError, ManifestError};
use plimsoll_core::{Classify, ErrorClass};
use plimsoll_http::{HttpError, Response, StatusCode, Verdict, asked_wait, read_limited};
use serde::Deserialize;
use std::path::PathBuf;

/// Why a push, pull or look at a registry failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The registry's name is no host.
    #[error("`{registry}` is no registry host")]
    Registry {
        /// The name.
        registry: String,
    },
    /// No answer.
    #[error("the registry could not be asked")]
    Http(#[from] HttpError),
    /// The registry refused.
    #[error("the registry answered {status} for {path}: {message}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// The path asked for.
        path: String,
        /// What it said, cut to 300 characters.
        message: String,
    },
    /// The credentials are missing or wrong.
    #[error("{registry} does not accept the credentials, or there are none")]
    Denied {
        /// The registry.
        registry: String,
    },
    /// The registry does not know an upload any more.
    #[error("{registry} gave up an upload that was on its way")]
    Forgotten {
        /// The registry.
        registry: String,
    },
    /// The file of credentials is unusable.
    #[error("cannot read credentials for {registry} out of `{path}`: {reason}")]
    Credentials {
        /// The registry.
        registry: String,
        /// The file.
        path: PathBuf,
        /// What is wrong; never its contents.
        reason: String,
    },
    /// Wrong data; no retry helps.
    #[error("{registry} {reason} ({repository})")]
    Data {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Something that is no manifest; no retry helps.
    #[error("{registry} sends an unusable manifest for {repository}")]
    Manifest {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// What is wrong.
        #[source]
        source: ManifestError,
    },
    /// The store here failed, or does not have what is to be pushed, or what came is not what was asked for.
    #[error("the image's data cannot be stored or read")]
    Store(#[from] BlobError),
    /// The image is not there for the platform.
    #[error("{image} has no image for {platform}")]
    Platform {
        /// The reference.
        image: String,
        /// The platform asked for.
        platform: plimsoll_core::Platform,
    },
    /// Work was cut off because the process is ending.
    #[error("the transfer was cut off")]
    Cut,
}

#[derive(Deserialize)]
struct Answer {
    errors: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: Option<String>,
}

impl ClientError {
    /// Reads the error out of an answer.
    pub(super) async fn from_answer(response: Response) -> Self {
        let (status, path) = (response.status(), response.url().path().to_owned());
        let wait = asked_wait(&response)
            .map_or_else(String::new, |wait| format!("; it asks to wait for {} s", wait.as_secs()));
        // Errors are a few lines; a page of HTML tells nothing.
        let body = read_limited(response, 64 * 1024).await.unwrap_or_default();
        let message = serde_json::from_slice::<Answer>(&body)
            .ok()
            .and_then(|answer| answer.errors.into_iter().next())
            .map_or_else(String::new, |said| format!("{} {}", said.code, said.message.unwrap_or_default()));
        let message = if message.is_empty() { "no reason given" } else { message.trim() };
        let message = message.chars().take(300).chain(wait.chars()).collect();
        Self::Refused { status, path, message }
    }

    /// Whether the same might succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Http(error) => error.is_transient(),
            Self::Forgotten { .. } => true,
            Self::Refused { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            _ => false,
        }
    }

    /// Whether a transfer is tried again: one that broke is, wrong data is not.
    pub(super) fn judge<T>(outcome: &Result<T, Self>) -> Verdict {
        match outcome {
            Err(error) if error.is_transient() => Verdict::Transient(None),
            _ => Verdict::Final,
        }
    }
}

impl Classify for ClientError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Registry { .. } | Self::Denied { .. } | Self::Credentials { .. } | Self::Platform { .. } => {
                ErrorClass::User
            }
            Self::Http(error) => error.class(),
            _ => ErrorClass::External,
        }
    }
}
