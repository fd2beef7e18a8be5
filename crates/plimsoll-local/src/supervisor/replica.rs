//! The keeper of one replica: starts it, asks whether it is ready, starts it again when it ends, ends it when asked.
//!
//! What the keeper knows is in its [`Status`]; what must survive is written to the state through the supervisor.

use crate::supervisor::{
    backoff::Backoff,
    core::Supervisor,
    logs, ports,
    probe::{self, Order},
    protocol::chain,
    spawn::{self, SlotKey, StartError},
};
use plimsoll_core::Generation;
use plimsoll_process::{Adopted, ExitSeen, end_marked};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep},
};

/// What a keeper knows about its replica now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// The process, while one runs.
    pub(crate) pid: Option<u32>,
    /// Its port, while one runs.
    pub(crate) port: u16,
    /// Whether this very process was seen answering on the port.
    pub(crate) verified: bool,
    /// Whether it answered 200 when last asked.
    pub(crate) ready: bool,
    /// The generation it accepted.
    pub(crate) active: Option<Generation>,
    /// Ends nobody asked for.
    pub(crate) crashes: u32,
    /// What is wrong.
    pub(crate) failing: Option<String>,
}

/// What a keeper can be told.
#[derive(Debug)]
pub(crate) enum Command {
    /// End the replica for good: SIGTERM, the grace, SIGKILL.
    End(oneshot::Sender<()>),
    /// Kill the process now; another one is started in its place.
    Kill(oneshot::Sender<()>),
}

/// A replica as the supervisor holds it.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) status: watch::Sender<Status>,
    commands: mpsc::Sender<Command>,
}

/// Which replica of a slot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReplicaKey {
    pub(crate) slot: SlotKey,
    pub(crate) n: u16,
}

/// Where to begin: with a process found again, or with none.
#[derive(Debug)]
pub(crate) enum Begin {
    /// Nothing of this replica can be running.
    Fresh,
    /// This process was verified to be the one in the state.
    Adopt { process: Adopted, port: u16, crashes: u32 },
    /// The state names no process that still runs; one may have been started without being recorded.
    Sweep { crashes: u32 },
}

/// How often a replica that has been ready for long is asked, unless its service wants it asked less often. That its process
/// ended is seen at once anyway, and asking eight replicas ten times a second is a tenth of a core.
const STEADY: Duration = Duration::from_secs(1);

/// How long a process is asked as often as its service says: it gets ready, takes the traffic and is watched meanwhile.
const YOUNG: Duration = Duration::from_mins(2);

/// How often a log's size is looked at: a replica that writes 100 MB/s overshoots by half a gigabyte at most.
const ROTATION: Duration = Duration::from_secs(5);

impl Replica {
    /// Starts a keeper.
    pub(crate) fn keep(supervisor: &Arc<Supervisor>, key: ReplicaKey, begin: Begin) -> Self {
        // One command at a time is waited for by whoever gives it; four callers at once is more than there are.
        let (commands, inbox) = mpsc::channel(4);
        let status = watch::Sender::new(Status::default());
        let keeper = Keeper { supervisor: supervisor.clone(), key, status: status.clone(), inbox };
        tokio::spawn(keeper.run(begin));
        Self { status, commands }
    }

