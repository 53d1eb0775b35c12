//! Connects sockets, patiently if asked to.

use std::io;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{Client, ClientError, ServerAddress};

/// How long one try to connect may take: an address that swallows packets would hold it for minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after the first try to connect.
const PAUSE_LEAST: Duration = Duration::from_millis(10);

/// The longest pause between two tries to connect.
const PAUSE_MAX: Duration = Duration::from_millis(500);

pub(crate) async fn connect(address: &ServerAddress, data_len_max: u32) -> Result<Client, ClientError> {
    connect_until(address, Instant::now() + CONNECT_TIMEOUT, data_len_max).await
}

pub(crate) async fn connect_with_wait(
    address: &ServerAddress,
    wait: Duration,
    data_len_max: u32,
) -> Result<Client, ClientError> {
    let end = Instant::now() + wait;
    let pauses = ExponentialBuilder::default().with_min_delay(PAUSE_LEAST).with_max_delay(PAUSE_MAX);
    let mut pauses = pauses.without_max_times().build();
    loop {
        let limit = end.clamp(Instant::now() + PAUSE_MAX, Instant::now() + CONNECT_TIMEOUT);
        let error = match connect_until(address, limit, data_len_max).await {
            Err(error) => error,
            connected => return connected,
        };
        let now = Instant::now();
        let Some(pause) = pauses.next().filter(|_| now < end) else {
            return Err(error);
        };
        sleep_until(end.min(now + pause)).await;
    }
}

async fn connect_until(address: &ServerAddress, limit: Instant, data_len_max: u32) -> Result<Client, ClientError> {
    let connected = timeout_at(limit, connect_socket(address, data_len_max)).await;
    let connected = connected.unwrap_or_else(|late| Err(late.into()));
    connected.map_err(|source| ClientError::Connect { address: address.clone(), source })
}

async fn connect_socket(address: &ServerAddress, data_len_max: u32) -> io::Result<Client> {
    match address {
        ServerAddress::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            let (read, write) = stream.into_split();
            Ok(Client::of(Box::new(read), Box::new(write), data_len_max))
        }
        ServerAddress::Unix(path) => {
            let (read, write) = UnixStream::connect(path).await?.into_split();
            Ok(Client::of(Box::new(read), Box::new(write), data_len_max))
        }
    }
}
