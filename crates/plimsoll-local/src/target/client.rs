//! One question to the supervisor: connect, starting it when none answers; ask; read the answer.

use crate::supervisor::{
    Launch, LocalPaths,
    protocol::{Answer, Request, Response, broken, receive, send},
};
use plimsoll_deploy::TargetError;
use plimsoll_process::{Cmd, Detached, spawn_detached};
use std::{io, path::Path, time::Duration};
use tokio::{
    io::BufReader,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::{Instant, sleep, timeout},
};

/// How long a supervisor may take from its start to its first answer: it may have to end a proxy that hangs (5 s).
const START: Duration = Duration::from_secs(15);

/// Between two looks for the socket of a supervisor that is being started.
const PAUSE: Duration = Duration::from_millis(5);

/// How often a supervisor is started before what it says is believed.
const LAUNCHES: u32 = 3;

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
        let mut connection = match self.connect().await? {
            Some(connection) => connection,
            None => self.start().await?,
        };
        connection.ask(request).await
    }

    /// Asks a supervisor that runs; `None` when none does.
    pub(super) async fn ask_running(&self, request: &Request) -> Result<Option<Answer>, TargetError> {
        match self.connect().await? {
            Some(mut connection) => connection.ask(request).await.map(Some),
            None => Ok(None),
        }
    }

    /// The state directory.
    pub(super) fn paths(&self) -> &LocalPaths {
        &self.paths
    }

    /// Asks for the supervisor's end, and waits for it; nothing to do when none runs. `children` says that these are to
    /// end too: where a supervisor that was killed left some, another one is started to find and end them.
    pub(super) async fn end(&self, request: &Request, children: bool) -> Result<(), TargetError> {
        let mut connection = match self.connect().await? {
            Some(connection) => connection,
            None if children && crate::supervisor::anything_runs(&self.paths) => self.start().await?,
            None => return Ok(()),
        };
        // What it could not end goes on, but it ends itself either way.
        let asked = connection.ask(request).await;
        let deadline = Instant::now() + END;
        while is_locked(&self.paths.supervisor_lock()) {
            if Instant::now() >= deadline {
                return asked.and(Err(broken("end the supervisor", format!("it still runs after {END:?}"))));
            }
            sleep(PAUSE).await;
        }
        asked.map(drop)
    }

    /// Connects to a supervisor that answers; `None` when none does. One that was killed may still accept for a moment,
    /// which is why it is greeted before it is asked for anything that cannot be asked twice.
    async fn connect(&self) -> Result<Option<Connection>, TargetError> {
        let socket = self.paths.supervisor_socket();
        let what = || format!("connect to `{}`", socket.display());
        let greeted = async {
            let mut connection = Connection::over(UnixStream::connect(&socket).await?);
            let _greeting = connection.exchange(&Request::Hello).await?;
            Ok(connection)
        };
        match timeout(START, greeted).await {
            Ok(Ok(connection)) => Ok(Some(connection)),
            Ok(Err(e)) if is_gone(&e) => Ok(None),
            Ok(Err(e)) => Err(broken(what(), e)),
            Err(_) => Err(broken(what(), format!("the supervisor does not answer within {START:?}"))),
        }
    }

    /// Starts a supervisor and waits for its socket. When several commands do this at the same time, one of the started
    /// ones gets the lock, and all commands find its socket. One that finds the lock held by a supervisor that is just
    /// being killed ends too, and is started again.
    async fn start(&self) -> Result<Connection, TargetError> {
        let what = "start the supervisor";
        self.paths.create().map_err(|e| broken(format!("make `{}`", self.paths.root().display()), e))?;
        let mut started = self.launch(what)?;
        let mut launches = 1;
        let deadline = Instant::now() + START;
        loop {
            if let Some(connection) = self.connect().await? {
                return Ok(connection);
            }
            let ended = started.adopt().is_none() && !is_locked(&self.paths.supervisor_lock());
            if ended && launches < LAUNCHES {
                started = self.launch(what)?;
                launches += 1;
            } else if ended || Instant::now() >= deadline {
                let lines = crate::supervisor::tail_log(&self.paths.supervisor_log(), 5).join("\n");
                return Err(broken(what, format!("it does not answer; its log ends with:\n{lines}")));
            }
            sleep(PAUSE).await;
        }
    }

    /// Starts a supervisor, which outlives this process.
    fn launch(&self, what: &str) -> Result<Detached, TargetError> {
        let log = crate::supervisor::open_log(&self.paths.supervisor_log()).map_err(|e| broken(what, e))?;
        let errors = log.try_clone().map_err(|e| broken(what, e))?;
        let command = Cmd::new(&self.launch.program).args(&self.launch.args).cwd(self.paths.root());
        let started = spawn_detached(&command, log, errors, None).map_err(|e| broken(what, e))?;
        if let Some(process) = started.adopt() {
            // Its exit code is collected, so that a long-lived command keeps no zombie.
            tokio::spawn(async move { process.wait_exit().await });
        }
        Ok(started)
    }
}

/// A connection to a supervisor.
struct Connection {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Connection {
    fn over(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        Self { read: BufReader::new(read), write }
    }

    async fn exchange(&mut self, request: &Request) -> io::Result<Response> {
        send(&mut self.write, request).await?;
        receive(&mut self.read).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    async fn ask(&mut self, request: &Request) -> Result<Answer, TargetError> {
        let response = self.exchange(request).await.map_err(|e| broken("talk to the supervisor", e))?;
        response.map_err(TargetError::from)
    }
}

/// Whether nobody is there, or somebody who ends.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotFound | UnexpectedEof)
}

/// Whether a supervisor holds the lock of its state directory.
fn is_locked(path: &Path) -> bool {
    use rustix::fs::{FlockOperation, flock};
    std::fs::File::open(path).is_ok_and(|file| flock(file, FlockOperation::NonBlockingLockShared).is_err())
}
