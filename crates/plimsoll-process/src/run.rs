//! Running a command to its end: streaming or collecting what it prints, and leaving nothing behind.

#![expect(clippy::disallowed_types, reason = "this crate is the place where commands start")]

use std::collections::VecDeque;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::time::{Instant, sleep_until, timeout};

use crate::cancel::Cancel;
use crate::cmd::Cmd;
use crate::error::ProcessError;
use crate::exit::{Exit, Output};
use crate::lines::{LineSink, LineSplitter, Stream};
use crate::orphans::Place;
use crate::redact::RedactingStream;
use crate::tree::{Leader, Tree};

/// How much is read at once: a pipe holds 64 KiB, so reading more never helps, and half of it keeps the writer busy.
const CHUNK: usize = 32 * 1024;
/// How long the pipes may stay open after the whole tree is gone: somebody else was handed them and is not ours to end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How many lines of standard error an [`Exit`] remembers, and how much of each.
const TAIL_LINES: usize = 20;
const TAIL_LINE: usize = 1024;

/// Runs a command and hands its lines to `sink` as they come.
///
/// Ends with the command's exit, whatever its code. When it returns, no process of the tree is left: descendants that
/// hold the pipes have [`Cmd::grace`] to finish, others none; then they are ended and listed in [`Exit::leftovers`].
/// Dropping the future kills the tree at once.
pub async fn run(cmd: &Cmd, sink: &dyn LineSink, cancel: &Cancel) -> Result<Exit, ProcessError> {
    let mut stdout = LineReader::new(cmd);
    let mut stderr = LineReader::new(cmd);
    let mut tail = Tail::default();
    let ended = supervise(cmd, cancel, |stream, bytes| {
        let reader = if stream == Stream::Stdout { &mut stdout } else { &mut stderr };
        reader.push(bytes, &mut |line| deliver(sink, stream, line, &mut tail));
        Ok(())
    })
    .await;
    // Also what a command said before it was stopped.
    stdout.finish(&mut |line| deliver(sink, Stream::Stdout, line, &mut tail));
    stderr.finish(&mut |line| deliver(sink, Stream::Stderr, line, &mut tail));
    ended.map(|ended| ended.exit(cmd, tail))
}

fn deliver(sink: &dyn LineSink, stream: Stream, line: &str, tail: &mut Tail) {
    if stream == Stream::Stderr {
        tail.push(line);
    }
    sink.line(stream, line);
}

/// Runs a command and collects what it prints, at most [`Cmd::output_limit`] bytes of each stream.
///
/// Ends as [`run`] does. What is collected is not redacted; the lines in an error are.
pub async fn output(cmd: &Cmd, cancel: &Cancel) -> Result<Output, ProcessError> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let ended = supervise(cmd, cancel, |stream, bytes| {
        let collected = if stream == Stream::Stdout { &mut stdout } else { &mut stderr };
        if collected.len() + bytes.len() > cmd.output_limit {
            return Err(ProcessError::OutputTooLarge { program: cmd.program_name(), limit: cmd.output_limit });
        }
        collected.extend_from_slice(bytes);
        Ok(())
    })
    .await?;
    let (mut reader, mut tail) = (LineReader::new(cmd), Tail::default());
    reader.push(&stderr, &mut |line| tail.push(line));
    reader.finish(&mut |line| tail.push(line));
    Ok(Output { exit: ended.exit(cmd, tail), stdout, stderr })
}

/// Redacts, then splits: a secret of several lines is seen whole.
struct LineReader {
    redacting: Option<RedactingStream>,
    clean: Vec<u8>,
    splitter: LineSplitter,
}

impl LineReader {
    fn new(cmd: &Cmd) -> Self {
        let redacting = cmd.redactor.as_ref().map(|redactor| RedactingStream::new(Arc::clone(redactor)));
        Self { redacting, clean: Vec::new(), splitter: LineSplitter::default() }
    }

    fn push(&mut self, bytes: &[u8], emit: &mut dyn FnMut(&str)) {
        let Some(redacting) = &mut self.redacting else { return self.splitter.push(bytes, emit) };
        self.clean.clear();
        redacting.push(bytes, &mut self.clean);
        self.splitter.push(&self.clean, emit);
    }

    fn finish(&mut self, emit: &mut dyn FnMut(&str)) {
        if let Some(redacting) = &mut self.redacting {
            self.clean.clear();
            redacting.finish(&mut self.clean);
            self.splitter.push(&self.clean, emit);
        }
        self.splitter.finish(emit);
    }
}

