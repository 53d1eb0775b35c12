//! The terminal of whoever uses the program, lent to a command.

mod keys;

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic;
use std::sync::Arc;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde::Serialize;

use super::failure::Failure;
pub(crate) use keys::Keys;

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Size {
    pub(crate) rows: u16,
    pub(crate) cols: u16,
}

/// The size of a terminal that does not know its own, as a serial line.
const SIZE_DEFAULT: Size = Size { rows: 24, cols: 80 };

/// The size of the terminal on standard input, or `None` when there is no terminal.
pub(crate) fn size() -> Option<Size> {
    let size = tcgetwinsize(io::stdin()).ok()?;
    match (size.ws_row, size.ws_col) {
        (0, _) | (_, 0) => Some(SIZE_DEFAULT),
        (rows, cols) => Some(Size { rows, cols }),
    }
}

/// Refuses to go on where standard input is no terminal.
pub(crate) fn check(option: &str) -> Result<(), Failure> {
    if io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::Usage(format!("{option} needs a terminal on standard input; found none: leave it out, or use exec")))
}

/// The terminal in raw mode, in which every key is only a byte. Dropped, it is as it was before.
///
/// A panic restores it before it says anything. What cannot be caught, SIGKILL, leaves it raw.
pub(crate) struct RawMode {
    saved: Arc<Saved>,
}

/// A terminal and how it was.
struct Saved {
    terminal: OwnedFd,
    modes: Termios,
}

impl RawMode {
    /// Makes the terminal on standard input raw.
    pub(crate) fn enter() -> Result<RawMode, Failure> {
        RawMode::enter_on(io::stdin().as_fd()).map_err(|error| Failure::io("cannot set up the terminal", error))
    }

    fn enter_on(terminal: BorrowedFd<'_>) -> io::Result<RawMode> {
        let saved = Saved { terminal: terminal.try_clone_to_owned()?, modes: tcgetattr(terminal)? };
        let mut raw = saved.modes.clone();
        raw.make_raw();
        let raw_mode = RawMode { saved: Arc::new(saved) };
        let (saved, hook) = (Arc::clone(&raw_mode.saved), panic::take_hook());
        panic::set_hook(Box::new(move |panic| {
            saved.restore();
            hook(panic);
        }));
        tcsetattr(terminal, OptionalActions::Now, &raw)?;
        Ok(raw_mode)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        self.saved.restore();
    }
}

impl Saved {
    /// A terminal that has gone needs no restoring.
    fn restore(&self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.modes);
    }
}

impl std::fmt::Debug for RawMode {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("RawMode")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    use rustix::termios::LocalModes;

    use super::*;

    #[test]
    fn a_panic_finds_the_terminal_restored() {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let keyboard = openpt(flags).expect("a terminal");
        grantpt(&keyboard).and_then(|()| unlockpt(&keyboard)).expect("a terminal");
        let screen = Arc::new(ioctl_tiocgptpeer(&keyboard, flags).expect("a terminal"));
        let is_raw = |screen: &OwnedFd| {
            !tcgetattr(screen).expect("a terminal").local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
        };
        // What the hook of before sees is what a person would see of its message.
        let (seen, looked_at, first) = (Arc::new(AtomicBool::new(true)), Arc::clone(&screen), panic::take_hook());
        let see = Arc::clone(&seen);
        panic::set_hook(Box::new(move |_| see.store(is_raw(&looked_at), Ordering::Relaxed)));
        let terminal = Arc::clone(&screen);
        let panicked = std::thread::spawn(move || {
            let _raw = RawMode::enter_on(terminal.as_fd()).expect("a terminal");
            assert!(!is_raw(&terminal), "as asked: the terminal is raw");
        });
        assert!(panicked.join().is_err(), "the terminal was not raw");
        panic::set_hook(first);
        assert!(!seen.load(Ordering::Relaxed), "the terminal was raw when the panic was told");
        assert!(!is_raw(&screen), "the terminal was left raw");
    }
}
