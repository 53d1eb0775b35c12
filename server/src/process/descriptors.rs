//! How many files and sockets the process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{debug, warn};

/// What a connection may need: its socket, and what a call opens, such as a file and its directories.
const PER_CONNECTION: u64 = 4;

/// What the process needs whoever is connected: listeners, logs, the runtime's own.
const OWN: u64 = 64;

/// Raises the limit of this process to what `connections_max` connections may need, as far as the system lets it, and says
/// in the log when that is less. The accept loop outlives that limit; connections have to wait then.
pub(crate) fn raise_limit(connections_max: u32) {
    let needed = u64::from(connections_max) * PER_CONNECTION + OWN;
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limit) => limit,
        Err(error) => return warn!(%error, "cannot read the limit of open files"),
    };
    let raised = needed.min(hard).max(soft);
    if raised > soft {
        match setrlimit(Resource::RLIMIT_NOFILE, raised, hard) {
            Ok(()) => debug!(from = soft, to = raised, "limit of open files raised"),
            Err(error) => warn!(%error, from = soft, to = raised, "cannot raise the limit of open files"),
        }
    }
    if hard < needed {
        warn!(
            allowed = hard,
            needed,
            "this process may open fewer files than connections_max can need; raise its hard limit (ulimit -Hn)"
        );
    }
}
