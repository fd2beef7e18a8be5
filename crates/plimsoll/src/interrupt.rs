//! Ctrl-C and SIGTERM: the first stops the run in good order, the second ends the process.

#![expect(clippy::disallowed_methods, reason = "the second signal ends the process at once")]

use plimsoll_process::Cancel;
use tokio::signal::unix::{SignalKind, signal};

/// The exit code of a command that was interrupted: 128 and the number of SIGINT, as shells have it.
pub(crate) const INTERRUPTED: u8 = 130;

/// Cancels `cancel` at the first signal and exits at the second. Must be called within a runtime.
pub(crate) fn watch(cancel: Cancel) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers a signal ends the process at once; the journal is made for that.
        return;
    };
    tokio::spawn(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        cancel.cancel();
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        std::process::exit(i32::from(INTERRUPTED));
    });
}
