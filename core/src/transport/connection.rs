//! The server's side of a connection: the hello, then one call after the other.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::exchange::{Exchange, Inner};
use super::{State, Stream, Traffic, Violation, Watch};
use crate::wire::{End, FrameLimits, HelloError, Kind};
use crate::{Input, Output};

/// Output over this length is written before the next call is looked at, in bytes; below it, answers leave together.
const ANSWERS_LEN_MAX: usize = 64 << 10;

/// How many bytes a refused peer may still send before its connection is dropped: a refusal that is followed by a reset
/// is lost, and a reset follows unread bytes (RFC 1122, section 4.2.2.13).
const LINGER_LEN_MAX: usize = 1 << 20;

/// One connection of a server, over any [`Stream`].
///
/// The order of use is [`greet`](Connection::greet), then [`poll_next`](Connection::poll_next),
/// [`begin`](Connection::begin) and [`finish`](Connection::finish) for each call, then [`close`](Connection::close).
/// It sets no timers: whoever owns it decides how long to wait for what.
#[derive(Debug)]
pub struct Connection {
    exchange: Arc<Exchange>,
}

/// How the other side brings a connection to its end.
#[derive(Debug)]
pub enum Departure {
    /// It closed between two calls, as it may.
    Closed,
    /// It closed or broke the connection in the middle of a frame or a call.
    Cut(io::Error),
    /// It broke the protocol; nothing that follows can be read.
    Violation(Violation),
}

/// Why a connection never came to its first call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GreetError {
    /// The other side does not speak this protocol, or not this version.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// The other side closed or broke the connection before its hello was whole.
    #[error("connection ended before the hello: {0}")]
    Cut(#[source] io::Error),
}

impl Connection {
    /// Wraps a stream that has just been accepted; `limits` bounds what the other side may send.
    pub fn new(io: Box<dyn Stream>, limits: FrameLimits) -> Connection {
        Connection { exchange: Exchange::new(io, limits) }
    }

    /// Says how many frames without payload a call may have; 10,000 unless told otherwise. One more breaks the protocol.
    #[must_use]
    pub fn with_empty_frames_max(self, empty_frames_max: u32) -> Connection {
        self.exchange.lock().empty_frames_max = empty_frames_max;
        self
    }

    /// Reads the other side's hello and queues ours.
    ///
    /// # Errors
    ///
    /// [`GreetError`]; on [`GreetError::Hello`] a refusal may still be queued with [`say_raw`](Connection::say_raw) or [`say`](Connection::say).
    ///
    /// # Cancellation
    ///
    /// What has arrived stays; the next call carries on.
    pub async fn greet(&mut self) -> Result<(), GreetError> {
        poll_fn(|cx| {
            let inner = &mut *self.exchange.lock();
            let ours = inner.inbound.hello();
            loop {
                if let Some(hello) = inner.inbound.take_hello()? {
                    inner.caller_data_len_max = hello.data_len_max;
                    inner.outbound.push_raw(&ours.encode());
                    return Poll::Ready(Ok(()));
                }
                match ready!(inner.inbound.poll_fill(&mut *inner.io, cx)) {
                    Ok(0) => return Poll::Ready(Err(GreetError::Cut(io::ErrorKind::UnexpectedEof.into()))),
                    Ok(_) => {}
                    Err(error) => return Poll::Ready(Err(GreetError::Cut(error))),
                }
            }
        })
        .await
    }

