//! The command line of every executable: without a command it serves; commands are for where there is no shell and no curl.
//!
//! What a command does lives elsewhere; here lines are read and results printed.

#![expect(clippy::disallowed_macros, reason = "a command prints its result, and a service why it cannot start")]

use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{ConfigError, Service};
use crate::health::{self, Unhealthy, Url};
use crate::maintenance;
use crate::server::{RunError, chain, run};

/// Without a command the service serves, as its variables say.
#[derive(Debug, Parser)]
#[command(version)]
struct Line<C: Subcommand> {
    #[command(subcommand)]
    command: Option<C>,
}

/// Commands of every service.
#[derive(Debug, Subcommand)]
enum Common {
    Health(Health),
}

/// Commands of the risk manager, which has a state to care for.
#[derive(Debug, Subcommand)]
enum Risk {
    Health(Health),
    #[command(flatten)]
    State(maintenance::Command),
}

/// Exit with 0 if a GET of each URL is answered with 200 within a second, else with 1 and the reasons.
#[derive(Debug, Args)]
struct Health {
    /// Such as <http://127.0.0.1:8080/health>.
    #[arg(required = true, num_args = 1..=16, value_name = "URL", value_parser = Url::parse)]
    urls: Vec<Url>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The service did.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The configuration has no state, or cannot be read: exit code 2.
    #[error("cannot find the state")]
    Config(#[from] ConfigError),
    /// Exit code 1.
    #[error("cannot {action}")]
    State {
        action: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Exit code 1.
    #[error(transparent)]
    Health(#[from] Unhealthy),
}

impl CommandError {
    /// 2 for the configuration, what a service has, else 1.
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Run(error) => error.exit_code(),
            Self::Config(_) => ExitCode::from(2),
            Self::State { .. } | Self::Health(_) => ExitCode::FAILURE,
        }
    }
}

/// All that the executable of `service` does.
pub fn main(service: Service) -> ExitCode {
    let done = match service {
        Service::RiskManager => read(service).map(|line: Line<Risk>| match line.command {
            None => serve(service),
            Some(Risk::Health(health)) => health.ask(),
            Some(Risk::State(command)) => command.run().map(|result| result.map(|value| value.to_string())),
        }),
        _ => read(service).map(|line: Line<Common>| match line.command {
            None => serve(service),
            Some(Common::Health(health)) => health.ask(),
        }),
    };
    match done {
        Ok(Ok(text)) => {
            if let Some(text) = text {
                println!("{text}");
            }
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => {
            eprintln!("{}", chain(&error));
            error.exit_code()
        }
        Err(line) => {
            // Where it goes and how it looks depends on what it is; there is nobody to tell that it was not printed.
            let _ = line.print();
            if line.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
        }
    }
}

/// Reads the process's arguments. An error may be the help that was asked for.
fn read<C: Subcommand>(service: Service) -> Result<Line<C>, clap::Error> {
    let mut command = Line::<C>::command().name(service.name());
    let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Line::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

fn serve(service: Service) -> Result<Option<String>, CommandError> {
    run(service)?;
    Ok(None)
}

impl Health {
    fn ask(self) -> Result<Option<String>, CommandError> {
        health::ask(&self.urls)?;
        Ok(None)
    }
}
