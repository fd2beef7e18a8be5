//! The risk manager's command line: the service itself, and work on its state that needs no running service.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::config::{Config, ConfigError, Service};
use crate::ledger::{self, BackupError, Ledger, Schema};
use crate::server::{RunError, chain, run};

/// Decides orders and keeps them. Without a command it serves, as its variables say.
#[derive(Debug, Parser)]
#[command(name = "risk-manager", version)]
struct Line {
    #[command(subcommand)]
    command: Option<Command>,
}

/// Each reads `STATE_DIR`, from the environment or the file `KAIROS_CONFIG` names, and prints one JSON object.
#[derive(Debug, Subcommand)]
enum Command {
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

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The service did.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The line cannot be read, or help was asked for.
    #[error(transparent)]
    Line(#[from] clap::Error),
    /// The configuration has no state, or cannot be read: exit code 2.
    #[error("cannot find the state")]
    Config(#[from] ConfigError),
    /// Exit code 1.
    #[error("cannot {action}")]
    State {
        /// What was to be done.
        action: String,
        /// Why it was not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl CommandError {
    /// 0 when help was asked for, 2 for the line and the configuration, what a service has, else 1.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Run(error) => error.exit_code(),
            Self::Line(error) if !error.use_stderr() => ExitCode::SUCCESS,
            Self::Line(_) | Self::Config(_) => ExitCode::from(2),
            Self::State { .. } => ExitCode::FAILURE,
        }
    }

    /// The message with its causes, for people.
    pub fn report(&self) -> String {
        chain(self)
    }
}

/// Does what the process's arguments say. What is returned is to be printed.
pub fn risk_manager() -> Result<Option<String>, CommandError> {
    let line = Line::try_parse()?;
    let Some(command) = line.command else { return Ok(run(Service::RiskManager).map(|()| None)?) };
    Ok(Some(command.run()?.to_string()))
}

impl Command {
    fn run(self) -> Result<Value, CommandError> {
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
