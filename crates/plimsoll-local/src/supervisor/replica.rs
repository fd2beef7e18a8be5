//! The keeper of one replica: starts it, asks whether it is ready, starts it again when it ends, ends it when asked.
//!
//! What the keeper knows is in its [`Status`]; what must survive is written to the state through the supervisor.

use crate::supervisor::{
    asking::ask,
    backoff::Backoff,
    core::Supervisor,
    place::ReplicaKey,
    probe,
    runtime::{Instance, Running, RuntimeError},
};
use plimsoll_core::{Generation, chain};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep},
};

/// What a keeper knows about its replica now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    /// The process, while one runs; of a container its first one.
    pub(crate) pid: Option<u32>,
    /// Where it is reached, while one runs.
    pub(crate) address: SocketAddr,
    /// Whether this very process was seen answering there.
    pub(crate) verified: bool,
    /// Whether it answered 200 when last asked.
    pub(crate) ready: bool,
    /// The generation it accepted.
    pub(crate) active: Option<Generation>,
    /// Ends nobody asked for.
    pub(crate) crashes: u32,
    /// What is wrong.
    pub(crate) failing: Option<String>,
    /// Whether one may run of which nothing is known, because whoever holds it does not answer.
    pub(crate) unsure: bool,
}

impl Default for Status {
    fn default() -> Self {
        let (address, pid, active, failing) = (SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), None, None, None);
        Self { pid, address, verified: false, ready: false, active, crashes: 0, failing, unsure: false }
    }
}

/// What a keeper can be told. The answer says whether nothing of the replica runs any more.
#[derive(Debug)]
pub(crate) enum Command {
    /// End the replica for good: SIGTERM, the grace, SIGKILL.
    End(oneshot::Sender<bool>),
    /// Kill the process now; another one is started in its place.
    Kill(oneshot::Sender<bool>),
}

/// A replica as the supervisor holds it.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) status: watch::Sender<Status>,
    commands: mpsc::Sender<Command>,
}

/// Where to begin: with a replica found again, or with none.
#[derive(Debug)]
pub(crate) enum Begin {
    /// Nothing of this replica can be running.
    Fresh,
    /// This one was verified to be the one in the state.
    Adopt { running: Arc<dyn Running>, crashes: u32 },
    /// The state names none that still runs; one may have been started without being recorded.
    Sweep { crashes: u32 },
    /// Whether it still runs could not be told: it is looked for until it can.
    Look { crashes: u32, last: Option<Instance> },
}

/// What is to be done before a replica may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Sweep,
    Look,
}

/// How long an engine that does not answer is left alone at most: its containers are waited for.
const UNSURE: Duration = Duration::from_secs(1);

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

    /// Gives a command; the answer comes when it is done, or when the keeper has ended anyway: whether nothing of the
    /// replica runs any more.
    pub(crate) fn tell(
        &self,
        command: fn(oneshot::Sender<bool>) -> Command,
    ) -> impl Future<Output = bool> + Send + use<> {
        let (done, wait) = oneshot::channel();
        let commands = self.commands.clone();
        async move { commands.send(command(done)).await.is_err() || wait.await.unwrap_or(true) }
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
    Asked,
}

impl Keeper {
    async fn run(mut self, begin: Begin) {
        let mut backoff = Backoff::default();
        let mut last = None;
        let (mut found, mut before) = match begin {
            Begin::Fresh => (None, Before::Nothing),
            Begin::Adopt { running, crashes } => {
                self.update(|s| s.crashes = crashes);
                (Some(running), Before::Nothing)
            }
            Begin::Sweep { crashes } => {
                self.update(|s| s.crashes = crashes);
                (None, Before::Sweep)
            }
            Begin::Look { crashes, last: known } => {
                self.update(|s| (s.crashes, s.unsure) = (crashes, true));
                last = known;
                (None, Before::Look)
            }
        };
        // Ends when the replica is asked to end, or its supervisor goes.
        loop {
            let started = Instant::now();
            let current = match found.take() {
                Some(adopted) => Ok((adopted, true)),
                None => self.find_or_start(&mut before).await,
            };
            let watched = match current {
                Err(error) if before == Before::Look => {
                    self.unsure(last.as_ref(), &error).await;
                    if !self.stay_down(backoff.after(Duration::ZERO).min(UNSURE)).await {
                        return;
                    }
                    continue;
                }
                Ok((running, adopted)) => {
                    // The state names this very process for this port: once it is seen listening there, requests may go on
                    // reaching it, however slow its first answer is.
                    let verified = adopted && running.answers().await;
                    self.watch(&*running, verified).await
                }
                Err(RuntimeError::Gone) => Watched::Ended("it ended at once".to_owned()),
                Err(error) => Watched::Ended(format!("cannot start it: {}", chain(&error))),
            };
            match watched {
                Watched::Asked => return,
                Watched::Ended(reason) => self.crashed(reason).await,
            }
            if !self.stay_down(backoff.after(started.elapsed())).await {
                return;
            }
        }
    }

