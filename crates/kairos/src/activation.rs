//! When an exclusive worker may work: only between an activation and a deactivation, one process at a time.
//!
//! A worker begins passive. Each unit of its work holds a permit; a deactivation waits for the permit, flushes and only
//! then answers, so that after the answer nothing more happens. Generations fence: a message older than one already
//! seen is refused. With a state directory an advisory lock beside the state also keeps two processes apart.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{Mutex, MutexGuard, watch};

use crate::config::Config;
use crate::state::StateError;

/// What is activated. Both calls may block on files; no unit of work runs meanwhile.
pub(crate) trait Worker: Send + Sync + 'static {
    /// Takes up the state where the one before left it.
    fn resume(&self) -> Result<(), StateError>;
    /// Puts everything into the state.
    fn flush(&self) -> Result<(), StateError>;
}

/// Why an activation or deactivation did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActivationError {
    #[error("stale generation {given}: {highest} has been seen")]
    Stale { given: u64, highest: u64 },
    #[error("another process is active with the same state")]
    Held,
    #[error("lock {}", path.display())]
    Lock {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("take over or hand over the state")]
    State(#[source] StateError),
}

/// What is told about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct View {
    pub(crate) active: bool,
    /// Of the latest activation.
    pub(crate) generation: Option<u64>,
    /// The highest of all messages.
    pub(crate) highest_seen: Option<u64>,
}

/// The switch of one worker.
pub(crate) struct Activation {
    worker: Arc<dyn Worker>,
    lock_path: Option<PathBuf>,
    /// Held during a unit of work and during each change; the lock file lives as long as the worker is active.
    held: Mutex<Option<File>>,
    view: watch::Sender<View>,
}

/// The right to do one unit of work.
pub(crate) struct Permit<'a> {
    _held: MutexGuard<'a, Option<File>>,
    /// Under which the work is done.
    pub(crate) generation: u64,
}

impl Activation {
    /// A passive worker.
    pub(crate) fn new(config: &Config, worker: Arc<dyn Worker>) -> Self {
        let lock_path =
            config.state_dir.as_ref().map(|directory| directory.join(config.service.name()).with_extension("lock"));
        Self { worker, lock_path, held: Mutex::default(), view: watch::Sender::new(View::default()) }
    }

    /// How it stands now.
    pub(crate) fn view(&self) -> View {
        *self.view.borrow()
    }

