//! `notify`: a notice of one's own to every configured channel, to see that they work. A run like others, of one step.

use crate::{cli::Wanted, cli_error::CliError, running, session::Session};
use plimsoll_engine::pipeline;
use plimsoll_steps::Say;
use std::process::ExitCode;

/// Sends `message`, or a few words where none is given.
pub(crate) async fn notify(session: &Session, message: Option<&str>) -> Result<ExitCode, CliError> {
    let (inputs, workspace) = session.inputs(Wanted { pipeline: "notify", ..Wanted::default() }).await?;
    let message = message.unwrap_or("this channel works");
    let pipeline = pipeline("notify", |graph| {
        graph.effect("", Say::new(&inputs, message), ());
    });
    Ok(running::start(session, &pipeline, &inputs, workspace).await?.0)
}
