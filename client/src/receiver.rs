//! The half of a connection that reads answers.

use std::fmt;
use std::future::poll_fn;
use std::io;

use plugd_core::Data;
use plugd_core::transport::Inbound;
use plugd_core::wire::{End, Frame, FrameLimits, JSON_DEPTH_MAX, Kind, json_depth_exceeds};
use serde_json::{Map, Value};
use tokio::io::AsyncRead;
use tokio::net::{tcp, unix};
use tokio::sync::watch;

use crate::progress::Progress;
use crate::recording::Tape;
use crate::{ClientError, Reply};

/// How much memory of long payloads is used again, in bytes: what a holder works on, and what is on its way there.
const RECYCLED_LEN_MAX: usize = 3 << 20;

/// The reading direction of a stream that may know how to break it off.
pub(crate) trait Source: AsyncRead + Send + Unpin {
    /// Makes the stream reset the connection when it is dropped, instead of sending what is queued first.
    fn abort(&self) {}
}

impl Source for tcp::OwnedReadHalf {
    fn abort(&self) {
        // A socket that is not connected any more has nothing to reset.
        let _ = self.as_ref().set_zero_linger();
    }
}

impl Source for unix::OwnedReadHalf {}

impl<S: AsyncRead + Send + Unpin> Source for tokio::io::ReadHalf<S> {}

/// Reads answers, those of one call after the other.
///
/// [`end`](Receiver::end) moves on to the next call; until then the functions speak of the same one. An END that the
/// server sent while no call was open, such as after an idle time, is the answer to the next call.
///
/// # Cancellation
///
/// Nothing is lost when a future of [`head`](Receiver::head), [`recv`](Receiver::recv) or [`end`](Receiver::end) is
/// dropped.
pub struct Receiver {
    io: Box<dyn Source>,
    inbound: Inbound,
    progress: watch::Sender<Progress>,
    greeted: bool,
    answered: u64,
    head_may_come: bool,
    head: Option<Map<String, Value>>,
    data: Option<Data>,
    end: Option<End>,
    tape: Option<Tape>,
}

impl Receiver {
    pub(crate) fn new(io: Box<dyn Source>, progress: watch::Sender<Progress>) -> Receiver {
        Receiver {
            io,
            inbound: Inbound::new(FrameLimits::default()).recycling(RECYCLED_LEN_MAX),
            progress,
            greeted: false,
            answered: 0,
            head_may_come: true,
            head: None,
            data: None,
            end: None,
            tape: None,
        }
    }

    pub(crate) fn record(&mut self, tape: Tape) {
        self.tape = Some(tape);
    }

    /// How many calls [`end`](Receiver::end) has moved past.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// Waits for the handler's own header, or for the first data or end that shows that there is none.
    ///
    /// # Errors
    ///
    /// [`ClientError::Lost`], [`ClientError::Protocol`], [`ClientError::Closed`]; the connection is of no more use.
    pub async fn head(&mut self) -> Result<Option<&Map<String, Value>>, ClientError> {
        while self.head_may_come && self.end.is_none() {
            self.advance().await?;
        }
        Ok(self.head.as_ref())
    }

    /// Receives the next piece of data on any channel, or `None` when the call has ended.
    ///
    /// # Errors
    ///
    /// As [`Receiver::head`].
    pub async fn recv(&mut self) -> Result<Option<Data>, ClientError> {
        loop {
            if let Some(data) = self.data.take() {
                return Ok(Some(data));
            }
            if self.end.is_some() {
                return Ok(None);
            }
            self.advance().await?;
        }
    }

    /// Receives the end of the call and forgets data that comes before it. The next call is the one to speak of then.
    ///
    /// # Errors
    ///
    /// As [`Receiver::head`].
    pub async fn end(&mut self) -> Result<End, ClientError> {
        loop {
            if let Some(end) = self.end.take() {
                self.answered += 1;
                self.head_may_come = true;
                self.head = None;
                self.data = None;
                return Ok(end);
            }
            self.data = None;
            self.advance().await?;
        }
    }

