//! The `api-gateway` executable: everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    kairos::main(kairos::Service::ApiGateway)
}
