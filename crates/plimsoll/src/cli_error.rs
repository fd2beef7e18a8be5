//! Why a verb could not do its work, before or beside a run.

use crate::select;
use plimsoll_core::{Classify, ErrorClass, RunId, config::ConfigError};
use plimsoll_engine::{JournalError, RunError, StepError};
use plimsoll_process::ProcessError;
use plimsoll_steps::GitError;
use std::{error::Error, io, path::PathBuf};

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// `plimsoll.toml` cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is none.
    #[error("there is no plimsoll.toml in {} or above it", start.display())]
    NoConfig {
        /// Where it was looked for.
        start: PathBuf,
        /// Where it would lie.
        root: Option<PathBuf>,
    },
    /// Nothing says where state is to be kept.
    #[error(
        "there is no place for the state of runs: none of PLIMSOLL_STATE_DIR, XDG_STATE_HOME and HOME is an absolute path"
    )]
    NoStateDir,
    /// Git's answer cannot be used.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The run could not be begun or resumed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A pipeline cannot be built, or something it needs cannot be had.
    #[error("{}", _0.message)]
    Step(StepError),
    /// A command could not be started.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A file or a stream could not be used.
    #[error("cannot {what}")]
    Io {
        /// What was attempted, with which value.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No such pipeline.
    #[error("there is no pipeline `{pipeline}`")]
    UnknownPipeline {
        /// The name.
        pipeline: String,
        /// What there is.
        known: Vec<String>,
    },
    /// No step is meant.
    #[error("pipeline {pipeline} has no step that {} means", patterns.iter().map(|p| format!("`{p}`")).collect::<Vec<_>>().join(" or "))]
    NothingMatches {
        /// The pipeline.
        pipeline: String,
        /// What was asked for.
        patterns: Vec<String>,
        /// The kinds of steps there are.
        known: Vec<String>,
        /// The steps there are.
        steps: Vec<String>,
    },
    /// No such step.
    #[error("there is no step `{step}`")]
    UnknownStep {
        /// The name.
        step: String,
        /// What there is.
        known: Vec<String>,
    },
    /// No such run.
    #[error("there is no run `{run}`")]
    UnknownRun {
        /// What was asked for.
        run: String,
    },
    /// The beginning of more than one run's id.
    #[error("`{run}` is the beginning of {} runs: {}", found.len(), found.iter().take(5).map(RunId::as_str).collect::<Vec<_>>().join(", "))]
    AmbiguousRun {
        /// What was asked for.
        run: String,
        /// The runs.
        found: Vec<RunId>,
    },
    /// Every run has ended.
    #[error("there is no unfinished run to resume")]
    NothingToResume,
    /// The recorded inputs are not inputs.
    #[error("run {run} was recorded by another Plimsoll: its inputs cannot be read")]
    ForeignInputs {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// This executable lacks what the verb needs.
    #[error("this executable cannot do `{verb}`")]
    NotHere {
        /// The verb.
        verb: String,
    },
}

impl From<StepError> for CliError {
    fn from(error: StepError) -> Self {
        Self::Step(error)
    }
}

impl Classify for CliError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Config(error) => error.class(),
            Self::Git(error) => error.class(),
            Self::Run(error) => error.class(),
            Self::Journal(error) => error.class(),
            Self::Step(error) => error.class,
            Self::Process(_) | Self::Io { .. } => ErrorClass::External,
            Self::NotHere { .. } => ErrorClass::Internal,
            Self::NoConfig { .. }
            | Self::NoStateDir
            | Self::UnknownPipeline { .. }
            | Self::NothingMatches { .. }
            | Self::UnknownStep { .. }
            | Self::UnknownRun { .. }
            | Self::AmbiguousRun { .. }
            | Self::NothingToResume
            | Self::ForeignInputs { .. } => ErrorClass::User,
        }
    }
}

/// A `plimsoll.toml` that is enough to begin with.
const MINIMAL: &str = "[project]\n    name = \"shop\"";

impl CliError {
    /// The causes, outermost first.
    pub(crate) fn causes(&self) -> Vec<String> {
        if let Self::Step(error) = self {
            return error.causes.clone();
        }
        let mut causes = Vec::new();
        if let Self::Run(RunError::Reads { source, .. }) = self {
            causes.push(source.message.clone());
            causes.extend(source.causes.iter().cloned());
            return causes;
        }
        let mut next = self.source();
        // An error chain is a list; the bound only guards against one that points at itself.
        while let Some(error) = next.filter(|_| causes.len() < 32) {
            causes.push(error.to_string());
            next = error.source();
        }
        causes
    }

