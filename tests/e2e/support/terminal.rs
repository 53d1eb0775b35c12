//! A terminal of its own for a program, and what a person would see on it.

use std::fs::File;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Rows and columns, more than anything that is tested fills.
const SIZE: Winsize = Winsize { ws_row: 50, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };

/// A program whose standard error is a terminal.
pub(crate) struct OnTerminal {
    child: Child,
    written: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl OnTerminal {
    pub(crate) fn start(mut command: Command) -> OnTerminal {
        let terminal = openpty(&SIZE, None).expect("a terminal");
        command.env("TERM", "xterm").stdout(Stdio::null()).stderr(terminal.slave);
        let child = command.spawn().expect("the program runs");
        // The terminal ends with its last holder, and this would be one.
        drop(command);
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let reader = std::thread::spawn({
            let (mut master, written) = (File::from(terminal.master), Arc::clone(&written));
            move || {
                let mut buf = [0; 4096];
                while let Ok(len @ 1..) = master.read(&mut buf) {
                    written.lock().expect("no panic while it is held").extend_from_slice(&buf[..len]);
                }
            }
        });
        OnTerminal { child, written, reader }
    }

    /// Everything that was ever written, of which parts may have been wiped out again.
    pub(crate) fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().expect("no panic while it is held")).into_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("a running program");
    }

    /// Waits for the program's end, and returns its exit code and the lines that stay on the screen.
    pub(crate) fn end(mut self) -> (Option<i32>, Vec<String>) {
        let code = self.child.wait().expect("a child").code();
        self.reader.join().expect("no panic");
        let written = self.written.lock().expect("no panic while it is held");
        (code, screen(&String::from_utf8_lossy(&written)))
    }
}

/// The lines that stay when all this was written: what progress bars need of a terminal, and no more.
fn screen(written: &str) -> Vec<String> {
    let (mut rows, mut row, mut column) = (vec![Vec::new()], 0_usize, 0_usize);
    let mut letters = written.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\r' => column = 0,
            '\n' => row += 1,
            '\u{1b}' => {
                let mut sequence: String = letters.by_ref().take_while(|letter| *letter != '[').collect();
                let end = loop {
                    match letters.next() {
                        Some(end) if end.is_ascii_alphabetic() => break end,
                        Some(digit) => sequence.push(digit),
                        None => break ' ',
                    }
                };
                let count = sequence.parse().unwrap_or(1);
                match end {
                    'A' => row = row.saturating_sub(count),
                    'B' => row += count,
                    'D' => column = column.saturating_sub(count),
                    'K' if sequence == "2" => rows[row].clear(),
                    'K' => rows[row].truncate(column),
                    // Colours.
                    'm' => {}
                    end => panic!("unknown control sequence {sequence:?} {end:?}"),
                }
            }
            letter => {
                if rows[row].len() <= column {
                    rows[row].resize(column + 1, ' ');
                }
                rows[row][column] = letter;
                column += 1;
            }
        }
        rows.resize(rows.len().max(row + 1), Vec::new());
    }
    let rows = rows.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned());
    rows.filter(|row| !row.is_empty()).collect()
}

#[test]
fn a_screen_shows_what_was_not_wiped_out() {
    assert_eq!(screen("one\r\ntwo\r\u{1b}[2Kthree\u{1b}[1A\r\u{1b}[2K\u{1b}[32mfour\u{1b}[0m"), ["four", "three"]);
}
