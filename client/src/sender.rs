//! The half of a connection that opens calls and sends their input.

use std::fmt;
use std::future::poll_fn;

use bytes::Bytes;
use plugd_core::Data;
use plugd_core::transport::Outbound;
use plugd_core::wire::{DATA_LEN_MAX_DEFAULT, FrameHeader, HEADER_LEN_MAX, Hello, Kind, Open};
use tokio::io::AsyncWrite;
use tokio::sync::watch;

use crate::progress::Progress;
use crate::recording::Tape;
use crate::{ClientError, Token};

/// Output over this length is written before more is queued, in bytes; below it, frames leave together.
const WRITE_AHEAD_MAX: usize = 64 << 10;

/// The longest DATA payload sent, in bytes, whatever the server accepts: a CANCEL waits for the frame before it.
const SEND_LEN_MAX: u32 = DATA_LEN_MAX_DEFAULT;

/// Opens calls and sends their input.
///
/// One call takes input at a time. [`open`](Sender::open), [`feed`](Sender::feed) and [`send_ahead`](Sender::send_ahead)
/// queue up to 64 KiB before they write; the other functions write what is queued, or wait until it is written.
///
/// Keep it until the last answer has come: dropped, it closes its direction of the stream, which a server takes for a
/// caller that has gone.
///
/// # Cancellation
///
/// A future that is dropped may leave a message sent in part, never a frame.
pub struct Sender {
    io: Box<dyn AsyncWrite + Send + Unpin>,
    outbound: Outbound,
    progress: watch::Receiver<Progress>,
    opened: u64,
    input: Input,
    tape: Option<Tape>,
    /// What the next call proves.
    token: Option<Token>,
}

/// What the latest call may still be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    Finished,
    Cancelled,
}

impl Sender {
    pub(crate) fn new(
        io: Box<dyn AsyncWrite + Send + Unpin>,
        progress: watch::Receiver<Progress>,
        data_len_max: u32,
    ) -> Sender {
        let mut outbound = Outbound::new();
        outbound.push_raw(&Hello { data_len_max }.encode());
        Sender { io, outbound, progress, opened: 0, input: Input::Cancelled, tape: None, token: None }
    }

    pub(crate) fn record(&mut self, tape: Tape) {
        self.tape = Some(tape);
    }

    pub(crate) fn authenticate(&mut self, token: Token) {
        self.token = Some(token);
    }

    /// How many calls were opened on this connection.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Whether the connection takes no other call, as far as the receiving half has read.
    pub fn is_closed(&self) -> bool {
        self.progress.borrow().closed
    }

    /// Opens the next call. A call before it whose input is not finished is cancelled.
    ///
    /// # Errors
    ///
    /// [`ClientError::Closed`] and [`ClientError::HeaderTooLong`], before anything is sent; [`ClientError::Lost`].
    pub async fn open(&mut self, request: &Open<'_>) -> Result<(), ClientError> {
        if self.is_closed() {
            return Err(ClientError::Closed);
        }
        let payload = match &self.token {
            Some(token) if request.auth.is_none() => proving(request, token).encode(),
            _ => request.encode(),
        };
        if payload.len() > HEADER_LEN_MAX as usize {
            return Err(ClientError::HeaderTooLong { found: payload.len() });
        }
        if self.input == Input::Open {
            self.push_cancel();
        }
        if let Some(tape) = &self.tape {
            tape.open(request);
        }
        self.outbound.push(FrameHeader::new(Kind::Open, payload.len() as u32), payload.into());
        self.token = None;
        self.opened += 1;
        self.input = Input::Open;
        self.flush_when_long().await
    }

    /// Sends bytes on the main channel as one message.
    ///
    /// # Errors
    ///
    /// [`ClientError::Ended`] when the call takes no more input, [`ClientError::Lost`]. Either way the receiving half
    /// may still have the end of the call.
    pub async fn send(&mut self, payload: impl Into<Bytes>) -> Result<(), ClientError> {
        self.send_data(Data::main(payload)).await
    }

    /// Sends bytes on a side channel as one message; what the channel means, the operation's description says.
    ///
    /// # Errors
    ///
    /// As [`Sender::send`].
    pub async fn send_on(&mut self, channel: u8, payload: impl Into<Bytes>) -> Result<(), ClientError> {
        self.send_data(Data { channel, ..Data::main(payload) }).await
    }

    /// Sends one piece of data as it is, in as many frames as the server's limit asks for.
    ///
    /// # Errors
    ///
    /// As [`Sender::send`].
    pub async fn send_data(&mut self, data: Data) -> Result<(), ClientError> {
        self.feed(data).await?;
        self.flush().await
    }