    /// Takes the payload of the next OPEN frame. Answers that are still queued are written before the stream is waited on.
    ///
    /// # Errors
    ///
    /// [`Departure`], when no call follows.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Departure>> {
        self.exchange.lock().poll_next(cx)
    }

    /// Takes the payload of the next OPEN frame when it has arrived and few answers wait to be written.
    ///
    /// # Errors
    ///
    /// As [`poll_next`](Connection::poll_next).
    pub fn try_next(&mut self) -> Result<Option<Bytes>, Departure> {
        let mut inner = self.exchange.lock();
        inner.state = State::Idle;
        if inner.outbound.len() > ANSWERS_LEN_MAX {
            return Ok(None);
        }
        inner.take_open().map_err(Departure::Violation)
    }

    /// Whether bytes have arrived that were not taken: while [`poll_next`](Connection::poll_next) waits with nothing left
    /// to write, a part of a frame.
    pub fn is_mid_frame(&self) -> bool {
        !self.exchange.lock().inbound.is_empty()
    }

    /// How many bytes of output wait for the other side to read.
    pub fn unwritten_len(&self) -> usize {
        self.exchange.lock().outbound.len()
    }

    /// Writes everything that is queued.
    ///
    /// # Errors
    ///
    /// Whatever the stream reports.
    ///
    /// # Cancellation
    ///
    /// What was not written stays queued.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            let inner = &mut *self.exchange.lock();
            inner.outbound.poll_flush_to(&mut *inner.io, cx)
        })
        .await
    }

    /// Begins the call whose opening header was taken.
    pub fn begin(&mut self) -> (Input, Output, Watch) {
        self.exchange.lock().begin();
        let exchange = &self.exchange;
        (Input::new(exchange.clone()), Output::new(exchange.clone()), Watch { exchange: exchange.clone() })
    }

    /// The bytes of payload that the latest call has moved so far.
    pub fn traffic(&self) -> Traffic {
        self.exchange.lock().traffic
    }

    /// Queues the end of the call, and forgets as much of the rest of its input as has arrived; whether that was all of it,
    /// or is never asked for since `close` is set.
    ///
    /// # Errors
    ///
    /// [`Departure::Cut`] or [`Departure::Violation`], when the rest of the input is not what it may be.
    pub fn finish(&mut self, end: &End, close: bool) -> Result<bool, Departure> {
        let mut inner = self.exchange.lock();
        inner.forget_queue();
        inner.push_end(end, close);
        if let Some(departure) = inner.take_departure() {
            return Err(departure);
        }
        while !close && inner.state == State::Input {
            if !inner.skip_input().map_err(Departure::Violation)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads and forgets the rest of the input of a call that has ended, up to its EOI or CANCEL.
    ///
    /// # Errors
    ///
    /// As [`finish`](Connection::finish).
    pub async fn input_end(&mut self) -> Result<(), Departure> {
        poll_fn(|cx| self.exchange.lock().poll_input_end(cx)).await
    }

    /// Queues an END that belongs to no call, and announces that the connection closes: the last words of a server.
    pub fn say(&mut self, end: &End) {
        self.exchange.lock().push_end(end, true);
    }

    /// Queues bytes that are no frame, for a peer that does not speak this protocol.
    pub fn say_raw(&mut self, text: &[u8]) {
        self.exchange.lock().outbound.push_raw(text);
    }

    /// Queues our own hello ahead of a refusal, for a peer that speaks another version of this protocol.
    pub fn say_hello(&mut self) {
        let inner = &mut *self.exchange.lock();
        inner.outbound.push_raw(&inner.inbound.hello().encode());
    }

    /// Marks a call as opened whose header was refused, so that [`finish`](Connection::finish) skips its input.
    pub fn begin_refused(&mut self) {
        self.exchange.lock().begin();
    }

    /// Writes what is queued, closes our side, and waits until the other side has read it or closed as well.
    ///
    /// # Errors
    ///
    /// Whatever the stream reports.
    ///
    /// # Cancellation
    ///
    /// Dropping the future drops the connection; what was not written is lost.
    pub async fn close(mut self) -> io::Result<()> {
        self.flush().await?;
        let Some(mut io) = self.take_stream() else { return Ok(()) };
        io.shutdown().await?;
        let mut lingering = (&mut io).take(LINGER_LEN_MAX as u64);
        tokio::io::copy(&mut lingering, &mut tokio::io::sink()).await?;
        Ok(())
    }

    /// The stream itself, when no call holds it any more.
    fn take_stream(self) -> Option<Box<dyn Stream>> {
        Arc::into_inner(self.exchange).map(|exchange| exchange.into_inner().io)
    }
}

impl Inner {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Departure>> {
        self.state = State::Idle;
        loop {
            if self.outbound.len() > ANSWERS_LEN_MAX
                && let Err(error) = ready!(self.outbound.poll_flush_to(&mut *self.io, cx))
            {
                return Poll::Ready(Err(Departure::Cut(error)));
            }
            match self.take_open() {
                Ok(Some(payload)) => return Poll::Ready(Ok(payload)),
                Ok(None) => {}
                Err(violation) => return Poll::Ready(Err(Departure::Violation(violation))),
            }
            if let Poll::Ready(Err(error)) = self.outbound.poll_flush_to(&mut *self.io, cx) {
                return Poll::Ready(Err(Departure::Cut(error)));
            }
            let Poll::Ready(filled) = self.inbound.poll_fill(&mut *self.io, cx) else {
                self.inbound.release();
                self.outbound.release();
                return Poll::Pending;
            };
            match filled {
                Ok(0) if self.inbound.is_empty() => return Poll::Ready(Err(Departure::Closed)),
                Ok(0) => return Poll::Ready(Err(Departure::Cut(io::ErrorKind::UnexpectedEof.into()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(Departure::Cut(error))),
            }
        }
    }

    /// Takes the next OPEN off the inbound half, and a CANCEL that came too late for the call before it.
    fn take_open(&mut self) -> Result<Option<Bytes>, Violation> {
        while let Some(header) = self.inbound.peek()? {
            match header.kind {
                Kind::Open => return Ok(self.inbound.take()?.map(|frame| frame.payload)),
                Kind::Cancel if self.cancel_may_come => {
                    self.cancel_may_come = false;
                    self.inbound.take()?;
                }
                kind => return Err(Violation::Unexpected { kind, state: State::Idle }),
            }
        }
        Ok(None)
    }

    fn poll_input_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Departure>> {
        while self.state == State::Input {
            match self.skip_input() {
                Ok(true) => continue,
                Ok(false) => {}
                Err(violation) => return Poll::Ready(Err(Departure::Violation(violation))),
            }
            if let Poll::Ready(Err(error)) = self.outbound.poll_flush_to(&mut *self.io, cx) {
                return Poll::Ready(Err(Departure::Cut(error)));
            }
            match ready!(self.inbound.poll_fill(&mut *self.io, cx)) {
                Ok(0) => return Poll::Ready(Err(Departure::Cut(io::ErrorKind::UnexpectedEof.into()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(Departure::Cut(error))),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads one frame of an ended call and forgets it.
    fn skip_input(&mut self) -> Result<bool, Violation> {
        let Some(frame) = self.inbound.take()? else {
            return Ok(false);
        };
        match frame.header.kind {
            Kind::Data => self.count_empty(u32::from(frame.payload.is_empty()))?,
            Kind::EndOfInput => self.state = State::InputEnded,
            Kind::Cancel => {
                self.state = State::InputEnded;
                self.cancel_may_come = false;
            }
            kind => return Err(Violation::Unexpected { kind, state: self.state }),
        }
        Ok(true)
    }
}