    /// What is known now.
    pub(crate) fn now(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Gives a command; the receiver resolves when it is done, or when the keeper has ended anyway.
    pub(crate) fn tell(&self, command: fn(oneshot::Sender<()>) -> Command) -> impl Future<Output = ()> + Send + use<> {
        let (done, wait) = oneshot::channel();
        let commands = self.commands.clone();
        async move {
            if commands.send(command(done)).await.is_ok() {
                let _ = wait.await;
            }
        }
    }
}

struct Keeper {
    supervisor: Arc<Supervisor>,
    key: ReplicaKey,
    status: watch::Sender<Status>,
    inbox: mpsc::Receiver<Command>,
}

/// Why watching a process came to its end.
enum Watched {
    Ended(String),
    Asked(oneshot::Sender<()>),
}

impl Keeper {
    async fn run(mut self, begin: Begin) {
        let mut backoff = Backoff::default();
        let mut process = match begin {
            Begin::Fresh => None,
            Begin::Adopt { process, port, crashes } => {
                self.update(|s| s.crashes = crashes);
                // The state names this very process for this port: once it is seen listening there, requests may go on
                // reaching it, however slow its first answer is.
                let verified = ports::belongs(port, process.identity().pid).await;
                Some((process, port, verified))
            }
            Begin::Sweep { crashes } => {
                self.update(|s| s.crashes = crashes);
                end_marked(&spawn::marker(&self.supervisor.paths, &self.key.slot, self.key.n), Duration::ZERO).await;
                None
            }
        };
        // Ends when the replica is asked to end, or its supervisor goes.
        loop {
            let started = Instant::now();
            let current = match process.take() {
                Some(adopted) => Ok(adopted),
                None => self.start().await,
            };
            let watched = match current {
                Ok((process, port, verified)) => self.watch(&process, port, verified).await,
                Err(StartError::Gone) => Watched::Ended("it ended at once".to_owned()),
                Err(error) => Watched::Ended(format!("cannot start it: {}", chain(&error))),
            };
            match watched {
                Watched::Asked(done) => {
                    let _ = done.send(());
                    return;
                }
                Watched::Ended(reason) => self.crashed(reason).await,
            }
            if let Some(done) = self.stay_down(backoff.after(started.elapsed())).await {
                let _ = done.send(());
                return;
            }
        }
    }

    fn update(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }

    async fn start(&self) -> Result<(Adopted, u16, bool), StartError> {
        let (process, port) = self.supervisor.start_replica(&self.key).await?;
        let identity = process.identity().clone();
        self.supervisor.record_process(&self.key, Some((identity, port))).await;
        Ok((process, port, false))
    }

    /// Waits out a delay; an order to end cuts it short.
    async fn stay_down(&mut self, delay: Duration) -> Option<oneshot::Sender<()>> {
        let pause = sleep(delay);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => return None,
                command = self.inbox.recv() => match command {
                    Some(Command::End(done)) => return Some(done),
                    Some(Command::Kill(done)) => drop(done),
                    None => return Some(oneshot::channel().0),
                },
            }
        }
    }

    async fn watch(&mut self, process: &Adopted, port: u16, verified: bool) -> Watched {
        let pid = process.identity().pid;
        self.update(|s| {
            *s = Status {
                pid: Some(pid),
                port,
                verified,
                crashes: s.crashes,
                failing: s.failing.take(),
                ..Status::default()
            };
        });
        let started = Instant::now();
        let Some((grace, health)) = self.supervisor.timings(&self.key.slot).await else {
            let _ = process.kill_tree(Duration::ZERO).await;
            return Watched::Ended("its slot is gone".to_owned());
        };
        let (supervisor, key, status) = (self.supervisor.clone(), self.key.clone(), self.status.clone());
        let asking = ask(&supervisor, &key, &status, port, pid, health);
        tokio::pin!(asking);
        loop {
            tokio::select! {
                seen = process.wait_exit() => {
                    self.update(|s| { s.ready = false; s.verified = false; s.active = None; });
                    self.supervisor.router.kick();
                    // What it started may still run.
                    let _ = process.kill_tree(Duration::ZERO).await;
                    return Watched::Ended(format!("{} after {:.1} s", ending(seen), started.elapsed().as_secs_f64()));
                }
                command = self.inbox.recv() => match command {
                    Some(Command::End(done)) => {
                        if let Err(error) = process.kill_tree(grace).await {
                            tracing::error!(error = chain(&error), key = ?self.key, "a replica could not be ended");
                        }
                        self.update(|s| *s = Status { crashes: s.crashes, ..Status::default() });
                        return Watched::Asked(done);
                    }
                    Some(Command::Kill(done)) => {
                        let _ = process.kill_tree(Duration::ZERO).await;
                        drop(done);
                        return Watched::Ended("it was killed: it did not give up the environment".to_owned());
                    }
                    // The supervisor goes, the replica stays: its next supervisor adopts it.
                    None => return Watched::Asked(oneshot::channel().0),
                },
                () = &mut asking => {}
            }
        }
    }

    async fn crashed(&self, reason: String) {
        let slot = &self.key.slot;
        let path = self.supervisor.paths.replica_log(&slot.environment, &slot.service, slot.slot, self.key.n);
        // Ten lines show a panic with its message.
        let lines = logs::tail(&path, 10);
        let failing =
            if lines.is_empty() { reason.clone() } else { format!("{reason}; it said:\n{}", lines.join("\n")) };
        tracing::warn!(service = %slot.service, slot = %slot.slot, n = self.key.n, reason, "a replica ended by itself");
        self.update(|s| *s = Status { crashes: s.crashes + 1, failing: Some(failing), ..Status::default() });
        self.supervisor.record_process(&self.key, None).await;
        self.supervisor.router.kick();
    }
}

