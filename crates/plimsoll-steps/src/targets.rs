//! The targets of the configured environments, as a resource of the steps that deploy.

use plimsoll_core::EnvironmentName;
use plimsoll_deploy::{Meter, Prober, Target};
use plimsoll_engine::StepError;
use std::{collections::BTreeMap, sync::Arc};

/// One target per environment, and the prober that asks services how they are.
pub struct Targets {
    all: BTreeMap<EnvironmentName, Arc<dyn Target>>,
    prober: Arc<dyn Prober>,
    meters: BTreeMap<EnvironmentName, Arc<dyn Meter>>,
}

impl Targets {
    /// The targets by environment.
    pub fn new(targets: BTreeMap<EnvironmentName, Arc<dyn Target>>, prober: Arc<dyn Prober>) -> Self {
        Self { all: targets, prober, meters: BTreeMap::new() }
    }

    /// With those who count the requests of environments whose targets are not to be asked for them.
    #[must_use]
    pub fn metered(mut self, meters: BTreeMap<EnvironmentName, Arc<dyn Meter>>) -> Self {
        self.meters = meters;
        self
    }

    /// Who counts the requests of an environment, where its target does not.
    pub fn meter(&self, environment: &EnvironmentName) -> Option<&dyn Meter> {
        self.meters.get(environment).map(|meter| &**meter)
    }

    /// The target of an environment.
    pub fn get(&self, environment: &EnvironmentName) -> Result<Arc<dyn Target>, StepError> {
        self.all.get(environment).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.all.keys().map(EnvironmentName::as_str).collect();
            StepError::user(format!("there is no environment `{environment}` in plimsoll.toml"))
                .with_hint(format!("it has {}", known.join(", ")))
        })
    }

    /// All of them, by name.
    pub const fn all(&self) -> &BTreeMap<EnvironmentName, Arc<dyn Target>> {
        &self.all
    }

    /// The prober.
    pub fn prober(&self) -> &Arc<dyn Prober> {
        &self.prober
    }
}