#[derive(Default)]
struct Tail(VecDeque<String>);

impl Tail {
    fn push(&mut self, line: &str) {
        if self.0.len() == TAIL_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line[..line.floor_char_boundary(TAIL_LINE)].to_owned());
    }
}

struct Ended {
    status: ExitStatus,
    duration: Duration,
    leftovers: Vec<u32>,
}

impl Ended {
    fn exit(self, cmd: &Cmd, tail: Tail) -> Exit {
        Exit {
            program: cmd.program_name(),
            code: self.status.code(),
            signal: self.status.signal(),
            duration: self.duration,
            leftovers: self.leftovers,
            stderr_tail: tail.0.into(),
        }
    }
}

/// A started command. Dropping it before [`Running::finished`] kills what is left of the tree.
struct Running {
    child: Child,
    tree: Tree,
    place: Place,
    finished: bool,
}

impl Running {
    fn start(cmd: &Cmd) -> Result<Self, ProcessError> {
        let marker = cmd.unique_marker();
        let mut command = cmd.command(&marker)?;
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        if cmd.stdin.is_some() {
            command.stdin(std::process::Stdio::piped());
        }
        let spawned = Place::start(|| {
            let child = tokio::process::Command::from(command).spawn()?;
            let pid = child.id().expect("a child that was not polled has its pid").cast_signed();
            Ok(((child, pid), pid))
        });
        let ((child, group), place) = spawned.map_err(|source| cmd.spawn_error(source))?;
        let tree = Tree { group, marker, leader: Leader::Held, takes_strays: true };
        Ok(Self { child, tree, place, finished: false })
    }

    fn reaped(&mut self) {
        self.tree.leader = Leader::Reaped;
        self.place.reaped();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.finished {
            self.tree.kill_now();
        }
    }
}

/// The command's two outputs, each until its end.
struct Pipes {
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    buffers: [Vec<u8>; 2],
}

impl Pipes {
    fn open(&self) -> bool {
        self.stdout.is_some() || self.stderr.is_some()
    }

    /// Waits for the next bytes of either; an empty slice is the end of that stream. Never completes when both have ended.
    async fn next(&mut self) -> io::Result<(Stream, &[u8])> {
        let [first, second] = &mut self.buffers;
        let (stream, count) = tokio::select! {
            count = read(self.stdout.as_mut(), first) => (Stream::Stdout, count?),
            count = read(self.stderr.as_mut(), second) => (Stream::Stderr, count?),
        };
        match stream {
            Stream::Stdout if count == 0 => self.stdout = None,
            Stream::Stderr if count == 0 => self.stderr = None,
            Stream::Stdout | Stream::Stderr => {}
        }
        Ok((stream, if stream == Stream::Stdout { first } else { second }))
    }
}

async fn read(pipe: Option<&mut (impl AsyncRead + Unpin)>, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let Some(pipe) = pipe else { return std::future::pending().await };
    buffer.clear();
    buffer.reserve(CHUNK);
    pipe.read_buf(buffer).await
}

/// Why the pump stopped.
enum Stop {
    /// The child exited and both pipes are closed.
    Done(ExitStatus),
    /// The child exited, and for the whole grace somebody kept a pipe open.
    Held(ExitStatus),
    Early(ProcessError),
}

async fn supervise(
    cmd: &Cmd,
    cancel: &Cancel,
    mut take: impl FnMut(Stream, &[u8]) -> Result<(), ProcessError> + Send,
) -> Result<Ended, ProcessError> {
    if cancel.is_cancelled() {
        return Err(ProcessError::Cancelled { program: cmd.program_name() });
    }
    let started = Instant::now();
    let mut running = Running::start(cmd)?;
    let mut pipes = Pipes {
        stdout: running.child.stdout.take(),
        stderr: running.child.stderr.take(),
        buffers: [Vec::new(), Vec::new()],
    };
    let stop = pump(cmd, cancel, started, &mut running, &mut pipes, &mut take).await;
    let (outcome, survivors) = match stop {
        Stop::Done(status) if !running.tree.may_be_left() => (Ok((status, Vec::new())), Vec::new()),
        Stop::Done(status) | Stop::Held(status) => {
            let ended = end_tree(cmd, &mut running, &mut pipes, &mut take).await;
            (Ok((status, ended.found)), ended.survivors)
        }
        Stop::Early(error) => {
            let ended = end_tree(cmd, &mut running, &mut pipes, &mut take).await;
            (Err(error), ended.survivors)
        }
    };
    running.finished = true;
    if !survivors.is_empty() {
        return Err(ProcessError::Survivors { program: cmd.program_name(), pids: survivors });
    }
    let (status, leftovers) = outcome?;
    Ok(Ended { status, duration: started.elapsed(), leftovers })
}

