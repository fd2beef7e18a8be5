//! A person at a terminal: the command has a pseudo terminal for its three streams, and what is seen of it is what stands
//! on the screen, typed text included.

use crate::place::Ran;
use rustix::{
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use std::{
    fs::File,
    io::{Read as _, Write as _},
    num::NonZero,
    process::{Child, Command},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

/// The longest a command may draw nothing new: a build is waited for.
const SILENCE: Duration = Duration::from_mins(1);

/// So high that nothing is scrolled away.
const ROWS: NonZero<u16> = NonZero::new(400).unwrap();
/// As wide as the longest line.
const COLUMNS: NonZero<u16> = NonZero::new(200).unwrap();

/// A command at a terminal of its own.
pub(crate) struct Terminal {
    command: Child,
    keyboard: File,
    drawn: Receiver<Vec<u8>>,
    screen: vt100::Parser,
}

impl Terminal {
    pub(crate) fn start(mut command: Command) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let theirs = ioctl_tiocgptpeer(&ours, flags).unwrap();
        let size = Winsize { ws_row: ROWS.get(), ws_col: COLUMNS.get(), ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&theirs, size).unwrap();
        command.stdin(theirs.try_clone().unwrap()).stdout(theirs.try_clone().unwrap()).stderr(theirs);
        let child = command.env("TERM", "xterm").spawn().unwrap();
        // The terminal ends when nobody has it any more, so this process must not.
        drop(command);
        let keyboard = File::from(ours);
        let mut output = keyboard.try_clone().unwrap();
        let (tell, drawn) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                if tell.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { command: child, keyboard, drawn, screen: vt100::Parser::new(ROWS, COLUMNS, 0) }
    }

    /// What stands on the screen, row by row.
    fn screen(&self) -> String {
        let rows = self.screen.screen().rows(0, COLUMNS.get()).map(|row| row.trim_end().to_owned());
        rows.collect::<Vec<_>>().join("\n").trim_end().to_owned()
    }

    /// Takes what is drawn next; `false` once nobody has the terminal any more.
    fn look(&mut self) -> bool {
        match self.drawn.recv_timeout(SILENCE) {
            Ok(bytes) => self.screen.process(&bytes),
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => panic!("nothing is drawn any more on: {}", self.screen()),
        }
        true
    }

    /// Waits until this stands on the screen.
    pub(crate) fn sees(&mut self, part: &str) {
        while !self.screen().contains(part) {
            assert!(self.look(), "`{part}` does not stand on: {}", self.screen());
        }
    }

    /// Nothing is drawn over what stands there, for as long as a moving line takes to move several times.
    pub(crate) fn stands_still(&mut self) {
        if let Ok(bytes) = self.drawn.recv_timeout(Duration::from_millis(600)) {
            panic!("{:?} was drawn over: {}", String::from_utf8_lossy(&bytes), self.screen());
        }
    }

    pub(crate) fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// Waits for the end, of the command and of all that had its terminal.
    pub(crate) fn end(mut self) -> Ran {
        while self.look() {}
        let code = self.command.wait().unwrap().code().unwrap_or(-1);
        Ran { code, out: self.screen(), err: String::new() }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = self.command.kill();
        let _ = self.command.wait();
    }
}
