//! Logs: one line per event on standard output, and the time as they tell it.

#![expect(clippy::disallowed_methods, reason = "logs go to standard output")]

use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::config::LogFormat;

type SetLevel = Box<dyn Fn(&str) + Send + Sync>;

/// Sets the level of the lines that are written, once there are some.
static LEVEL: OnceLock<SetLevel> = OnceLock::new();

/// Sends the process's log lines of `level` and above to standard output. The first call in a process counts.
pub(crate) fn init(format: LogFormat, level: &str) {
    let lines = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(level)).with_writer(std::io::stdout);
    // A second subscriber would be refused, and so would its level; the first ones then go on as they are.
    match format {
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
            let lines = lines.with_filter_reloading();
            let filter = lines.reload_handle();
            let _ = LEVEL.set(Box::new(move |level| _ = filter.reload(EnvFilter::new(level))));
            let _ = lines.try_init();
        }
        LogFormat::Text => {
            let lines = lines.with_ansi(false).with_filter_reloading();
            let filter = lines.reload_handle();
            let _ = LEVEL.set(Box::new(move |level| _ = filter.reload(EnvFilter::new(level))));
            let _ = lines.try_init();
        }
    }
}

/// Writes lines of `level` and above from now on.
pub(crate) fn set_level(level: &str) {
    if let Some(set) = LEVEL.get() {
        set(level);
    }
}

/// The wall clock in the form of the log lines (RFC 3339, UTC).
pub(crate) fn now() -> String {
    let mut text = String::new();
    SystemTime.format_time(&mut Writer::new(&mut text)).expect("a string takes all that is written");
    text
}
