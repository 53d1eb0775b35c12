//! What a connection may use of the server, beside what its calls may.

mod pace;
mod peer;
mod places;
mod seldom;

use std::time::Duration;

use serde_json::{Map, Value};

pub(crate) use self::pace::{Pace, Pacing, Slow};
pub(crate) use self::peer::PeerKey;
pub(crate) use self::places::{Full, Place, Places};
pub(crate) use self::seldom::Seldom;

/// The settings of these limits. All of them are finite.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionLimits {
    /// Connections at once from one address, or of one user over unix sockets.
    pub(crate) per_address_max: u32,
    /// Connections at once whose first opening header is not whole yet.
    pub(crate) unidentified_max: u32,
    /// Calls on one connection, one after the other.
    pub(crate) calls_max: u32,
    /// Frames without payload in one call.
    pub(crate) empty_frames_max: u32,
    /// How fast a frame that has begun must arrive, in bytes a second.
    pub(crate) body_rate_min: u32,
    /// How long a frame may arrive more slowly than that, in all.
    pub(crate) body_rate_grace: Duration,
    /// How long a peer may take nothing of what waits for it.
    pub(crate) write_timeout: Duration,
}

/// The trailer that says in how long the same call would pass, rounded up: who comes back then is let in.
pub(crate) fn come_back(wait: Duration) -> Map<String, Value> {
    Map::from_iter([("retry_after_ms".to_owned(), (wait.as_millis() as u64 + 1).into())])
}
