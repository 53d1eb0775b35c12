//! Moves data between a call and the program's own streams and files.

use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use plugd_core::wire::CHANNEL_MAIN;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::time::sleep;

use super::failure::Failure;
use super::output::Output;
use super::text::one_line;
use crate::{Data, REPLY_LEN_MAX, Receiver, Reply, Sender};

/// How much is read from a file at once, in bytes.
const CHUNK_LEN: usize = 256 << 10;

/// How long to wait before a non-blocking standard input that had nothing is asked again.
const NON_BLOCKING_PAUSE: Duration = Duration::from_millis(5);

/// A file or stdin, read in chunks.
#[derive(Debug)]
pub(crate) struct Source {
    file: File,
    name: String,
    buf: BytesMut,
}

impl Source {
    pub(crate) async fn open(path: &Path) -> Result<Source, Failure> {
        let name = one_line(&path.to_string_lossy());
        let file = File::open(path).await.map_err(|error| Failure::io(format!("cannot open {name}"), error))?;
        Ok(Source { file, name, buf: BytesMut::new() })
    }

    /// A descriptor of our own: the one of the standard library reads ahead through a small buffer.
    pub(crate) fn stdin() -> Result<Source, Failure> {
        let owned = io::stdin().as_fd().try_clone_to_owned();
        let owned = owned.map_err(|error| Failure::io("cannot open stdin", error))?;
        let file = File::from_std(std::fs::File::from(owned));
        Ok(Source { file, name: "stdin".to_owned(), buf: BytesMut::new() })
    }

    /// Reads what is there, or `None` at the end.
    pub(crate) async fn read(&mut self) -> Result<Option<Bytes>, Failure> {
        self.buf.reserve(CHUNK_LEN);
        loop {
            match self.file.read_buf(&mut self.buf).await {
                Ok(0) => return Ok(None),
                Ok(_) => return Ok(Some(self.buf.split().freeze())),
                // Somebody who shares the descriptor has made it non-blocking; a file has no event to wait for.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(NON_BLOCKING_PAUSE).await,
                Err(error) => return Err(Failure::io(format!("cannot read {}", self.name), error)),
            }
        }
    }

    /// Sends each chunk as a message of its own, as soon as it is read.
    pub(crate) async fn send_as_it_comes(mut self, sender: &mut Sender) -> Result<(), Failure> {
        sender.flush().await?;
        while let Some(chunk) = self.read().await? {
            sender.send(chunk).await?;
        }
        Ok(sender.finish().await?)
    }

    /// Sends everything as one message.
    pub(crate) async fn send_whole(mut self, sender: &mut Sender) -> Result<(), Failure> {
        // Reading may take its time, and the server waits for the opening header only so long.
        sender.flush().await?;
        while let Some(chunk) = self.read().await? {
            sender.feed(Data { more: true, ..Data::main(chunk) }).await?;
        }
        sender.feed(Data::main(Bytes::new())).await?;
        Ok(sender.finish().await?)
    }
}

/// Receives while sending goes on, and does not wait for the rest of the input once the call has ended.
///
/// A connection that fails in sending is left to the receiving side, which may still have the end of the call; a file
/// that cannot be read ends it here.
pub(crate) async fn exchange<T>(
    send: impl Future<Output = Result<(), Failure>>,
    receive: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let (mut send, mut receive) = (pin!(send), pin!(receive));
    tokio::select! {
        biased;
        sent = &mut send => match sent {
            Ok(()) | Err(Failure::Client(_)) => receive.await,
            Err(failure) => Err(failure),
        },
        received = &mut receive => received,
    }
}

/// Receives a whole call: into memory for the envelope, or else the main channel to stdout, the others to stderr.
pub(crate) async fn receive(receiver: &mut Receiver, json: bool) -> Result<Reply, Failure> {
    match json {
        true => Ok(receiver.reply(REPLY_LEN_MAX).await?),
        false => print(receiver).await,
    }
}

async fn print(receiver: &mut Receiver) -> Result<Reply, Failure> {
    let (mut stdout, mut stderr) = (Output::stdout(), Output::stderr());
    let head = receiver.head().await?.cloned();
    let copied = async {
        while let Some(data) = receiver.recv().await? {
            match data.channel {
                CHANNEL_MAIN => stdout.write(&data.payload).await?,
                // Nobody hears that stderr is closed.
                _ => drop(stderr.print(&data.payload).await),
            }
        }
        Ok(receiver.end().await?)
    };
    let end: Result<_, Failure> = copied.await;
    // What came before a connection was lost has come all the same.
    stdout.flush().await?;
    let end = end?;
    Ok(Reply { status: end.status, head, trailer: end.trailer, ..Reply::default() })
}

/// Turns a call that ended badly into a failure.
pub(crate) fn succeeded(reply: Reply) -> Result<Reply, Failure> {
    if reply.status.is_ok() { Ok(reply) } else { Err(Failure::Status(Box::new(reply))) }
}
