//! Reading `/proc`: who is there, whose child, which group, since when, with which marker.
//!
//! A snapshot is never exact: processes come and go while it is read. Callers repeat it until it is empty.

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::cmd::TREE_VARIABLE;

/// What `/proc/PID/stat` says of a process, as far as we care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    /// In clock ticks since boot. With the pid it identifies a process until the next boot.
    pub(crate) start_time: u64,
    /// On its way out: it runs no more code of its own and has closed, or is about to close, what it had open.
    pub(crate) exiting: bool,
    /// Ended, but not yet waited for.
    pub(crate) zombie: bool,
}

/// The kernel's flag of a process that has begun to exit (`PF_EXITING` among the flags of `/proc/PID/stat`).
const EXITING: u64 = 0x4;

/// Reads one process; nothing when it is gone.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(line: &str) -> Option<Stat> {
    // The name stands in parentheses and may itself hold spaces and parentheses: what counts is the last one.
    let (pid, _) = line.split_once(' ')?;
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        pid: pid.parse().ok()?,
        zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        exiting: fields.get(6)?.parse::<u64>().ok()? & EXITING != 0,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

/// All processes we can see.
pub(crate) fn all() -> HashMap<i32, Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?)))
        .collect()
}

/// What a process's environment says about its tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Marker {
    /// It belongs to the tree of this name.
    Named(String),
    /// Its environment names none.
    None,
    /// Its environment cannot be read: it is gone, ended, or another user's.
    Unreadable,
}

pub(crate) fn marker(pid: i32) -> Marker {
    match fs::read(format!("/proc/{pid}/environ")) {
        Ok(environ) if !environ.is_empty() => find_marker(&environ),
        _ => Marker::Unreadable,
    }
}

fn find_marker(environ: &[u8]) -> Marker {
    let value = environ
        .split(|byte| *byte == 0)
        .find_map(|variable| variable.strip_prefix(TREE_VARIABLE.as_bytes())?.strip_prefix(b"="));
    value.map_or(Marker::None, |value| Marker::Named(String::from_utf8_lossy(value).into_owned()))
}

impl Marker {
    /// Whether this is the tree `wanted`, or one inside it; `wanted` may itself lie inside another, whose name nobody
    /// here knows: whoever asks may run in a command of somebody else.
    pub(crate) fn is_in(&self, wanted: &str) -> bool {
        matches!(self, Self::Named(name) if format!("/{name}/").contains(&format!("/{wanted}/")))
    }
}

/// The children of this process's main thread: its own, and every orphan of a subreaper.
///
/// The kernel gives orphans to the first living thread of the subreaper, which is the main thread; children that other
/// threads started are listed with those. So one small file answers "did anything escape?". Nothing is answered by a
/// kernel built without that file.
pub(crate) fn adopted_children() -> Option<Vec<i32>> {
    let own = std::process::id();
    let listed = fs::read_to_string(format!("/proc/self/task/{own}/children")).ok()?;
    Some(listed.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

/// Sends a signal to exactly the process `wanted` describes, never to a later one with its pid.
pub(crate) fn signal(wanted: &Stat, signal: Signal) {
    let Some(handle) = open(wanted) else { return };
    // It may have ended since, or be another user's: both show in the next snapshot.
    let _ = pidfd_send_signal(handle, signal);
}

/// Opens a handle to exactly the process `wanted` describes.
pub(crate) fn open(wanted: &Stat) -> Option<OwnedFd> {
    // First the handle, then the look: what the look sees is what the handle holds, or the handle's process is gone.
    let handle = pidfd_open(Pid::from_raw(wanted.pid)?, PidfdFlags::empty()).ok()?;
    (stat(wanted.pid)?.start_time == wanted.start_time).then_some(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_confuse_the_fields() {
        let line = "42 (a) Z (b c) S 7 40 39 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2 3";
        let expected = Stat { pid: 42, parent: 7, group: 40, start_time: 98_765, exiting: false, zombie: false };
        assert_eq!(parse_stat(line), Some(expected));
        let leaving = line.replace("4194304", "4194308");
        assert_eq!(parse_stat(&leaving), Some(Stat { exiting: true, ..expected }));
        assert_eq!(parse_stat("42 (a"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn this_process_is_in_the_table() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(all()[&own].start_time, stat(own).unwrap().start_time);
    }

    #[test]
    fn a_marker_covers_itself_and_what_is_inside_but_not_its_longer_sibling() {
        let marker = find_marker(b"A=1\0PLIMSOLL_TREE=run/1/step\0B=2\0");
        assert!(marker.is_in("run/1") && marker.is_in("run/1/step") && marker.is_in("run"));
        assert!(!marker.is_in("run/1/s") && !marker.is_in("ru") && !marker.is_in("run/1/step/x"));
        let inside = find_marker(b"PLIMSOLL_TREE=outer/run/1/step\0");
        assert!(inside.is_in("run/1") && inside.is_in("outer") && !inside.is_in("un/1"));
        assert_eq!(find_marker(b"XPLIMSOLL_TREE=a\0"), Marker::None);
    }
}
