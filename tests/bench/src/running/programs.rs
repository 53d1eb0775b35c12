//! Programs that run a command elsewhere, started as their users start them.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// Takes the seconds of one run, and makes sure that it succeeded and wrote so much.
///
/// # Panics
///
/// When it did not: the figures would mean nothing.
pub fn time(command: &mut Command, output_len: u64) -> f64 {
    let begun = Instant::now();
    let mut child = start(command, Stdio::null());
    let pid = Pid::from_raw(child.id() as i32);
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).expect("a child");
    let seconds = begun.elapsed().as_secs_f64();
    // Nobody has reaped it yet, so that the kernel still knows; with ssh that shares a connection, another process writes.
    let written = (output_len > 0).then(|| written(&child));
    end(&mut child, command);
    if let Some(written) = written {
        // Besides its output it writes its requests.
        assert!((output_len..output_len + output_len / 100).contains(&written), "{command:?} wrote {written} bytes");
    }
    seconds
}

/// Looks at every byte of one run, all of which are to be zeros.
///
/// # Panics
///
/// When the output is another, or the run failed.
pub fn check(command: &mut Command, output_len: u64) {
    let mut child = start(command, Stdio::piped());
    let mut stdout = child.stdout.take().expect("a pipe");
    let (mut buf, mut len) = (vec![0; 1 << 20], 0);
    loop {
        let read = stdout.read(&mut buf).expect("a pipe");
        if read == 0 {
            break;
        }
        assert!(buf[..read].iter().all(|byte| *byte == 0), "a wrong byte after {len}: {command:?}");
        len += read as u64;
    }
    assert_eq!(len, output_len, "bytes of {command:?}");
    end(&mut child, command);
}

fn start(command: &mut Command, stdout: Stdio) -> Child {
    let child = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn();
    child.unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()))
}

fn end(child: &mut Child, command: &Command) {
    let mut said = String::new();
    let _ = child.stderr.take().expect("a pipe").read_to_string(&mut said);
    let status = child.wait().expect("a child");
    assert!(status.success() && said.is_empty(), "{command:?}: {status}: {said}");
}

/// How many bytes a process has passed to write(2) and its kin.
fn written(child: &Child) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/io", child.id())).expect("proc(5)");
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).expect("a kernel that counts");
    line.parse().expect("a number")
}
