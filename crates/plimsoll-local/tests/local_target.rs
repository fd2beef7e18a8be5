//! The local target with real processes: this executable is the tests, and in other roles the supervisor, the proxy, the
//! registry and the services under test.

#![expect(clippy::disallowed_macros, reason = "this test is its own harness")]

#[path = "local_target/canary.rs"]
mod canary;
#[path = "local_target/conformance.rs"]
mod conformance;
#[path = "local_target/faults.rs"]
mod faults;
#[path = "local_target/load.rs"]
mod load;
#[path = "local_target/roles.rs"]
mod roles;
#[path = "local_target/scenarios.rs"]
mod scenarios;
#[path = "local_target/world.rs"]
mod world;

use std::{process::ExitCode, sync::Mutex};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(role) = args.first().and_then(|a| a.strip_prefix("role:")) {
        return roles::play(role, &args[1..]);
    }
    let all: Vec<_> = scenarios::all().into_iter().chain(faults::all()).chain(canary::all()).collect();
    if args.iter().any(|a| a == "--list") {
        for (name, _) in &all {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let wanted = all.into_iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(*f)));
    let queue = Mutex::new(wanted.collect::<Vec<_>>());
    let failed = Mutex::new(Vec::new());
    let work = || {
        while let Some((name, scenario)) = { queue.lock().unwrap().pop() } {
            match world::run(scenario) {
                Ok(()) => println!("test {name} ... ok"),
                Err(reason) => {
                    println!("test {name} ... FAILED\n{reason}");
                    failed.lock().unwrap().push(name);
                }
            }
        }
    };
    // Each has some ten processes; three at a time keep a small machine busy, and not more.
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(work);
        }
    });
    if failed.lock().unwrap().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
