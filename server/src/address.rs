//! Where a server listens.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// The port that servers and clients agree on unless told otherwise: PLUG on a phone's keys.
pub const DEFAULT_PORT: u16 = 7584;

/// An address to listen on: `tcp://HOST:PORT`, `tls://HOST:PORT` or `unix:/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP port of one host name or IP address; port 0 takes a free one.
    Tcp {
        /// The name or address, without the brackets of IPv6.
        host: String,
        /// The port.
        port: u16,
    },
    /// The same, with TLS on it.
    Tls {
        /// The name or address, without the brackets of IPv6.
        host: String,
        /// The port.
        port: u16,
    },
    /// A unix socket at this path.
    Unix(PathBuf),
}

/// Why a text is no address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot listen on \"{text}\": {problem}; allowed: tcp://HOST:PORT, tls://HOST:PORT, unix:/PATH")]
pub struct AddressError {
    text: String,
    problem: &'static str,
}

impl ListenAddress {
    /// Whether only this machine can reach the address. A name is resolved when the server binds, so that of names only
    /// `localhost` is trusted to be local.
    pub fn is_local(&self) -> bool {
        match self {
            ListenAddress::Unix(_) => true,
            ListenAddress::Tcp { host, .. } | ListenAddress::Tls { host, .. } => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

impl ListenAddress {
    /// Whether connections are within TLS there.
    pub fn is_tls(&self) -> bool {
        matches!(self, ListenAddress::Tls { .. })
    }
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<ListenAddress, AddressError> {
        let refuse = |problem| AddressError { text: text.to_owned(), problem };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.starts_with('/') {
                Ok(ListenAddress::Unix(path.into()))
            } else {
                Err(refuse("a unix socket needs an absolute path"))
            };
        }
        let (is_tls, authority) = match text.split_once("://") {
            Some(("tcp", authority)) => (false, authority),
            Some(("tls", authority)) => (true, authority),
            _ => return Err(refuse("unsupported scheme")),
        };
        let (host, port) = authority.rsplit_once(':').ok_or_else(|| refuse("the port is missing"))?;
        let port = port.parse().map_err(|_| refuse("the port is no number from 0 to 65535"))?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || host.contains(['/', '[', ']']) {
            return Err(refuse("the host is missing or malformed"));
        }
        let host = host.to_owned();
        Ok(if is_tls { ListenAddress::Tls { host, port } } else { ListenAddress::Tcp { host, port } })
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> ListenAddress {
        ListenAddress::Tcp { host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls() { "tls" } else { "tcp" };
        match self {
            ListenAddress::Tcp { host, port } | ListenAddress::Tls { host, port } if host.contains(':') => {
                write!(out, "{scheme}://[{host}]:{port}")
            }
            ListenAddress::Tcp { host, port } | ListenAddress::Tls { host, port } => {
                write!(out, "{scheme}://{host}:{port}")
            }
            ListenAddress::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        for text in [
            "tcp://127.0.0.1:7584",
            "tcp://[::1]:0",
            "tcp://localhost:1",
            "tls://[::1]:2",
            "tls://a:1",
            "unix:/run/plugd.sock",
        ] {
            assert_eq!(text.parse::<ListenAddress>().expect("a good address").to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_is_allowed() {
        for text in [
            "127.0.0.1:1",
            "udp://a:1",
            "tls://a",
            "tcp://a",
            "tcp://:1",
            "tcp://a:99999",
            "unix:relative",
            "tcp://a/b:1",
        ] {
            let error = text.parse::<ListenAddress>().expect_err(text).to_string();
            assert!(error.ends_with("allowed: tcp://HOST:PORT, tls://HOST:PORT, unix:/PATH"), "{error}");
        }
    }

    #[test]
    fn only_loopback_and_unix_are_local() {
        let is_local = |text: &str| text.parse::<ListenAddress>().expect("a good address").is_local();
        assert!(is_local("tcp://127.0.0.9:1") && is_local("tcp://[::1]:1") && is_local("unix:/a"));
        assert!(!is_local("tcp://0.0.0.0:1") && !is_local("tcp://[::]:1") && !is_local("tcp://example.org:1"));
    }
}
