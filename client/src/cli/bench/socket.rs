//! Connects sockets for the load, as many as the system lets.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

use crate::cli::failure::Failure;
use crate::{Connector, ServerAddress};

pub(crate) type Socket = Either<TcpStream, UnixStream>;

/// Where to connect, its name looked up once.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Target {
    pub(crate) async fn find(connector: &Connector) -> Result<Target, Failure> {
        match connector.address() {
            ServerAddress::Unix(path) => Ok(Target::Unix(path.clone())),
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
            Target::Unix(path) => UnixStream::connect(path).await.map(Either::Right),
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
