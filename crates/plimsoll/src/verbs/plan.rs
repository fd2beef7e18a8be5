//! `plan` and `explain`: what would be done, without doing any of it.

use crate::{
    cli::{Command, PlanFormat, Wanted},
    cli_error::CliError,
    project::Project,
    report::{RunReporter, plan as render},
    running, select,
    session::Session,
    verbs::runs::json,
};
use plimsoll_core::RunId;
use plimsoll_engine::{Pipeline, Plan, system_clock};
use plimsoll_steps::{Inputs, Workspace};
use std::{process::ExitCode, sync::Arc};

/// Whether the verb asks for a pipeline that only the full executable may have.
pub(crate) fn is_elsewhere(project: &Project, command: &Command) -> bool {
    match command {
        Command::Plan { pipeline, .. } | Command::Explain { pipeline: Some(pipeline), .. } => !project.has(pipeline),
        // The kinds of steps the checks are made of; anything else is looked for where everything is.
        Command::Explain { step, pipeline: None } => {
            let checks =
                ["advisories", "clippy", "deny", "docs", "fmt", "licences", "semver-checks", "test", "tidy", "unused"];
            !checks.contains(&select::kind(step))
        }
        _ => false,
    }
}

/// `plan PIPELINE`.
pub(crate) fn plan(
    session: &Session,
    project: &Project,
    pipeline: &str,
    format: Option<PlanFormat>,
) -> Result<ExitCode, CliError> {
    let plan = running::runtime()?.block_on(async {
        let read = read(session, project, pipeline).await?;
        let built = project.build(&read.inputs)?;
        read.plan(session, &built).await
    })?;
    let chosen = format.unwrap_or(if session.global.json { PlanFormat::Json } else { PlanFormat::Tree });
    session.console.out(&match chosen {
        PlanFormat::Tree => render::tree(&plan, session.mode.color),
        PlanFormat::Mermaid => render::mermaid(&plan),
        PlanFormat::Dot => render::dot(&plan),
        PlanFormat::Json => json(&plan),
    });
    Ok(ExitCode::SUCCESS)
}

/// `explain STEP`.
pub(crate) fn explain(
    session: &Session,
    project: &Project,
    step: &str,
    pipeline: Option<&str>,
) -> Result<ExitCode, CliError> {
    let runtime = running::runtime()?;
    let names: Vec<&str> = match pipeline {
        Some(name) => vec![name],
        None => project.names().collect(),
    };
    let mut known = Vec::new();
    for name in names {
        let read = runtime.block_on(read(session, project, name))?;
        let built = match project.build(&read.inputs) {
            Ok(built) => built,
            Err(error) if pipeline.is_some() => return Err(error),
            // One that needs more than a name, such as an environment, has nothing to explain.
            Err(_) => continue,
        };
        let names = built.step_names();
        if !names.iter().any(|name| name == step) {
            known.extend(names);
            continue;
        }
        let plan = runtime.block_on(read.plan(session, &built))?;
        let found = plan.steps.iter().find(|planned| &*planned.name == step).expect("the plan has all steps");
        let text = if session.global.json {
            let params: serde_json::Value = serde_json::from_str(&found.params).unwrap_or_default();
            let mut value = serde_json::to_value(found).expect("a planned step is plain data");
            value["params"] = params;
            value["reads"] = found.reads.clone().into();
            value["pipeline"] = plan.pipeline.clone().into();
            json(&value)
        } else {
            render::explain(&plan, found)
        };
        session.console.out(&text);
        return Ok(ExitCode::SUCCESS);
    }
    Err(CliError::UnknownStep { step: step.to_owned(), known })
}

/// What a pipeline is built from.
struct Read {
    inputs: Inputs,
    workspace: Workspace,
}

impl Read {
    async fn plan(self, session: &Session, pipeline: &Pipeline) -> Result<Plan, CliError> {
        let reporter = Arc::new(RunReporter::new(session));
        let setup = running::setup(session, &self.inputs, self.workspace, &reporter).await?;
        Ok(setup.plan(pipeline, &RunId::new(system_clock()(), 0))?)
    }
}

async fn read(session: &Session, project: &Project, pipeline: &str) -> Result<Read, CliError> {
    let Some(name) = project.names().find(|name| *name == pipeline) else {
        let known = project.names().map(str::to_owned).collect();
        return Err(CliError::UnknownPipeline { pipeline: pipeline.to_owned(), known });
    };
    let (inputs, workspace) = session.inputs(Wanted { pipeline: name, ..Wanted::default() }).await?;
    Ok(Read { inputs, workspace })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_thin_executable_has_not_is_looked_for_in_the_full_one() {
        let project = Project::new("xtask").pipeline("ci", |_, _| Ok(()));
        let explain = |step: &str, pipeline: Option<&str>| Command::Explain {
            step: step.to_owned(),
            pipeline: pipeline.map(str::to_owned),
        };
        let plan = |pipeline: &str| Command::Plan { pipeline: pipeline.to_owned(), format: None };
        assert!(!is_elsewhere(&project, &plan("ci")) && is_elsewhere(&project, &plan("release")));
        assert!(!is_elsewhere(&project, &explain("test[core]", None)));
        assert!(is_elsewhere(&project, &explain("push[api]", None)));
        assert!(is_elsewhere(&project, &explain("fmt", Some("release"))));
        assert!(!is_elsewhere(&project, &Command::Ci));
    }
}
