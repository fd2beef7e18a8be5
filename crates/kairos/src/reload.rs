//! What follows its file while the process runs: the live part of the configuration, and the gateway's key.
//!
//! A changed file is read and checked wholly before any of it takes effect; a file with a mistake changes nothing and is
//! told in the log, in `/status` and as a metric. Keys outside the live part are compared with those at the start and
//! told as waiting for a restart. Directories are watched and not files: an editor and a mounted secret replace what
//! they change.

mod keys;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use notify::{PollWatcher, RecommendedWatcher, RecursiveMode, Watcher};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::config::{Config, ConfigError, LIVE, Live, Service, Sources, read_key};
use crate::metrics::Metrics;
use crate::server::{App, chain};
use crate::telemetry;
use keys::Keys;

/// A change is over when nothing has happened for so long: an editor writes in several steps.
const QUIET: Duration = Duration::from_millis(100);
/// Events that are waited out at most; a file that changes without end is read all the same.
const EVENTS: usize = 20;
/// Where the system cannot tell of changes, files are compared so often.
const POLL: Duration = Duration::from_secs(2);

/// What is told about the configuration.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct View {
    file: Option<PathBuf>,
    /// When what holds now took effect.
    loaded_at: String,
    /// Why the file as it is now has no effect.
    error: Option<String>,
    /// Keys that have changed and wait for a restart.
    needs_restart: Vec<String>,
    /// Why the key's file as it is now has no effect.
    key_error: Option<String>,
}

/// The parts that follow their files.
pub(crate) struct Reload {
    service: Service,
    sources: Sources,
    /// All values as the process began with them.
    at_start: BTreeMap<String, String>,
    key_file: Option<PathBuf>,
    key_grace: Duration,
    live: ArcSwap<Live>,
    keys: ArcSwap<Keys>,
    view: Mutex<View>,
    metrics: Metrics,
}

impl Reload {
    pub(crate) fn new(config: &Config, sources: Sources, at_start: BTreeMap<String, String>, metrics: Metrics) -> Self {
        for counter in ["kairos_config_reloads_total", "kairos_config_rejected_total", "kairos_api_key_rotations_total"]
        {
            metrics.add(counter, 0);
        }
        let view = View { file: sources.file.clone(), loaded_at: telemetry::now(), ..View::default() };
        Self {
            service: config.service,
            at_start,
            sources,
            key_file: config.api_key_file.clone(),
            key_grace: config.api_key_grace,
            live: ArcSwap::from_pointee(config.at_start.clone()),
            keys: ArcSwap::from_pointee(Keys::new(config.api_key.clone())),
            view: Mutex::new(view),
            metrics,
        }
    }

    /// The live part as it is now.
    pub(crate) fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// The keys as they are now.
    pub(crate) fn keys(&self) -> Arc<Keys> {
        self.keys.load_full()
    }

    /// What is told about it.
    pub(crate) fn view(&self) -> View {
        self.lock().clone()
    }

    /// Whether the files, as they are now, are what holds.
    pub(crate) fn is_valid(&self) -> bool {
        let view = self.lock();
        view.error.is_none() && view.key_error.is_none()
    }

    fn lock(&self) -> MutexGuard<'_, View> {
        // Every change is complete before the next call that could panic.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the files and lets what is right take effect.
    fn read(&self) {
        if self.sources.file.is_some() {
            self.read_config();
        }
        if let Some(path) = &self.key_file {
            self.read_key(path);
        }
    }

    fn read_config(&self) {
        let read = self.sources.values().and_then(|values| {
            let config = Config::from_values(self.service, &values)?;
            Ok((config.at_start, waiting(&self.at_start, &values)))
        });
        let mut view = self.lock();
        match read {
            Ok((live, needs_restart)) => {
                let mended = view.error.take().is_some();
                let changed = *self.live.load_full() != live;
                if changed {
                    telemetry::set_level(live.log_level);
                    tracing::info!(?live, "the configuration has changed");
                    self.live.store(Arc::new(live));
                    self.metrics.add("kairos_config_reloads_total", 1);
                    view.loaded_at = telemetry::now();
                } else if mended {
                    tracing::info!("the configuration file is right again");
                }
                if view.needs_restart != needs_restart && !needs_restart.is_empty() {
                    tracing::warn!(keys = needs_restart.join(", "), "a change of these keys needs a restart");
                }
                view.needs_restart = needs_restart;
            }
            Err(error) => {
                let told = tell(&error);
                if view.error.as_ref() != Some(&told) {
                    tracing::error!(error = told, "the configuration stays as it was");
                    self.metrics.add("kairos_config_rejected_total", 1);
                    view.error = Some(told);
                }
            }
        }
    }

