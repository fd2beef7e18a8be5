//! The `risk-manager` executable: everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    match kairos::run(kairos::Service::RiskManager) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error.report());
            error.exit_code()
        }
    }
}
