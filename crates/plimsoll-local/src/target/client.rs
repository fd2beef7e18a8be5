//! One question to the supervisor: connect, starting it when none answers; ask; read the answer.

use crate::supervisor::{
    Launch, LocalPaths,
    protocol::{Answer, Request, Response, broken, receive, send},
};
use plimsoll_deploy::TargetError;
use plimsoll_process::{Cmd, spawn_detached};
use std::{io, path::Path, time::Duration};
use tokio::{
    io::BufReader,
    net::UnixStream,
    time::{Instant, sleep},
};

/// How long a supervisor may take from its start to its first answer: it may have to end a proxy that hangs (5 s).
const START: Duration = Duration::from_secs(15);

/// Between two looks for the socket of a supervisor that is being started.
const PAUSE: Duration = Duration::from_millis(5);

/// How long a supervisor may take to end after it said it will.
const END: Duration = Duration::from_secs(10);

/// How to reach the supervisor of one state directory.
#[derive(Debug, Clone)]
pub(super) struct Client {
    paths: LocalPaths,
    launch: Launch,
}

impl Client {
    pub(super) fn new(paths: LocalPaths, launch: Launch) -> Self {
        Self { paths, launch }
    }

    /// Asks, starting a supervisor when none answers.
    pub(super) async fn ask(&self, request: &Request) -> Result<Answer, TargetError> {
        let stream = match self.connect().await? {
            Some(stream) => stream,
            None => self.start().await?,
        };
        exchange(stream, request).await
    }

    /// Asks for the supervisor's end, and waits for it; nothing to do when none runs.
    pub(super) async fn end(&self, request: &Request) -> Result<(), TargetError> {
        let Some(stream) = self.connect().await? else { return Ok(()) };
        exchange(stream, request).await?;
        let deadline = Instant::now() + END;
        while is_locked(&self.paths.supervisor_lock()) {
            if Instant::now() >= deadline {
                return Err(broken("end the supervisor", format!("it still runs after {END:?}")));
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Connects to a supervisor that runs; `None` when none does.
    async fn connect(&self) -> Result<Option<UnixStream>, TargetError> {
        let socket = self.paths.supervisor_socket();
        match UnixStream::connect(&socket).await {
            Ok(stream) => Ok(Some(stream)),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
            Err(e) => Err(broken(format!("connect to `{}`", socket.display()), e)),
        }
    }

    /// Starts a supervisor and waits for its socket. When several commands do this at the same time, one of the started
    /// ones gets the lock, and all commands find its socket.
    async fn start(&self) -> Result<UnixStream, TargetError> {
        let what = "start the supervisor";
        self.paths.create().map_err(|e| broken(format!("make `{}`", self.paths.root().display()), e))?;
        let log = crate::supervisor::open_log(&self.paths.supervisor_log()).map_err(|e| broken(what, e))?;
        let errors = log.try_clone().map_err(|e| broken(what, e))?;
        let command = Cmd::new(&self.launch.program).args(&self.launch.args).cwd(self.paths.root());
        let started = spawn_detached(&command, log, errors, None).map_err(|e| broken(what, e))?;
        let process = started.adopt();
        if let Some(process) = started.adopt() {
            // Its exit code is collected, so that a long-lived command keeps no zombie.
            tokio::spawn(async move { process.wait_exit().await });
        }
        let deadline = Instant::now() + START;
        loop {
            if let Some(stream) = self.connect().await? {
                return Ok(stream);
            }
            let running = process.is_some() && started.adopt().is_some();
            if Instant::now() >= deadline || (!running && !is_locked(&self.paths.supervisor_lock())) {
                let lines = crate::supervisor::tail_log(&self.paths.supervisor_log(), 5).join("\n");
                return Err(broken(what, format!("it does not answer; its log ends with:\n{lines}")));
            }
            sleep(PAUSE).await;
        }
    }
}

async fn exchange(stream: UnixStream, request: &Request) -> Result<Answer, TargetError> {
    let what = "talk to the supervisor";
    let (read, mut write) = stream.into_split();
    send(&mut write, request).await.map_err(|e| broken(what, e))?;
    let response: Option<Response> = receive(&mut BufReader::new(read)).await.map_err(|e| broken(what, e))?;
    response.ok_or_else(|| broken(what, "it ended before it answered"))?.map_err(TargetError::from)
}

/// Whether a supervisor holds the lock of its state directory.
fn is_locked(path: &Path) -> bool {
    use rustix::fs::{FlockOperation, flock};
    std::fs::File::open(path).is_ok_and(|file| flock(file, FlockOperation::NonBlockingLockShared).is_err())
}
