//! A test executable that is its own harness: scenarios by name, several at a time, each within its time.

#![expect(clippy::disallowed_macros, reason = "this is what prints the verdicts")]

use std::{process::ExitCode, sync::Mutex};

/// A scenario with its name.
pub(crate) type Named = (&'static str, crate::world::Scenario);

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        /// Every scenario with its name.
        pub(crate) fn all() -> Vec<crate::harness::Named> {
            vec![$((stringify!($name), |world| Box::pin($name(world)))),*]
        }
    };
}
pub(crate) use scenarios;

/// Those scenarios that the arguments ask for: all, or those with one of the words in their names. For `--list` they are
/// listed, and none is wanted.
pub(crate) fn wanted(all: Vec<Named>, args: &[String]) -> Option<Vec<Named>> {
    if args.iter().any(|a| a == "--list") {
        for (name, _) in &all {
            println!("{name}: test");
        }
        return None;
    }
    let filters: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let wanted = all.into_iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(*f)));
    Some(wanted.collect())
}

/// Plays scenarios, so many at a time.
pub(crate) fn play(scenarios: Vec<Named>, at_once: usize) -> ExitCode {
    let (queue, failed) = (Mutex::new(scenarios), Mutex::new(false));
    let work = || {
        while let Some((name, scenario)) = { queue.lock().unwrap().pop() } {
            match crate::world::run(scenario) {
                Ok(()) => println!("test {name} ... ok"),
                Err(reason) => {
                    println!("test {name} ... FAILED\n{reason}");
                    *failed.lock().unwrap() = true;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(work);
        }
    });
    if *failed.lock().unwrap() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