async fn pump(
    cmd: &Cmd,
    cancel: &Cancel,
    started: Instant,
    running: &mut Running,
    pipes: &mut Pipes,
    take: &mut (impl FnMut(Stream, &[u8]) -> Result<(), ProcessError> + Send),
) -> Stop {
    let mut cancelled = pin!(cancel.cancelled());
    let mut overtime = pin!(sleep_until(started + cmd.timeout.unwrap_or_default()));
    let mut feeding = pin!(feed(running.child.stdin.take(), cmd.stdin.as_deref().unwrap_or_default()));
    let mut fed = false;
    let mut patience = pin!(sleep_until(started));
    let mut exited = None;
    // Ends with the child and its pipes, or by a timeout, a cancellation or the grace.
    loop {
        if let Some(status) = exited
            && !pipes.open()
        {
            return Stop::Done(status);
        }
        tokio::select! {
            biased;
            () = &mut cancelled => return Stop::Early(ProcessError::Cancelled { program: cmd.program_name() }),
            () = &mut overtime, if cmd.timeout.is_some() => {
                let after = cmd.timeout.unwrap_or_default();
                return Stop::Early(ProcessError::TimedOut { program: cmd.program_name(), after });
            }
            () = &mut patience, if exited.is_some() => return Stop::Held(exited.expect("the guard of this branch")),
            status = running.child.wait(), if exited.is_none() => match status {
                Ok(status) => {
                    running.reaped();
                    exited = Some(status);
                    patience.as_mut().reset(Instant::now() + cmd.grace);
                }
                Err(source) => return Stop::Early(io_error(cmd, "wait for the end", source)),
            },
            bytes = pipes.next() => match bytes {
                Ok((stream, bytes)) => if let Err(error) = take(stream, bytes) {
                    return Stop::Early(error);
                },
                Err(source) => return Stop::Early(io_error(cmd, "read the output", source)),
            },
            fault = &mut feeding, if !fed => {
                fed = true;
                if let Err(source) = fault {
                    return Stop::Early(io_error(cmd, "write the input", source));
                }
            }
        }
    }
}

fn io_error(cmd: &Cmd, action: &'static str, source: io::Error) -> ProcessError {
    ProcessError::Io { program: cmd.program_name(), action, source }
}

async fn feed(stdin: Option<ChildStdin>, bytes: &[u8]) -> io::Result<()> {
    let Some(mut stdin) = stdin else { return Ok(()) };
    match stdin.write_all(bytes).await {
        // A command need not read all it is given.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Ends the tree while its last words are read: a member that cleans up must not wait for a full pipe.
async fn end_tree(
    cmd: &Cmd,
    running: &mut Running,
    pipes: &mut Pipes,
    take: &mut (impl FnMut(Stream, &[u8]) -> Result<(), ProcessError> + Send),
) -> crate::tree::Ended {
    let ended = {
        let mut ending = pin!(running.tree.end(cmd.grace));
        // Ends with the tree; `Tree::end` has its bounds.
        loop {
            tokio::select! {
                ended = &mut ending => break ended,
                more = pipes.next(), if pipes.open() => take_late(more, take),
            }
        }
    };
    let rest = async {
        while pipes.open() {
            take_late(pipes.next().await, take);
        }
    };
    // On a timeout somebody outside the tree holds a pipe: what they print is not the command's.
    let _ = timeout(LAST_WORDS, rest).await;
    if matches!(running.tree.leader, Leader::Held) && ended.survivors.is_empty() {
        // It has ended, so this waits for nothing but the notice.
        let _ = timeout(LAST_WORDS, running.child.wait()).await;
        running.reaped();
    }
    ended
}

fn take_late(
    more: io::Result<(Stream, &[u8])>,
    take: &mut (impl FnMut(Stream, &[u8]) -> Result<(), ProcessError> + Send),
) {
    // A failure here cannot change the outcome: the tree is being ended already, for an earlier reason.
    let _ = more.map(|(stream, bytes)| take(stream, bytes));
}