    fn update(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }

    /// The replica, and whether it is one that ran already.
    async fn find_or_start(&self, before: &mut Before) -> Result<(Arc<dyn Running>, bool), RuntimeError> {
        if *before == Before::Look {
            if let Some(running) = self.supervisor.find_replica(&self.key).await? {
                *before = Before::Nothing;
                return Ok((running, true));
            }
            *before = Before::Sweep;
        }
        if *before == Before::Sweep {
            self.supervisor.sweep_replica(&self.key).await?;
            self.update(|s| s.unsure = false);
            *before = Before::Nothing;
        }
        let running = self.supervisor.start_replica(&self.key).await?;
        self.supervisor.record_instance(&self.key, Some(&*running)).await;
        Ok((running, false))
    }

    /// Waits out a delay; an order to end cuts it short. Whether the replica is to be started again.
    async fn stay_down(&mut self, delay: Duration) -> bool {
        let pause = sleep(delay);
        tokio::pin!(pause);
        loop {
            let (done, again) = tokio::select! {
                () = &mut pause => return true,
                command = self.inbox.recv() => match command {
                    Some(Command::End(done)) => (done, false),
                    Some(Command::Kill(done)) => (done, true),
                    None => return false,
                },
            };
            // What could not be looked for may run, though nobody watches it.
            let _ = done.send(self.supervisor.sweep_replica(&self.key).await.is_ok());
            if !again {
                return false;
            }
        }
    }

    async fn watch(&mut self, running: &dyn Running, verified: bool) -> Watched {
        self.update(|s| {
            *s = Status {
                pid: Some(running.pid()),
                address: running.address(),
                verified,
                crashes: s.crashes,
                failing: s.failing.take(),
                ..Status::default()
            };
        });
        let started = Instant::now();
        let Some((grace, health)) = self.supervisor.timings(&self.key.slot).await else {
            let _ = running.end(Duration::ZERO).await;
            return Watched::Ended("its slot is gone".to_owned());
        };
        let (supervisor, key, status) = (self.supervisor.clone(), self.key.clone(), self.status.clone());
        let asking = ask(&supervisor, &key, &status, running, health);
        tokio::pin!(asking);
        loop {
            tokio::select! {
                how = running.ended() => {
                    self.update(|s| { s.ready = false; s.verified = false; s.active = None; });
                    self.supervisor.router.kick();
                    // What it started may still run.
                    let _ = running.end(Duration::ZERO).await;
                    return Watched::Ended(format!("{how} after {:.1} s", started.elapsed().as_secs_f64()));
                }
                command = self.inbox.recv() => match command {
                    Some(Command::End(done)) => {
                        let ended = self.end(running, grace).await;
                        self.update(|s| *s = Status { crashes: s.crashes, ..Status::default() });
                        let _ = done.send(ended);
                        return Watched::Asked;
                    }
                    Some(Command::Kill(done)) => {
                        let ended = self.end(running, Duration::ZERO).await;
                        let _ = done.send(ended);
                        if ended {
                            return Watched::Ended("it was killed: it did not give up the environment".to_owned());
                        }
                    }
                    // The supervisor goes, the replica stays: its next supervisor adopts it.
                    None => return Watched::Asked,
                },
                () = &mut asking => {}
            }
        }
    }

    async fn end(&self, running: &dyn Running, grace: Duration) -> bool {
        let ended = running.end(grace).await;
        if let Err(error) = &ended {
            tracing::error!(error = chain(error), key = ?self.key, "a replica could not be ended");
        }
        ended.is_ok()
    }

    /// Takes a container whose engine does not answer for what it was, as long as it answers where it was: it may well run,
    /// and its clients and its successor are served by what it says itself.
    async fn unsure(&self, last: Option<&Instance>, error: &RuntimeError) {
        let Some(Instance::Container(last)) = last else { return };
        let health = self.supervisor.timings(&self.key.slot).await.map(|(_, health)| health.path).unwrap_or_default();
        let ready = matches!(probe::status(last.address, &health).await, Ok(200));
        self.update(|s| {
            (s.pid, s.address) = (ready.then_some(last.pid), last.address);
            (s.ready, s.verified) = (ready, ready);
            s.failing = Some(format!("whether it runs cannot be told: {}", chain(error)));
        });
        self.supervisor.router.kick();
    }

    async fn crashed(&self, reason: String) {
        let slot = &self.key.slot;
        // Ten lines show a panic with its message.
        let lines = self.supervisor.tail_replica(&self.key, 10).await;
        let failing =
            if lines.is_empty() { reason.clone() } else { format!("{reason}; it said:\n{}", lines.join("\n")) };
        tracing::warn!(service = %slot.service, slot = %slot.slot, n = self.key.n, reason, "a replica ended by itself");
        self.update(|s| {
            *s = Status { crashes: s.crashes + 1, failing: Some(failing), ..Status::default() };
        });
        self.supervisor.record_instance(&self.key, None).await;
        self.supervisor.router.kick();
    }
}
