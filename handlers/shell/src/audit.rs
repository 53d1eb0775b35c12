//! One line for each command that was asked for, whatever became of it.

use std::path::Path;
use std::time::Duration;

use plugd_core::{Caller, Status};
use tracing::{Level, enabled, info};

/// What the lines are sent to; the server's settings say where they go.
const TARGET: &str = "plugd::audit";

/// Who asked for what.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) plugin: &'a str,
    pub(crate) operation: &'a str,
    /// The program and its arguments, as far as they are known.
    pub(crate) argv: &'a [String],
    pub(crate) cwd: &'a Path,
    pub(crate) dropped_env: &'a [String],
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Became<'a> {
    pub(crate) status: &'a Status,
    /// The exit code or signal, as in the trailer; empty when nothing ran.
    pub(crate) exit: String,
    pub(crate) sent: [u64; 2],
    pub(crate) duration: Duration,
    /// The job that it became, or belongs to.
    pub(crate) job: Option<&'a str>,
}

/// Writes the line.
pub(crate) fn log(asked: &Asked<'_>, became: &Became<'_>) {
    if !enabled!(target: TARGET, Level::INFO) {
        return;
    }
    // Quoted as in Rust, one argument after the other: no argument can pretend to be two, or a line of its own.
    let argv = format!("{:?}", asked.argv);
    let cwd = format!("{:?}", asked.cwd);
    let dropped_env = (!asked.dropped_env.is_empty()).then(|| format!("{:?}", asked.dropped_env));
    info!(
        target: TARGET,
        peer = %asked.caller,
        plugin = asked.plugin,
        operation = asked.operation,
        argv,
        cwd,
        code = became.status.code().name(),
        reason = became.status.reason(),
        exit = became.exit,
        stdout_bytes = became.sent[0],
        stderr_bytes = became.sent[1],
        duration_ms = became.duration.as_secs_f64() * 1e3,
        dropped_env,
        job = became.job,
        "command"
    );
}
