//! What a caller, and the log, are told of a command's end.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;
use plugd_core::Status;
use serde_json::{Value, json};

use crate::follow::{Followed, Outcome};

/// The end of a command: exited, killed, or ended by us with a reason.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) status: Status,
    pub(crate) trailer: Value,
    pub(crate) exit: Value,
    pub(crate) sent: [u64; 2],
}

impl Report {
    /// Tells what became of a command; `abandoned` is the status of a call whose caller gave up.
    pub(crate) fn new(followed: Followed, dropped_env: &[String], abandoned: Option<Status>) -> Report {
        let Followed { outcome, end, sent, wall } = followed;
        let exit = end.map_or(Value::Null, |(exit, _)| describe(exit));
        let usage = end.map(|(_, usage)| usage).unwrap_or_default();
        let mut trailer = json!({
            "stdout_bytes": sent[0],
            "stderr_bytes": sent[1],
            "wall_ms": millis(wall),
            "cpu_ms": millis(usage.cpu),
            "peak_kib": usage.peak_kib,
            "dropped_env": dropped_env,
        });
        if !exit.is_null() {
            trailer["exit"] = exit.clone();
        }
        let status = match (outcome, abandoned) {
            (Outcome::Exited, _) => end.map_or_else(|| gone(None), |(exit, _)| judge(exit)),
            (Outcome::Stopped(status), _) => status,
            (Outcome::Abandoned, status) => gone(status),
        };
        Report { status, trailer, exit, sent }
    }

    /// The result of a call that waited for the command.
    pub(crate) fn result(&self) -> Result<(), Status> {
        if self.status.is_ok() { Ok(()) } else { Err(self.status.clone()) }
    }
}

fn gone(status: Option<Status>) -> Status {
    status.unwrap_or_else(|| Status::cancelled("cancelled", "the command was told to end"))
}

/// A duration as a number of milliseconds, to the microsecond.
fn millis(duration: std::time::Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

fn describe(exit: ExitStatus) -> Value {
    match exit.signal() {
        Some(signal) => json!({ "signal": signal, "name": signal_name(signal) }),
        None => json!({ "code": exit.code() }),
    }
}

/// The end of a call whose command ended by itself: a success when the command says so.
fn judge(exit: ExitStatus) -> Status {
    match exit.signal() {
        _ if exit.success() => Status::ok(),
        Some(signal) => Status::unknown("command-killed", format!("command was killed by {}", signal_name(signal))),
        None => Status::unknown("command-failed", format!("command exited with {}", exit.code().unwrap_or_default())),
    }
}

/// The name that signal(7) gives; signals without one, such as the real-time signals, by number.
fn signal_name(signal: i32) -> String {
    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned())
}
