//! The risk manager's commands: work on its state that needs no running service.

use std::path::PathBuf;

use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::command::CommandError;
use crate::config::Config;
use crate::ledger::{self, BackupError, Ledger, Schema};

/// Each reads `STATE_DIR`, from the environment or the file `KAIROS_CONFIG` names, and prints one JSON object.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a snapshot of the orders into DIR, with a manifest. Orders go on meanwhile.
    Backup {
        /// Make DIR/orders-YYYYMMDDThhmmssZ, verify it, and then remove those there that are older than N days.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
        keep_days: Option<u32>,
        /// Absent, or empty; with --keep-days, where the backups are.
        dir: PathBuf,
    },
    /// Check the backup in DIR; without DIR, check the state itself.
    Verify {
        /// What `backup` wrote.
        dir: Option<PathBuf>,
    },
    /// Check the backup in DIR and put it into the state, which must have no orders.
    Restore {
        /// What `backup` wrote.
        dir: PathBuf,
    },
    /// Tell which versions can read the state: one whose own `schema` is at least `readable_from`.
    Compat,
    /// Drop what only the version before needs: it refuses the state from then on. There is no way back.
    Contract,
}

impl Command {
    /// Does it; what is returned is to be printed.
    pub(crate) fn run(self) -> Result<Value, CommandError> {
        let done = match &self {
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
            Self::Restore { dir } => {
                let state = Config::state_directory()?;
                // Also when the state is unusable, what is wrong with the backup is told first.
                let restored = ledger::verify(dir).and_then(|_| Ok(Ledger::open(Some(&state), Schema::NEWEST)?));
                restored.and_then(|ledger| ledger::restore(&ledger, dir)).map(|manifest| json!(manifest))
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
        done.map_err(|error| CommandError::State { action: self.action(), source: error.into() })
    }

    fn action(&self) -> String {
        match self {
            Self::Backup { dir, .. } => format!("back up the state into {}", dir.display()),
            Self::Verify { dir: Some(dir) } => format!("verify the backup {}", dir.display()),
            Self::Verify { dir: None } => "verify the state".to_owned(),
            Self::Restore { dir } => format!("restore the backup {}", dir.display()),
            Self::Compat => "tell who can read the state".to_owned(),
            Self::Contract => "contract the state".to_owned(),
        }
    }
}
