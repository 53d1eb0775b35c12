//! Connects sockets for the load, as many as the system lets.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

use crate::cli::failure::Failure;
use crate::tls::TlsSocket;
use crate::{ClientError, Connector, ServerAddress};

pub(crate) type Socket = Either<TcpStream, Either<UnixStream, Box<TlsSocket>>>;

/// Where to connect, its name looked up once.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Tcp(SocketAddr),
    /// The host whose certificate is expected there.
    Tls(SocketAddr, String, Box<Connector>),
    Unix(PathBuf),
}

impl Target {
    pub(crate) async fn find(connector: &Connector) -> Result<Target, Failure> {
        match connector.address() {
            ServerAddress::Unix(path) => Ok(Target::Unix(path.clone())),
            ServerAddress::Tls { host, port } => {
                let address = connector.look_up(host, *port).await?[0];
                Ok(Target::Tls(address, host.clone(), Box::new(connector.clone())))
            }
            ServerAddress::Tcp { host, port } => Ok(Target::Tcp(connector.look_up(host, *port).await?[0])),
        }
    }

    pub(crate) async fn connect(&self) -> io::Result<Socket> {
        match self {
            Target::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Either::Left(stream))
            }
            Target::Tls(address, host, connector) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let secured = connector.secure(stream, host).await.map_err(|error| match error {
                    ClientError::Connect { source, .. } => source,
                    error => io::Error::other(error),
                })?;
                Ok(Either::Right(Either::Right(Box::new(secured))))
            }
            Target::Unix(path) => UnixStream::connect(path).await.map(|stream| Either::Right(Either::Left(stream))),
        }
    }
}

/// Lets this process have as many descriptors as it may at the most; where that is refused, it goes on with fewer.
pub(crate) fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// How many descriptors this process may have.
pub(crate) fn descriptor_limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
}