    fn read_key(&self, path: &Path) {
        let read = read_key(path);
        let mut view = self.lock();
        match read {
            Ok(key) => {
                view.key_error = None;
                if let Some(keys) = self.keys.load().rotated(key, Instant::now(), self.key_grace) {
                    self.keys.store(Arc::new(keys));
                    self.metrics.add("kairos_api_key_rotations_total", 1);
                    let grace = u64::try_from(self.key_grace.as_millis()).unwrap_or(u64::MAX);
                    tracing::info!(grace_ms = grace, "there is a new key; the one before is accepted for the grace");
                }
            }
            Err(error) => {
                let told = tell(&error);
                if view.key_error.as_ref() != Some(&told) {
                    tracing::error!(error = told, "the key stays as it was");
                    view.key_error = Some(told);
                }
            }
        }
    }
}

/// The keys outside the live part that differ from those at the start.
fn waiting(at_start: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let names: BTreeSet<&String> = at_start.keys().chain(now.keys()).collect();
    let differs = |name: &&String| !LIVE.contains(&name.as_str()) && at_start.get(*name) != now.get(*name);
    names.into_iter().filter(differs).cloned().collect()
}

/// An error without the lines of the file, which may have a secret in them.
fn tell(error: &ConfigError) -> String {
    match error {
        ConfigError::Parse { source, .. } => format!("{error}: {}", source.message()),
        _ => chain(error),
    }
}

/// Follows the files for as long as the process lives.
pub(crate) async fn follow(app: Arc<App>) {
    let reload = &app.reload;
    let files: Vec<&Path> = reload.sources.file.iter().chain(&reload.key_file).map(PathBuf::as_path).collect();
    if files.is_empty() {
        return std::future::pending().await;
    }
    // One place is enough: what happens while a change waits to be read is read with it.
    let (happened, mut changes) = mpsc::channel(1);
    let _watcher = match watch(&files, &happened) {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::error!(error = chain(&error), "changes of the configuration are not noticed");
            return std::future::pending().await;
        }
    };
    // What has changed before the watch began.
    let _ = happened.try_send(());
    loop {
        // The sender lives as long as this function.
        let _ = changes.recv().await;
        for _ in 0..EVENTS {
            if tokio::time::timeout(QUIET, changes.recv()).await.is_err() {
                break;
            }
        }
        tokio::task::block_in_place(|| reload.read());
    }
}

/// Tells of anything that happens in the directories of `files`.
fn watch(files: &[&Path], happened: &mpsc::Sender<()>) -> notify::Result<Box<dyn Watcher + Send>> {
    let tell = |happened: &mpsc::Sender<()>| {
        let happened = happened.clone();
        // A full channel has a change that is not read yet. An access is none, and reading a file is one.
        move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                let _ = happened.try_send(());
            }
        }
    };
    let polling = || {
        let config = notify::Config::default().with_poll_interval(POLL).with_compare_contents(true);
        PollWatcher::new(tell(happened), config).map(|watcher| Box::new(watcher) as Box<dyn Watcher + Send>)
    };
    let mut watcher = match RecommendedWatcher::new(tell(happened), notify::Config::default()) {
        Ok(watcher) => Box::new(watcher) as Box<dyn Watcher + Send>,
        // The system's watches are few and shared by all processes of a user.
        Err(_) => polling()?,
    };
    for file in files {
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_outside_the_live_part_wait_for_a_restart() {
        let values = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let before = values(&[("PORT", "1"), ("SEED", "2"), ("ENABLE_TRADING", "true")]);
        let after = values(&[("PORT", "1"), ("TICK_MS", "5"), ("ENABLE_TRADING", "false"), ("LOG_LEVEL", "warn")]);
        assert_eq!(waiting(&before, &after), ["SEED", "TICK_MS"]);
        assert!(waiting(&before, &before).is_empty());
    }
}