    /// Waits until active, then for the end of whatever change or unit is under way.
    pub(crate) async fn permit(&self) -> Permit<'_> {
        loop {
            let mut changes = self.view.subscribe();
            // The sender is a field of `self`, so waiting for it cannot fail.
            let _ = changes.wait_for(|view| view.active).await;
            if let Some(permit) = self.permit_now().await {
                return permit;
            }
        }
    }

    /// Waits for the end of whatever change or unit is under way; no permit when passive then.
    pub(crate) async fn permit_now(&self) -> Option<Permit<'_>> {
        let held = self.held.lock().await;
        match self.view() {
            View { active: true, generation: Some(generation), .. } => Some(Permit { _held: held, generation }),
            _ => None,
        }
    }

    /// Makes the worker active under `generation`; when it is so already only the generation changes.
    pub(crate) async fn activate(&self, generation: u64) -> Result<View, ActivationError> {
        let mut held = self.held.lock().await;
        self.see(generation)?;
        if !self.view().active {
            let file = self.lock()?;
            self.on_worker(Worker::resume).await?;
            *held = file;
        }
        self.view.send_modify(|view| (view.active, view.generation) = (true, Some(generation)));
        Ok(self.view())
    }

    /// Ends the work: on return the last unit is done, the state is flushed, and no unit will begin.
    pub(crate) async fn deactivate(&self, generation: u64) -> Result<View, ActivationError> {
        self.see(generation)?;
        self.stop().await
    }

    /// The same without a message: for the end of the process, and for a worker that learnt it is fenced.
    pub(crate) async fn stop(&self) -> Result<View, ActivationError> {
        let mut held = self.held.lock().await;
        if self.view().active {
            // Passive even when the flush fails: whoever asked needs the work to end, and hears of the failure.
            self.view.send_modify(|view| view.active = false);
            let flushed = self.on_worker(Worker::flush).await;
            *held = None;
            flushed?;
        }
        Ok(self.view())
    }

    fn see(&self, given: u64) -> Result<(), ActivationError> {
        let mut result = Ok(());
        self.view.send_if_modified(|view| match view.highest_seen {
            Some(highest) if given < highest => {
                result = Err(ActivationError::Stale { given, highest });
                false
            }
            before => {
                view.highest_seen = Some(given);
                before != Some(given)
            }
        });
        result
    }

    fn lock(&self) -> Result<Option<File>, ActivationError> {
        let Some(path) = &self.lock_path else { return Ok(None) };
        let failed = |source| ActivationError::Lock { path: path.clone(), source };
        std::fs::create_dir_all(path.parent().expect("a file in a directory")).map_err(failed)?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Err(ActivationError::Held),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    async fn on_worker(&self, work: fn(&dyn Worker) -> Result<(), StateError>) -> Result<(), ActivationError> {
        let worker = Arc::clone(&self.worker);
        let done = tokio::task::spawn_blocking(move || work(worker.as_ref())).await;
        done.expect("state files are read and written without panics").map_err(ActivationError::State)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::config::Service;

    #[derive(Default)]
    struct Counting {
        flushed: AtomicU32,
    }

    impl Worker for Counting {
        fn resume(&self) -> Result<(), StateError> {
            Ok(())
        }
        fn flush(&self) -> Result<(), StateError> {
            self.flushed.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    }

    fn activation(state: Option<&std::path::Path>) -> (Arc<Counting>, Activation) {
        let mut values = BTreeMap::from([("PORT".to_owned(), "0".to_owned())]);
        values.extend(state.map(|path| ("STATE_DIR".to_owned(), path.display().to_string())));
        let config = Config::from_values(Service::MarketDataIngestor, &values).expect("valid");
        let worker = Arc::new(Counting::default());
        (Arc::clone(&worker), Activation::new(&config, worker))
    }

    #[tokio::test]
    async fn a_lower_generation_is_refused_and_the_same_one_is_taken_again() {
        let (_, activation) = activation(None);
        assert!(activation.activate(5).await.expect("first").active);
        assert!(activation.activate(5).await.expect("again").active);
        assert!(matches!(activation.activate(4).await, Err(ActivationError::Stale { given: 4, highest: 5 })));
        assert!(matches!(activation.deactivate(4).await, Err(ActivationError::Stale { .. })));
        assert!(activation.view().active);
        assert!(!activation.deactivate(6).await.expect("newer").active);
        assert!(matches!(activation.activate(5).await, Err(ActivationError::Stale { .. })));
    }

    #[tokio::test]
    async fn a_deactivation_waits_for_the_unit_under_way_and_flushes_after_it() {
        let (worker, activation) = activation(None);
        activation.activate(1).await.expect("active");
        let permit = activation.permit().await;
        let deactivation = activation.deactivate(1);
        tokio::pin!(deactivation);
        tokio::select! {
            biased;
            _ = &mut deactivation => panic!("answered during the unit"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(worker.flushed.load(Ordering::SeqCst), 0);
        drop(permit);
        assert!(!deactivation.await.expect("passive").active);
        assert_eq!(worker.flushed.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn two_processes_over_one_state_are_never_both_active() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (_, blue) = activation(Some(directory.path()));
        let (_, green) = activation(Some(directory.path()));
        blue.activate(1).await.expect("active");
        assert!(matches!(green.activate(2).await, Err(ActivationError::Held)));
        blue.deactivate(2).await.expect("passive");
        assert!(green.activate(2).await.expect("free now").active);
    }
}
