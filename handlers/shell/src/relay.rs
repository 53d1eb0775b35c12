//! Moves a command's three streams at once, so that none can hold up another for ever.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use bytes::Bytes;
use plugd_core::wire::CHANNEL_MAIN;
use plugd_core::{Input, Output, Status};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::time::{Instant, sleep_until};

use crate::group::Group;

/// The side channel of standard error.
pub(crate) const CHANNEL_STDERR: u8 = 1;

/// How many bytes of output are read at once, which is what a pipe holds by default (pipe(7)).
const CHUNK_LEN: usize = 64 << 10;

/// How long output is awaited after the command's end, from processes that it left behind with its pipes open.
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// How much output is taken after the command's end: what two pipes of the largest size hold (pipe(7)).
const DRAIN_LEN_MAX: usize = 2 << 20;

/// Moves data both ways until the command has ended and its output was sent.
///
/// # Errors
///
/// What receiving or sending fails with; the command may still run then.
pub(crate) async fn run(
    group: &mut Group,
    stdin: ChildStdin,
    outlets: &mut Outlets,
    input: &mut Input,
    output: &mut Output,
) -> Result<ExitStatus, Status> {
    let relay = relay(group, outlets, output);
    tokio::pin!(relay);
    tokio::select! {
        // The command's end is the call's, whatever input is left.
        exit = &mut relay => return exit,
        fed = feed(input, stdin) => fed?,
    }
    relay.await
}

/// Gives the input to the command and closes its standard input behind it.
async fn feed(input: &mut Input, stdin: ChildStdin) -> Result<(), Status> {
    let mut stdin = Some(stdin);
    while let Some(data) = input.recv().await? {
        // A command need not read to the end. The rest is dropped here, lest it hide a cancellation behind it.
        if let Some(pipe) = &mut stdin
            && pipe.write_all(&data).await.is_err()
        {
            stdin = None;
        }
    }
    Ok(())
}

async fn relay(group: &mut Group, outlets: &mut Outlets, output: &mut Output) -> Result<ExitStatus, Status> {
    loop {
        tokio::select! {
            chunk = outlets.next() => send(output, chunk?).await?,
            exit = group.exited() => {
                let exit = exit.map_err(io_failed)?;
                drain(outlets, output).await?;
                return Ok(exit);
            }
        }
    }
}

/// Sends what is left in the pipes, for as long as the constants above allow. The time that sending takes is the
/// caller's and does not count, or a slow caller would miss the end of the output.
async fn drain(outlets: &mut Outlets, output: &mut Output) -> Result<(), Status> {
    let mut deadline = Instant::now() + DRAIN_TIME;
    let mut drained_len = 0;
    while drained_len < DRAIN_LEN_MAX && outlets.are_open() {
        let chunk = tokio::select! {
            // The time is up only when nothing is there to be read.
            biased;
            chunk = outlets.next() => chunk?,
            () = sleep_until(deadline) => return Ok(()),
        };
        drained_len += chunk.payload.len();
        let sending = Instant::now();
        send(output, chunk).await?;
        deadline += sending.elapsed();
    }
    Ok(())
}

async fn send(output: &mut Output, chunk: Chunk) -> Result<(), Status> {
    match chunk.payload.is_empty() {
        true => Ok(()),
        false => output.send_on(chunk.channel, chunk.payload).await,
    }
}

/// What was read at once; nothing at the end of a stream.
#[derive(Debug)]
struct Chunk {
    channel: u8,
    payload: Bytes,
}

/// Both streams of a command's output.
#[derive(Debug)]
pub(crate) struct Outlets {
    stdout: Outlet<ChildStdout>,
    stderr: Outlet<ChildStderr>,
}

impl Outlets {
    pub(crate) fn new(stdout: ChildStdout, stderr: ChildStderr) -> Outlets {
        Outlets { stdout: Outlet::new(stdout, CHANNEL_MAIN), stderr: Outlet::new(stderr, CHANNEL_STDERR) }
    }

    /// Reads and forgets for ever. A command that is asked to end may still write, and a closed or a full pipe would
    /// kill it or hold it up before it has cleaned up.
    pub(crate) async fn discard(&mut self) -> Infallible {
        loop {
            let _ = self.next().await;
        }
    }

    fn are_open(&self) -> bool {
        self.stdout.reader.is_some() || self.stderr.reader.is_some()
    }

    /// Reads once from whichever stream has something. Nothing is lost when the future is dropped.
    async fn next(&mut self) -> Result<Chunk, Status> {
        tokio::select! {
            chunk = self.stdout.next() => chunk,
            chunk = self.stderr.next() => chunk,
        }
    }
}

/// One stream of output and the channel that it goes to.
#[derive(Debug)]
struct Outlet<R> {
    reader: Option<R>,
    channel: u8,
    buf: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Outlet<R> {
    fn new(reader: R, channel: u8) -> Outlet<R> {
        Outlet { reader: Some(reader), channel, buf: vec![0; CHUNK_LEN] }
    }

    /// Reads once, or reports the end or an error once and then never returns.
    async fn next(&mut self) -> Result<Chunk, Status> {
        let Some(reader) = &mut self.reader else { return pending().await };
        let read = reader.read(&mut self.buf).await;
        if !matches!(read, Ok(1..)) {
            self.reader = None;
        }
        // A copy: a command that writes byte by byte would otherwise pin a whole buffer with each.
        let payload = Bytes::copy_from_slice(&self.buf[..read.map_err(io_failed)?]);
        Ok(Chunk { channel: self.channel, payload })
    }
}

fn io_failed(error: io::Error) -> Status {
    Status::internal("io-failed", "the command cannot be followed").with_detail(error)
}
