//! What a step may use while it works: its log, its cancel token, the workspace's root, and the resources handed in
//! from outside.

use crate::{
    error::StepError,
    observer::Observer,
    reads::{Component, Reads},
};
use plimsoll_core::{Event, Fingerprint, RunId, Timestamp};
use plimsoll_process::{Cancel, Cmd, Environment, Exit, LineSink, Redactor, Stream};
use std::{
    any::{Any, TypeId},
    collections::{HashMap, VecDeque},
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Things from outside that steps need: clients, targets, the workspace's package graph. One value per type.
#[derive(Clone, Default)]
pub struct Resources(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl Resources {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `value`, in place of an earlier one of its type.
    #[must_use]
    pub fn with<T: Send + Sync + 'static>(mut self, value: Arc<T>) -> Self {
        self.0.insert(TypeId::of::<T>(), value);
        self
    }

    pub(crate) fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.get(&TypeId::of::<T>()).cloned().and_then(|any| any.downcast().ok())
    }
}

/// Where the wall clock is read. Tests pass their own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The clock of this machine.
pub fn system_clock() -> Clock {
    Arc::new(|| std::time::SystemTime::now().into())
}

/// What is the same for all steps of a run.
pub(crate) struct Shared {
    pub(crate) run: RunId,
    pub(crate) root: PathBuf,
    pub(crate) run_dir: PathBuf,
    pub(crate) environment: Arc<Environment>,
    pub(crate) resources: Resources,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) redactor: Option<Arc<Redactor>>,
    pub(crate) clock: Clock,
    pub(crate) plan: Fingerprint,
    /// What was answered to gates: gate, time, answer.
    pub(crate) answers: Vec<(String, Timestamp, serde_json::Value)>,
}

impl Shared {
    /// `text` with secrets masked: what may go into an event or the journal.
    pub(crate) fn redact(&self, text: String) -> String {
        match &self.redactor {
            Some(redactor) => redactor.redact_str(&text).into_owned(),
            None => text,
        }
    }

    /// `error` with secrets masked.
    pub(crate) fn redact_error(&self, error: StepError) -> StepError {
        error.redacted(self.redactor.as_deref())
    }
}

/// How many of the last log lines are kept for an error message.
const TAIL: usize = 20;

/// A step's view of its surroundings.
#[derive(Clone)]
pub struct Cx {
    shared: Arc<Shared>,
    step: Arc<str>,
    cancel: Cancel,
    log: Arc<Mutex<Log>>,
    discovered: Arc<Mutex<Vec<Component>>>,
    skipped: Arc<Mutex<Option<String>>>,
}

#[derive(Default)]
struct Log {
    file: Option<File>,
    tail: VecDeque<String>,
}

impl Cx {
    pub(crate) fn new(shared: Arc<Shared>, step: Arc<str>, cancel: Cancel) -> Self {
        Self { shared, step, cancel, log: Arc::default(), discovered: Arc::default(), skipped: Arc::default() }
    }

    pub(crate) fn with_cancel(&self, cancel: Cancel) -> Self {
        Self { cancel, ..self.clone() }
    }

    pub(crate) fn take_discovered(&self) -> Vec<Component> {
        std::mem::take(&mut *lock(&self.discovered))
    }

    pub(crate) fn take_skipped(&self) -> Option<String> {
        lock(&self.skipped).take()
    }

    pub(crate) fn observer(&self) -> &Arc<dyn Observer> {
        &self.shared.observer
    }

    /// `error` with secrets masked.
    pub(crate) fn redact_error(&self, error: StepError) -> StepError {
        self.shared.redact_error(error)
    }

    /// The run this step works for.
    pub fn run(&self) -> &RunId {
        &self.shared.run
    }

    /// The step's name in the plan.
    pub fn step(&self) -> &Arc<str> {
        &self.step
    }

    /// The key under which the world remembers this effect: the same in every attempt and every resume of the run.
    pub fn key(&self) -> String {
        format!("{}/{}", self.shared.run, self.step)
    }

    /// The hash of the plan this step is part of.
    pub fn plan(&self) -> Fingerprint {
        self.shared.plan
    }

    /// The workspace's root directory.
    pub fn root(&self) -> &Path {
        &self.shared.root
    }

    /// The run's directory: what must outlive this process but not the run's record lies there.
    pub fn run_dir(&self) -> &Path {
        &self.shared.run_dir
    }

    /// The environment variables this process was started with.
    pub fn environment(&self) -> &Environment {
        &self.shared.environment
    }

    /// The wall clock.
    pub fn now(&self) -> Timestamp {
        (self.shared.clock)()
    }

    /// What was answered to this gate, oldest first, as [`crate::answer`] recorded it.
    pub fn answers(&self) -> impl Iterator<Item = (Timestamp, &serde_json::Value)> {
        let mine = self.shared.answers.iter().filter(|(gate, ..)| **gate == *self.step);
        mine.map(|(_, at, answer)| (*at, answer))
    }

