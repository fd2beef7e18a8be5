//! The docker target with a real engine: this executable is the tests, and in other roles the supervisor and the proxy. What
//! runs in the containers is `docker_target/service.rs`; what came of it is asked of the `docker` command and of wrk.

#![expect(clippy::disallowed_macros, reason = "this test is its own harness")]

#[path = "docker_target/conformance.rs"]
mod conformance;
#[path = "docker_target/engine.rs"]
mod engine;
#[path = "docker_target/faults.rs"]
mod faults;
#[path = "docker_target/images.rs"]
mod images;
#[path = "docker_target/roles.rs"]
mod roles;
#[path = "docker_target/scenarios.rs"]
mod scenarios;
#[expect(dead_code, reason = "compiled by itself for the containers, and here for the lints")]
#[path = "docker_target/service.rs"]
mod service;
#[path = "docker_target/world.rs"]
mod world;

use std::{process::ExitCode, sync::Mutex};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(role) = args.first().and_then(|a| a.strip_prefix("role:")) {
        return roles::play(role, &args[1..]);
    }
    let all: Vec<_> = scenarios::all().into_iter().chain(faults::all()).collect();
    if args.iter().any(|a| a == "--list") {
        for (name, _) in &all {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let wanted = all.into_iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(*f)));
    let wanted: Vec<_> = wanted.collect();
    if let Err(reason) = engine::answers() {
        println!("skipped: {} tests of the docker target: {reason}", wanted.len());
        // Where everything is to be tested, what is not is a failure.
        return if engine::is_ci() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let (queue, failed) = (Mutex::new(wanted), Mutex::new(Vec::new()));
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
    // The engine starts containers one after the other anyway.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    images::forget();
    if failed.lock().unwrap().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
