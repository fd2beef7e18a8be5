//! Whose turn it is: of each pipeline with effects, one run at a time works on a state directory.
//!
//! A lock of the kernel on `STATE/turns/<pipeline>`, with its holder's name in the file. It is free as soon as its process
//! is gone; a run that parked holds none. Not the lock of an environment, which lies at the target and outlasts a process.

use crate::store::{StateDir, create_private, lock_now};
use plimsoll_core::{RunId, Timestamp};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    path::Path,
    time::Duration,
};

/// Who works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The run.
    pub run: RunId,
    /// Who started it or went on with it.
    pub actor: String,
    /// Its process.
    pub pid: u32,
    /// Since when.
    pub since: Timestamp,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run {} of {}, since {}, process {}", self.run, self.actor, self.since, self.pid)
    }
}

/// The right to work on a pipeline; given back when dropped, or when its process dies.
#[derive(Debug)]
pub(crate) struct Turn(#[expect(dead_code, reason = "the lock lasts as long as the file is open")] File);

/// Why it is somebody else's turn, or nobody can tell.
#[derive(Debug)]
pub(crate) enum NoTurn {
    /// Another process works; its name is missing when it has not written it yet.
    Held(Option<Holder>),
    Io(io::Error),
}

impl From<io::Error> for NoTurn {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Takes the turn of `pipeline` for `holder`.
pub(crate) fn take(state: &StateDir, pipeline: &str, holder: &Holder) -> Result<Turn, NoTurn> {
    let turns = state.path().join("turns");
    create_private(&turns)?;
    let mut file = File::options().create(true).truncate(false).read(true).write(true).open(turns.join(pipeline))?;
    if !lock_now(&file)? {
        return Err(NoTurn::Held(name(&mut file)?));
    }
    file.set_len(0)?;
    file.write_all(&serde_json::to_vec(holder).map_err(io::Error::from)?)?;
    Ok(Turn(file))
}

/// The holder's name. It is written just after the lock was taken: for a moment there is none, or that of the one before.
fn name(file: &mut File) -> io::Result<Option<Holder>> {
    // A tenth of a second is long for one small write.
    for _ in 0..10 {
        let mut text = String::new();
        file.rewind()?;
        file.read_to_string(&mut text)?;
        let holder = serde_json::from_str::<Holder>(&text).ok();
        if let Some(holder) = holder.filter(|h| Path::new("/proc").join(h.pid.to_string()).exists()) {
            return Ok(Some(holder));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(n: u16) -> Holder {
        let at = Timestamp::from_millis(1_700_000_000_000);
        Holder { run: RunId::new(at, n), actor: "ann".to_owned(), pid: std::process::id(), since: at }
    }

    #[test]
    fn the_second_is_told_who_works_and_since_when_until_the_first_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("state"));
        let first = take(&state, "release", &holder(1)).unwrap();
        let Err(NoTurn::Held(Some(told))) = take(&state, "release", &holder(2)) else { panic!("two at once") };
        assert_eq!(told, holder(1));
        let text = format!("run 20231114-221320-0001 of ann, since 2023-11-14T22:13:20.000Z, process {}", told.pid);
        assert_eq!(told.to_string(), text);
        take(&state, "rollback", &holder(3)).unwrap();
        drop(first);
        take(&state, "release", &holder(2)).unwrap();
    }
}
