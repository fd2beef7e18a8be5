//! What an adopter hands over: the name of the package that holds the pipelines, and the pipelines.

use crate::{cli_error::CliError, select};
use plimsoll_engine::{Graph, Pipeline, StepError, try_pipeline};
use plimsoll_steps::Inputs;

/// A function that builds a pipeline from its inputs, and from nothing else: a resume calls it again with the recorded ones.
pub type Build = for<'g> fn(&mut Graph<'g>, &Inputs) -> Result<(), StepError>;

/// The pipelines of a workspace.
#[derive(Debug, Clone)]
pub struct Project {
    package: &'static str,
    pipelines: Vec<(&'static str, Build)>,
}

impl Project {
    /// A project whose executable is built from `package`: `env!("CARGO_PKG_NAME")`.
    pub const fn new(package: &'static str) -> Self {
        Self { package, pipelines: Vec::new() }
    }

    /// Adds a pipeline, in place of an earlier one of its name. `ci` is what `ci`, `lint`, `test` and `tidy` run, `release` what
    /// `release`, `build`, `image`, `push`, `deploy`, `smoke` and `promote` run.
    pub fn pipeline(mut self, name: &'static str, build: Build) -> Self {
        self.pipelines.retain(|(known, _)| *known != name);
        self.pipelines.push((name, build));
        self
    }

    pub(crate) fn package(&self) -> &'static str {
        self.package
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.pipelines.iter().map(|(name, _)| *name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }

    /// The pipeline that `inputs` describe, restricted to what they ask for.
    pub(crate) fn build(&self, inputs: &Inputs) -> Result<Pipeline, CliError> {
        let Some((name, build)) = self.pipelines.iter().find(|(name, _)| *name == inputs.pipeline) else {
            return Err(CliError::UnknownPipeline {
                pipeline: inputs.pipeline.clone(),
                known: self.names().map(str::to_owned).collect(),
            });
        };
        let whole = try_pipeline(name, |graph| build(graph, inputs))?;
        select::restrict(whole, &inputs.options.only)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_of_a_known_name_takes_the_place_of_the_earlier_one() {
        let nothing: Build = |_, _| Ok(());
        let project =
            Project::new("xtask").pipeline("ci", nothing).pipeline("release", nothing).pipeline("ci", nothing);
        assert_eq!(project.names().collect::<Vec<_>>(), ["release", "ci"]);
        assert!(project.has("ci") && !project.has("rollback"));
    }
}
