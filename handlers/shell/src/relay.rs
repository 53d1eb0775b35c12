//! Moves what a command prints, each stream on its channel, in the order in which it was read.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use plugd_core::wire::CHANNEL_MAIN;
use plugd_core::{Output, Status};
use rustix::pipe::fcntl_setpipe_size;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep_until};

use crate::process::Running;
use crate::pty::Pty;
use crate::spool::Spool;

/// The side channel of standard error.
pub(crate) const CHANNEL_STDERR: u8 = 1;

/// How much is read at once of a stream that says little, in bytes.
const READ_LEN_LEAST: usize = 8 << 10;

/// How much is read at once of a stream that says a lot, in bytes: past it longer reads stopped saving time.
const READ_LEN_MAX: usize = 256 << 10;

/// What a pipe is made to hold when its command fills it faster than it is read, in bytes: the most that a process without
/// privileges may ask for (pipe(7)).
const PIPE_LEN: usize = 1 << 20;

/// Up to this length bytes are copied out of the buffer that they were read into, or each would pin all of it.
const COPY_LEN_MAX: usize = 2 << 10;

/// How much output is taken after the command's end: what two pipes of the largest size hold (pipe(7)).
const DRAIN_LEN_MAX: u64 = 2 << 20;

/// Where output goes to.
#[derive(Debug)]
pub(crate) enum Sink<'a> {
    /// To the caller.
    Call(&'a mut Output),
    /// To where a job's output is kept.
    Job(&'a Spool),
}

impl Sink<'_> {
    async fn send(&mut self, chunk: Chunk) -> Result<(), Status> {
        match self {
            Sink::Call(output) => output.send_on(chunk.channel, chunk.payload).await,
            Sink::Job(spool) => {
                spool.push(chunk.channel, chunk.payload).await;
                Ok(())
            }
        }
    }
}

/// Why output stopped before the command did.
#[derive(Debug)]
pub(crate) enum Cut {
    /// The limit of its length was reached.
    OutputMax,
    /// It cannot be read or sent.
    Failed(Status),
}

/// Moves output until the command has ended and its output was sent, what it left behind within `drain_time` included.
///
/// # Errors
///
/// Why it stopped earlier; the command may still run then.
pub(crate) async fn run(
    running: &Running,
    outlets: &mut Outlets,
    sink: &mut Sink<'_>,
    drain_time: Duration,
) -> Result<(), Cut> {
    loop {
        tokio::select! {
            // What a command left behind may print for ever; its end must be seen even so.
            biased;
            () = running.exited() => break,
            chunk = outlets.next() => outlets.pass(chunk?, sink).await?,
        }
    }
    // What was left behind may finish what it was saying, is then asked to end, and in the end is killed by whoever called.
    drain(outlets, sink, drain_time / 2).await?;
    if running.has_orphans() {
        running.ask_to_end();
        let gone = async {
            running.all_gone(drain_time / 2).await;
        };
        tokio::select! {
            drained = drain(outlets, sink, drain_time / 2) => drained?,
            () = gone => drain(outlets, sink, Duration::ZERO).await?,
        }
    }
    Ok(())
}

/// Sends what comes within `time`. The time that sending takes is the caller's and does not count, or a slow caller would
/// miss the end of the output.
async fn drain(outlets: &mut Outlets, sink: &mut Sink<'_>, time: Duration) -> Result<(), Cut> {
    let mut deadline = Instant::now() + time;
    let sent_before = outlets.total();
    while outlets.are_open() && outlets.total() - sent_before < DRAIN_LEN_MAX {
        let chunk = tokio::select! {
            // The time is up only when nothing is there to be read.
            biased;
            chunk = outlets.next() => chunk?,
            () = sleep_until(deadline) => return Ok(()),
        };
        let sending = Instant::now();
        outlets.pass(chunk, sink).await?;
        deadline += sending.elapsed();
    }
    Ok(())
}

/// What was read at once; nothing at the end of a stream.
#[derive(Debug)]
pub(crate) struct Chunk {
    channel: u8,
    payload: Bytes,
}

/// Both streams of a command's output, and how much of them was passed on.
#[derive(Debug)]
pub(crate) struct Outlets {
    outlets: [Outlet; 2],
    /// Which is asked first: each in its turn, so that none waits for ever.
    first: usize,
    sent: [u64; 2],
    allowed_len: u64,
}

impl Outlets {
    /// Output of two pipes, of which at most `allowed_len` bytes are passed on.
    pub(crate) fn pipes(stdout: OwnedFd, stderr: OwnedFd, allowed_len: u64) -> io::Result<Outlets> {
        let outlet = |pipe, channel| Ok::<_, io::Error>(Outlet::new(Reader::Pipe(receiver(pipe)?), channel));
        let outlets = [outlet(stdout, CHANNEL_MAIN)?, outlet(stderr, CHANNEL_STDERR)?];
        Ok(Outlets { outlets, first: 0, sent: [0; 2], allowed_len })
    }

