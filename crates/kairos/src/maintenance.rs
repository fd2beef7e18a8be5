//! The risk manager's commands: work on its state that needs no running service.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::command::CommandError;
use crate::config::Config;
use crate::ledger::{self, BackupError, Ledger, Manifest, Schema};

/// The name of a directory that stands for standard input or output.
const STREAM: &str = "-";

/// Each reads `STATE_DIR`, from the environment or the file `KAIROS_CONFIG` names, and prints one JSON object.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a snapshot of the orders into DIR, with a manifest. Orders go on meanwhile.
    Backup {
        /// Make DIR/orders-YYYYMMDDThhmmssZ, verify it, and then remove those there that are older than N days.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
        keep_days: Option<u32>,
        /// Absent, or empty; with --keep-days, where the backups are. `-` for a tar archive on standard output.
        dir: PathBuf,
    },
    /// Check the backup in DIR; without DIR, check the state itself.
    Verify {
        /// What `backup` wrote.
        dir: Option<PathBuf>,
    },
    /// Check the backup in DIR and put it into the state, which must have no orders.
    Restore {
        /// Put it in the place of whatever state there is, which is kept under another name. No service may be at work on it.
        #[arg(long)]
        replace: bool,
        /// What `backup` wrote. `-` for what `backup -` wrote, from standard input.
        dir: PathBuf,
    },
    /// Tell which versions can read the state: one whose own `schema` is at least `readable_from`.
    Compat,
    /// Drop what only the version before needs: it refuses the state from then on. There is no way back.
    Contract,
}

impl Command {
    /// Does it; what is returned is to be printed.
    pub(crate) fn run(self) -> Result<Option<Value>, CommandError> {
        let done = match &self {
            Self::Backup { keep_days: None, dir } if dir.as_os_str() == STREAM => {
                let state = Config::state_directory()?;
                let ledger = Ledger::existing(&state).map_err(BackupError::from);
                let sent = ledger.and_then(|ledger| stream(&ledger, &state));
                // What is printed beside it would be a part of it.
                return sent.map(|_| None).map_err(|error| self.failed(error));
            }
            Self::Backup { keep_days: Some(_), dir } if dir.as_os_str() == STREAM => Err(BackupError::Undated),
            Self::Backup { keep_days, dir } => {
                let ledger = Ledger::existing(&Config::state_directory()?).map_err(BackupError::from);
                ledger.and_then(|ledger| match *keep_days {
                    None => ledger::backup(&ledger, dir).map(|manifest| json!(manifest)),
                    Some(days) => ledger::backup_dated(&ledger, dir, days, Timestamp::now()).map(|done| json!(done)),
                })
            }
            Self::Verify { dir: Some(dir) } => ledger::verify(dir).map(|manifest| json!(manifest)),
            Self::Verify { dir: None } => {
                let ledger = Ledger::existing(&Config::state_directory()?);
                let counts = ledger.map_err(BackupError::from).and_then(|mut ledger| ledger::check_state(&mut ledger));
                counts.map(|counts| json!(counts))
            }
            Self::Restore { replace, dir } => {
                let state = Config::state_directory()?;
                put_back(&state, dir, *replace).map(|manifest| json!(manifest))
            }
            Self::Compat => {
                let ledger = Ledger::existing(&Config::state_directory()?);
                ledger.and_then(|ledger| ledger.compat()).map(|compat| json!(compat)).map_err(BackupError::from)
            }
            Self::Contract => {
                let ledger = Ledger::existing(&Config::state_directory()?);
                ledger.and_then(|ledger| ledger.contract()).map(|compat| json!(compat)).map_err(BackupError::from)
            }
        };
        done.map(Some).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: BackupError) -> CommandError {
        CommandError::State { action: self.action(), source: error.into() }
    }

    fn action(&self) -> String {
        match self {
            Self::Backup { dir, .. } => format!("back up the state into {}", dir.display()),
            Self::Verify { dir: Some(dir) } => format!("verify the backup {}", dir.display()),
            Self::Verify { dir: None } => "verify the state".to_owned(),
            Self::Restore { dir, .. } => format!("restore the backup {}", dir.display()),
            Self::Compat => "tell who can read the state".to_owned(),
            Self::Contract => "contract the state".to_owned(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the output of this command is the backup")]
fn stream(ledger: &Ledger, state: &Path) -> Result<Manifest, BackupError> {
    ledger::send(ledger, state, &mut std::io::stdout().lock())
}

/// Puts a backup into the state, or in its place.
fn put_back(state: &Path, from: &Path, replace: bool) -> Result<Manifest, BackupError> {
    let received =
        if from.as_os_str() == STREAM { Some(ledger::receive(std::io::stdin().lock(), state)?) } else { None };
    let from = received.as_ref().map_or(from, |received| received.path());
    if replace {
        return ledger::replace(state, from, Timestamp::now());
    }
    // Also when the state is unusable, what is wrong with the backup is told first.
    ledger::verify(from)?;
    ledger::restore(&Ledger::open(Some(state), Schema::NEWEST)?, from)
}
