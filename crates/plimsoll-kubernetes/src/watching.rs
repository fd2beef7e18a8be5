//! Hearing of changes: a watch of the environment's pods, so that nobody has to look all the time.
//!
//! It tells that something changed, not what: whoever hears it looks. Lost events cost time and nothing else.

use crate::{cluster::Cluster, names};
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    runtime::{WatchStreamExt as _, watcher},
};
use plimsoll_core::EnvironmentName;
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle};

/// Without an event somebody looks after so many pauses all the same: what is no pod changes too.
const PATIENCE: u32 = 5;

/// A watch that begins when somebody first waits, and ends with this value.
pub(crate) struct Watching {
    labels: String,
    running: Mutex<Option<Running>>,
}

struct Running {
    changes: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watching {
    pub(crate) fn new(environment: &EnvironmentName) -> Self {
        Self { labels: names::of_environment(environment), running: Mutex::default() }
    }

    /// Returns when a pod changed, at least `pause` after the call and at most [`PATIENCE`] pauses after it.
    pub(crate) async fn changed(&self, cluster: &Cluster, pause: Duration) {
        let mut changes = self.changes(cluster);
        changes.mark_unchanged();
        // Pods change in bursts; one look answers for all of a pause.
        tokio::time::sleep(pause).await;
        let _ = tokio::time::timeout(pause * (PATIENCE - 1), changes.changed()).await;
    }

    fn changes(&self, cluster: &Cluster) -> watch::Receiver<u64> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get_or_insert_with(|| self.start(cluster.api())).changes.clone()
    }

    fn start(&self, api: Api<Pod>) -> Running {
        let (tell, changes) = watch::channel(0_u64);
        let config = watcher::Config::default().labels(&self.labels);
        let mut events = watcher(api, config).default_backoff().boxed();
        // Ends with `Running`; the stream itself lists anew after a 410 and backs off after an error.
        let task = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                if let Err(error) = event {
                    tracing::debug!(%error, "the watch of pods was interrupted");
                }
                tell.send_modify(|count| *count += 1);
            }
        });
        Running { changes, task }
    }
}
