//! Where a server listens, as a URL.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The port of an address that names none: PLUG on a phone's keys.
pub const PORT_DEFAULT: u16 = 7584;

const ALLOWED: &str = "allowed: tls://HOST:PORT, tcp://HOST:PORT, HOST:PORT, unix:/PATH";

/// Where a server listens.
///
/// Read from `tls://host:port`, `tcp://host:port`, `host:port`, `host`, `unix:/path` or `unix:///path`; written as the URL. An IPv6 address
/// stands in brackets.
///
/// ```
/// use plugd_client::ServerAddress;
///
/// let address: ServerAddress = "build.example".parse().unwrap();
/// assert_eq!(address.to_string(), "tcp://build.example:7584");
/// assert_eq!(ServerAddress::default().to_string(), "tcp://127.0.0.1:7584");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerAddress {
    /// A TCP port.
    Tcp {
        /// A name or an address; IPv6 without its brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A TCP port, with TLS on the way to it.
    Tls {
        /// A name or an address, which the server's certificate is for; IPv6 without its brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A unix socket.
    Unix(PathBuf),
}

/// Why a text is no server address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The scheme is known to others, or to nobody.
    #[error("scheme \"{scheme}://\" not supported in \"{text}\"; {ALLOWED}")]
    Scheme {
        /// The scheme that was found.
        scheme: String,
        /// The whole text.
        text: String,
    },
    /// The part that is wrong is named by `what`.
    #[error("{what} in server address \"{text}\"; {ALLOWED}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// The whole text.
        text: String,
    },
}

impl Default for ServerAddress {
    fn default() -> ServerAddress {
        ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: PORT_DEFAULT }
    }
}

impl FromStr for ServerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<ServerAddress, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return parse_unix(path).map_err(|what| malformed(what, text));
        }
        let (is_tls, authority) = match text.split_once("://") {
            None => (false, text),
            Some(("tcp", authority)) => (false, authority),
            Some(("tls", authority)) => (true, authority),
            Some((scheme, _)) => {
                return Err(AddressError::Scheme { scheme: scheme.to_owned(), text: text.to_owned() });
            }
        };
        let (host, port) = parse_tcp(authority).map_err(|what| malformed(what, text))?;
        Ok(if is_tls { ServerAddress::Tls { host, port } } else { ServerAddress::Tcp { host, port } })
    }
}

fn malformed(what: &'static str, text: &str) -> AddressError {
    AddressError::Malformed { what, text: text.to_owned() }
}

fn parse_unix(path: &str) -> Result<ServerAddress, &'static str> {
    let path = path.strip_prefix("//").unwrap_or(path);
    if !path.starts_with('/') {
        return Err("no absolute path");
    }
    Ok(ServerAddress::Unix(path.into()))
}

fn parse_tcp(authority: &str) -> Result<(String, u16), &'static str> {
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (host, port) = split_port(authority)?;
    if host.is_empty() {
        return Err("no host");
    }
    if host.contains(|letter: char| matches!(letter, '/' | '@' | '?' | '#') || letter.is_whitespace()) {
        return Err("more than host and port");
    }
    let port = match port {
        None => PORT_DEFAULT,
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or("no port from 1 to 65535")?,
    };
    Ok((host.to_owned(), port))
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), &'static str> {
    if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']').ok_or("no closing bracket")?;
        return match rest.strip_prefix(':') {
            None if rest.is_empty() => Ok((host, None)),
            None => Err("something behind the bracket that is no port"),
            port => Ok((host, port)),
        };
    }
    match authority.split_once(':') {
        None => Ok((authority, None)),
        Some((_, port)) if port.contains(':') => Err("IPv6 address without brackets"),
        Some((host, port)) => Ok((host, Some(port))),
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerAddress::Tcp { host, port } if host.contains(':') => write!(out, "tcp://[{host}]:{port}"),
            ServerAddress::Tcp { host, port } => write!(out, "tcp://{host}:{port}"),
            ServerAddress::Tls { host, port } if host.contains(':') => write!(out, "tls://[{host}]:{port}"),
            ServerAddress::Tls { host, port } => write!(out, "tls://{host}:{port}"),
            ServerAddress::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("tcp://127.0.0.1:99", "tcp://127.0.0.1:99")]
    #[case("tcp://host/", "tcp://host:7584")]
    #[case("host:1", "tcp://host:1")]
    #[case("host", "tcp://host:7584")]
    #[case("tls://host", "tls://host:7584")]
    #[case("tls://[::1]:80", "tls://[::1]:80")]
    #[case("[::1]:80", "tcp://[::1]:80")]
    #[case("tcp://[::1]", "tcp://[::1]:7584")]
    #[case("unix:/run/plugd.sock", "unix:/run/plugd.sock")]
    #[case("unix:///run/plugd.sock", "unix:/run/plugd.sock")]
    fn a_good_address_is_written_as_its_url(#[case] text: &str, #[case] url: &str) {
        assert_eq!(text.parse::<ServerAddress>().expect("a good address").to_string(), url);
    }

    #[rstest]
    #[case("tls://host:0", "no port from 1 to 65535")]
    #[case("http://host", "scheme \"http://\" not supported")]
    #[case("", "no host")]
    #[case("tcp://:5", "no host")]
    #[case("host:0", "no port from 1 to 65535")]
    #[case("host:70000", "no port from 1 to 65535")]
    #[case("host:", "no port from 1 to 65535")]
    #[case("::1", "IPv6 address without brackets")]
    #[case("[::1", "no closing bracket")]
    #[case("[::1]x", "something behind the bracket")]
    #[case("tcp://host/path", "more than host and port")]
    #[case("unix:run/plugd.sock", "no absolute path")]
    fn a_bad_address_is_refused_by_naming_what_is_allowed(#[case] text: &str, #[case] what: &str) {
        let error = text.parse::<ServerAddress>().expect_err("a bad address").to_string();
        assert!(error.contains(what), "{error}");
        assert!(error.ends_with(ALLOWED), "{error}");
    }
}
