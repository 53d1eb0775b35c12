//! What a caller is told of a command's end, or of why it never began.

use std::io::{self, ErrorKind};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;
use plugd_core::Status;
use serde_json::{Value, json};

/// The trailer of a call whose command has ended.
pub(crate) fn trailer(exit: ExitStatus) -> Value {
    match exit.signal() {
        Some(signal) => json!({ "exit": { "signal": signal, "name": signal_name(signal) } }),
        None => json!({ "exit": { "code": exit.code() } }),
    }
}

/// The end of such a call: a success when the command says so.
pub(crate) fn outcome(exit: ExitStatus) -> Result<(), Status> {
    if exit.success() {
        return Ok(());
    }
    Err(match exit.signal() {
        Some(signal) => Status::unknown("command-killed", format!("command was killed by {}", signal_name(signal))),
        None => Status::unknown("command-failed", format!("command exited with {}", exit.code().unwrap_or_default())),
    })
}

/// The name that signal(7) gives; signals without one, such as the real-time signals, by number.
fn signal_name(signal: i32) -> String {
    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned())
}

/// The end of a call whose command could not be started.
pub(crate) fn not_started(program: &str, error: io::Error) -> Status {
    let status = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            Status::not_found("command-not-found", format!("no command {program:?}"))
        }
        ErrorKind::PermissionDenied => {
            Status::permission_denied("command-not-executable", format!("{program:?} is not executable"))
        }
        ErrorKind::ArgumentListTooLong => {
            Status::invalid_argument("bad-argv", "argv is too long for the operating system")
        }
        ErrorKind::WouldBlock | ErrorKind::OutOfMemory => {
            let message = "the server cannot start another process now";
            Status::resource_exhausted("no-process", message).with_retry(true)
        }
        _ => Status::internal("command-not-started", format!("cannot start {program:?}")),
    };
    status.with_detail(error)
}
