//! A client at a terminal of its own, with keys to type and signals from it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::process::wait_until;

/// A client on a terminal of its own.
pub(crate) struct Terminal {
    keyboard: File,
    /// Kept open, so that the terminal can be looked at after the client.
    screen: OwnedFd,
    shown: Arc<Mutex<String>>,
    client: Child,
}

fn size(rows: u16, cols: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Terminal {
    /// Runs the client with a terminal of 31 by 97 as its standard streams, and as the one that its signals come from.
    pub(crate) fn start(client: &Command) -> Terminal {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let keyboard = openpt(flags).expect("a terminal");
        grantpt(&keyboard).and_then(|()| unlockpt(&keyboard)).expect("a terminal");
        let screen = ioctl_tiocgptpeer(&keyboard, flags).expect("a terminal");
        tcsetwinsize(&keyboard, size(31, 97)).expect("a terminal");
        let stream = || Stdio::from(screen.try_clone().expect("a descriptor"));
        // `setsid` is part of util-linux, which every Debian has. It becomes the client, so that its process is the same.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(client.get_program()).args(client.get_args());
        command.envs(client.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "vt220");
        let client = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().expect("setsid, of util-linux");
        let keyboard = File::from(keyboard);
        let shown = Arc::default();
        let (mut reader, copy) = (keyboard.try_clone().expect("a descriptor"), Arc::clone(&shown));
        std::thread::spawn(move || show(&mut reader, &copy));
        Terminal { keyboard, screen, shown, client }
    }

    pub(crate) fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("a terminal");
    }

    pub(crate) fn shows(&self, text: &str) {
        let shown = || self.shown.lock().expect("no panic while it is held").clone();
        wait_until(&format!("{text:?} on the screen"), || shown().contains(text));
    }

    /// Makes it another size.
    pub(crate) fn resize(&self, rows: u16, cols: u16) {
        tcsetwinsize(&self.keyboard, size(rows, cols)).expect("a terminal");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.client.id() as i32), signal).expect("a running client");
    }

    /// Whether the terminal gathers lines and echoes them, as it did at first.
    pub(crate) fn is_restored(&self) -> bool {
        let modes = tcgetattr(&self.screen).expect("a terminal").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Waits for the client, and says with what code it ended.
    pub(crate) fn end(&mut self) -> Option<i32> {
        let mut ended = None;
        wait_until("the end of the client", || {
            ended = self.client.try_wait().expect("a child");
            ended.is_some()
        });
        let code = ended.and_then(|status| status.code());
        assert!(self.is_restored(), "the terminal was left raw");
        code
    }
}

fn show(reader: &mut File, shown: &Mutex<String>) {
    let mut buf = [0; 4096];
    while let Ok(len @ 1..) = reader.read(&mut buf) {
        shown.lock().expect("no panic while it is held").push_str(&String::from_utf8_lossy(&buf[..len]));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}
