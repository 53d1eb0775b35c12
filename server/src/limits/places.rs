//! How many connections there may be: in all, from one address, and before they have said what they want.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plugd_core::{Caller, Origin, Status};

use super::{ConnectionLimits, PeerKey};

/// The places for connections.
#[derive(Debug)]
pub(crate) struct Places {
    connections_max: u32,
    per_address_max: u32,
    unidentified_max: u32,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    connections: u32,
    unidentified: u32,
    /// Only addresses with a connection, so that there are never more than connections.
    addresses: HashMap<PeerKey, u32>,
}

/// Which places are all taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Connections,
    PerAddress,
    Unidentified,
}

impl Places {
    pub(crate) fn new(connections_max: u32, limits: &ConnectionLimits) -> Arc<Places> {
        let ConnectionLimits { per_address_max, unidentified_max, .. } = *limits;
        Arc::new(Places { connections_max, per_address_max, unidentified_max, taken: Mutex::default() })
    }

    /// Takes a place for a connection that has said nothing yet.
    ///
    /// # Errors
    ///
    /// Which places are all taken; then nothing is.
    pub(crate) fn take(self: &Arc<Places>, caller: &Caller) -> Result<Place, Full> {
        let key = PeerKey::of(caller);
        let mut taken = self.taken();
        if taken.connections >= self.connections_max {
            return Err(Full::Connections);
        }
        if taken.addresses.get(&key).is_some_and(|count| *count >= self.per_address_max) {
            return Err(Full::PerAddress);
        }
        if taken.unidentified >= self.unidentified_max {
            return Err(Full::Unidentified);
        }
        taken.connections += 1;
        taken.unidentified += 1;
        *taken.addresses.entry(key).or_default() += 1;
        drop(taken);
        Ok(Place { places: self.clone(), key, is_unidentified: true })
    }

    /// What a peer is told for whom there is no place.
    pub(crate) fn refusal(&self, full: Full) -> Status {
        let allowed = self.allowed(full);
        let text = match full {
            Full::Connections => format!("too many connections; allowed: {allowed}"),
            Full::PerAddress => format!("too many connections from your address; allowed: {allowed}"),
            Full::Unidentified => {
                format!(
                    "too many connections that have not opened a call yet; allowed: {allowed}; try again in a second"
                )
            }
        };
        Status::resource_exhausted(full.reason(), text).with_origin(Origin::Limit).with_retry(true)
    }

    /// How many of these places there are.
    pub(crate) fn allowed(&self, full: Full) -> u32 {
        match full {
            Full::Connections => self.connections_max,
            Full::PerAddress => self.per_address_max,
            Full::Unidentified => self.unidentified_max,
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Full {
    /// The limit's name, for programs.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Full::Connections => "connections-max",
            Full::PerAddress => "connections-per-address-max",
            Full::Unidentified => "connections-unidentified-max",
        }
    }
}

/// The place of one connection, given back when it is dropped: with the connection, however that ends.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    key: PeerKey,
    is_unidentified: bool,
}

impl Place {
    /// The connection has said what it wants, and makes room for one that has not.
    pub(crate) fn identified(&mut self) {
        if std::mem::take(&mut self.is_unidentified) {
            self.places.taken().unidentified -= 1;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.identified();
        let mut taken = self.places.taken();
        taken.connections -= 1;
        if let Some(count) = taken.addresses.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                taken.addresses.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use plugd_core::{Peer, Principal};

    use super::*;

    fn places(connections_max: u32, per_address_max: u32, unidentified_max: u32) -> Arc<Places> {
        let limits = ConnectionLimits {
            per_address_max,
            unidentified_max,
            calls_max: 1,
            empty_frames_max: 1,
            body_rate_min: 1,
            body_rate_grace: Duration::ZERO,
            write_timeout: Duration::ZERO,
        };
        Places::new(connections_max, &limits)
    }

    fn user(uid: u32) -> Caller {
        Caller::new(Peer::Unix).known_as(Principal::of_uid(uid))
    }

    #[test]
    fn each_limit_bites_and_what_was_taken_comes_back() {
        let places = places(4, 2, 3);
        let mut first = places.take(&user(1)).expect("the first");
        let second = places.take(&user(1)).expect("the second");
        assert_eq!(places.take(&user(1)).err(), Some(Full::PerAddress));
        let third = places.take(&user(2)).expect("the third");
        assert_eq!(places.take(&user(2)).err(), Some(Full::Unidentified));
        first.identified();
        first.identified();
        let fourth = places.take(&user(2)).expect("the fourth");
        assert_eq!(places.take(&user(3)).err(), Some(Full::Connections));
        drop((first, second, third, fourth));
        let taken = places.taken();
        assert_eq!((taken.connections, taken.unidentified, taken.addresses.len()), (0, 0, 0));
    }

    #[test]
    fn a_refusal_names_the_limit_and_what_is_allowed() {
        let refusal = places(4, 2, 3).refusal(Full::PerAddress);
        assert_eq!(
            refusal.to_string(),
            "resource_exhausted (connections-per-address-max): too many connections from your address; allowed: 2"
        );
        assert!(refusal.retry());
    }
}
