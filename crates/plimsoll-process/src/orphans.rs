//! This process as a child subreaper: which children are its own, and reaping those it inherited.
//!
//! Orphaned descendants become our children instead of init's. They would stay as zombies, so they are waited for here, each
//! by its pid: a wait for "any child" would take the exit codes away from those who wait for their own.

use std::collections::HashSet;
use std::io;
use std::sync::{LazyLock, Mutex, MutexGuard, Once, PoisonError, RwLock};

use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, waitpid};

use crate::proc_table::{self, Marker, Stat};

#[derive(Default)]
struct Own {
    /// Children that someone waits for.
    pids: HashSet<i32>,
    /// Commands between just before their start and the end of their tree.
    commands: usize,
    /// Whether a child was started that outlives its command: its descendants are not ours to judge.
    detached: bool,
}

static OWN: LazyLock<Mutex<Own>> = LazyLock::new(Mutex::default);

/// Read-held from before a child starts until its pid is in [`OWN`]; write-held while a zombie is reaped. So no child
/// of ours is ever taken for an orphan, and starting in parallel stays parallel.
static STARTING: RwLock<()> = RwLock::new(());

fn own() -> MutexGuard<'static, Own> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A command's place among those that run; dropped when its tree is gone.
#[derive(Debug)]
pub(crate) struct Place {
    pid: Option<i32>,
}

impl Place {
    /// Starts a command's child and notes its pid.
    pub(crate) fn start<T>(spawn: impl FnOnce() -> io::Result<(T, i32)>) -> io::Result<(T, Self)> {
        become_subreaper();
        own().commands += 1;
        let mut place = Self { pid: None };
        let _starting = STARTING.read().unwrap_or_else(PoisonError::into_inner);
        let (child, pid) = spawn()?;
        own().pids.insert(pid);
        place.pid = Some(pid);
        Ok((child, place))
    }

    /// Says that the child was waited for: its pid may now be another's.
    pub(crate) fn reaped(&mut self) {
        if let Some(pid) = self.pid.take() {
            own().pids.remove(&pid);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.reaped();
        own().commands -= 1;
    }
}

/// Starts a child that outlives its command and notes its pid until [`forget`].
pub(crate) fn start_detached<T>(spawn: impl FnOnce() -> io::Result<(T, i32)>) -> io::Result<T> {
    become_subreaper();
    own().detached = true;
    let _starting = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    let (child, pid) = spawn()?;
    own().pids.insert(pid);
    Ok(child)
}

/// Says that a detached child was waited for.
pub(crate) fn forget(pid: i32) {
    own().pids.remove(&pid);
}

fn become_subreaper() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Where the kernel refuses (a seccomp filter), escaped orphans are still found by their marker; only zombies are init's then.
        if let Err(error) = set_child_subreaper(Some(getpid())) {
            tracing::debug!(%error, "not a child subreaper: orphans are found by their marker alone");
        }
    });
}

/// The orphans we inherited that still run. Those that ended are reaped on the way.
pub(crate) fn inherited() -> Vec<Stat> {
    let Some(children) = proc_table::adopted_children() else { return Vec::new() };
    let strangers: Vec<i32> = {
        let own = own();
        children.into_iter().filter(|pid| !own.pids.contains(pid)).collect()
    };
    if strangers.is_empty() {
        return Vec::new();
    }
    // A child that other code in this process started is in our own group; nothing that began as a `Cmd` is.
    let own_group = rustix::process::getpgrp().as_raw_nonzero().get();
    let mut running = Vec::new();
    for found in strangers.into_iter().filter_map(proc_table::stat).filter(|stat| stat.group != own_group) {
        if found.zombie { reap(found.pid) } else { running.push(found) }
    }
    running
}

fn reap(pid: i32) {
    let _nobody_starts = STARTING.write().unwrap_or_else(PoisonError::into_inner);
    if own().pids.contains(&pid) {
        return;
    }
    // An error means that another thread reaped it first.
    let _ = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
}

/// Whether an orphan without a marker can only come from the one command that runs.
///
/// A descendant that cleared its environment and was orphaned cannot be told from another command's; with one command
/// running there is no other. With several, the last one to end takes it along.
pub(crate) fn is_stray(found: &Stat) -> bool {
    let only_one = {
        let own = own();
        own.commands == 1 && !own.detached
    };
    only_one && proc_table::marker(found.pid) == Marker::None
}
