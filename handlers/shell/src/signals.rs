//! Commands start with every signal as the operating system means it, whatever the server itself was started with.

use std::fs;
use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// What a background job of a script, or nohup(1), is started to ignore.
const OFTEN_IGNORED: [SignalKind; 4] =
    [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit(), SignalKind::terminate()];

/// Lets commands be interrupted although this process was told to ignore that: a program inherits what is ignored, and not
/// what is handled. So what is ignored here is handled from now on, by nothing.
///
/// # Errors
///
/// When a signal cannot be handled.
pub(crate) fn keep_ignored_from_commands() -> io::Result<()> {
    let ignored = ignored(&fs::read_to_string("/proc/self/status")?);
    for kind in OFTEN_IGNORED {
        if ignored & (1 << (kind.as_raw_value() - 1)) != 0 {
            // The handler stays when the stream of its signals is gone.
            drop(signal(kind)?);
        }
    }
    Ok(())
}

/// The signals that a process ignores, the first as the lowest bit, from proc_pid_status(5).
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