    /// Tells when to stop.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// The resource of type `T`.
    pub fn resource<T: Send + Sync + 'static>(&self) -> Result<Arc<T>, StepError> {
        self.shared.resources.get().ok_or_else(|| {
            StepError::internal(format!(
                "step {} needs a {}, which the pipeline's host did not provide",
                self.step,
                std::any::type_name::<T>()
            ))
        })
    }

    /// The resource of type `T`, if there is one.
    pub(crate) fn optional<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.shared.resources.get()
    }

    /// Writes a line to the step's log.
    pub fn log(&self, line: &str) {
        let line = match &self.shared.redactor {
            Some(redactor) => redactor.redact_str(line),
            None => line.into(),
        };
        self.log_clean(&line);
    }

    fn log_clean(&self, line: &str) {
        let mut log = lock(&self.log);
        if log.file.is_none() {
            log.file = File::options().create(true).append(true).open(self.log_path()).ok();
        }
        if let Some(file) = &mut log.file {
            // A full disk must not stop a step that only talks: the line still reaches the observer and the tail.
            let _ = file.write_all(format!("{line}\n").as_bytes());
        }
        if log.tail.len() == TAIL {
            log.tail.pop_front();
        }
        log.tail.push_back(line.to_owned());
        drop(log);
        self.shared.observer.event(&Event::StepLine { step: self.step.clone(), line: line.to_owned() });
    }

    /// The last lines of the log, oldest first.
    pub fn log_tail(&self) -> Vec<String> {
        lock(&self.log).tail.iter().cloned().collect()
    }

    /// The file the log goes to.
    pub fn log_path(&self) -> PathBuf {
        log_path(&self.shared.run_dir, &self.step)
    }

    /// Says what the step waits for, so that slow can be told from stuck.
    pub fn waiting(&self, what: impl Into<String>) {
        let what = self.shared.redact(what.into());
        self.shared.observer.event(&Event::StepWaiting { step: self.step.clone(), what });
    }

    /// Says how far a transfer is: of what, and how many bytes of how many are there.
    pub fn progress(&self, what: impl Into<String>, bytes: u64, of: u64) {
        let what = self.shared.redact(what.into());
        self.shared.observer.event(&Event::StepProgress { step: self.step.clone(), what, bytes, of });
    }

    /// Says something everybody should see, such as what was left out and why; the log gets it too.
    pub fn note(&self, note: impl Into<String>) {
        let note = self.shared.redact(note.into());
        self.log_clean(&note);
        self.shared.observer.event(&Event::StepNoted { step: self.step.clone(), note });
    }

    /// Says that a pure step leaves its work out, and why: a tool that is not installed, a service that cannot be reached. What
    /// the step returns is its output all the same; it is shown as skipped, is not cached, and a resume tries it again.
    pub fn skip(&self, reason: impl Into<String>) {
        let reason = self.shared.redact(reason.into());
        self.log_clean(&format!("skipped: {reason}"));
        *lock(&self.skipped) = Some(reason);
    }

    /// Runs a command to its end, its lines going to the step's log. Any exit status is an answer; see [`Exit::check`].
    pub async fn command(&self, cmd: Cmd) -> Result<Exit, StepError> {
        let mut cmd = cmd.marker(self.key());
        if let Some(redactor) = &self.shared.redactor {
            cmd = cmd.redact(Arc::clone(redactor));
        }
        Ok(plimsoll_process::run(&cmd, self, &self.cancel).await?)
    }

    /// Runs a command and collects what it prints.
    pub async fn output(&self, cmd: Cmd) -> Result<plimsoll_process::Output, StepError> {
        Ok(plimsoll_process::output(&cmd.marker(self.key()), &self.cancel).await?)
    }

    /// Runs `work` where blocking is allowed: compressing, hashing, walking directories.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, StepError> {
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|e| StepError::internal(format!("step {} broke off", self.step)).caused_by(&e))
    }

    /// Adds reads that only doing the work could find, such as the files a compiler opened. The cached output counts
    /// only while they are as they were.
    pub fn discover(&self, reads: &Reads) {
        lock(&self.discovered).extend_from_slice(reads.components());
    }
}

impl LineSink for Cx {
    fn line(&self, _: Stream, line: &str) {
        self.log_clean(line);
    }
}

/// Where a step's log lies in its run's directory. Names of steps hold `/` and brackets; files do not.
pub fn log_path(run_dir: &Path, step: &str) -> PathBuf {
    let name: String = step
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' })
        .take(120)
        .collect();
    // Two names may become one by the replacement: the hash keeps them apart.
    run_dir.join("logs").join(format!("{name}-{}.log", &Fingerprint::of(step.as_bytes()).to_string()[..8]))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the mutexes here guard stays consistent at every step: a panic elsewhere leaves it usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
