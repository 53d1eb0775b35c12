//! Sockets that connections come in on.

use std::io;
use std::time::Duration;

use std::sync::Arc;

use plugd_core::transport::Stream;
use plugd_core::{Caller, Peer, Principal};
use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

use crate::address::ListenAddress;
use crate::tls::{self, Tls};

/// How long a silent TCP connection is trusted before the kernel asks the peer, and how often it asks.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);

/// One bound socket.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Tls(TcpListener, Arc<Tls>),
    #[cfg(unix)]
    Unix(unix::UnixSocket),
}

/// A connection that has just come in.
pub(crate) struct Arrival {
    pub(crate) caller: Caller,
    /// Whether nobody but the two ends can read what is sent.
    pub(crate) is_private: bool,
    pub(crate) transport: Transport,
}

/// What a connection runs over.
pub(crate) enum Transport {
    Ready(Box<dyn Stream>),
    /// Hands are still to be shaken.
    Tls(TcpStream, Arc<ServerConfig>),
}

impl Transport {
    /// The stream, and the names that the other side's certificate proves. With TLS the other side has to do its part first.
    pub(crate) async fn open(self) -> io::Result<(Box<dyn Stream>, Vec<String>)> {
        match self {
            Transport::Ready(stream) => Ok((stream, Vec::new())),
            Transport::Tls(stream, config) => {
                let (stream, names) = tls::accept(stream, config).await?;
                Ok((Box::new(stream), names))
            }
        }
    }
}

impl Listener {
    /// Binds an address; a name that stands for several is bound at the first that can be. `tls` is there where the address
    /// asks for it.
    pub(crate) async fn bind(
        address: &ListenAddress,
        congestion: Option<&str>,
        unix_mode: u32,
        tls: Option<Arc<Tls>>,
    ) -> io::Result<Listener> {
        match address {
            ListenAddress::Tcp { host, port } | ListenAddress::Tls { host, port } => {
                let listener = TcpListener::bind((host.as_str(), *port)).await?;
                tune(&listener)?;
                congestion.map_or(Ok(()), |name| set_congestion(&listener, name))?;
                Ok(match tls {
                    Some(tls) => Listener::Tls(listener, tls),
                    None => Listener::Tcp(listener),
                })
            }
            #[cfg(unix)]
            ListenAddress::Unix(path) => Ok(Listener::Unix(unix::UnixSocket::bind(path, unix_mode).await?)),
            #[cfg(not(unix))]
            ListenAddress::Unix(_) => Err(io::Error::new(io::ErrorKind::Unsupported, "no unix sockets here")),
        }
    }

    /// Where the socket really listens, with the port that port 0 became.
    pub(crate) fn address(&self) -> io::Result<ListenAddress> {
        match self {
            Listener::Tcp(listener) => Ok(listener.local_addr()?.into()),
            Listener::Tls(listener, _) => {
                let address = listener.local_addr()?;
                Ok(ListenAddress::Tls { host: address.ip().to_string(), port: address.port() })
            }
            #[cfg(unix)]
            Listener::Unix(socket) => Ok(ListenAddress::Unix(socket.path().to_owned())),
        }
    }

    /// The same socket, to be waited for on the runtime that this is called on.
    pub(crate) fn again(&self) -> io::Result<Listener> {
        match self {
            Listener::Tcp(listener) => Ok(Listener::Tcp(duplicate(listener)?)),
            Listener::Tls(listener, tls) => Ok(Listener::Tls(duplicate(listener)?, tls.clone())),
            #[cfg(unix)]
            Listener::Unix(socket) => Ok(Listener::Unix(socket.again()?)),
        }
    }

