//! Where the command line meets delivery: what both know, and the calls from one to the other. Compiled in both forms, so that
//! everything else is the same code with and without the feature.

use crate::{
    cli::{Command, ImageArgs},
    cli_error::CliError,
    report::{Finding, RunReporter},
    session::Session,
};
use plimsoll_engine::{Report, Resources, StepError};
use plimsoll_steps::{Inputs, RenderedObjects, Workspace};
use std::{ffi::OsString, process::ExitCode, sync::Arc};

/// Clients, targets and the like for a run with these inputs.
#[cfg_attr(not(feature = "delivery"), expect(clippy::unused_async, reason = "the other form awaits"))]
pub(crate) async fn resources(
    session: &Session,
    inputs: &Inputs,
    workspace: &Workspace,
    reporter: &Arc<RunReporter>,
) -> Result<Resources, StepError> {
    #[cfg(feature = "delivery")]
    return crate::delivery::resources(session, inputs, workspace, reporter).await;
    #[cfg(not(feature = "delivery"))]
    {
        let _ = (session, inputs, workspace, reporter);
        Ok(Resources::new())
    }
}

/// What charts and overlays make of the environments that have one. The checks need none of it.
#[cfg_attr(not(feature = "kubernetes"), expect(clippy::unused_async, reason = "the other form awaits"))]
pub(crate) async fn rendered(session: &Session) -> Result<RenderedObjects, StepError> {
    #[cfg(feature = "kubernetes")]
    return crate::delivery::rendered(session).await;
    #[cfg(not(feature = "kubernetes"))]
    {
        let _ = session;
        Ok(RenderedObjects::new())
    }
}

/// Hands the images of a run out, as its command asked for.
#[cfg_attr(not(feature = "delivery"), expect(clippy::unused_async, reason = "the other form awaits"))]
pub(crate) async fn images(
    session: &Session,
    args: &ImageArgs,
    version: &str,
    report: &Report,
) -> Result<ExitCode, CliError> {
    #[cfg(feature = "delivery")]
    return crate::delivery::images(session, args, version, report).await;
    #[cfg(not(feature = "delivery"))]
    {
        let _ = (session, args, version, report);
        Ok(ExitCode::SUCCESS)
    }
}

/// Does a verb of delivery; `None` if it is none of its verbs.
#[cfg_attr(not(feature = "delivery"), expect(clippy::unnecessary_wraps, reason = "the other form can fail"))]
pub(crate) fn verb(session: &Session, command: &Command) -> Result<Option<ExitCode>, CliError> {
    #[cfg(feature = "delivery")]
    return crate::delivery::verb(session, command);
    #[cfg(not(feature = "delivery"))]
    {
        let _ = (session, command);
        Ok(None)
    }
}

/// Plays one of the long-lived processes (supervisor, proxy, registry) that are started with hidden verbs.
pub(crate) fn hidden(args: &[OsString]) -> Option<ExitCode> {
    #[cfg(feature = "delivery")]
    return crate::delivery::hidden(args);
    #[cfg(not(feature = "delivery"))]
    {
        let _ = args;
        None
    }
}

/// What delivery needs of this machine.
pub(crate) fn doctor(session: &Session) -> Vec<Finding> {
    #[cfg(feature = "delivery")]
    return crate::delivery::doctor(session);
    #[cfg(not(feature = "delivery"))]
    {
        let _ = session;
        Vec::new()
    }
}
