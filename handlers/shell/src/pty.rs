//! A terminal for a command: what is typed, what is shown, its size, and who is in the foreground.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcgetpgrp, tcsetwinsize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::kernel;

/// What a person types to end the input (VEOF, termios(3)).
pub(crate) const END_OF_INPUT: u8 = 4;

/// The server's side of a terminal.
#[derive(Debug)]
pub(crate) struct Pty {
    master: AsyncFd<OwnedFd>,
}

impl Pty {
    /// Opens a terminal, and its other side for the command.
    pub(crate) fn open(rows: u16, cols: u16) -> io::Result<(Pty, OwnedFd)> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        // By the descriptor, not by its name in /dev/pts, which may be another's view of the file system.
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        let pty = Pty { master: kernel::watch(master, Interest::READABLE | Interest::WRITABLE)? };
        pty.resize(rows, cols)?;
        Ok((pty, slave))
    }

    /// Tells the terminal its size; the processes in the foreground get SIGWINCH.
    pub(crate) fn resize(&self, rows: u16, cols: u16) -> io::Result<()> {
        let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(self.master.get_ref(), size)?)
    }

    /// Sends a signal to the processes in the foreground; false when there are none.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        let foreground: Option<Pid> = tcgetpgrp(self.master.get_ref()).ok();
        foreground.is_some_and(|group| kill_process_group(group, signal).is_ok())
    }

    /// Reads what is shown; nothing at the end. Nothing is lost when the future is dropped.
    pub(crate) async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.master.readable().await?;
            match ready.try_io(|master| Ok(rustix::io::read(master.get_ref(), &mut *buf)?)) {
                // The last process with the terminal open has closed it.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => return Ok(0),
                Ok(read) => return read,
                Err(_would_block) => {}
            }
        }
    }

    /// Types some of `bytes`, and returns how many. Nothing is lost when the future is dropped.
    pub(crate) async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.master.writable().await?;
            if let Ok(written) = ready.try_io(|master| Ok(rustix::io::write(master.get_ref(), bytes)?)) {
                return written;
            }
        }
    }
}
