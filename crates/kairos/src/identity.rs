//! Who this process is, as the deployment sees it: the file named by `PLIMSOLL_IDENTITY`.
//!
//! The deployment replaces that file whole while the process runs (a promotion changes the environment and not the
//! process), so it is read at each question and never kept.

use serde::{Deserialize, Serialize};

use crate::config::Config;

/// The file's content; what it does not say stays unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Identity {
    /// Release version.
    pub(crate) version: Option<String>,
    /// Commit.
    pub(crate) revision: Option<String>,
    /// Release run.
    pub(crate) run: Option<String>,
    /// Environment's name.
    pub(crate) environment: Option<String>,
    /// Environment's generation.
    pub(crate) generation: Option<u64>,
    /// The generation under which an exclusive worker works from its start on, where nobody is there to tell it.
    pub(crate) active: Option<u64>,
}

/// Reads the file; an absent or unreadable one gives what the configuration says.
pub(crate) async fn read(config: &Config) -> Identity {
    let text = match &config.identity {
        Some(path) => tokio::fs::read(path).await.unwrap_or_default(),
        None => Vec::new(),
    };
    complete(serde_json::from_slice(&text).unwrap_or_default(), config)
}

fn complete(mut identity: Identity, config: &Config) -> Identity {
    identity.version.get_or_insert_with(|| config.service_version.clone());
    identity.environment.get_or_insert_with(|| config.deploy_env.name().to_owned());
    identity
}
