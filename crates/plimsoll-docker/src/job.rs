//! A command that runs once in a container of its own: its streams are files of this machine.

use crate::{EngineError, ending, engine::Engine};
use bollard::{
    container::{AttachContainerResults, LogOutput},
    query_parameters::{
        AttachContainerOptionsBuilder, InspectContainerOptions, StartContainerOptions, WaitContainerOptions,
    },
};
use futures_util::StreamExt as _;
use plimsoll_deploy::STATE_COMMAND;
use plimsoll_local::supervisor::{JOB_TAIL, Job, RuntimeError};
use std::path::PathBuf;
use tokio::{
    fs::File,
    io::{AsyncWriteExt as _, copy},
    time::timeout,
};

/// The most bytes of what it says beside its output that are kept: a screen of long lines.
const SAID: usize = 64 << 10;

/// Starts the container `name`, which was made for it, and waits until it has ended.
pub(crate) async fn run(engine: &Engine, name: &str, job: &Job) -> Result<(), RuntimeError> {
    let wrong =
        |what: &str, e| RuntimeError::Engine(Box::new(engine.failed(format!("{what} the container {name}"), e)));
    let streams = AttachContainerOptionsBuilder::new().stream(true).stdout(true).stderr(true);
    let streams = streams.stdin(job.input.is_some()).build();
    // Attached before the start, nothing of its output is missed.
    let attached = engine.api.attach_container(name, Some(streams)).await.map_err(|e| wrong("attach to", e))?;
    let started = engine.api.start_container(name, None::<StartContainerOptions>).await;
    started.map_err(|e| wrong("start", e))?;
    let working = async {
        let said = exchange(attached, job).await?;
        // What it says of the end is asked for below: an engine may have forgotten it, or break off.
        let _ = engine.api.wait_container(name, None::<WaitContainerOptions>).next().await;
        Ok::<Vec<u8>, EngineError>(said)
    };
    let Ok(worked) = timeout(STATE_COMMAND, working).await else {
        let how = format!("it was ended after {} minutes", STATE_COMMAND.as_secs() / 60);
        return Err(RuntimeError::Command { how, said: Vec::new() });
    };
    let said = worked.map_err(|e| RuntimeError::Engine(Box::new(e)))?;
    let looked = engine.api.inspect_container(name, None::<InspectContainerOptions>).await;
    let state = looked.map_err(|e| wrong("look at", e))?.state.unwrap_or_default();
    if state.exit_code == Some(0) && !ending::runs(&state) {
        return Ok(());
    }
    let said: Vec<String> = String::from_utf8_lossy(&said).lines().map(str::to_owned).collect();
    let said = said[said.len().saturating_sub(JOB_TAIL)..].to_vec();
    Err(RuntimeError::Command { how: ending::words(&state), said })
}

/// Gives it its input and keeps its output, until it has ended; returns what it said beside.
async fn exchange(attached: AttachContainerResults, job: &Job) -> Result<Vec<u8>, EngineError> {
    let AttachContainerResults { mut output, mut input } = attached;
    let give = async {
        if let Some(path) = &job.input {
            let mut from = File::open(path).await?;
            // One that has ended reads no more; how it ended says why.
            let _ = copy(&mut from, &mut input).await;
        }
        let _ = input.shutdown().await;
        Ok::<(), std::io::Error>(())
    };
    let keep = async {
        let mut to = match &job.output {
            Some(path) => Some(File::create(path).await?),
            None => None,
        };
        let mut said = Vec::new();
        // Ends with the container.
        while let Some(piece) = output.next().await {
            match (piece.map_err(std::io::Error::other)?, &mut to) {
                (LogOutput::StdOut { message }, Some(to)) => to.write_all(&message).await?,
                (piece, _) => {
                    said.extend_from_slice(&piece.into_bytes());
                    said.drain(..said.len().saturating_sub(SAID));
                }
            }
        }
        if let Some(mut to) = to {
            to.flush().await?;
        }
        Ok::<Vec<u8>, std::io::Error>(said)
    };
    let (given, kept) = tokio::join!(give, keep);
    let broken = |path: &Option<PathBuf>| {
        let path = path.clone().unwrap_or_default();
        move |source| EngineError::Context { path, source }
    };
    given.map_err(broken(&job.input))?;
    kept.map_err(broken(&job.output))
}
