//! Connects to a server, patiently if asked to.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use plugd_core::wire::DATA_LEN_MAX_DEFAULT;
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::tls::TlsSocket;
use crate::{Client, ClientError, ServerAddress, Tls, TlsFiles, Token};

/// How long one try to connect may take: an address that swallows packets would hold it for minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after the first try to connect.
const PAUSE_LEAST: Duration = Duration::from_millis(10);

/// The longest pause between two tries to connect.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// How a server is reached: its address, and what this side asks for and proves itself with.
///
/// Each [`connect`](Connector::connect) makes another connection of the same kind.
///
/// ```no_run
/// use std::path::Path;
/// use std::time::Duration;
///
/// use plugd_client::{Connector, Token};
///
/// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
/// let token = Token::read_file(Path::new("/run/secrets/plugd"))?;
/// let connector = Connector::new("unix:/run/plugd.sock".parse()?).token(token).wait(Duration::from_secs(10));
/// let client = connector.connect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Connector {
    address: ServerAddress,
    data_len_max: u32,
    wait: Duration,
    token: Option<Token>,
    tls: Option<Tls>,
    is_cleartext_token_allowed: bool,
}

impl Connector {
    /// Reaches the server at `address`: with nothing to prove, DATA of at most 1 MiB, and one try of ten seconds.
    pub fn new(address: ServerAddress) -> Connector {
        Connector {
            address,
            data_len_max: DATA_LEN_MAX_DEFAULT,
            wait: Duration::ZERO,
            token: None,
            tls: None,
            is_cleartext_token_allowed: false,
        }
    }

    /// Asks for DATA of at most so many bytes, which is 64 KiB to 16 MiB. A message is no shorter for that: it comes in
    /// more pieces.
    pub fn data_len_max(self, data_len_max: u32) -> Connector {
        Connector { data_len_max, ..self }
    }

    /// Waits so long for a server that may not be up yet: tries again, with pauses that grow from 10 ms to 500 ms.
    pub fn wait(self, wait: Duration) -> Connector {
        Connector { wait, ..self }
    }

    /// Proves who calls with the first call of each connection. Over TCP without TLS only servers on this machine are sent
    /// a token: addresses of loopback.
    pub fn token(self, token: Token) -> Connector {
        Connector { token: Some(token), ..self }
    }

    /// Judges servers of `tls://` addresses so, and shows them what they ask for; otherwise by the system's roots.
    pub fn tls(self, tls: Tls) -> Connector {
        Connector { tls: Some(tls), ..self }
    }

    /// Sends a token also where everybody on the way can read it.
    pub fn allow_cleartext_token(self) -> Connector {
        Connector { is_cleartext_token_allowed: true, ..self }
    }

    /// Where the server is.
    pub fn address(&self) -> &ServerAddress {
        &self.address
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`] of the last try, at once where a server's certificate is refused; [`ClientError::CleartextToken`] before anything is sent.
    pub async fn connect(&self) -> Result<Client, ClientError> {
        let end = Instant::now() + self.wait;
        let pauses = ExponentialBuilder::default().with_min_delay(PAUSE_LEAST).with_max_delay(PAUSE_MAX);
        let mut pauses = pauses.without_max_times().build();
        loop {
            let error = match self.connect_until(self.limit(end)).await {
                Err(error) if error.is_passing_connect() => error,
                connected => return connected,
            };
            let now = Instant::now();
            let Some(pause) = pauses.next().filter(|_| now < end) else {
                return Err(error);
            };
            sleep_until(end.min(now + pause)).await;
        }
    }

    /// When one try is over: the last one has a little time, even where the wait is over.
    fn limit(&self, end: Instant) -> Instant {
        let now = Instant::now();
        match self.wait.is_zero() {
            true => now + CONNECT_TIMEOUT,
            false => end.clamp(now + PAUSE_MAX, now + CONNECT_TIMEOUT),
        }
    }

    async fn connect_until(&self, limit: Instant) -> Result<Client, ClientError> {
        let connected = timeout_at(limit, self.connect_once()).await;
        connected.unwrap_or_else(|late| Err(self.fail(late.into())))
    }

    async fn connect_once(&self) -> Result<Client, ClientError> {
        match &self.address {
            ServerAddress::Tcp { host, port } => {
                let (read, write) = self.connect_tcp(host, *port).await?.into_split();
                Ok(Client::of(Box::new(read), Box::new(write), self.data_len_max, self.token.clone()))
            }
            ServerAddress::Tls { host, port } => {
                let (read, write) = self.secure(self.connect_tcp(host, *port).await?, host).await?.into_split();
                Ok(Client::of(Box::new(read), Box::new(write), self.data_len_max, self.token.clone()))
            }
            ServerAddress::Unix(path) => {
                let (read, write) = UnixStream::connect(path).await.map_err(|error| self.fail(error))?.into_split();
                Ok(Client::of(Box::new(read), Box::new(write), self.data_len_max, self.token.clone()))
            }
        }
    }

    async fn connect_tcp(&self, host: &str, port: u16) -> Result<TcpStream, ClientError> {
        let addresses = self.look_up(host, port).await?;
        let stream = TcpStream::connect(&addresses[..]).await.map_err(|error| self.fail(error))?;
        stream.set_nodelay(true).map_err(|error| self.fail(error))?;
        Ok(stream)
    }

    /// The addresses of a host; those that a token would be sent to in clear text are refused.
    pub(crate) async fn look_up(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ClientError> {
        let found: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(|error| self.fail(error))?.collect();
        if found.is_empty() {
            return Err(self.fail(io::Error::other("the name has no address")));
        }
        let is_far = found.iter().any(|address| !address.ip().to_canonical().is_loopback());
        let is_clear = !matches!(self.address, ServerAddress::Tls { .. });
        if is_far && is_clear && self.token.is_some() && !self.is_cleartext_token_allowed {
            return Err(ClientError::CleartextToken { address: self.address.clone() });
        }
        Ok(found)
    }

    /// Makes the handshake of TLS on a connection to `host`.
    pub(crate) async fn secure(&self, stream: TcpStream, host: &str) -> Result<TlsSocket, ClientError> {
        let tls = match &self.tls {
            Some(tls) => tls.clone(),
            None => Tls::load(&TlsFiles::default()).map_err(|error| self.fail(io::Error::other(error)))?,
        };
        tls.secure(stream, host, &self.address).await
    }

    /// What the first call of each connection proves.
    pub(crate) fn proof(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    pub(crate) fn fail(&self, source: io::Error) -> ClientError {
        ClientError::Connect { address: self.address.clone(), source }
    }
}
