//! One command's process tree: finding all of it, and ending it.
//!
//! Three nets, because each has a hole. The process group misses who called `setsid`. The marker in the environment misses who
//! cleared it. The line of parents misses orphans, but those become children of this process (see `orphans`).
//!
//! Only who is looked for costs: a normal exit pays for one signal 0 to the group and one small file, never for reading
//! all of `/proc`. That happens on a timeout, a cancellation, or when those two show that something is left.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rustix::process::{Pid, Signal, test_kill_process_group};
use tokio::time::{Instant, sleep};

use crate::orphans;
use crate::proc_table::{self, Stat};

/// How a tree's group id can be trusted to still mean this tree.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Leader {
    /// Not waited for yet: the kernel cannot give its pid to another.
    Held,
    /// Waited for: a process with this pid would be another.
    Reaped,
    /// Somebody else's child, known by its start time.
    Since(u64),
    /// There is no group, only a marker.
    Unknown,
}

/// What belongs to one started command.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) group: i32,
    pub(crate) marker: String,
    pub(crate) leader: Leader,
    /// Whether this tree was started by a [`crate::Cmd`] that runs now and may own orphans without a marker.
    pub(crate) takes_strays: bool,
}

/// Between two looks while a tree is to end: short at first, most are gone at once.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// The longest pause: a look costs about a millisecond for some hundred processes.
const LONGEST_PAUSE: Duration = Duration::from_millis(25);
/// How often SIGKILL is repeated. A tree that forks faster than we look loses some at each round; what is there after
/// this many (about five seconds) hangs in the kernel, or is not ours to signal.
const KILL_ROUNDS: usize = 200;

impl Tree {
    /// Whether anything may be left, cheaply. Only after the leader was waited for.
    pub(crate) fn may_be_left(&self) -> bool {
        let inherited = orphans::inherited();
        let group = Pid::from_raw(self.group).map(test_kill_process_group);
        // Anything but "no such process" means that there is one.
        let group_lives = group.is_some_and(|answer| answer != Err(rustix::io::Errno::SRCH));
        group_lives || inherited.iter().any(|found| self.owns_orphan(found))
    }

    fn owns_orphan(&self, found: &Stat) -> bool {
        proc_table::marker(found.pid).is_in(&self.marker) || self.takes_strays && orphans::is_stray(found)
    }

    /// All living members.
    pub(crate) fn members(&self) -> Vec<Stat> {
        let orphans = orphans::inherited();
        let table = proc_table::all();
        let group_is_ours = self.group_is_ours(&table);
        let mut seeds: HashSet<i32> = table
            .values()
            .filter(|found| {
                group_is_ours && found.group == self.group || proc_table::marker(found.pid).is_in(&self.marker)
            })
            .map(|found| found.pid)
            .collect();
        if self.takes_strays {
            seeds.extend(orphans.iter().filter(|found| orphans::is_stray(found)).map(|found| found.pid));
        }
        with_descendants(&table, seeds)
    }

    fn group_is_ours(&self, table: &HashMap<i32, Stat>) -> bool {
        let leader = table.get(&self.group);
        match self.leader {
            Leader::Held => true,
            Leader::Reaped => leader.is_none(),
            Leader::Since(start_time) => leader.is_some_and(|found| found.start_time == start_time),
            Leader::Unknown => false,
        }
    }

