//! The `strategy-orchestrator` executable: everything it does is in the library.

#![expect(clippy::disallowed_macros, reason = "a service that cannot start says why")]

use std::process::ExitCode;

fn main() -> ExitCode {
    match kairos::run(kairos::Service::StrategyOrchestrator) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error.report());
            error.exit_code()
        }
    }
}
