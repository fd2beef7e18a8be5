//! The docker target with a real engine: this executable is the tests, and in other roles the supervisor and the proxy. What
//! runs in the containers is `docker_target/service.rs`; what came of it is asked of the `docker` command and of wrk.

#![expect(clippy::disallowed_macros, reason = "this test is its own harness")]

#[path = "../../plimsoll-local/tests/support/conformance.rs"]
mod conformance;
#[path = "docker_target/engine.rs"]
mod engine;
#[path = "docker_target/faults.rs"]
mod faults;
#[path = "../../plimsoll-local/tests/support/harness.rs"]
mod harness;
#[path = "docker_target/images.rs"]
mod images;
#[path = "docker_target/roles.rs"]
mod roles;
#[path = "docker_target/scenarios.rs"]
mod scenarios;
#[expect(dead_code, reason = "compiled by itself for the containers, and here for the lints")]
#[path = "docker_target/service.rs"]
mod service;
#[path = "docker_target/target.rs"]
mod target;
#[path = "../../plimsoll-local/tests/support/world.rs"]
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(role) = args.first().and_then(|a| a.strip_prefix("role:")) {
        return roles::play(role, &args[1..]);
    }
    let all = [scenarios::all(), faults::all()].concat();
    let Some(wanted) = harness::wanted(all, &args) else { return ExitCode::SUCCESS };
    if let Err(reason) = engine::answers() {
        println!("skipped: {} tests of the docker target: {reason}", wanted.len());
        // Where everything is to be tested, what is not is a failure.
        return if engine::is_ci() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    // The engine starts containers one after the other anyway.
    let verdict = harness::play(wanted, 2);
    images::forget();
    verdict
}