    /// Ends the tree: SIGTERM, until `grace` is over, then SIGKILL until none is left. Returns who was there at first, and
    /// who could not be ended.
    pub(crate) async fn end(&self, grace: Duration) -> Ended {
        let mut members = self.members();
        // Who is exiting closed its pipes a moment ago and did all it had to do: it is waited for, and was not left behind.
        let found = pids(members.iter().filter(|member| !member.exiting));
        let deadline = Instant::now() + grace;
        let mut told: HashSet<(i32, u64)> = HashSet::new();
        let mut pause = FIRST_PAUSE;
        // Bounded by the grace.
        while !members.is_empty() && Instant::now() < deadline {
            for member in &members {
                // Once each: a second SIGTERM makes some programs skip their cleaning up.
                if told.insert((member.pid, member.start_time)) {
                    proc_table::signal(member, Signal::TERM);
                }
            }
            sleep(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            members = self.members();
        }
        pause = FIRST_PAUSE;
        for _ in 0..KILL_ROUNDS {
            if members.is_empty() {
                break;
            }
            kill(&members);
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            members = self.members();
        }
        Ended { found, survivors: pids(members.iter()) }
    }

    /// Ends the tree at once and without waiting: for when the future that would wait is dropped.
    pub(crate) fn kill_now(&self) {
        // A member may fork while the others are killed; whoever is born between two looks is seen by the next. Bounded, because
        // this blocks the thread: ten looks are about ten milliseconds.
        for _ in 0..10 {
            let members = self.members();
            if members.is_empty() {
                return;
            }
            kill(&members);
            std::thread::yield_now();
        }
    }
}

/// What [`Tree::end`] saw.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) found: Vec<u32>,
    pub(crate) survivors: Vec<u32>,
}

fn kill(members: &[Stat]) {
    for member in members {
        proc_table::signal(member, Signal::KILL);
    }
}

fn pids<'a>(members: impl Iterator<Item = &'a Stat>) -> Vec<u32> {
    let mut pids: Vec<u32> = members.map(|member| member.pid.unsigned_abs()).collect();
    pids.sort_unstable();
    pids
}

/// The seeds and all below them, without those that have ended and without this process.
fn with_descendants(table: &HashMap<i32, Stat>, mut inside: HashSet<i32>) -> Vec<Stat> {
    let own = std::process::id().cast_signed();
    inside.remove(&own);
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for found in table.values().filter(|found| found.pid != own) {
        children.entry(found.parent).or_default().push(found.pid);
    }
    let mut waiting: Vec<i32> = inside.iter().copied().collect();
    // Ends: each process enters `inside`, and so `waiting`, once.
    while let Some(pid) = waiting.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            if inside.insert(*child) {
                waiting.push(*child);
            }
        }
    }
    inside.iter().filter_map(|pid| table.get(pid)).filter(|found| !found.zombie).copied().collect()
}

/// Ends every process that carries `marker` (as given to [`crate::Cmd::marker`]), whoever started it, and returns their pids:
/// for what a crashed run left behind.
pub async fn end_marked(marker: &str, grace: Duration) -> Vec<u32> {
    let tree = Tree { group: 0, marker: marker.to_owned(), leader: Leader::Unknown, takes_strays: false };
    let ended = tree.end(grace).await;
    if !ended.survivors.is_empty() {
        tracing::warn!(marker, pids = ?ended.survivors, "processes outlived SIGKILL");
    }
    ended.found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(i32, i32)]) -> HashMap<i32, Stat> {
        let stat = |(pid, parent): &(i32, i32)| Stat {
            pid: *pid,
            parent: *parent,
            group: 1,
            start_time: 0,
            exiting: false,
            zombie: *pid == 99,
        };
        rows.iter().map(|row| (row.0, stat(row))).collect()
    }

    #[test]
    fn descendants_are_members_and_zombies_are_not() {
        let table = table(&[(10, 1), (11, 10), (12, 11), (99, 11), (20, 1), (21, 20)]);
        let members = with_descendants(&table, HashSet::from([10]));
        assert_eq!(pids(members.iter()), [10, 11, 12]);
    }

    #[test]
    fn a_group_whose_leader_is_another_process_now_is_not_ours() {
        let tree = |leader| Tree { group: 10, marker: "m".into(), leader, takes_strays: false };
        let reused = table(&[(10, 1)]);
        assert!(tree(Leader::Held).group_is_ours(&reused));
        assert!(!tree(Leader::Reaped).group_is_ours(&reused));
        assert!(!tree(Leader::Since(7)).group_is_ours(&reused));
        assert!(tree(Leader::Since(0)).group_is_ours(&reused));
        assert!(tree(Leader::Reaped).group_is_ours(&table(&[(11, 1)])));
    }
}