    /// Waits for the next connection.
    ///
    /// # Cancellation
    ///
    /// No connection is lost when the future is dropped.
    pub(crate) async fn accept(&self) -> io::Result<Arrival> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                let is_private = address.ip().to_canonical().is_loopback();
                let transport = Transport::Ready(Box::new(stream));
                Ok(Arrival { caller: Caller::new(Peer::Tcp(address)), is_private, transport })
            }
            Listener::Tls(listener, tls) => {
                let (stream, address) = listener.accept().await?;
                let transport = Transport::Tls(stream, tls.config());
                Ok(Arrival { caller: Caller::new(Peer::Tcp(address)), is_private: true, transport })
            }
            #[cfg(unix)]
            Listener::Unix(socket) => {
                let stream = socket.accept().await?;
                let caller = Caller::new(Peer::Unix).known_as(Principal::of_uid(stream.peer_cred()?.uid()));
                Ok(Arrival { caller, is_private: true, transport: Transport::Ready(Box::new(stream)) })
            }
        }
    }
}

/// The same socket, for the runtime that this is called on.
fn duplicate(listener: &TcpListener) -> io::Result<TcpListener> {
    TcpListener::from_std(SockRef::from(listener).try_clone()?.into())
}

/// Sets what serves every connection better. On Linux a connection inherits it from its listener (tcp(7)), which saves five
/// system calls for each.
fn tune(listener: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    // Answers are written whole, so that waiting to fill a segment only delays them.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)
}

#[cfg(target_os = "linux")]
fn set_congestion(listener: &TcpListener, name: &str) -> io::Result<()> {
    SockRef::from(listener).set_tcp_congestion(name.as_bytes()).map_err(|error| {
        let available = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
        let available = available.unwrap_or_default();
        let text = format!("no congestion control {name:?} ({error}); available: {}", available.trim());
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

#[cfg(not(target_os = "linux"))]
fn set_congestion(_listener: &TcpListener, name: &str) -> io::Result<()> {
    let text = format!("no congestion control {name:?}: only Linux lets a server choose");
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}

#[cfg(unix)]
mod unix {
    //! A unix socket that leaves no file behind.

    use std::fs;
    use std::io;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    use std::path::{Path, PathBuf};

    use socket2::{Domain, SockAddr, SockRef, Socket, Type};
    use tokio::net::{UnixListener, UnixStream};

    /// How many connections may wait to be accepted, as far as the system lets them (net.core.somaxconn).
    const BACKLOG: i32 = 4096;

    #[derive(Debug)]
    pub(crate) struct UnixSocket {
        listener: UnixListener,
        path: PathBuf,
        /// Whether the file goes with it.
        is_owner: bool,
    }

    impl UnixSocket {
        /// Binds `path`, over the file that a server which is gone left there. `mode` says who may connect.
        pub(crate) async fn bind(path: &Path, mode: u32) -> io::Result<UnixSocket> {
            let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
            let connected = if is_socket { UnixStream::connect(path).await.map(drop) } else { Ok(()) };
            // Only a socket that nobody serves refuses; one whose server is busy does not.
            if connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
                fs::remove_file(path)?;
            }
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.bind(&SockAddr::unix(path)?)?;
            // Nobody can connect before somebody listens, and then the mode holds.
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            let listener = UnixListener::from_std(socket.into())?;
            Ok(UnixSocket { listener, path: path.to_owned(), is_owner: true })
        }

        pub(crate) fn again(&self) -> io::Result<UnixSocket> {
            let socket = SockRef::from(&self.listener).try_clone()?;
            let listener = UnixListener::from_std(socket.into())?;
            Ok(UnixSocket { listener, path: self.path.clone(), is_owner: false })
        }

        pub(crate) fn path(&self) -> &Path {
            &self.path
        }

        pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
            Ok(self.listener.accept().await?.0)
        }
    }

    impl Drop for UnixSocket {
        fn drop(&mut self) {
            if self.is_owner {
                let _ = fs::remove_file(&self.path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_inherits_what_its_listener_was_told() {
        let address = "tcp://127.0.0.1:0".parse().expect("an address");
        let Listener::Tcp(listener) = Listener::bind(&address, None, 0o600, None).await.expect("a free port") else {
            panic!("TCP")
        };
        let address = listener.local_addr().expect("an address");
        let (_near, accepted) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
        let (stream, _) = accepted.expect("a connection");
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().expect("an option") && socket.keepalive().expect("an option"));
    }
}
