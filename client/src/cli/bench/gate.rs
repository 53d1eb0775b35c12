//! Makes connections, so many at a time, and no more once one has shown that the others would fail as well.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use plugd_core::wire::{End, FRAME_HEADER_LEN, FrameHeader, FrameLimits, HELLO_LEN, Hello, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::socket::{Socket, Target, descriptor_limit};
use super::tally::Trouble;
use super::timer::Timer;
use super::work::Work;

/// How many connections are being made at once: a server's backlog is finite.
const CONNECTING_MAX: usize = 64;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the connections of a load come from.
#[derive(Debug)]
pub(crate) struct Gate {
    target: Target,
    connecting: Semaphore,
    /// How many sockets there are, connected or about to be.
    open: AtomicU32,
    /// Why no more connections are made.
    given_up: OnceLock<Trouble>,
}

impl Gate {
    pub(crate) fn new(target: Target) -> Gate {
        let connecting = Semaphore::new(CONNECTING_MAX);
        Gate { target, connecting, open: AtomicU32::new(0), given_up: OnceLock::new() }
    }

    /// Connects. Call [`left`](Gate::left) when the connection is no more.
    pub(crate) async fn connect(&self) -> Result<Socket, Trouble> {
        let _turn = self.connecting.acquire().await;
        self.connect_now().await
    }

    /// Connects, says how the work opens and hears the server's hello, which may take as long as `patience`.
    ///
    /// With it comes a timer where one is needed, so that a connection is made only where both can be.
    pub(crate) async fn greet(
        &self,
        work: &Work,
        patience: Duration,
        needs_timer: bool,
    ) -> Result<(Socket, Option<Timer>), Trouble> {
        let _turn = self.connecting.acquire().await;
        let timer = needs_timer.then(|| self.timer()).transpose()?;
        let mut socket = self.connect_now().await?;
        let greeted = timeout(patience, open(&mut socket, work)).await;
        match greeted.unwrap_or_else(|_| Err(self.give_up(Trouble::Stalled(patience)))) {
            Ok(()) => Ok((socket, timer)),
            Err(trouble) => {
                self.left();
                Err(trouble)
            }
        }
    }

    /// Makes a timer, which takes a descriptor as a connection does.
    pub(crate) fn timer(&self) -> Result<Timer, Trouble> {
        Timer::new().map_err(|error| self.trouble(&error, self.open.load(Ordering::Relaxed)))
    }

    /// Notes that a connection is no more.
    pub(crate) fn left(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    async fn connect_now(&self) -> Result<Socket, Trouble> {
        if let Some(trouble) = self.given_up.get() {
            return Err(trouble.clone());
        }
        let others = self.open.fetch_add(1, Ordering::Relaxed);
        let connected = timeout(CONNECT_TIMEOUT, self.target.connect()).await;
        let error = match connected.unwrap_or_else(|_| Err(late())) {
            Ok(socket) => return Ok(socket),
            Err(error) => error,
        };
        self.left();
        Err(self.trouble(&error, others))
    }

    fn trouble(&self, error: &io::Error, open: u32) -> Trouble {
        let connections = if open == 1 { "1 connection is" } else { &format!("{open} connections are") };
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EMFILE) => {
                let limit = descriptor_limit();
                self.give_up(Trouble::Connect(format!(
                    "{error}; {connections} open, at most {limit} descriptors (ulimit -n)"
                )))
            }
            Some(Errno::ENFILE) => self.give_up(Trouble::Connect(format!("{error}; {connections} open"))),
            _ if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::InvalidData) => {
                self.give_up(Trouble::Connect(error.to_string()))
            }
            _ => Trouble::Connect(error.to_string()),
        }
    }

    /// Makes no more connections because of `trouble`, or of what it was before.
    fn give_up(&self, trouble: Trouble) -> Trouble {
        self.given_up.get_or_init(|| trouble).clone()
    }
}

fn late() -> io::Error {
    let limit = humantime::format_duration(CONNECT_TIMEOUT);
    io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit}"))
}

async fn open(socket: &mut Socket, work: &Work) -> Result<(), Trouble> {
    // A server that closed already may have said why: reading tells.
    let _ = socket.write_all(&work.opening).await;
    let _ = socket.flush().await;
    let mut hello = [0; HELLO_LEN];
    socket.read_exact(&mut hello).await.map_err(|error| Trouble::lost(&error))?;
    Hello::decode(&hello).map_err(|error| Trouble::protocol(&error.into()))?;
    if work.is_proving { read_end(socket).await } else { Ok(()) }
}

/// Reads up to the end of the call that proves who asks.
async fn read_end(socket: &mut Socket) -> Result<(), Trouble> {
    loop {
        let mut header = [0; FRAME_HEADER_LEN];
        socket.read_exact(&mut header).await.map_err(|error| Trouble::lost(&error))?;
        let header = FrameHeader::decode(header, FrameLimits::default());
        let header = header.map_err(|error| Trouble::protocol(&error.into()))?;
        let mut payload = vec![0; header.payload_len as usize];
        socket.read_exact(&mut payload).await.map_err(|error| Trouble::lost(&error))?;
        if header.kind == Kind::End {
            let status = End::decode(&payload).map_err(|error| Trouble::protocol(&error.into()))?.status;
            return if status.is_ok() { Ok(()) } else { Err(Trouble::of_status(&status)) };
        }
    }
}