    /// Queues one piece of data and writes only when much waits, for a burst that [`flush`](Sender::flush) ends.
    ///
    /// # Errors
    ///
    /// As [`Sender::send`].
    pub async fn feed(&mut self, data: Data) -> Result<(), ClientError> {
        if let Some(tape) = self.tape.as_ref().filter(|_| self.input == Input::Open && !self.has_ended()) {
            tape.input(&data);
        }
        let mut rest = Some(data);
        while let Some(data) = rest {
            if self.input != Input::Open || self.has_ended() {
                return Err(ClientError::Ended);
            }
            rest = self.push_data(data);
            self.flush_when_long().await?;
        }
        Ok(())
    }

    /// Says that the call gets no more input, and waits until all of it is written.
    ///
    /// # Errors
    ///
    /// [`ClientError::Lost`].
    pub async fn finish(&mut self) -> Result<(), ClientError> {
        self.queue_finish();
        self.flush().await
    }

    /// Gives the latest call up, and waits until that is written. The receiving half still gets its end.
    ///
    /// Nothing is sent when the call is over on both sides.
    ///
    /// # Errors
    ///
    /// [`ClientError::Lost`].
    pub async fn cancel(&mut self) -> Result<(), ClientError> {
        let over = self.input == Input::Finished && self.has_ended();
        if self.input != Input::Cancelled && !over {
            self.push_cancel();
            self.input = Input::Cancelled;
        }
        self.flush().await
    }

    /// Queues a whole call, so that many leave together; [`flush`](Sender::flush) writes the last of them.
    ///
    /// # Errors
    ///
    /// As [`Sender::open`] and [`Sender::send`].
    pub async fn send_ahead(&mut self, request: &Open<'_>, payload: impl Into<Bytes>) -> Result<(), ClientError> {
        self.open(request).await?;
        let payload = payload.into();
        if !payload.is_empty() {
            self.feed(Data::main(payload)).await?;
        }
        self.queue_finish();
        Ok(())
    }

    /// Waits until everything that is queued is written.
    ///
    /// # Errors
    ///
    /// [`ClientError::Ended`] when the call ends before that although its input is not finished, since the rest of
    /// the input serves nobody; [`ClientError::Lost`].
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        let Sender { io, outbound, progress, opened, input, .. } = self;
        if outbound.is_flushed() {
            return Ok(());
        }
        tokio::select! {
            biased;
            written = poll_fn(|cx| outbound.poll_flush(io, cx)) => written.map_err(ClientError::Lost),
            Ok(_) = progress.wait_for(|progress| progress.ended >= *opened), if *input == Input::Open => {
                Err(ClientError::Ended)
            }
        }
    }

    /// Tells the server that an ended call gets no more input, so that the connection can take the next one.
    pub(crate) async fn settle(&mut self) -> Result<(), ClientError> {
        if self.is_closed() {
            return Ok(());
        }
        self.finish().await
    }

    async fn flush_when_long(&mut self) -> Result<(), ClientError> {
        if self.outbound.len() < WRITE_AHEAD_MAX {
            return Ok(());
        }
        self.flush().await
    }

    /// Queues as much of `data` as one frame holds and returns the rest.
    fn push_data(&mut self, mut data: Data) -> Option<Data> {
        let len_max = self.progress.borrow().data_len_max.min(SEND_LEN_MAX) as usize;
        let rest = (data.payload.len() > len_max).then(|| data.payload.split_off(len_max));
        let header = FrameHeader {
            more: data.more || rest.is_some(),
            channel: data.channel,
            ..FrameHeader::new(Kind::Data, data.payload.len() as u32)
        };
        self.outbound.push(header, data.payload);
        rest.map(|payload| Data { payload, ..data })
    }

    /// After an early end the server waits for a CANCEL, and takes no other call before it.
    fn queue_finish(&mut self) {
        if self.input != Input::Open {
            return;
        }
        if self.has_ended() {
            self.push_empty(Kind::Cancel);
            self.input = Input::Cancelled;
        } else {
            self.push_empty(Kind::EndOfInput);
            self.input = Input::Finished;
        }
    }

    /// Gives the latest call up, which has no end yet as far as anybody here knows.
    fn push_cancel(&mut self) {
        if let Some(tape) = self.tape.as_ref().filter(|_| !self.has_ended()) {
            tape.cancel();
        }
        self.push_empty(Kind::Cancel);
    }

    fn push_empty(&mut self, kind: Kind) {
        self.outbound.push(FrameHeader::new(kind, 0), Bytes::new());
    }

    /// Whether the end of the latest call has arrived.
    fn has_ended(&self) -> bool {
        self.progress.borrow().ended >= self.opened
    }
}

/// The request with what its caller proves itself with.
fn proving<'r>(request: &Open<'r>, token: &Token) -> Open<'r> {
    Open { auth: Some(token.auth()), ..request.clone() }
}

impl fmt::Debug for Sender {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Sender").field("opened", &self.opened).field("input", &self.input).finish_non_exhaustive()
    }
}
