//! Children that outlive whoever started them: starting one, finding it again, watching and ending it.
//!
//! What identifies one is its pid *and* start time *and* the boot it was started in; signals go through a pidfd only. So a
//! process that got the same pid later is never signalled.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::cmd::Cmd;
use crate::error::ProcessError;
use crate::tree::{Leader, Tree};
use crate::{orphans, proc_table};

/// The identity of a started child, to be stored and found again by [`Detached::adopt`], also by another process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Detached {
    /// Its process id, which is also the id of its process group.
    pub pid: u32,
    /// When it was started, in clock ticks since boot.
    pub start_time: u64,
    /// The boot it was started in, as the kernel names it.
    pub boot_id: String,
    /// What its descendants carry in [`crate::TREE_VARIABLE`].
    pub marker: String,
}

/// How a watched process ended, as far as that could be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitSeen {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It ended, and its exit code went to another process: it was not our child.
    Unobserved,
}

/// Starts a child that outlives this process, in a process group of its own.
///
/// Its output goes to the files; its standard input is `stdin`, else empty. Of `cmd`, the timeout, grace, standard input,
/// limits and redactor are not used: nothing stands between the child and its files.
pub fn spawn_detached(
    cmd: &Cmd,
    stdout_file: File,
    stderr_file: File,
    stdin: Option<OwnedFd>,
) -> Result<Detached, ProcessError> {
    let marker = cmd.unique_marker();
    let mut command = cmd.command(&marker)?;
    command.stdout(stdout_file).stderr(stderr_file);
    if let Some(stdin) = stdin {
        command.stdin(stdin);
    }
    let started = orphans::start_detached(|| {
        let pid = command.spawn()?.id();
        Ok((pid, pid.cast_signed()))
    });
    let pid = started.map_err(|source| cmd.spawn_error(source))?;
    // Our child, not waited for: even when it has ended by now, its entry is there.
    let stat = proc_table::stat(pid.cast_signed());
    let boot_id = boot_id();
    match (stat, boot_id) {
        (Some(stat), Ok(boot_id)) => Ok(Detached { pid, start_time: stat.start_time, boot_id, marker }),
        (_, fault) => {
            let source = fault.err().unwrap_or_else(|| io::Error::other("the process is not in /proc"));
            Err(ProcessError::Io { program: cmd.program_name(), action: "read the identity", source })
        }
    }
}

fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

impl Detached {
    /// The process, when it still is the one that was started; nothing when it is gone, whoever has its pid now.
    ///
    /// A child of this process that ended but was not waited for is still there: its exit can be seen.
    pub fn adopt(&self) -> Option<Adopted> {
        if boot_id().ok()? != self.boot_id {
            return None;
        }
        let pid = Pid::from_raw(self.pid.cast_signed())?;
        // First the handle, then the look: what the look sees is what the handle holds.
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let stat = proc_table::stat(self.pid.cast_signed())?;
        let same = stat.start_time == self.start_time;
        same.then(|| Adopted { identity: self.clone(), handle, seen: OnceLock::new() })
    }
}

/// A running process that was identified, held by a pidfd.
#[derive(Debug)]
pub struct Adopted {
    identity: Detached,
    handle: OwnedFd,
    seen: OnceLock<ExitSeen>,
}

impl Adopted {
    /// Who it is.
    pub fn identity(&self) -> &Detached {
        &self.identity
    }

    /// Waits until it has ended. May be asked again, and answers the same.
    ///
    /// Needs a tokio runtime with I/O. A child of this process is a zombie until this was called.
    pub async fn wait_exit(&self) -> io::Result<ExitSeen> {
        if let Some(seen) = self.seen.get() {
            return Ok(*seen);
        }
        #[expect(
            deprecated,
            reason = "unsound only for an `AsRawFd` that may close or change its descriptor; this one is borrowed from an \
                      `OwnedFd` that outlives the wait, and the replacement is an unsafe function"
        )]
        let watched = AsyncFd::with_interest(self.handle.as_fd(), Interest::READABLE)?;
        // A pidfd is readable when its process has ended, and stays so.
        let _ = watched.readable().await?;
        Ok(*self.seen.get_or_init(|| self.collect()))
    }

    fn collect(&self) -> ExitSeen {
        let status = waitid(WaitId::PidFd(self.handle.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        let Ok(Some(status)) = status else { return ExitSeen::Unobserved };
        orphans::forget(self.identity.pid.cast_signed());
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ExitSeen::Code(code),
            (None, Some(signal)) => ExitSeen::Signal(signal),
            (None, None) => ExitSeen::Unobserved,
        }
    }

    /// Sends a signal to this process alone; the system's `ESRCH` when it has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.handle, signal)?)
    }

    /// Ends it and all its descendants: SIGTERM, `grace`, SIGKILL. Returns when none is left, with how it ended.
    pub async fn kill_tree(&self, grace: Duration) -> Result<ExitSeen, ProcessError> {
        let Detached { pid, start_time, ref marker, .. } = self.identity;
        let leader = Leader::Since(start_time);
        let tree = Tree { group: pid.cast_signed(), marker: marker.clone(), leader, takes_strays: false };
        let ended = tree.end(grace).await;
        let program = format!("process {pid}");
        if !ended.survivors.is_empty() {
            return Err(ProcessError::Survivors { program, pids: ended.survivors });
        }
        let seen = self.wait_exit().await;
        seen.map_err(|source| ProcessError::Io { program, action: "wait for the end", source })
    }
}
