//! Ten thousand steps, for measuring what the engine adds to the work: `many_steps DIR true 10000` starts `true` in each,
//! `many_steps DIR idle 10000` does nothing in each; a second run in the same DIR finds all of them cached.

#![expect(clippy::disallowed_macros, reason = "the figures are the result")]

use plimsoll_core::{RunId, Timestamp};
use plimsoll_engine::{
    Cx, Pure, Reads, Resources, Setup, Silent, Start, StateDir, Step, StepError, pipeline, system_clock,
};
use plimsoll_process::{Cancel, Cmd, Environment};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

/// Starts `true`, or nothing.
#[derive(serde::Serialize)]
struct Small {
    number: usize,
    command: bool,
}

impl Step for Small {
    const NAME: &'static str = "small";
    const VERSION: u32 = 1;
    type In = ();
    type Out = usize;
}

impl Pure for Small {
    fn reads(&self, _: &Cx) -> Result<Reads, StepError> {
        Ok(Reads::nothing())
    }

    async fn run(&self, cx: &Cx, (): ()) -> Result<usize, StepError> {
        if self.command {
            cx.command(Cmd::new("true").inherit_base(cx.environment())).await?.check()?;
        }
        Ok(self.number)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, dir, mode, count] = &arguments[..] else { return Err("usage: many_steps DIR true|idle COUNT".into()) };
    let (command, count, begun) = (mode == "true", count.parse()?, Instant::now());
    let pipeline = pipeline("many", |g| {
        for number in 0..count {
            g.pure(&number.to_string(), Small { number, command }, ());
        }
    });
    let setup = Setup {
        state: StateDir::new(Path::new(dir).join("state")),
        cache: Path::new(dir).join("cache"),
        root: PathBuf::from(dir),
        environment: Arc::new(Environment::capture()),
        resources: Resources::new(),
        observer: Arc::new(Silent),
        redactor: None,
        clock: system_clock(),
        jobs: std::thread::available_parallelism()?.get(),
        fail_fast: false,
        use_cache: true,
    };
    let now = std::time::SystemTime::now();
    let salt = u16::try_from(std::process::id() % 0x1_0000)?;
    let run = RunId::new(Timestamp::from(now), salt);
    let inputs = serde_json::Value::Null;
    let (actor, executable, engine) = ("example".to_owned(), "none".to_owned(), "0".to_owned());
    let start = Start { inputs, actor, executable, engine };
    let report = setup.start(&pipeline, &run, start, Cancel::new()).await?;
    assert_eq!(report.steps.len(), count);
    eprintln!("{} after {} ms", report.outcome.word(), begun.elapsed().as_millis());
    Ok(())
}
