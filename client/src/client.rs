//! One connection to a server, from its first call to its last.

use std::time::Duration;

use bytes::Bytes;
use plugd_core::wire::{DATA_LEN_MAX_DEFAULT, Open};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::progress::Progress;
use crate::receiver::Source;
use crate::recording::Tape;
use crate::{
    CallError, ClientError, Connector, Exchange, REPLY_LEN_MAX, Receiver, Recorder, Reply, Sender, ServerAddress, Token,
};

/// How long writing a CANCEL may take before the connection is reset instead.
const CANCEL_PATIENCE: Duration = Duration::from_millis(200);

/// One connection to a server, which carries one call after the other.
///
/// The server's hello is read with the first answer; until then the first call is already on its way.
#[derive(Debug)]
pub struct Client {
    sender: Sender,
    receiver: Receiver,
}

impl Client {
    /// Connects to `address`, for at most ten seconds. A [`Connector`] knows other ways.
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`].
    pub async fn connect(address: &ServerAddress) -> Result<Client, ClientError> {
        Connector::new(address.clone()).connect().await
    }

    /// Speaks over a stream that is connected already.
    pub fn over<S: AsyncRead + AsyncWrite + Send + 'static>(stream: S) -> Client {
        let (read, write) = tokio::io::split(Box::pin(stream));
        Client::of(Box::new(read), Box::new(write), DATA_LEN_MAX_DEFAULT, None)
    }

    pub(crate) fn of(
        read: Box<dyn Source>,
        write: Box<dyn AsyncWrite + Send + Unpin>,
        data_len_max: u32,
        token: Option<Token>,
    ) -> Client {
        let (told, heard) = watch::channel(Progress::new());
        let mut client =
            Client { sender: Sender::new(write, heard, data_len_max), receiver: Receiver::new(read, told) };
        if let Some(token) = token {
            client.authenticate(token);
        }
        client
    }

    /// Proves who calls with the next call that is opened, and so for all that follow it. Over whatever the client
    /// speaks: a [`Connector`] knows where a token would go in clear text.
    pub fn authenticate(&mut self, token: Token) {
        self.sender.authenticate(token);
    }

    /// Stores each call on this connection from now on; see [`Recorder`]. Writing blocks the thread for as long as the file
    /// takes it.
    pub fn record(&mut self, recorder: &Recorder) {
        let tape = Tape::new(recorder.clone());
        self.sender.record(tape.clone());
        self.receiver.record(tape);
    }

    /// Opens a call. One before it that was not received to its end is cancelled first.
    ///
    /// The opening header leaves with the first input, or with the first look at the answer.
    ///
    /// # Errors
    ///
    /// As [`Sender::open`], and as [`Receiver::end`] for the call before.
    pub async fn open(&mut self, request: &Open<'_>) -> Result<Exchange<'_>, ClientError> {
        if !self.is_closed() && self.receiver.answered() < self.sender.opened() {
            self.cancel_all().await?;
        }
        self.sender.open(request).await?;
        Ok(Exchange::new(&mut self.sender, &mut self.receiver))
    }

    /// Makes a whole call: `payload` is its only message, or it has none when that is empty.
    ///
    /// # Errors
    ///
    /// [`CallError::Status`] when the call ends with another status than `ok`; [`CallError::Client`] otherwise, among
    /// them [`ClientError::ReplyTooLong`] above [`REPLY_LEN_MAX`].
    pub async fn call(&mut self, request: &Open<'_>, payload: impl Into<Bytes>) -> Result<Reply, CallError> {
        let reply = self.open(request).await?.whole(payload.into(), REPLY_LEN_MAX).await?;
        if !reply.status.is_ok() {
            return Err(CallError::Status { status: Box::new(reply.status), trailer: reply.trailer });
        }
        Ok(reply)
    }

    /// Whether the connection takes no other call: the server closed it with an end, or an error did.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Takes the connection apart, so that calls can be sent ahead while answers are read, in the order of the calls.
    pub fn into_halves(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// Puts the halves of one connection together again, once the last of the calls on it has its answer.
    pub fn from_halves(sender: Sender, receiver: Receiver) -> Client {
        Client { sender, receiver }
    }

    /// Gives up the call that runs, if one does, and drops the connection.
    ///
    /// Waits up to `patience` for the end of the call. Where the CANCEL cannot be written, or no end comes, a TCP
    /// connection is reset, so that the server learns at once that nobody waits.
    pub async fn abandon(mut self, patience: Duration) {
        let given_up = timeout(patience, self.cancel_all()).await;
        if !matches!(given_up, Ok(Ok(()))) {
            self.receiver.abort();
        }
    }

    async fn cancel_all(&mut self) -> Result<(), ClientError> {
        let Client { sender, receiver } = self;
        let opened = sender.opened();
        let cancel = async {
            let written = timeout(CANCEL_PATIENCE, sender.cancel()).await;
            written.unwrap_or_else(|late| Err(ClientError::Lost(late.into())))
        };
        let drain = async {
            while receiver.answered() < opened {
                receiver.end().await?;
            }
            Ok(())
        };
        tokio::try_join!(cancel, drain).map(|_| ())
    }
}
