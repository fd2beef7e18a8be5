//! The only place that starts commands: whole process trees, timeouts, streaming, redaction.
//!
//! A [`Cmd`] says what to start; [`run`] starts it and streams its lines to a [`LineSink`], [`output`] starts it
//! and collects what it prints, [`spawn_detached`] starts a long-lived child that outlives its parent. The
//! environment is cleared: a child sees what was passed on by name, and nothing else. When `run` or `output`
//! returns, for whatever reason, no descendant of the command is left.
//!
//! This crate is not a shell: it parses no command lines, expands nothing and builds no pipelines. It is not a
//! sandbox either: a descendant that changes its user, or has itself started by another service, is out of reach.
//!
//! ```
//! # use plimsoll_process::{Cancel, Cmd, Environment, output};
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let environment = Environment::capture();
//! let echo = Cmd::new("echo").arg("hello").inherit_base(&environment);
//! let printed = output(&echo, &Cancel::new()).await?;
//! assert_eq!(printed.stdout_text(), "hello\n");
//! # Ok::<(), plimsoll_process::ProcessError>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cancel;
mod cmd;
mod detached;
mod encodings;
mod environment;
mod error;
mod exit;
mod lines;
mod orphans;
mod proc_table;
mod redact;
mod replace;
mod run;
mod tree;

pub use cancel::Cancel;
pub use cmd::{Cmd, DEFAULT_GRACE, DEFAULT_OUTPUT_LIMIT, TREE_VARIABLE};
pub use detached::{Adopted, Detached, ExitSeen, spawn_detached};
pub use environment::{BASE_ENV, Environment, which};
pub use error::ProcessError;
pub use exit::{Exit, Output};
pub use lines::{LineSink, MAX_LINE, Stream};
pub use redact::{MASK, MIN_SECRET, RedactError, RedactingStream, Redactor};
pub use replace::replace_process;
pub use run::{output, run};
pub use rustix::process::Signal;
pub use tree::end_marked;
