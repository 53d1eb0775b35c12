//! System calls for a message, as strace counts them.
//!
//! The server is run twice, with little and with more load, so that the difference holds nothing of starting, accepting
//! and stopping. strace makes it slower, so that more connections are ready each time it asks, and `epoll_wait` weighs a
//! little less than it does at full speed; how many messages a read and a write carry is the load's choice.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::load::{self, Dialect, Load};
use crate::peers::{self, Peer};

/// What is loaded: the row whose figure is to be reached.
const CONNECTIONS: usize = 50;
const PIPELINE: usize = 16;

/// How long the load lasts, the little and the larger one.
const DURATIONS: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(2_500)];

/// Counts the calls for a message of 64 bytes, by server.
///
/// # Errors
///
/// Why it cannot be counted, for people.
pub fn measure(plugd: &Path, dir: &Path) -> Result<BTreeMap<&'static str, f64>, String> {
    let payload = [b'x'; 64];
    let servers = [
        ("plugd", Peer::plugd_command(plugd, dir, "[plugins.echo]\n"), peers::plugd_stream("echo", &payload, &payload)),
        ("raw", Peer::own_command(&["serve-raw"]), peers::raw(&payload)),
    ];
    let counted = |(name, command, dialect)| Ok((name, for_a_message(&command, &dialect, dir)?));
    servers.into_iter().map(counted).collect()
}

fn for_a_message(command: &Command, dialect: &Dialect, dir: &Path) -> Result<f64, String> {
    let [(few, few_messages), (many, many_messages)] =
        [total(command, dialect, dir, DURATIONS[0])?, total(command, dialect, dir, DURATIONS[1])?];
    Ok((many - few) as f64 / (many_messages - few_messages) as f64)
}

/// All system calls of a server's life, and the messages that it answered.
fn total(command: &Command, dialect: &Dialect, dir: &Path, duration: Duration) -> Result<(i64, i64), String> {
    let summary = dir.join("strace");
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-c", "-U", "calls,name", "-o"])
        .arg(&summary)
        .arg(command.get_program())
        .args(command.get_args());
    let peer = Peer::try_start(strace)?;
    let measured = load::run(peer.address, dialect, Load { duration, ..Load::kept(CONNECTIONS, PIPELINE) });
    drop(peer);
    let text = std::fs::read_to_string(summary).map_err(|error| format!("strace leaves no summary: {error}"))?;
    let total = text.lines().filter_map(|line| line.trim().strip_suffix("total")).next();
    let count =
        total.and_then(|count| count.trim().parse().ok()).ok_or_else(|| format!("strace counts nothing: {text}"))?;
    Ok((count, measured.requests as i64))
}
