//! What counts as one peer, where something is counted for each.

use std::net::IpAddr;

use plugd_core::{Caller, Peer};

/// What counts as one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum PeerKey {
    /// An IPv4 address, or the 64 bits of an IPv6 address that name a network: whoever has one, has all of it.
    Address(u64),
    /// A user of this machine, over a unix socket.
    User(u32),
    /// Whoever is in this process.
    Local,
}

impl PeerKey {
    pub(crate) fn of(caller: &Caller) -> PeerKey {
        let Peer::Tcp(address) = &caller.peer else {
            return caller.principal.uid().map_or(PeerKey::Local, PeerKey::User);
        };
        match address.ip().to_canonical() {
            IpAddr::V4(address) => PeerKey::Address(u32::from(address).into()),
            IpAddr::V6(address) => PeerKey::Address((u128::from(address) >> 64) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use plugd_core::Principal;

    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_peer_and_a_mapped_address_is_ipv4() {
        let key = |address: &str| PeerKey::of(&Caller::new(Peer::Tcp(address.parse().expect("an address"))));
        assert_eq!(key("[2001:db8::1]:1"), key("[2001:db8::2]:7"));
        assert_ne!(key("[2001:db8::1]:1"), key("[2001:db8:0:1::1]:1"));
        assert_eq!(key("[::ffff:10.0.0.1]:1"), key("10.0.0.1:2"));
        assert_ne!(key("10.0.0.1:1"), key("10.0.0.2:1"));
        assert_eq!(PeerKey::of(&Caller::new(Peer::Unix).known_as(Principal::of_uid(7))), PeerKey::User(7));
    }
}