    /// Lines that show more.
    pub(crate) fn detail(&self) -> &[String] {
        match self {
            Self::Step(error) => &error.detail,
            Self::Run(RunError::Reads { source, .. }) => &source.detail,
            _ => &[],
        }
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        let list = |known: &[String]| match known {
            [] => None,
            known => Some(format!("there is {}", known.join(", "))),
        };
        match self {
            Self::Step(error) => error.hint.clone(),
            Self::Run(RunError::Reads { source, .. }) => source.hint.clone(),
            Self::Run(RunError::PlanChanged { .. } | RunError::SourcesChanged { .. }) => {
                Some("start a new run, or resume with the executable and the sources it was started with".to_owned())
            }
            Self::NoConfig { root, .. } => {
                let place = root.as_ref().map_or_else(
                    || "write plimsoll.toml beside the workspace's Cargo.toml".to_owned(),
                    |root| format!("write {}", root.join("plimsoll.toml").display()),
                );
                Some(format!("{place}; this is enough to begin with:\n    {MINIMAL}"))
            }
            Self::NoStateDir => Some("set PLIMSOLL_STATE_DIR to a directory of your own".to_owned()),
            Self::UnknownPipeline { known, .. } | Self::UnknownStep { known, .. } => list(known),
            Self::NothingMatches { known, steps, patterns, .. } => {
                // Of a kind that there is, the steps; of a long pipeline otherwise the kinds alone.
                let kinds = patterns.iter().map(|pattern| select::kind(pattern));
                let kinds: Vec<&str> = kinds.filter(|kind| known.iter().any(|one| one == kind)).collect();
                let near =
                    |step: &&String| kinds.contains(&select::kind(step)) || kinds.is_empty() && steps.len() <= 20;
                let near: Vec<&str> = steps.iter().filter(near).map(String::as_str).collect();
                let kinds = format!("it has the kinds {}", known.join(", "));
                Some(if near.is_empty() { kinds } else { format!("{kinds}; the steps {}", near.join(", ")) })
            }
            Self::UnknownRun { .. } | Self::AmbiguousRun { .. } | Self::NothingToResume => {
                Some("`cargo xtask runs` lists the runs there are".to_owned())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_configuration_says_how_a_minimal_one_looks() {
        let error = CliError::NoConfig { start: "/home/ann/shop/a".into(), root: Some("/home/ann/shop".into()) };
        assert_eq!(error.class(), ErrorClass::User);
        let hint = error.hint().unwrap();
        assert!(hint.contains("/home/ann/shop/plimsoll.toml") && hint.contains("[project]"), "{hint}");
        let minimal = MINIMAL.replace("    ", "");
        plimsoll_core::config::Config::parse(&minimal, "plimsoll.toml").expect("the example is a configuration");
    }

    #[test]
    fn what_matches_nothing_lists_what_there_is() {
        let error = CliError::NothingMatches {
            pipeline: "release".into(),
            patterns: vec!["deploy[prod]".into()],
            known: vec!["deploy".into()],
            steps: vec!["deploy[production]".into()],
        };
        assert_eq!(error.to_string(), "pipeline release has no step that `deploy[prod]` means");
        assert!(error.hint().unwrap().contains("deploy[production]"));
        let many: Vec<String> = (0..40).map(|number| format!("test[{number}]")).collect();
        let of = |pattern: &str| CliError::NothingMatches {
            pipeline: "ci".into(),
            patterns: vec![pattern.into()],
            known: vec!["fmt".into(), "test".into()],
            steps: many.iter().cloned().chain(["fmt".to_owned()]).collect(),
        };
        assert!(of("test[x]").hint().unwrap().ends_with("test[38], test[39]"));
        assert_eq!(of("rest").hint().unwrap(), "it has the kinds fmt, test");
    }

    #[test]
    fn causes_are_listed_once_and_not_in_the_message() {
        let error = CliError::Io { what: "read x".into(), source: io::Error::other("the cause") };
        assert_eq!((error.to_string(), error.causes()), ("cannot read x".to_owned(), vec!["the cause".to_owned()]));
        let error = CliError::from(StepError::check("outer").caused_by(&io::Error::other("inner")));
        assert_eq!((error.to_string(), error.causes()), ("outer".to_owned(), vec!["inner".to_owned()]));
    }
}
