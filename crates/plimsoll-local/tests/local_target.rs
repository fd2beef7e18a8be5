//! The local target with real processes: this executable is the tests, and in other roles the supervisor, the proxy, the
//! registry and the services under test.

#[path = "local_target/canary.rs"]
mod canary;
#[path = "support/conformance.rs"]
mod conformance;
#[path = "local_target/copying.rs"]
mod copying;
#[path = "local_target/faults.rs"]
mod faults;
#[path = "support/harness.rs"]
mod harness;
#[path = "local_target/load.rs"]
mod load;
#[path = "local_target/roles.rs"]
mod roles;
#[path = "local_target/scenarios.rs"]
mod scenarios;
#[path = "local_target/target.rs"]
mod target;
#[path = "support/world.rs"]
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(role) = args.first().and_then(|a| a.strip_prefix("role:")) {
        return roles::play(role, &args[1..]);
    }
    let all = [scenarios::all(), faults::all(), canary::all(), copying::all()].concat();
    // Each has some ten processes; three at a time keep a small machine busy, and not more.
    harness::wanted(all, &args).map_or(ExitCode::SUCCESS, |wanted| harness::play(wanted, 3))
}
