//! `plug exec -t` and `plug sh` on a real terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::support::commands::Played;
use crate::support::process::wait_until;

/// A client on a terminal of its own.
struct Terminal {
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
    fn start(server: &Played, args: &[&str]) -> Terminal {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let keyboard = openpt(flags).expect("a terminal");
        grantpt(&keyboard).and_then(|()| unlockpt(&keyboard)).expect("a terminal");
        let screen = ioctl_tiocgptpeer(&keyboard, flags).expect("a terminal");
        tcsetwinsize(&keyboard, size(31, 97)).expect("a terminal");
        let stream = || Stdio::from(screen.try_clone().expect("a descriptor"));
        let client = server.plug(args);
        // `setsid` is part of util-linux, which every Debian has. It becomes the client, so that its process is the same.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(client.get_program()).args(client.get_args());
        command.env("PLUG_SERVER", server.address()).env("TERM", "vt220");
        let client = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().expect("setsid, of util-linux");
        let keyboard = File::from(keyboard);
        let shown = Arc::default();
        let (mut reader, copy) = (keyboard.try_clone().expect("a descriptor"), Arc::clone(&shown));
        std::thread::spawn(move || show(&mut reader, &copy));
        Terminal { keyboard, screen, shown, client }
    }

    fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("a terminal");
    }

    fn shows(&self, text: &str) {
        let shown = || self.shown.lock().expect("no panic while it is held").clone();
        wait_until(&format!("{text:?} on the screen"), || shown().contains(text));
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.client.id() as i32), signal).expect("a running client");
    }

    /// Whether the terminal gathers lines and echoes them, as it did at first.
    fn is_restored(&self) -> bool {
        let modes = tcgetattr(&self.screen).expect("a terminal").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Waits for the client, and says with what code it ended.
    fn end(&mut self) -> Option<i32> {
        let code = self.client.wait().expect("a child").code();
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

#[test]
fn a_command_gets_keys_size_and_every_change_of_it() {
    let server = Played::start();
    let mut terminal = Terminal::start(&server, &["exec", "-t", "--", "size", "keys", "exit:3"]);
    terminal.shows("vt220 31x97");
    assert!(!terminal.is_restored(), "the terminal is not raw");
    // Ctrl-C and Ctrl-Z are keys like any other.
    terminal.types("a\u{3}\u{1a}b");
    terminal.shows("A\u{3}\u{1a}B");
    tcsetwinsize(&terminal.keyboard, size(40, 120)).expect("a terminal");
    terminal.shows("{\"resize\":{\"cols\":120,\"rows\":40}}");
    terminal.types("q");
    assert_eq!(terminal.end(), Some(3));
}

#[test]
fn a_shell_is_left_by_tilde_dot_at_the_start_of_a_line() {
    let server = Played::start();
    let mut terminal = Terminal::start(&server, &["sh", "--", "out:ready", "keys"]);
    terminal.shows("ready");
    terminal.types("x~.\r~~.\r");
    terminal.shows("X~.\r~.\r");
    terminal.types("~.");
    assert_eq!(terminal.end(), Some(65));
    terminal.shows("left by ~.");
}

#[test]
fn a_lost_connection_restores_the_terminal() {
    let server = Played::start();
    let mut terminal = Terminal::start(&server, &["exec", "-t", "--", "out:ready", "keys"]);
    terminal.shows("ready");
    server.vanish();
    assert_eq!(terminal.end(), Some(4));
}

#[test]
fn a_signal_restores_the_terminal() {
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGHUP, 129), (Signal::SIGINT, 130)] {
        let server = Played::start();
        let mut terminal = Terminal::start(&server, &["exec", "-t", "--", "out:ready", "keys"]);
        terminal.shows("ready");
        terminal.signal(signal);
        assert_eq!(terminal.end(), Some(code));
    }
}

#[test]
fn a_deadline_restores_the_terminal() {
    let server = Played::start();
    let mut terminal = Terminal::start(&server, &["--timeout", "300ms", "exec", "-t", "--", "out:ready", "keys"]);
    assert_eq!(terminal.end(), Some(124));
}

#[test]
fn what_never_began_leaves_the_terminal_as_it_was() {
    let server = Played::start();
    let mut terminal = Terminal::start(&server, &["exec", "-t", "--", "never:failed_precondition:no-pty"]);
    assert_eq!(terminal.end(), Some(73));
    terminal.shows("no-pty");
}

#[test]
fn without_a_terminal_there_is_a_clear_refusal() {
    let server = Played::start();
    for args in [&["sh"][..], &["exec", "-t", "--", "keys"], &["attach", "-t", "j1"]] {
        let outcome = server.run(args);
        assert_eq!(outcome.code, Some(2));
        assert!(outcome.stderr.contains("needs a terminal on standard input"), "{}", outcome.stderr);
    }
}
