//! Who guessed tokens lately, and what that costs.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::PeerKey;

/// The most peers that are remembered. With one more, half of them are forgotten, those first whose last guess is the
/// longest ago: to be forgotten, a guesser needs tens of thousands of other addresses that guess, each of which could as
/// well have guessed for it.
const PEERS_MAX: usize = 65_536;

/// How long the answer to the first wrong token waits; to each further one twice as long.
const DELAY_LEAST: Duration = Duration::from_millis(50);

/// The longest that an answer waits: a connection that waits costs a place.
const DELAY_MAX: Duration = Duration::from_secs(1);

/// The failures of each peer.
#[derive(Debug)]
pub(super) struct Penalties {
    failures_max: u32,
    penalty: Duration,
    peers: Mutex<HashMap<PeerKey, Failures>>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Penalties {
    pub(super) fn new(failures_max: u32, penalty: Duration) -> Penalties {
        Penalties { failures_max, penalty, peers: Mutex::default() }
    }

    /// How long `peer` is still refused, whatever token it has.
    pub(super) fn left(&self, peer: PeerKey) -> Option<Duration> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = peers.get(&peer).filter(|failures| failures.count >= self.failures_max)?;
        let left = (failures.last + self.penalty).saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Counts a failure, and returns how long its answer waits.
    pub(super) fn failed(&self, peer: PeerKey) -> Duration {
        let now = Instant::now();
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= PEERS_MAX && !peers.contains_key(&peer) {
            forget(&mut peers, now, self.penalty);
        }
        let failures = peers.entry(peer).or_insert(Failures { count: 0, last: now });
        if now.saturating_duration_since(failures.last) >= self.penalty {
            failures.count = 0;
        }
        *failures = Failures { count: failures.count.saturating_add(1), last: now };
        DELAY_MAX.min(DELAY_LEAST * 2_u32.saturating_pow((failures.count - 1).min(16)))
    }
}

/// Makes room: first what counts no longer, then the half that is the longest ago.
fn forget(peers: &mut HashMap<PeerKey, Failures>, now: Instant, penalty: Duration) {
    peers.retain(|_, failures| now.saturating_duration_since(failures.last) < penalty);
    if peers.len() < PEERS_MAX {
        return;
    }
    let mut lasts: Vec<(Instant, PeerKey)> = peers.iter().map(|(peer, failures)| (failures.last, *peer)).collect();
    let (older, ..) = lasts.select_nth_unstable_by_key(PEERS_MAX / 2, |(last, _)| *last);
    for (_, peer) in older {
        peers.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_failure_waits_twice_as_long_up_to_a_bound() {
        let penalties = Penalties::new(100, Duration::from_secs(60));
        let delays: Vec<u128> = (0..7).map(|_| penalties.failed(PeerKey::Local).as_millis()).collect();
        assert_eq!(delays, [50, 100, 200, 400, 800, 1000, 1000]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(penalties.failed(PeerKey::Local).as_millis(), 50);
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_forgets_the_oldest_first() {
        let penalties = Penalties::new(1, Duration::from_secs(60));
        penalties.failed(PeerKey::User(0));
        tokio::time::advance(Duration::from_secs(1)).await;
        for user in 1..=PEERS_MAX as u32 {
            penalties.failed(PeerKey::User(user));
        }
        assert_eq!(penalties.peers.lock().expect("a sound lock").len(), PEERS_MAX / 2 + 1);
        assert!(penalties.left(PeerKey::User(0)).is_none());
        assert!(penalties.left(PeerKey::User(PEERS_MAX as u32)).is_some());
    }
}