    /// Output of a terminal, which has one stream.
    pub(crate) fn pty(pty: Arc<Pty>, allowed_len: u64) -> Outlets {
        let outlets = [Outlet::new(Reader::Pty(pty), CHANNEL_MAIN), Outlet::new(Reader::Ended, CHANNEL_STDERR)];
        Outlets { outlets, first: 0, sent: [0; 2], allowed_len }
    }

    /// How many bytes of each stream were passed on.
    pub(crate) fn sent(&self) -> [u64; 2] {
        self.sent
    }

    fn total(&self) -> u64 {
        self.sent.iter().sum()
    }

    /// Reads and forgets for ever. A command that is asked to end may still write, and a closed or a full pipe would
    /// kill it or hold it up before it has cleaned up.
    pub(crate) async fn discard(&mut self) -> Infallible {
        loop {
            let _ = self.next().await;
        }
    }

    fn are_open(&self) -> bool {
        self.outlets.iter().any(|outlet| !matches!(outlet.reader, Reader::Ended))
    }

    /// Reads once from whichever stream has something. Nothing is lost when the future is dropped.
    async fn next(&mut self) -> Result<Chunk, Cut> {
        let [stdout, stderr] = &mut self.outlets;
        let (one, other) = if self.first == 0 { (stdout, stderr) } else { (stderr, stdout) };
        let chunk = tokio::select! {
            biased;
            chunk = one.next() => chunk,
            chunk = other.next() => chunk,
        };
        let chunk = chunk.map_err(|error| {
            let status = Status::internal("io-failed", "the command's output cannot be read").with_detail(error);
            Cut::Failed(status)
        })?;
        self.first = usize::from(chunk.channel == CHANNEL_MAIN);
        Ok(chunk)
    }

    /// Passes a piece on, as far as there may be so much output.
    async fn pass(&mut self, mut chunk: Chunk, sink: &mut Sink<'_>) -> Result<(), Cut> {
        let room = self.allowed_len - self.total();
        let is_too_long = chunk.payload.len() as u64 > room;
        if is_too_long {
            chunk.payload.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        }
        let (channel, len) = (usize::from(chunk.channel), chunk.payload.len() as u64);
        if len > 0 {
            sink.send(chunk).await.map_err(Cut::Failed)?;
            self.sent[channel] += len;
        }
        if is_too_long { Err(Cut::OutputMax) } else { Ok(()) }
    }
}

fn receiver(pipe: OwnedFd) -> io::Result<pipe::Receiver> {
    rustix::io::ioctl_fionbio(&pipe, true)?;
    pipe::Receiver::from_owned_fd_unchecked(pipe)
}

#[derive(Debug)]
enum Reader {
    Pipe(pipe::Receiver),
    Pty(Arc<Pty>),
    Ended,
}

/// One stream of output and the channel that it goes to.
#[derive(Debug)]
struct Outlet {
    reader: Reader,
    channel: u8,
    buf: BytesMut,
    read_len: usize,
}

impl Outlet {
    fn new(reader: Reader, channel: u8) -> Outlet {
        Outlet { reader, channel, buf: BytesMut::new(), read_len: READ_LEN_LEAST }
    }

    /// Reads once, or reports the end or an error once and then never returns.
    async fn next(&mut self) -> io::Result<Chunk> {
        let read = match &mut self.reader {
            Reader::Ended => return pending().await,
            Reader::Pipe(pipe) => {
                self.buf.reserve(self.read_len);
                pipe.read_buf(&mut self.buf).await
            }
            Reader::Pty(pty) => {
                self.buf.resize(self.read_len, 0);
                let read = pty.read(&mut self.buf).await;
                self.buf.truncate(*read.as_ref().unwrap_or(&0));
                read
            }
        };
        if !matches!(read, Ok(1..)) {
            self.reader = Reader::Ended;
        }
        let len = read?;
        if len >= self.read_len && self.read_len < READ_LEN_MAX {
            self.expect_more();
        }
        let payload = match len {
            0..=COPY_LEN_MAX => {
                let copy = Bytes::copy_from_slice(&self.buf);
                self.buf.clear();
                copy
            }
            _ => self.buf.split().freeze(),
        };
        Ok(Chunk { channel: self.channel, payload })
    }

    /// A stream that fills what is read of it is read in longer pieces, and its pipe made to hold more: the command and
    /// this process then take turns less often.
    fn expect_more(&mut self) {
        self.read_len = (4 * self.read_len).min(READ_LEN_MAX);
        if let Reader::Pipe(pipe) = &self.reader
            && self.read_len >= PIPE_LEN / 16
        {
            // The user's share of memory for pipes may be used up; then it stays as it is.
            let _ = fcntl_setpipe_size(pipe, PIPE_LEN);
        }
    }
}
