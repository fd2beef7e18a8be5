//! All that a pipeline's graph is built from: recorded in the run's journal, so that a resume builds the same graph
//! tomorrow, whatever has become of the checkout.

use crate::git::Source;
use plimsoll_core::{
    EnvironmentName, ServiceName,
    config::{Config, ConfigError, Profile},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// The inputs of a pipeline.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Inputs {
    /// The pipeline's name.
    pub pipeline: String,
    /// The text of `plimsoll.toml`.
    pub config_text: String,
    /// The commit, the version made from it, and whether the tree was dirty.
    pub source: Source,
    /// Who started the run.
    pub actor: String,
    /// Laptop or GitHub.
    pub profile: Profile,
    /// What the command line asked for.
    pub options: Options,
    /// What charts and overlays made of the environments that have one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub objects: RenderedObjects,
    #[serde(skip)]
    config: Option<Arc<Config>>,
}

/// By environment and service, the Kubernetes objects that a chart or an overlay made.
pub type RenderedObjects = BTreeMap<EnvironmentName, BTreeMap<ServiceName, Vec<serde_json::Value>>>;

/// What the command line asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Keep only these steps and what they need: names of steps, or kinds such as `image`.
    pub only: Vec<String>,
    /// `--yes`: the approval's evidence is `none`.
    pub yes: bool,
    /// The environment of verbs that name one.
    pub environment: Option<EnvironmentName>,
    /// `--to`: the version to roll back to.
    pub to: Option<String>,
    /// `--no-drain`: cut over without letting requests finish. For tests that show what draining is for.
    pub no_drain: bool,
    /// Nothing that was built before counts: what is built is to be compared with it.
    #[serde(default)]
    pub afresh: bool,
}

impl Inputs {
    /// Inputs with their configuration parsed.
    pub fn new(
        pipeline: &str,
        config_text: String,
        source: Source,
        actor: String,
        profile: Profile,
        options: Options,
    ) -> Result<Self, ConfigError> {
        let objects = RenderedObjects::new();
        let mut this =
            Self { pipeline: pipeline.to_owned(), config_text, source, actor, profile, options, objects, config: None };
        this.parse()?;
        Ok(this)
    }

    /// Parses the configuration of inputs that were read back.
    pub fn parse(&mut self) -> Result<(), ConfigError> {
        self.config = Some(Arc::new(Config::parse(&self.config_text, "plimsoll.toml")?));
        Ok(())
    }

    /// The configuration.
    pub fn config(&self) -> &Arc<Config> {
        self.config.as_ref().expect("inputs are parsed when they are made and when they are read back")
    }

    /// The services, in dependency order.
    pub fn services(&self) -> Vec<ServiceName> {
        self.config().services_in_order().into_iter().cloned().collect()
    }
}
