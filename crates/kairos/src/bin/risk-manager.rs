//! The `risk-manager` executable: everything it does is in the library.

#![expect(clippy::disallowed_macros, reason = "a command prints its result, and why it has none")]

use std::process::ExitCode;

fn main() -> ExitCode {
    match kairos::risk_manager() {
        Ok(Some(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(kairos::CommandError::Line(error)) => {
            // Where it goes and how it looks depends on what it is; there is nobody to tell that it was not printed.
            let _ = error.print();
            kairos::CommandError::Line(error).exit_code()
        }
        Err(error) => {
            eprintln!("{}", error.report());
            error.exit_code()
        }
    }
}
