//! A range of IP addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that agree with one in their first bits. IPv4 addresses that are written as IPv6 are IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    first: IpAddr,
    prefix_len: u32,
}

impl Network {
    /// Reads `ADDRESS` or `ADDRESS/BITS`.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, as the end of a sentence. Bits that are set behind the prefix are a mistake in one or the
    /// other, and refused.
    pub(super) fn parse(text: &str) -> Result<Network, String> {
        let (address, prefix_len) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| format!("{address:?} is no IP address"))?;
        let bits = width(address);
        let prefix_len = prefix_len.map_or(Ok(bits), |text| number(text, bits))?;
        let network = Network { first: address, prefix_len }.canonical();
        let first = network.masked(network.first);
        if first != network.first {
            return Err(format!("{text} has bits behind its prefix; write {first}/{}", network.prefix_len));
        }
        Ok(network)
    }

    /// Whether the address of a peer, as the socket tells it, lies within.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && self.masked(address) == self.first
    }

    /// The range in IPv4 when it is one of IPv4 addresses written as IPv6 (RFC 4291, section 2.5.5.2).
    fn canonical(self) -> Network {
        match (self.first.to_canonical(), self.first) {
            (IpAddr::V4(first), IpAddr::V6(_)) if self.prefix_len >= 96 => {
                Network { first: first.into(), prefix_len: self.prefix_len - 96 }
            }
            _ => self,
        }
    }

    fn masked(&self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - self.prefix_len).unwrap_or(0);
                Ipv4Addr::from_bits(address.to_bits() & mask).into()
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - self.prefix_len).unwrap_or(0);
                Ipv6Addr::from_bits(address.to_bits() & mask).into()
            }
        }
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Digits and nothing else, at most `most`.
fn number(text: &str, most: u32) -> Result<u32, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let found = text.parse().ok().filter(|found| digits && *found <= most);
    found.ok_or_else(|| format!("prefix {text:?} is no number from 0 to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        Network::parse(network).expect(network).contains(address.parse().expect(address))
    }

    #[test]
    fn a_network_holds_its_first_and_its_last_address_and_none_beside() {
        assert!(contains("10.1.0.0/16", "10.1.0.0") && contains("10.1.0.0/16", "10.1.255.255"));
        assert!(!contains("10.1.0.0/16", "10.0.255.255") && !contains("10.1.0.0/16", "10.2.0.0"));
        assert!(contains("192.0.2.7", "192.0.2.7") && !contains("192.0.2.7", "192.0.2.6"));
        assert!(contains("2001:db8::/32", "2001:db8:ffff::1") && !contains("2001:db8::/32", "2001:db9::"));
        assert!(contains("::1", "::1") && !contains("::1", "::2"));
        assert!(contains("0.0.0.0/0", "255.255.255.255") && contains("::/0", "ffff::"));
    }

    #[test]
    fn ipv4_is_ipv4_however_it_is_written() {
        assert!(contains("127.0.0.0/8", "::ffff:127.0.0.9") && contains("::ffff:127.0.0.0/104", "127.0.0.9"));
        assert!(contains("::ffff:10.0.0.1", "10.0.0.1") && !contains("::ffff:10.0.0.1", "10.0.0.2"));
        assert!(!contains("::/0", "10.0.0.1") && !contains("::/0", "::ffff:10.0.0.1"));
        assert!(!contains("0.0.0.0/0", "::1"));
    }

    #[test]
    fn what_is_no_network_is_refused_with_the_reason() {
        let complaint = |text: &str| Network::parse(text).expect_err(text);
        assert_eq!(complaint("10.0.0.1/8"), "10.0.0.1/8 has bits behind its prefix; write 10.0.0.0/8");
        assert_eq!(
            complaint("::ffff:10.0.0.1/104"),
            "::ffff:10.0.0.1/104 has bits behind its prefix; write 10.0.0.0/8"
        );
        assert_eq!(complaint("10.0.0.0/33"), "prefix \"33\" is no number from 0 to 32");
        assert_eq!(complaint("10.0.0.0/"), "prefix \"\" is no number from 0 to 32");
        assert_eq!(complaint("10.0.0.0/+8"), "prefix \"+8\" is no number from 0 to 32");
        assert_eq!(complaint("::/129"), "prefix \"129\" is no number from 0 to 128");
        assert_eq!(complaint("localhost"), "\"localhost\" is no IP address");
        assert_eq!(complaint("10.0.0"), "\"10.0.0\" is no IP address");
        assert_eq!(complaint(" 10.0.0.1"), "\" 10.0.0.1\" is no IP address");
        assert_eq!(complaint("fe80::1%1"), "\"fe80::1%1\" is no IP address");
    }
}
