//! The reading half of a framed stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use crate::wire::{FRAME_HEADER_LEN, Frame, FrameError, FrameHeader, FrameLimits, Hello, HelloError};

/// How much a quiet stream is asked for at once, in bytes: dozens of small calls, and cheap to hold.
const READ_LEN_LEAST: usize = 8 << 10;

/// How much a busy stream is asked for at once, in bytes; past this, larger reads stopped saving time.
const READ_LEN_MAX: usize = 256 << 10;

/// Bytes that have arrived, and the frames in them.
///
/// Memory grows with the bytes that have arrived and never with a length that was merely announced.
#[derive(Debug)]
pub struct Inbound {
    buf: BytesMut,
    limits: FrameLimits,
    read_len: usize,
}

impl Inbound {
    /// An empty half that accepts frames up to `limits`.
    pub fn new(limits: FrameLimits) -> Inbound {
        Inbound { buf: BytesMut::new(), limits, read_len: READ_LEN_LEAST }
    }

    /// How many bytes have arrived and not been taken.
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// Whether nothing is waiting to be taken.
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// Takes the hello off the front, or returns `None` while it is not whole.
    ///
    /// # Errors
    ///
    /// [`HelloError`] as soon as what has arrived cannot become a hello.
    pub fn take_hello(&mut self) -> Result<Option<Hello>, HelloError> {
        let hello = Hello::decode(&self.buf)?;
        if hello.is_some() {
            let _ = self.buf.split_to(crate::wire::HELLO_LEN);
        }
        Ok(hello)
    }

    /// Reads the header of the next frame and leaves it in place; `None` while it is not whole.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; nothing that follows can be read.
    pub fn peek(&self) -> Result<Option<FrameHeader>, FrameError> {
        Frame::peek(&self.buf, self.limits)
    }

    /// Takes the next frame, or returns `None` while it is not whole. Its payload shares this half's memory.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; nothing that follows can be read.
    pub fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        Frame::take(&mut self.buf, self.limits)
    }

    /// Reads once from `io`, and returns how many bytes came; 0 is the end of the stream.
    ///
    /// # Errors
    ///
    /// Whatever `io` reports.
    pub fn poll_fill<R>(&mut self, io: &mut R, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        R: AsyncRead + Unpin + ?Sized,
    {
        let wanted = self.missing_len().clamp(self.read_len, READ_LEN_MAX);
        if self.buf.capacity() - self.buf.len() < wanted {
            self.buf.reserve(wanted);
        }
        let read = ready!(poll_read_buf(Pin::new(io), cx, &mut self.buf))?;
        if read >= self.read_len {
            self.read_len = (self.read_len * 2).min(READ_LEN_MAX);
        }
        Poll::Ready(Ok(read))
    }

    /// How many bytes the frame at the front still lacks; 0 when its header is not there yet.
    fn missing_len(&self) -> usize {
        let header = self.peek().ok().flatten();
        header.map_or(0, |header| (FRAME_HEADER_LEN + header.payload_len as usize).saturating_sub(self.buf.len()))
    }

    /// Gives the memory back when nothing is waiting, so that an idle connection holds none.
    pub fn release(&mut self) {
        if self.buf.is_empty() {
            self.buf = BytesMut::new();
            self.read_len = READ_LEN_LEAST;
        }
    }
}