fn ending(seen: std::io::Result<ExitSeen>) -> String {
    match seen {
        Ok(ExitSeen::Code(code)) => format!("it exited with code {code}"),
        Ok(ExitSeen::Signal(signal)) => format!("signal {signal} ended it"),
        Ok(ExitSeen::Unobserved) => "it ended unobserved".to_owned(),
        Err(error) => format!("it ended ({error})"),
    }
}

/// Asks the replica for ever whether it is ready, and activates it when its slot is the active one.
async fn ask(
    supervisor: &Arc<Supervisor>,
    key: &ReplicaKey,
    status: &watch::Sender<Status>,
    port: u16,
    pid: u32,
    health: plimsoll_deploy::Health,
) {
    let begun = Instant::now();
    let deadline = begun + Duration::from_millis(health.deadline_ms);
    // Asking more often than every 10 ms would be load, not health.
    let eager = Duration::from_millis(health.interval_ms.max(10));
    let slot = &key.slot;
    let log = supervisor.paths.replica_log(&slot.environment, &slot.service, slot.slot, key.n);
    let mut rotated = Instant::now();
    loop {
        let answer = probe::status(port, &health.path).await;
        let mut ready = matches!(answer, Ok(200));
        let mut reason = answer.map_or_else(|e| e.to_string(), |status| format!("{} answered {status}", health.path));
        if ready && !status.borrow().verified {
            ready = ports::belongs(port, pid).await;
            reason = format!("port {port} is answered by another process");
        }
        let changed = status.send_if_modified(|s| {
            let late = !ready && Instant::now() >= deadline && s.pid.is_some();
            let before = s.clone();
            s.ready = ready;
            s.verified |= ready;
            if ready {
                s.failing = None;
            } else if late {
                s.failing = Some(format!("not ready after {} ms: {reason}", health.deadline_ms));
            }
            before != *s
        });
        if changed {
            supervisor.router.kick();
        }
        let settled = ready && activate(supervisor, slot, status, port).await;
        if rotated.elapsed() >= ROTATION {
            rotated = Instant::now();
            if let Err(error) = logs::rotate(&log, logs::MAX_BYTES) {
                tracing::error!(%error, path = %log.display(), "cannot rotate a log");
            }
        }
        sleep(if settled && begun.elapsed() > YOUNG { eager.max(STEADY) } else { eager }).await;
    }
}

/// Hands the environment's generation to a ready replica of the active slot that has none yet. Whether nothing of that is left
/// to be done.
async fn activate(supervisor: &Supervisor, slot: &SlotKey, status: &watch::Sender<Status>, port: u16) -> bool {
    let gate = supervisor.gate(slot);
    // Held over the request: a hand-over away from this slot waits for it, and so comes after it.
    let holds = gate.lock().await;
    let Some(generation) = *holds else { return true };
    if status.borrow().active.is_some() {
        return true;
    }
    let accepted = matches!(probe::order(port, Order::Activate, generation).await, Ok(true));
    if accepted {
        status.send_modify(|s| s.active = Some(generation));
    }
    accepted
}