    /// Receives everything up to the end of the call, at most `len_max` bytes of data, and moves on to the next call.
    ///
    /// # Errors
    ///
    /// [`ClientError::ReplyTooLong`] above the bound, with the rest of the call still to be received; otherwise as
    /// [`Receiver::head`].
    ///
    /// # Cancellation
    ///
    /// What was received is lost when the future is dropped.
    pub async fn reply(&mut self, len_max: usize) -> Result<Reply, ClientError> {
        let mut reply = Reply { head: self.head().await?.cloned(), ..Reply::default() };
        let mut len = 0;
        while let Some(data) = self.recv().await? {
            // A message costs memory even when it is empty.
            len += data.payload.len().max(size_of::<Data>());
            if len > len_max {
                return Err(ClientError::ReplyTooLong { allowed: len_max });
            }
            reply.add(data);
        }
        Ok(reply.ended(self.end().await?))
    }

    /// Takes the next frame and stores what it brings. An error closes the connection for every call to come.
    async fn advance(&mut self) -> Result<(), ClientError> {
        if self.progress.borrow().closed {
            return Err(ClientError::Closed);
        }
        let frame = self.frame().await;
        let stored = frame.and_then(|frame| self.store(frame));
        if stored.is_err() {
            self.progress.send_modify(|progress| progress.closed = true);
        }
        stored
    }

    async fn frame(&mut self) -> Result<Frame, ClientError> {
        loop {
            if !self.greeted
                && let Some(hello) = self.inbound.take_hello()?
            {
                self.greeted = true;
                self.progress.send_modify(|progress| progress.data_len_max = hello.data_len_max);
            }
            if self.greeted
                && let Some(frame) = self.inbound.take()?
            {
                return Ok(frame);
            }
            let filled = poll_fn(|cx| self.inbound.poll_fill(&mut *self.io, cx)).await;
            if filled.map_err(lost)? == 0 {
                return Err(ClientError::Lost(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    fn store(&mut self, frame: Frame) -> Result<(), ClientError> {
        let header = frame.header;
        match header.kind {
            Kind::Head if self.head_may_come => self.head = Some(object(&frame.payload)?),
            Kind::Data => {
                self.data = Some(Data { channel: header.channel, more: header.more, payload: frame.payload });
            }
            Kind::End => {
                self.end = Some(End::decode(&frame.payload)?);
                self.progress.send_modify(|progress| {
                    progress.ended += 1;
                    progress.closed |= header.close;
                });
            }
            kind => return Err(ClientError::Protocol(format!("{} not allowed now", kind.name()))),
        }
        if let Some(tape) = &self.tape {
            self.tell(tape, header.kind);
        }
        self.head_may_come = false;
        Ok(())
    }

    /// Records what the latest frame brought.
    fn tell(&self, tape: &Tape, kind: Kind) {
        match (kind, &self.head, &self.data, &self.end) {
            (Kind::Head, Some(head), ..) => tape.head(head),
            (Kind::Data, _, Some(data), _) => tape.output(data),
            (Kind::End, .., Some(end)) => tape.end(end),
            _ => {}
        }
    }

    /// Makes the connection reset when both halves are dropped, so that the server learns at once that nobody waits.
    pub(crate) fn abort(&self) {
        self.io.abort();
    }
}

/// A stream may know better than that the connection was lost.
fn lost(error: io::Error) -> ClientError {
    error.downcast().unwrap_or_else(ClientError::Lost)
}

fn object(payload: &[u8]) -> Result<Map<String, Value>, ClientError> {
    if json_depth_exceeds(payload, JSON_DEPTH_MAX) {
        return Err(ClientError::Protocol(format!("HEAD nests too deep; allowed: {JSON_DEPTH_MAX} levels")));
    }
    serde_json::from_slice(payload).map_err(|error| ClientError::Protocol(format!("HEAD is malformed: {error}")))
}

impl fmt::Debug for Receiver {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Receiver").field("answered", &self.answered).finish_non_exhaustive()
    }
}
